//! The horizon, and what it has passed, in the store in memory.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use foldline_api::expiry::{Horizon, Horizons, Look, Rule};
use foldline_api::sink::RowWrite;
use foldline_api::{Error, Result};

use crate::store::{Entry, MemoryStore, MemoryTarget, Table, version_of};

impl MemoryStore {
    /// The horizon of a target's rule.
    #[must_use]
    pub fn horizon(&self, target: &str, rule: &Rule) -> Option<Horizon> {
        self.lock().entries.get(target)?.horizon(rule)
    }
}

impl Entry {
    pub(crate) fn horizon(&self, rule: &Rule) -> Option<Horizon> {
        self.horizons.get(&rule.to_string()).copied()
    }
}

impl Table {
    /// The deletes of rows that the horizon has passed, the first `max` by key.
    pub(crate) fn expired(&self, rule: &Rule, horizon: Horizon, max: usize) -> Vec<RowWrite> {
        let past = self
            .rows
            .iter()
            .filter(|(key, kept)| kept.row.is_some() && rule.has_passed(horizon, key));
        let delete = past.map(|(key, kept)| RowWrite {
            key: key.clone(),
            row: None,
            version: version_of(Some(kept)),
            marks: kept.marks.clone(),
        });
        delete.take(max).collect()
    }
}

impl MemoryTarget {
    fn rule(&self) -> Result<&Rule> {
        self.spec.expire.as_ref().ok_or_else(|| Error::config("nothing expires here"))
    }
}

#[async_trait]
impl Horizons for MemoryTarget {
    async fn look(&self) -> Result<Look> {
        let horizon = self.owned(&self.store.lock())?.horizon(self.rule()?);
        Ok(Look { horizon, now: self.store.clock.load(Ordering::Relaxed) })
    }

    async fn advance(&self, to: Horizon) -> Result<Horizon> {
        let rule = self.rule()?.to_string();
        let mut state = self.store.lock();
        let horizon = self.owned_mut(&mut state)?.horizons.entry(rule).or_insert(to);
        *horizon = to.max(*horizon);
        Ok(*horizon)
    }
}
