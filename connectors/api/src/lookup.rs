//! What a target shows of other targets' rows, beside what it folds.
//!
//! A shown column is no part of the fold. In the worker's states it is null, and so is each column that is computed
//! from one. The sink fills them in as it writes a row, and takes them out as it reads one for the fold.

use std::fmt::Debug;
use std::sync::Arc;

use crate::model::{Key, Model, Row};
use crate::value::Value;

/// Rows of another target in the same sink, of which this one shows fields.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The other target's name, as the config has it.
    pub target: String,
    /// Its read model. Its key is one column.
    pub model: Arc<Model>,
    /// The column here whose value is the other row's key. It has that key's type.
    pub via: usize,
    /// What is shown: the column here and the one there, of one type.
    pub fields: Vec<(usize, usize)>,
}

/// Children that one row holds at most, over all its columns of children: Elasticsearch takes no more in a document.
pub const CHILDREN_MAX: usize = 10_000;

/// Rows of another target in the same sink that this one holds as children: those of which a column has this row's key, in
/// the order of their own keys.
#[derive(Clone, Debug)]
pub struct Gather {
    /// The other target's name, as the config has it.
    pub target: String,
    /// Its read model. Its key is one column.
    pub model: Arc<Model>,
    /// The column there whose value is the key of the row here, which is one column of the same type.
    pub via: usize,
    /// The column of children here.
    pub column: usize,
    /// The columns there that a child has, in their order.
    pub fields: Vec<usize>,
    /// Only the first so many by their keys are held.
    pub max: usize,
}

impl Gather {
    /// The children as a value, from the other rows in any order; and whether there are more than are held.
    #[must_use]
    pub fn children(&self, mut rows: Vec<&Row>) -> (Value, bool) {
        let key = |row: &Row| self.model.key_of(row);
        rows.sort_by_cached_key(|row| key(row));
        let cut = rows.len() > self.max;
        let child = |row: &Row| {
            let fields = self.fields.iter().filter_map(|at| {
                Some((Arc::clone(&self.model.columns.get(*at)?.name), row.get(*at).clone()))
            });
            Value::map(fields.collect())
        };
        (Value::list(rows.into_iter().take(self.max).map(child).collect()), cut)
    }

    /// The name of the other row's key column, which is among a child's fields.
    #[must_use]
    pub fn by(&self) -> &str {
        self.model.key_columns().next().map_or("", |column| &*column.name)
    }

    /// The keys of the children that a row holds.
    pub fn held<'r>(&'r self, row: &'r Row) -> impl Iterator<Item = Key> + 'r {
        let children = match row.get(self.column) {
            Value::List(items) => items.as_ref(),
            _ => &[],
        };
        children.iter().filter_map(|child| match child {
            Value::Map(fields) => fields.get(self.by()).cloned().map(Key::of),
            _ => None,
        })
    }

    /// The key of the row here that holds a row there; none where that names none.
    #[must_use]
    pub fn owner(&self, other: &Row) -> Option<Key> {
        let value = other.get(self.via);
        (!value.is_null()).then(|| Key::of(value.clone()))
    }
}

/// Evaluates the columns that are computed from shown ones.
pub trait Finish: Debug + Send + Sync {
    /// Brings them up to what the row shows.
    fn finish(&self, row: &mut Row);
}

impl Gather {
    fn narrowed(&self) -> Self {
        let mut there = self.model.key.clone();
        let mut place = |at: usize| {
            there.iter().position(|known| *known == at).unwrap_or_else(|| {
                there.push(at);
                there.len() - 1
            })
        };
        let via = place(self.via);
        let fields = self.fields.iter().map(|at| place(*at)).collect();
        let columns = there.iter().filter_map(|at| self.model.columns.get(*at).cloned()).collect();
        let key = (0..self.model.key.len()).collect();
        let model = Arc::new(Model { columns, key, indexes: Vec::new() });
        Gather { model, via, fields, ..self.clone() }
    }
}

/// All that one target shows.
#[derive(Clone, Debug)]
pub struct Joins {
    lookups: Vec<Lookup>,
    gathers: Vec<Gather>,
    hidden: Vec<usize>,
    finish: Arc<dyn Finish>,
}

impl Joins {
    /// Of lookups; [`Joins::gathering`] adds children. `hidden` are all columns that the fold does not see.
    #[must_use]
    pub fn new(lookups: Vec<Lookup>, hidden: Vec<usize>, finish: Arc<dyn Finish>) -> Self {
        Joins { lookups, gathers: Vec::new(), hidden, finish }
    }

    /// The same, with children.
    #[must_use]
    pub fn gathering(self, gathers: Vec<Gather>) -> Self {
        Joins { gathers, ..self }
    }

    /// The same, of models that have no more than the key and what is shown: what a store reads of the other rows.
    #[must_use]
    pub fn narrowed(&self) -> Joins {
        let narrow = |lookup: &Lookup| {
            let mut there: Vec<usize> = lookup.model.key.clone();
            let mut fields = Vec::with_capacity(lookup.fields.len());
            for (here, at) in &lookup.fields {
                let known = there.iter().position(|known| known == at);
                fields.push((*here, known.unwrap_or(there.len())));
                if known.is_none() {
                    there.push(*at);
                }
            }
            let columns = there.iter().filter_map(|at| lookup.model.columns.get(*at).cloned());
            let key = (0..lookup.model.key.len()).collect();
            let model = Model { columns: columns.collect(), key, indexes: Vec::new() };
            Lookup { model: Arc::new(model), fields, ..lookup.clone() }
        };
        let gathers = self.gathers.iter().map(Gather::narrowed).collect();
        Joins { lookups: self.lookups.iter().map(narrow).collect(), gathers, ..self.clone() }
    }

    /// The children, each column by itself.
    #[must_use]
    pub fn gathers(&self) -> &[Gather] {
        &self.gathers
    }

    /// The other targets, each once and in the order of their names.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        let lookups = self.lookups.iter().map(|lookup| lookup.target.as_str());
        let mut names: Vec<&str> =
            lookups.chain(self.gathers.iter().map(|gather| gather.target.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Each by itself.
    #[must_use]
    pub fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    /// The columns that the fold does not see: those shown, and those computed from them.
    #[must_use]
    pub fn hidden(&self) -> &[usize] {
        &self.hidden
    }

    /// The row as the fold sees it.
    pub fn strip(&self, row: &mut Row) {
        if self.hidden.iter().all(|at| row.get(*at).is_null()) {
            return;
        }
        let values = row.values_mut();
        for at in &self.hidden {
            if let Some(value) = values.get_mut(*at) {
                *value = Value::Null;
            }
        }
    }

    /// The row as readers see it: `others` has the other row of each lookup, none where there is none, and `children` the
    /// value of each column of children; where it has none, the row keeps what it holds.
    #[must_use]
    pub fn complete<'o>(
        &self,
        row: &Row,
        others: impl Iterator<Item = Option<&'o Row>>,
        children: impl Iterator<Item = Value>,
    ) -> Row {
        let mut row = row.clone();
        let values = row.values_mut();
        for (lookup, other) in self.lookups.iter().zip(others) {
            for (here, there) in &lookup.fields {
                if let Some(value) = values.get_mut(*here) {
                    *value = other.map_or(Value::Null, |other| other.get(*there).clone());
                }
            }
        }
        for (gather, children) in self.gathers.iter().zip(children) {
            if let Some(value) = values.get_mut(gather.column) {
                *value = children;
            }
        }
        self.finish.finish(&mut row);
        row
    }
}

/// What a [`crate::sink::Writer::refresh`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Refreshed {
    /// Rows written.
    pub rows: u64,
    /// For how long the oldest change has waited that rows do not show yet, in seconds; none where all is shown.
    pub waits: Option<f64>,
    /// Whether there is more to do at once.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last column is the length of the one before.
    #[derive(Debug)]
    struct Length;

    impl Finish for Length {
        fn finish(&self, row: &mut Row) {
            let length = match row.get(2) {
                Value::Text(text) => Value::Int(i64::try_from(text.len()).unwrap()),
                _ => Value::Null,
            };
            row.values_mut()[3] = length;
        }
    }

    #[test]
    fn a_narrowed_lookup_reads_the_key_and_what_is_shown() {
        let column = |name: &str| crate::model::Column {
            name: name.into(),
            ty: crate::column::ColumnType::Text,
            index: false,
            default: Value::Null,
        };
        let columns = ["born", "id", "name"].map(column).to_vec();
        let model = Arc::new(Model { columns, key: vec![1], indexes: Vec::new() });
        let fields = vec![(5, 2), (6, 1), (7, 2)];
        let lookup = Lookup { target: "authors".to_owned(), model, via: 1, fields };
        let narrowed = Joins::new(vec![lookup], Vec::new(), Arc::new(Length)).narrowed();
        let lookup = &narrowed.lookups()[0];
        let names: Vec<&str> = lookup.model.columns.iter().map(|column| &*column.name).collect();
        assert_eq!((names, &*lookup.model.key), (vec!["id", "name"], &[0][..]));
        assert_eq!(lookup.fields, [(5, 1), (6, 0), (7, 1)]);
    }

    #[test]
    fn children_are_the_first_by_their_keys() {
        let column = |name: &str| crate::model::Column {
            name: name.into(),
            ty: crate::column::ColumnType::BigInt,
            index: false,
            default: Value::Null,
        };
        let columns = ["pages", "id", "year", "author"].map(column).to_vec();
        let model = Arc::new(Model { columns, key: vec![1], indexes: Vec::new() });
        let (target, fields) = ("books".to_owned(), vec![1, 2]);
        let gather = Gather { target, model, via: 3, column: 1, fields, max: 2 };
        let narrowed = Joins::new(Vec::new(), vec![1], Arc::new(Length)).gathering(vec![gather]);
        let gather = narrowed.narrowed().gathers()[0].clone();
        let names: Vec<&str> = gather.model.columns.iter().map(|column| &*column.name).collect();
        assert_eq!(
            (names, gather.via, &*gather.fields),
            (vec!["id", "author", "year"], 1, &[0, 2][..])
        );
        let row = |id: i64| Row::new([id, 7, 1800 + id].map(Value::Int).to_vec());
        let (value, cut) = gather.children(vec![&row(30), &row(10), &row(20)]);
        let own = Row::new(vec![Value::Int(7), value]);
        assert!(cut);
        assert_eq!(gather.held(&own).map(|key| key.to_string()).collect::<Vec<_>>(), ["10", "20"]);
        assert_eq!(gather.owner(&row(10)), Some(Key::of(Value::Int(7))));
        assert!(!gather.children(vec![&row(1), &row(2)]).1);
    }

    #[test]
    fn a_row_is_completed_and_stripped_again() {
        let model = Model { columns: Vec::new(), key: vec![0], indexes: Vec::new() };
        let lookup = Lookup {
            target: "authors".to_owned(),
            model: Arc::new(model),
            via: 1,
            fields: vec![(2, 1)],
        };
        let joins = Joins::new(vec![lookup], vec![2, 3], Arc::new(Length));
        let folded = Row::new(vec![Value::Int(10), Value::Int(1), Value::Null, Value::Null]);
        let author = Row::new(vec![Value::Int(1), Value::text("Jane")]);
        let mut shown = joins.complete(&folded, std::iter::once(Some(&author)), std::iter::empty());
        assert_eq!(shown.values()[2..], [Value::text("Jane"), Value::Int(4)]);
        joins.strip(&mut shown);
        assert_eq!(shown, folded);
        assert_eq!(joins.complete(&shown, std::iter::once(None), std::iter::empty()), folded);
    }
}
