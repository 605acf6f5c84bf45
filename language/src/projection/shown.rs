//! Fields that are shown from another projection's row, beside the fold.
//!
//! Handlers, keys and names of events may not read them, nor what is computed from them: what a fold comes to must not
//! depend on which of two topics was read first.

use std::sync::Arc;

use foldline_api::column::ColumnType;
use foldline_api::lookup::{CHILDREN_MAX, Finish, Gather, Joins, Lookup};
use foldline_api::model::{Model, Row};

use super::compile::Compiler;
use super::{Problem, Projection};
use crate::config::projection::FieldConfig;
use crate::expr::Expr;

/// A field shown from another projection's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// The column here.
    pub column: usize,
    /// The other projection.
    pub projection: String,
    /// The field there.
    pub field: String,
    /// The column here that holds the other row's key.
    pub via: usize,
}

/// A column of children that are another projection's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// The column here.
    pub column: usize,
    /// The other projection.
    pub projection: String,
    /// The field there that holds the key of the row here.
    pub via: String,
}

impl Projection {
    /// Whether it shows something of other projections' rows.
    #[must_use]
    pub fn looks_up(&self) -> bool {
        !self.shows.is_empty() || !self.gathers.is_empty()
    }

    /// The other projections, in the order of its fields; one may come several times.
    pub fn looked_up(&self) -> impl Iterator<Item = &str> {
        let shows = self.shows.iter().map(|show| show.projection.as_str());
        shows.chain(self.gathers.iter().map(|gathered| gathered.projection.as_str()))
    }

    /// A row of the fold with what another one of the same model shows.
    #[must_use]
    pub fn overlay(&self, folded: &Row, shown: &Row) -> Row {
        let mut row = folded.clone();
        let values = row.values_mut().iter_mut().enumerate();
        for (at, value) in values.filter(|(at, _)| self.hides(*at)) {
            *value = shown.get(at).clone();
        }
        row
    }

    /// Whether the fold leaves a column null, since it is shown or computed from what is.
    #[must_use]
    pub fn hides(&self, column: usize) -> bool {
        self.shows.iter().any(|show| show.column == column)
            || self.gathers.iter().any(|gathered| gathered.column == column)
            || self.computed_of_shown.iter().any(|(at, _)| *at == column)
    }
}

impl Finish for Projection {
    fn finish(&self, row: &mut Row) {
        self.compute_columns(&self.computed_of_shown, row);
    }
}

/// What a target of `projection` shows. `target` tells where another projection runs in the same sink, and its model;
/// where it tells nothing, the lookup shows nothing, which a config that was checked does not come to.
pub fn joins(
    projection: &Arc<Projection>,
    target: impl Fn(&str) -> Option<(String, Arc<Model>)>,
) -> Option<Arc<Joins>> {
    let mut lookups: Vec<(&str, Lookup)> = Vec::new();
    for show in &projection.shows {
        let known = lookups
            .iter()
            .position(|(name, lookup)| *name == show.projection && lookup.via == show.via);
        let at = match known {
            Some(at) => at,
            None => {
                let Some((target, model)) = target(&show.projection) else { continue };
                let lookup = Lookup { target, model, via: show.via, fields: Vec::new() };
                lookups.push((&show.projection, lookup));
                lookups.len() - 1
            }
        };
        if let Some((_, lookup)) = lookups.get_mut(at)
            && let Some(there) = lookup.model.position(&show.field)
        {
            lookup.fields.push((show.column, there));
        }
    }
    let gathers = gathers(projection, &target);
    if lookups.is_empty() && gathers.is_empty() {
        return None;
    }
    let shown = projection.shows.iter().map(|show| show.column);
    let shown = shown.chain(projection.gathers.iter().map(|gathered| gathered.column));
    let computed = projection.computed_of_shown.iter().map(|(column, _)| *column);
    let hidden = shown.chain(computed).collect();
    let lookups = lookups.into_iter().map(|(_, lookup)| lookup).collect();
    let finish = Arc::clone(projection) as Arc<dyn Finish>;
    Some(Arc::new(Joins::new(lookups, hidden, finish).gathering(gathers)))
}

/// The columns of `projection` that hold other targets' rows.
fn gathers(
    projection: &Projection,
    target: impl Fn(&str) -> Option<(String, Arc<Model>)>,
) -> Vec<Gather> {
    let columns = &projection.model.columns;
    let all = columns.iter().filter(|column| matches!(column.ty, ColumnType::Children(_)));
    let max = CHILDREN_MAX / all.count().max(1);
    let gather = |gathered: &Gathered| {
        let (target, model) = target(&gathered.projection)?;
        let ColumnType::Children(children) = &columns.get(gathered.column)?.ty else { return None };
        let fields = children.fields.iter().map(|(name, _)| model.position(name));
        let (fields, via) = (fields.collect::<Option<_>>()?, model.position(&gathered.via)?);
        Some(Gather { target, model, via, column: gathered.column, fields, max })
    };
    projection.gathers.iter().filter_map(gather).collect()
}

impl Compiler<'_> {
    /// Whether another row is looked up by this column: who follows that row finds its own by it.
    pub(super) fn is_via(&self, name: &str) -> bool {
        let one =
            |field: &FieldConfig| field.ty != "children" && field.via.as_deref() == Some(name);
        self.config.fields.values().any(|field| one(&field.value))
    }

    /// The fields that are looked up.
    pub(super) fn shows(&mut self) -> Vec<Show> {
        let config = self.config;
        let mut shows = Vec::new();
        for (column, field) in config.fields.values().enumerate() {
            let (Some(lookup), Some(via)) = (&field.value.lookup, &field.value.via) else {
                continue;
            };
            if field.value.ty == "children" {
                continue;
            }
            let Some((projection, name)) = lookup.split_once('.') else { continue };
            let Some(via) = self.position(&format!("{}.via", field.path), via) else { continue };
            shows.push(Show {
                column,
                projection: projection.to_owned(),
                field: name.to_owned(),
                via,
            });
        }
        self.hidden = shows.iter().map(|show| show.column).collect();
        shows
    }

    /// The fields that hold other rows as children.
    pub(super) fn gathers(&mut self) -> Vec<Gathered> {
        let fields = self.config.fields.values().enumerate();
        let children = fields.filter(|(_, field)| field.value.ty == "children");
        let gathers: Vec<Gathered> = children
            .filter_map(|(column, field)| {
                let (projection, via) = (field.value.lookup.clone()?, field.value.via.clone()?);
                Some(Gathered { column, projection, via })
            })
            .collect();
        self.hidden.extend(gathers.iter().map(|gathered| gathered.column));
        gathers
    }

    /// Compiles computed fields before what may not read all of them; their problems, which are told after it.
    pub(super) fn computed_first(&mut self, model: &Model) -> (Vec<(usize, Expr)>, Vec<Problem>) {
        let known = self.problems.len();
        let computed = self.computed(model);
        (computed, self.problems.split_off(known))
    }

    /// Parts what is computed from shown fields from the rest, and lets no other expression read either.
    pub(super) fn part(&mut self, computed: Vec<(usize, Expr)>) -> [Vec<(usize, Expr)>; 2] {
        let (mut folded, mut shown) = (Vec::new(), Vec::new());
        for (column, expr) in computed {
            if expr.columns_read().iter().any(|read| self.hidden.contains(read)) {
                self.hidden.push(column);
                shown.push((column, expr));
            } else {
                folded.push((column, expr));
            }
        }
        self.folds = true;
        [folded, shown]
    }

    /// Whether an expression of the fold keeps to what is folded.
    pub(super) fn keeps_to_the_fold(&mut self, path: &str, expr: &Expr) -> bool {
        let read = expr.columns_read();
        let hidden = read.iter().find(|column| self.folds && self.hidden.contains(column));
        let Some((name, _)) = hidden.and_then(|column| self.columns.get(*column)) else {
            return true;
        };
        let looked_up = self.config.fields.get(&**name).is_some_and(|f| f.value.lookup.is_some());
        let origin = if looked_up { "looked up" } else { "computed from what is looked up" };
        let message = format!(
            "reads {:?}, which is {origin}: what a fold comes to would depend on which topic was read first",
            &**name
        );
        let help = "only `computed` fields read what is looked up".to_owned();
        self.problem(path, message, Some(help));
        false
    }
}
