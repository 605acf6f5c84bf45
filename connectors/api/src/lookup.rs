//! What a target shows of other targets' rows, beside what it folds.
//!
//! A shown column is no part of the fold. In the worker's states it is null, and so is each column that is computed
//! from one. The sink fills them in as it writes a row, and takes them out as it reads one for the fold.

use std::fmt::Debug;
use std::sync::Arc;

use crate::model::{Model, Row};
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

/// Evaluates the columns that are computed from shown ones.
pub trait Finish: Debug + Send + Sync {
    /// Brings them up to what the row shows.
    fn finish(&self, row: &mut Row);
}

/// All that one target shows.
#[derive(Clone, Debug)]
pub struct Joins {
    lookups: Vec<Lookup>,
    hidden: Vec<usize>,
    finish: Arc<dyn Finish>,
}

impl Joins {
    /// Of at least one lookup. `hidden` are all columns that the fold does not see.
    #[must_use]
    pub fn new(lookups: Vec<Lookup>, hidden: Vec<usize>, finish: Arc<dyn Finish>) -> Self {
        Joins { lookups, hidden, finish }
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
        Joins { lookups: self.lookups.iter().map(narrow).collect(), ..self.clone() }
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

    /// The row as readers see it: `others` has the other row of each lookup, none where there is none.
    #[must_use]
    pub fn complete<'o>(&self, row: &Row, others: impl Iterator<Item = Option<&'o Row>>) -> Row {
        let mut row = row.clone();
        let values = row.values_mut();
        for (lookup, other) in self.lookups.iter().zip(others) {
            for (here, there) in &lookup.fields {
                if let Some(value) = values.get_mut(*here) {
                    *value = other.map_or(Value::Null, |other| other.get(*there).clone());
                }
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
        let mut shown = joins.complete(&folded, std::iter::once(Some(&author)));
        assert_eq!(shown.values()[2..], [Value::text("Jane"), Value::Int(4)]);
        joins.strip(&mut shown);
        assert_eq!(shown, folded);
        assert_eq!(joins.complete(&shown, std::iter::once(None)), folded);
    }
}
