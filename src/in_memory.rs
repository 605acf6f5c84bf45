//! Whole connectors over a log and a store in memory, as tests and simulations run them.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::sink::Target;
use foldline_api::source::{Log, Start};
use foldline_language::projection::Projection;
use foldline_testkit::{MemoryDeadLetters, MemoryGroup};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connector::Connector;
use crate::connector_spec::ConnectorSpec;
use crate::metrics::Metrics;
use crate::policy::OnBadRecord;
use crate::task::Limits;
use crate::task::simulation::{OneDecoder, decoder};

/// A worker's connector while it runs.
pub(crate) struct Worker {
    pub(crate) connector: Arc<Connector>,
    running: JoinHandle<()>,
    cancel: CancellationToken,
}

impl Worker {
    pub(crate) fn start(spec: ConnectorSpec) -> Self {
        let connector = Arc::new(Connector::new(spec));
        let cancel = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&connector).run(cancel.clone()));
        Worker { connector, running, cancel }
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
    }

    /// Nothing is finished, nothing released.
    pub(crate) async fn crash(self) {
        self.running.abort();
        drop(self.running.await);
    }
}

/// A connector of a projection; `groups` are its own, and that of its rebuilds. What a test wants otherwise it says.
pub(crate) fn connector_spec(
    (name, group): (&str, &str),
    projection: &Arc<Projection>,
    groups: (&Arc<MemoryGroup>, &Arc<MemoryGroup>),
    target: impl Fn() -> Arc<dyn Target> + Send + Sync + 'static,
) -> ConnectorSpec {
    ConnectorSpec {
        name: name.to_owned(),
        place: String::new(),
        group: group.to_owned(),
        topics: String::new(),
        tasks_max: 1,
        start: Start::Earliest,
        limits: Limits { rows: 10, bytes: 1 << 20, age: Duration::from_millis(5) },
        on_bad_record: OnBadRecord::DeadLetter,
        errors_max: None,
        parked_max: 1_000,
        decoders: Arc::new(OneDecoder(decoder(projection))),
        projection: Arc::clone(projection),
        log: Arc::clone(groups.0) as Arc<dyn Log>,
        rebuild_log: Arc::clone(groups.1) as Arc<dyn Log>,
        keep_generations: 1,
        snapshot_wait: Duration::from_secs(1),
        idle_poll_interval: Some(Duration::from_secs(30)),
        target: Box::new(move |_| Ok(target())),
        dead_letters: Arc::new(MemoryDeadLetters::default()),
        letters: Box::new(|| Err(foldline_api::Error::config("no letters here"))),
        metrics: Metrics::new().unwrap().connector(name),
        expiry: None,
        memory: 1 << 20,
    }
}
