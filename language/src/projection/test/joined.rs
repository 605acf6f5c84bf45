//! The projections that the one under test looks up: their records are given with its own, and what they come to is
//! shown in its rows.

use std::sync::Arc;

use foldline_api::lookup::Joins;
use foldline_api::model::{Key, Row};
use hashbrown::HashMap;
use indexmap::IndexMap;

use super::{Done, Ready, Rows};
use crate::projection::{Projection, joins};

/// What one projection shows; nothing by default.
#[derive(Default)]
pub(super) struct Joined {
    /// By their names.
    others: Vec<(String, Arc<Projection>)>,
    joins: Option<Arc<Joins>>,
}

impl Joined {
    pub(super) fn new(
        projection: &Arc<Projection>,
        all: &IndexMap<String, Arc<Projection>>,
    ) -> Self {
        let mut others: Vec<(String, Arc<Projection>)> = Vec::new();
        for looked_up in projection.looked_up() {
            let known = others.iter().any(|(name, _)| name == looked_up);
            let other = all.get(looked_up).filter(|_| !known);
            others.extend(other.map(|other| (looked_up.to_owned(), Arc::clone(other))));
        }
        let target = |name: &str| Some((name.to_owned(), Arc::clone(all.get(name)?.model())));
        Joined { others, joins: joins(projection, target) }
    }

    /// Who reads records of a topic, the projection itself where nobody does, as it says why not.
    pub(super) fn readers<'p>(
        &'p self,
        projection: &'p Projection,
        topic: Option<&str>,
    ) -> Vec<(Option<usize>, &'p Projection)> {
        let Some(topic) = topic else { return vec![(None, projection)] };
        let others = self.others.iter().enumerate();
        let others = others.filter(|(_, (_, other))| other.topics_match(topic));
        let mut readers: Vec<(Option<usize>, &Projection)> =
            others.map(|(at, (_, other))| (Some(at), &**other)).collect();
        if readers.is_empty() || projection.topics_match(topic) {
            readers.push((None, projection));
        }
        readers
    }

    /// No rows of each other projection.
    pub(super) fn rows(&self) -> Vec<Rows> {
        self.others.iter().map(|_| Rows::default()).collect()
    }

    /// Folds an event of another projection; what it wrote is no row of the one that is tested.
    pub(super) fn fold(&self, at: usize, rows: &mut [Rows], event: &Ready) -> Option<Done> {
        let (rows, (_, other)) = (rows.get_mut(at)?, self.others.get(at)?);
        Some(match rows.fold(other, event) {
            Done::Applied(_) => Done::Applied(Vec::new()),
            done => done,
        })
    }

    /// Fills in what the rows show.
    pub(super) fn complete(&self, rows: &mut HashMap<Key, Row>, others: &[Rows]) {
        let Some(joins) = &self.joins else { return };
        for (own, row) in rows.iter_mut() {
            let place = |target: &str| self.others.iter().position(|(name, _)| name == target);
            let children = joins.gathers().iter().map(|gather| {
                let all = place(&gather.target).and_then(|at| others.get(at));
                let all = all.into_iter().flat_map(|rows| rows.0.values());
                gather
                    .children(all.filter(|row| gather.owner(row).as_ref() == Some(own)).collect())
                    .0
            });
            let shown = joins.lookups().iter().map(|lookup| {
                let at = place(&lookup.target)?;
                others.get(at)?.0.get(&Key::of(row.get(lookup.via).clone()))
            });
            let complete = joins.complete(row, shown, children);
            *row = complete;
        }
    }
}
