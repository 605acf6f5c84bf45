//! Metrics of the config in use.

use prometheus::{IntGauge, Registry};

use super::opts;

/// Of the config in use, under Prometheus's own names for its config.
#[derive(Clone, Debug)]
pub(crate) struct ConfigMetrics {
    successful: IntGauge,
    loaded: prometheus::Gauge,
}

impl ConfigMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let successful = IntGauge::with_opts(opts(
            "config_last_reload_successful",
            "1 where the config in use is the one that was read last, 0 where that one was refused.",
        ))?;
        let loaded = prometheus::Gauge::with_opts(opts(
            "config_last_reload_success_timestamp_seconds",
            "When the config in use was taken.",
        ))?;
        registry.register(Box::new(successful.clone()))?;
        registry.register(Box::new(loaded.clone()))?;
        Ok(ConfigMetrics { successful, loaded })
    }

    /// A config was taken, at a moment in milliseconds since the epoch.
    pub(crate) fn loaded(&self, millis: i64) {
        self.successful.set(1);
        self.loaded.set(millis as f64 / 1_000.0);
    }

    /// One was refused.
    pub(crate) fn refused(&self) {
        self.successful.set(0);
    }
}
