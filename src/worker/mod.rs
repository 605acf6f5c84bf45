//! The worker: the process. Owns the connectors, the listener and the way down.
//!
//! In reading order: this file (the way up and down), `running` (who runs), `reload` (another config under running
//! connectors) and `watch` (the config's files).

mod reload;
mod running;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::Result;
use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::projection;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, App, Listener};
use crate::config::{Config, suspects, unsupported};
use crate::connector::Connector;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::registry::{self, Registries};
use reload::Ask;
pub(crate) use reload::Reloads;
use running::Running;

/// How long the way down may take before the process leaves anyway; below Kubernetes' 30 s grace.
const SHUTDOWN: Duration = Duration::from_secs(25);

/// A worker ready to run.
pub struct Worker {
    app: Arc<App>,
}

impl Worker {
    /// Compiles the config and builds its connectors. One that asks for what is not available yet is
    /// refused alone.
    ///
    /// # Errors
    /// Everything that is wrong with the projections and with the topics that take records.
    pub fn new(config: Config) -> Result<Self, Vec<Diagnostic>> {
        let projections = projection::compile(&config.projections, &config.places)?;
        let metrics = Metrics::new()
            .map_err(|error| vec![Diagnostic::new("foldline", "metrics", error.to_string())])?;
        let ingest = Ingest::new(&config, &metrics)?;
        let registries = Arc::new(Registries::default());
        let mut connectors = Vec::new();
        let mut refused = Vec::new();
        let mut prints = BTreeMap::new();
        for connector in config.connectors.values() {
            let Some(projection) = projections.get(&connector.projection) else { continue };
            prints.insert(connector.name.clone(), config.print(connector));
            let made = registry::connector(&config, connector, projection, &metrics, &registries);
            match made {
                Ok(spec) => connectors.push(Arc::new(Connector::new(spec))),
                Err(error) => {
                    metrics.connector(&connector.name).set_state("FAILED");
                    refused.push(registry::refusal(&config, &connector.name, &error));
                }
            }
        }
        let reloads = Arc::new(Reloads::new(&metrics));
        let (replays, turns) = (admin::replays::turns(), admin::queries::Turns::new());
        let app = App {
            config,
            metrics,
            connectors,
            refused,
            ingest,
            replays,
            turns,
            prints,
            registries,
            reloads,
        };
        Ok(Worker { app: Arc::new(app) })
    }

    /// Its connectors.
    #[must_use]
    pub fn connectors(&self) -> &[Arc<Connector>] {
        &self.app.connectors
    }

    /// Runs until `cancel`, then lets every connector flush, commit and leave.
    ///
    /// # Errors
    /// When the listener cannot be opened.
    pub async fn run(self, cancel: CancellationToken) -> std::io::Result<()> {
        let (_nobody, asks) = mpsc::channel(1);
        self.run_asked(cancel, asks, |_| ()).await
    }

    /// The same, and takes the config anew on SIGHUP, and where `worker.watch` says so whenever its files change.
    ///
    /// # Errors
    /// When the listener cannot be opened, or signals cannot be caught.
    pub async fn run_reloading(self, cancel: CancellationToken) -> std::io::Result<()> {
        let (ask, asks) = mpsc::channel(1);
        let signals = watch::signals(ask.clone())?;
        let stop = cancel.clone();
        let watching = |app| {
            tokio::spawn(stop.clone().run_until_cancelled_owned(signals));
            tokio::spawn(stop.run_until_cancelled_owned(watch::files(app, ask)));
        };
        self.run_asked(cancel, asks, watching).await
    }

    async fn run_asked(
        self,
        cancel: CancellationToken,
        mut asks: mpsc::Receiver<Ask>,
        watching: impl FnOnce(tokio::sync::watch::Receiver<Arc<App>>),
    ) -> std::io::Result<()> {
        let app = self.app;
        let listener = TcpListener::bind(app.config.worker.listen).await?;
        tracing::info!(listen = %listener.local_addr()?, connectors = app.connectors.len(), "worker started");
        for diagnostic in unsupported(&app.config).into_iter().chain(suspects(&app.config)) {
            tracing::warn!("{diagnostic}");
        }
        for (name, reason) in &app.refused {
            tracing::error!(connector = %name, "connector not started: {reason}");
        }
        let mut running = Running::default();
        for connector in &app.connectors {
            running.start(connector);
        }
        let listener = Listener::open(listener, &app);
        let app = tokio::sync::watch::Sender::new(app);
        watching(app.subscribe());
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = tick.tick() => {
                    let app = app.borrow();
                    app.connectors.iter().for_each(|one| one.tick(1.0));
                    running.forget_removed(&app.metrics);
                }
                Some(ask) = asks.recv() => {
                    let now = Arc::clone(&app.borrow());
                    if let Some(next) = reload::reload(now, ask, &mut running).await {
                        listener.show(&next);
                        app.send_replace(next);
                    }
                }
            }
        }
        tracing::info!("stopping: flushing, committing, leaving the groups");
        listener.close();
        if tokio::time::timeout(SHUTDOWN, running.stop()).await.is_err() {
            tracing::warn!(
                "not everything was flushed in time; it is folded again at the next start"
            );
        }
        tracing::info!("stopped");
        Ok(())
    }
}
