//! Metrics, as the Prometheus exposition shows them. Handles are resolved once per connector and
//! updated per batch.

mod config;

use std::collections::HashMap;

use foldline_api::record::TopicPartition;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

pub(crate) use config::ConfigMetrics;

/// All metrics of one worker.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    family: Family,
    config: ConfigMetrics,
}

#[derive(Clone, Debug)]
struct Family {
    fetched: IntCounterVec,
    consumed: IntCounterVec,
    applied: IntCounterVec,
    filtered: IntCounterVec,
    dead_lettered: IntCounterVec,
    parked: IntCounterVec,
    replayed: IntCounterVec,
    skipped: IntCounterVec,
    abandoned: IntCounterVec,
    rows_written: IntCounterVec,
    retries: IntCounterVec,
    errors: IntCounterVec,
    fenced: IntCounterVec,
    rebalances: IntCounterVec,
    commits: IntCounterVec,
    commit_failures: IntCounterVec,
    state: IntGaugeVec,
    lag: IntGaugeVec,
    lag_seconds: prometheus::GaugeVec,
    lookup_lag: prometheus::GaugeVec,
    assigned: IntGaugeVec,
    parked_keys: IntGaugeVec,
    inflight: IntGaugeVec,
    rebuild_progress: prometheus::GaugeVec,
    rebuild_eta: prometheus::GaugeVec,
    generation: IntGaugeVec,
    horizon: prometheus::GaugeVec,
    expire_after: prometheus::GaugeVec,
    rows_expired: IntCounterVec,
    flush_seconds: HistogramVec,
    batch_rows: HistogramVec,
    latency_seconds: HistogramVec,
    produced: IntCounterVec,
    produce_failures: IntCounterVec,
}

const CONNECTOR: &str = "connector";

/// 1 ms to an hour: a flush and a record's way share them.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 3_600.0,
];

const ROWS: &[f64] =
    &[1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0, 100_000.0];

impl Metrics {
    /// A registry of its own with every metric, and the process's.
    ///
    /// # Errors
    /// When two metrics have one name, which a test would see.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let family = Family::register(&registry)?;
        let config = ConfigMetrics::register(&registry)?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = IntGaugeVec::new(
            Opts::new("foldline_build_info", "The running version; always 1."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        Ok(Metrics { registry, family, config })
    }

    /// The text exposition.
    ///
    /// # Errors
    /// When a collector contradicts itself.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Handles that nothing exports: a rebuild's records are not the connector's.
    ///
    /// # Errors
    /// When two metrics have one name, which a test would see.
    pub(crate) fn detached(name: &str) -> foldline_api::Result<ConnectorMetrics> {
        let family = Family::register(&Registry::new()).map_err(|error| {
            foldline_api::Error::config("the metrics contradict each other").with_source(error)
        })?;
        Ok(ConnectorMetrics::new(&family, name))
    }

    /// Those of the config in use.
    pub(crate) fn config(&self) -> ConfigMetrics {
        self.config.clone()
    }

    /// Takes all series of a connector away that is no longer there.
    pub(crate) fn forget(&self, name: &str) {
        self.family.forget(name);
    }

    /// The handles of one connector, each series there from the start.
    #[must_use]
    pub fn connector(&self, name: &str) -> ConnectorMetrics {
        ConnectorMetrics::new(&self.family, name)
    }

    /// The handles of a topic that takes records, each series there from the start.
    pub(crate) fn ingest(&self, topic: &str) -> IngestMetrics {
        let metrics = IngestMetrics { topic: topic.to_owned(), family: self.family.clone() };
        metrics.family.produced.with_label_values(&[topic]);
        for reason in ["refused", "not_written", "unknown"] {
            metrics.failures(reason);
        }
        metrics
    }
}

/// What was posted to one topic.
#[derive(Clone, Debug)]
pub(crate) struct IngestMetrics {
    topic: String,
    family: Family,
}

impl IngestMetrics {
    fn failures(&self, reason: &str) -> IntCounter {
        self.family.produce_failures.with_label_values(&[self.topic.as_str(), reason])
    }

    /// Counts records: none for one that was written, else why it was not.
    pub(crate) fn count<'a>(&self, failures: impl Iterator<Item = Option<&'a str>>) {
        for failure in failures {
            match failure {
                None => self.family.produced.with_label_values(&[self.topic.as_str()]).inc(),
                Some(reason) => self.failures(reason).inc(),
            }
        }
    }
}

impl Family {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let r = Registrar(registry);
        Ok(Family {
            fetched: r.counter("records_fetched_total", "Records delivered by the source.", &[])?,
            consumed: r.counter("records_consumed_total", "Records with a durable outcome: applied, filtered, replayed, dead-lettered, parked or skipped.", &[])?,
            applied: r.counter("events_applied_total", "Events folded into rows.", &[])?,
            filtered: r.counter("events_filtered_total", "Events that no handler matched or one ignored, tombstones that name no row, and events of rows that have expired.", &[])?,
            dead_lettered: r.counter("events_dead_lettered_total", "Bad records sent to the dead-letter topic.", &[])?,
            parked: r.counter("events_parked_total", "Events set aside with their key.", &[])?,
            replayed: r.counter("events_replayed_total", "Events skipped because the rows already hold them.", &[])?,
            skipped: r.counter("events_skipped_total", "Bad records skipped by config.", &[])?,
            abandoned: r.counter("events_abandoned_total", "Records let go undecided (revoked, fenced, rolled back); they are fetched again.", &[])?,
            rows_written: r.counter("rows_written_total", "Rows written to the sink, by operation.", &["op"])?,
            retries: r.counter("retries_total", "Attempts repeated after a retriable error, by what was tried.", &["reason"])?,
            errors: r.counter("errors_total", "Errors by stage and class.", &["stage", "class"])?,
            fenced: r.counter("fenced_total", "Times that a task found partitions which it held to be another's: a flush that the store refused, or an assignment that the group had given away.", &[])?,
            rebalances: r.counter("rebalances_total", "Assignments and revocations of partitions.", &[])?,
            commits: r.counter("offset_commits_total", "Offset commits that the group took.", &[])?,
            commit_failures: r.counter("offset_commit_failures_total", "Offset commits that the group refused; nothing is lost, the sink's positions win.", &[])?,
            state: r.gauge("connector_state", "1 for the state that the connector is in.", &["state"])?,
            lag: r.gauge("consumer_lag", "Offsets between the durable position and the partition's end.", &["topic", "partition"])?,
            lag_seconds: r.float_gauge("consumer_lag_seconds", "Age of the oldest record that was delivered and is not durable, 0 where there is no lag; NaN while the lag or that record is unknown.", &[])?,
            lookup_lag: r.float_gauge("lookup_lag_seconds", "How long the oldest change has waited that rows do not show yet which look it up; 0 where all show what they should.", &[])?,
            assigned: r.gauge("assigned_partitions", "Partitions held by this worker.", &[])?,
            parked_keys: r.gauge("parked_keys", "Keys set aside.", &[])?,
            inflight: r.gauge("inflight_events", "Records fetched whose outcome is not durable yet.", &[])?,
            rebuild_progress: r.float_gauge("rebuild_progress_ratio", "Share of the rebuild's records that are durable, 0 to 1; 1 when none runs.", &[])?,
            rebuild_eta: r.float_gauge("rebuild_eta_seconds", "Time until the rebuild has caught up at the present rate; 0 when none runs.", &[])?,
            generation: r.gauge("generation", "The live generation of the target.", &[])?,
            horizon: r.float_gauge("expiry_horizon_timestamp_seconds", "Before this moment rows have expired, of connectors whose rows do; 0 while it is unknown.", &[])?,
            expire_after: r.float_gauge("expiry_after_seconds", "The age at which rows expire.", &[])?,
            rows_expired: r.counter("rows_expired_total", "Rows deleted since they had expired.", &[])?,
            flush_seconds: r.histogram("flush_duration_seconds", "Time from a flush's first attempt until it is durable.", SECONDS)?,
            batch_rows: r.histogram("batch_rows", "Rows written per flush.", ROWS)?,
            latency_seconds: r.histogram("end_to_end_latency_seconds", "From a record's timestamp until its outcome is durable.", SECONDS)?,
            produced: r.plain_counter("records_produced_total", "Records that were posted and that all replicas have.", &["topic"])?,
            produce_failures: r.plain_counter("record_produce_failures_total", "Records that were posted and not written, or not for certain, by why.", &["topic", "reason"])?,
        })
    }
}

/// Runs an expression over each vector of a family.
macro_rules! each_vec {
    ($family:expr, $each:expr => $($field:ident)*) => { $($each(&$family.$field);)* };
}

impl Family {
    /// Takes all series of a connector away.
    fn forget(&self, name: &str) {
        each_vec!(self, |vec: &IntCounterVec| forget(vec, name) =>
            fetched consumed applied filtered dead_lettered parked replayed skipped abandoned rows_written retries errors
            fenced rebalances commits commit_failures rows_expired);
        each_vec!(self, |vec: &IntGaugeVec| forget(vec, name) =>
            state lag assigned parked_keys inflight generation);
        each_vec!(self, |vec: &prometheus::GaugeVec| forget(vec, name) =>
            lag_seconds lookup_lag rebuild_progress rebuild_eta horizon expire_after);
        each_vec!(self, |vec: &HistogramVec| forget(vec, name) =>
            flush_seconds batch_rows latency_seconds);
    }
}

fn forget<B: MetricVecBuilder>(vec: &MetricVec<B>, name: &str) {
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get(CONNECTOR) == Some(&name) {
                // Gone already where two forget at once.
                drop(vec.remove(&labels));
            }
        }
    }
}

/// Makes a metric with the prefix and the connector's label, and registers it.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(opts(name, help), &with_connector(labels))?)
    }

    /// A counter that is no connector's.
    fn plain_counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(opts(name, help), &with_connector(labels))?)
    }

    fn float_gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<prometheus::GaugeVec> {
        self.add(prometheus::GaugeVec::new(opts(name, help), &with_connector(labels))?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, &[CONNECTOR])?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("foldline_{name}"), help)
}

fn with_connector<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![CONNECTOR];
    all.extend_from_slice(labels);
    all
}

/// One connector's series.
#[derive(Clone, Debug)]
pub struct ConnectorMetrics {
    name: String,
    family: Family,
    pub(crate) fetched: IntCounter,
    pub(crate) consumed: IntCounter,
    pub(crate) applied: IntCounter,
    pub(crate) filtered: IntCounter,
    pub(crate) dead_lettered: IntCounter,
    pub(crate) replayed: IntCounter,
    pub(crate) skipped: IntCounter,
    pub(crate) parked: IntCounter,
    pub(crate) abandoned: IntCounter,
    pub(crate) upserts: IntCounter,
    pub(crate) deletes: IntCounter,
    pub(crate) shown: IntCounter,
    pub(crate) conflicts: IntCounter,
    pub(crate) fenced: IntCounter,
    pub(crate) rebalances: IntCounter,
    pub(crate) commits: IntCounter,
    pub(crate) commit_failures: IntCounter,
    pub(crate) assigned: IntGauge,
    pub(crate) parked_keys: IntGauge,
    pub(crate) inflight: IntGauge,
    pub(crate) generation: IntGauge,
    pub(crate) lag_seconds: prometheus::Gauge,
    pub(crate) lookup_lag: prometheus::Gauge,
    pub(crate) rebuild_progress: prometheus::Gauge,
    pub(crate) rebuild_eta: prometheus::Gauge,
    pub(crate) flush_seconds: Histogram,
    pub(crate) batch_rows: Histogram,
    pub(crate) latency_seconds: Histogram,
}

/// Of rows that the clock deletes.
#[derive(Clone, Debug)]
pub(crate) struct ExpiryMetrics {
    pub(crate) horizon: prometheus::Gauge,
    pub(crate) after: prometheus::Gauge,
    pub(crate) rows: IntCounter,
}

/// Kafka Connect's states.
pub const STATES: [&str; 6] =
    ["UNASSIGNED", "RUNNING", "PAUSED", "STOPPED", "FAILED", "RESTARTING"];

impl ConnectorMetrics {
    fn new(family: &Family, name: &str) -> Self {
        let c = |vec: &IntCounterVec| vec.with_label_values(&[name]);
        // Series that nothing moves yet are there all the same, so that queries over them hold.
        let metrics = ConnectorMetrics {
            name: name.to_owned(),
            fetched: c(&family.fetched),
            consumed: c(&family.consumed),
            applied: c(&family.applied),
            filtered: c(&family.filtered),
            dead_lettered: c(&family.dead_lettered),
            replayed: c(&family.replayed),
            skipped: c(&family.skipped),
            parked: c(&family.parked),
            abandoned: c(&family.abandoned),
            upserts: family.rows_written.with_label_values(&[name, "upsert"]),
            deletes: family.rows_written.with_label_values(&[name, "delete"]),
            shown: family.rows_written.with_label_values(&[name, "show"]),
            conflicts: family.retries.with_label_values(&[name, "conflict"]),
            fenced: c(&family.fenced),
            rebalances: c(&family.rebalances),
            commits: c(&family.commits),
            commit_failures: c(&family.commit_failures),
            assigned: family.assigned.with_label_values(&[name]),
            parked_keys: family.parked_keys.with_label_values(&[name]),
            inflight: family.inflight.with_label_values(&[name]),
            generation: family.generation.with_label_values(&[name]),
            lag_seconds: family.lag_seconds.with_label_values(&[name]),
            lookup_lag: family.lookup_lag.with_label_values(&[name]),
            rebuild_progress: family.rebuild_progress.with_label_values(&[name]),
            rebuild_eta: family.rebuild_eta.with_label_values(&[name]),
            flush_seconds: family.flush_seconds.with_label_values(&[name]),
            batch_rows: family.batch_rows.with_label_values(&[name]),
            latency_seconds: family.latency_seconds.with_label_values(&[name]),
            family: family.clone(),
        };
        metrics.rebuild_progress.set(1.0);
        for reason in ["write", "load", "acquire", "dead_letter", "open"] {
            metrics.retry(reason).inc_by(0);
        }
        metrics.error("write", "retriable").inc_by(0);
        metrics
    }

    /// Attempts repeated at `reason`.
    pub(crate) fn retry(&self, reason: &str) -> IntCounter {
        self.family.retries.with_label_values(&[&self.name, reason])
    }

    /// Errors of `class` at `stage`.
    pub(crate) fn error(&self, stage: &str, class: &str) -> IntCounter {
        self.family.errors.with_label_values(&[&self.name, stage, class])
    }

    /// Of a connector whose rows expire.
    pub(crate) fn expiry(&self) -> ExpiryMetrics {
        let name = [self.name.as_str()];
        ExpiryMetrics {
            horizon: self.family.horizon.with_label_values(&name),
            after: self.family.expire_after.with_label_values(&name),
            rows: self.family.rows_expired.with_label_values(&name),
        }
    }

    /// The lag of one partition, in offsets; nothing while it is unknown.
    pub(crate) fn show_lag(&self, of: &TopicPartition, lag: Option<i64>) {
        if let Some(lag) = lag {
            let labels = [self.name.as_str(), &of.topic, &of.partition.to_string()];
            self.family.lag.with_label_values(&labels).set(lag);
        }
    }

    /// What a scrape finds of a partition's lag.
    #[cfg(test)]
    pub(crate) fn shown_lag(&self, topic: &str, partition: i32) -> Option<i64> {
        let partition = partition.to_string();
        let labels =
            [("connector", self.name.as_str()), ("topic", topic), ("partition", &partition)];
        let metrics = self.family.lag.collect();
        let series = metrics.iter().flat_map(|family| family.get_metric());
        let ours = |metric: &&prometheus::proto::Metric| {
            let has = |(name, value): &(&str, &str)| {
                metric.get_label().iter().any(|l| l.name() == *name && l.value() == *value)
            };
            labels.iter().all(has)
        };
        series.into_iter().find(ours).map(|metric| metric.get_gauge().get_value() as i64)
    }

    /// Takes the lag series of a partition away that this worker no longer holds.
    pub(crate) fn forget_lag(&self, topic: &str, partition: i32) {
        // It may never have been there.
        drop(self.family.lag.remove_label_values(&[&self.name, topic, &partition.to_string()]));
    }

    /// Shows `state` and no other.
    pub(crate) fn set_state(&self, state: &str) {
        for known in STATES {
            let on = i64::from(known == state);
            self.family.state.with_label_values(&[self.name.as_str(), known]).set(on);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let metrics = Metrics::new().unwrap();
        metrics.connector("orders").set_state("RUNNING");
        let text = metrics.render().unwrap();
        for line in [
            "foldline_records_consumed_total{connector=\"orders\"} 0",
            "foldline_connector_state{connector=\"orders\",state=\"RUNNING\"} 1",
            "foldline_connector_state{connector=\"orders\",state=\"FAILED\"} 0",
            "foldline_rows_written_total{connector=\"orders\",op=\"delete\"} 0",
            "foldline_retries_total{connector=\"orders\",reason=\"write\"} 0",
            "# TYPE foldline_flush_duration_seconds histogram",
            "process_resident_memory_bytes",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }
}
