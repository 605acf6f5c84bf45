//! The worker: the process. Owns the connectors, the listener and the way down.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::Result;
use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::projection;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::{Config, unsupported};
use crate::connector::Connector;
use crate::metrics::Metrics;
use crate::registry::{self, Registries};

/// How long the way down may take before the process leaves anyway; below Kubernetes' 30 s grace.
const SHUTDOWN: Duration = Duration::from_secs(25);

/// A worker ready to run.
pub struct Worker {
    config: Config,
    metrics: Metrics,
    connectors: Vec<Arc<Connector>>,
    /// Connectors that could not be built, and why.
    refused: Vec<(String, String)>,
}

impl Worker {
    /// Compiles the config and builds its connectors. One that asks for what is not available yet is
    /// refused alone.
    ///
    /// # Errors
    /// Everything that is wrong with the projections.
    pub fn new(config: Config) -> Result<Self, Vec<Diagnostic>> {
        let projections = projection::compile(&config.projections, &config.places)?;
        let metrics = Metrics::new()
            .map_err(|error| vec![Diagnostic::new("foldline", "metrics", error.to_string())])?;
        let registries = Registries::default();
        let mut connectors = Vec::new();
        let mut refused = Vec::new();
        for connector in config.connectors.values() {
            let Some(projection) = projections.get(&connector.projection) else { continue };
            let made = registry::connector(&config, connector, projection, &metrics, &registries);
            match made {
                Ok(spec) => connectors.push(Arc::new(Connector::new(spec))),
                Err(error) => {
                    metrics.connector(&connector.name).set_state("FAILED");
                    refused.push((connector.name.clone(), error.to_string()));
                }
            }
        }
        Ok(Worker { config, metrics, connectors, refused })
    }

    /// Its connectors.
    #[must_use]
    pub fn connectors(&self) -> &[Arc<Connector>] {
        &self.connectors
    }

    /// Runs until `cancel`, then lets every connector flush, commit and leave.
    ///
    /// # Errors
    /// When the listener cannot be opened.
    pub async fn run(self, cancel: CancellationToken) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.config.worker.listen).await?;
        tracing::info!(listen = %listener.local_addr()?, connectors = self.connectors.len(), "worker started");
        for diagnostic in unsupported(&self.config) {
            tracing::warn!("{diagnostic}");
        }
        for (name, reason) in &self.refused {
            tracing::error!(connector = %name, "connector not started: {reason}");
        }
        let state = Arc::new(admin::App {
            config: self.config,
            metrics: self.metrics,
            connectors: self.connectors.clone(),
            refused: self.refused,
            replays: admin::replays::turns(),
        });
        let mut running = JoinSet::new();
        let stop = CancellationToken::new();
        for connector in &self.connectors {
            running.spawn(Arc::clone(connector).run(stop.clone()));
        }
        let server = tokio::spawn(admin::serve(listener, state, stop.clone()));
        tick_until(&self.connectors, &cancel).await;
        tracing::info!("stopping: flushing, committing, leaving the groups");
        stop.cancel();
        let down = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, down).await.is_err() {
            tracing::warn!(
                "not everything was flushed in time; it is folded again at the next start"
            );
        }
        server.abort();
        Ok(())
    }
}

async fn tick_until(connectors: &[Arc<Connector>], cancel: &CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = tick.tick() => connectors.iter().for_each(|connector| connector.tick(1.0)),
        }
    }
}
