//! Too many bad records in an hour: more likely a wrong config than bad records.

use std::time::Duration;

use crate::connector_spec::ConnectorSpec;
use crate::task::Allowance;

/// Counts bad records over a sliding hour, and lets tasks park so many events in it.
pub(super) struct Flood {
    since: tokio::time::Instant,
    base: u64,
    allowance: Allowance,
}

impl Flood {
    pub(super) fn new(spec: &ConnectorSpec) -> Self {
        let allowance = Allowance::new(spec.parked_max);
        Flood { since: tokio::time::Instant::now(), base: Self::bad(spec), allowance }
    }

    /// What the tasks take from. They hold by themselves once it is used up: by the time that this is seen
    /// here, many more records may have come.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }

    fn bad(spec: &ConnectorSpec) -> u64 {
        spec.metrics.dead_lettered.get() + spec.metrics.skipped.get()
    }

    /// Why the connector is to pause, if the hour had too many; then it begins anew. What may be parked does
    /// so only when someone resumes.
    pub(super) fn overflow(&mut self, spec: &ConnectorSpec) -> Option<String> {
        let name = &spec.name;
        if self.allowance.is_overdrawn() {
            return Some(format!(
                "paused: {} events were parked within an hour, and another one would be too many \
                 (errors.limit). Look at `foldline parked list {name}`, then `foldline resume {name}`",
                self.allowance.max()
            ));
        }
        let bad = Self::bad(spec);
        let over = spec.errors_max.filter(|max| bad - self.base > *max);
        if over.is_some() || self.since.elapsed() > Duration::from_secs(3_600) {
            self.begin_anew(spec);
        }
        over.map(|max| {
            format!(
                "paused: more than {max} bad records in an hour. Look at the dead letters, then `foldline resume \
                 {name}`"
            )
        })
    }

    /// Another hour begins: this one is over, or someone has looked.
    pub(super) fn begin_anew(&mut self, spec: &ConnectorSpec) {
        (self.since, self.base) = (tokio::time::Instant::now(), Self::bad(spec));
        self.allowance.refill();
    }
}
