//! Too many bad records in an hour: more likely a wrong config than bad records.

use std::time::Duration;

use super::ConnectorSpec;

/// Counts bad records over a sliding hour.
pub(super) struct Flood {
    since: tokio::time::Instant,
    base: u64,
}

impl Flood {
    pub(super) fn new(spec: &ConnectorSpec) -> Self {
        Flood { since: tokio::time::Instant::now(), base: Self::bad(spec) }
    }

    fn bad(spec: &ConnectorSpec) -> u64 {
        spec.metrics.dead_lettered.get() + spec.metrics.skipped.get()
    }

    /// Whether the hour had too many; then it begins anew.
    pub(super) fn is_over(&mut self, spec: &ConnectorSpec) -> bool {
        let Some(max) = spec.errors_max else { return false };
        let bad = Self::bad(spec);
        let over = bad - self.base > max;
        if over || self.since.elapsed() > Duration::from_secs(3_600) {
            *self = Flood { since: tokio::time::Instant::now(), base: bad };
        }
        over
    }
}
