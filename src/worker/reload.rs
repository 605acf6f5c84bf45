//! Another config under running connectors.
//!
//! The new config is read, checked and built whole before anything stops: where something is wrong with it, all goes on
//! as it was. A connector runs on, untouched, unless what it is made of has changed ([`Config::print`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::projection;

use super::running::Running;
use crate::admin::App;
use crate::clock::now_millis;
use crate::config::{self, Config, process_env, suspects, unsupported};
use crate::connector::Connector;
use crate::connector_spec::ConnectorSpec;
use crate::ingest::Ingest;
use crate::metrics::{ConfigMetrics, Metrics};
use crate::registry::{self, Registries};

/// Who asks for the config to be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// SIGHUP: a person or a program means the config as it stands now.
    Signal,
    /// Its files changed. They may be half written, so a connector that is missing in them runs on.
    Files,
}

/// How the last reload ended.
#[derive(Debug)]
pub(crate) struct Reloads {
    metrics: ConfigMetrics,
    last: Mutex<Last>,
}

/// What is shown of the config in use.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    /// When the config in use was taken, in milliseconds since the epoch.
    pub(crate) loaded: i64,
    /// What is wrong with the one that was refused since, all problems.
    pub(crate) error: Option<String>,
    /// Connectors that are missing in the config's files and run on.
    pub(crate) missing: Vec<String>,
}

impl Reloads {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let loaded = now_millis();
        let metrics = metrics.config();
        metrics.loaded(loaded);
        Reloads { metrics, last: Mutex::new(Last { loaded, error: None, missing: Vec::new() }) }
    }

    /// How it stands.
    pub(crate) fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn taken(&self, missing: Vec<String>) {
        let loaded = now_millis();
        self.metrics.loaded(loaded);
        let last = Last { loaded, error: None, missing };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    fn refused(&self, problems: &[Diagnostic]) {
        self.metrics.refused();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        self.last.lock().unwrap_or_else(PoisonError::into_inner).error = Some(told.join("\n"));
    }
}

/// What comes after a reload.
struct Next {
    app: App,
    /// To be started; of the ones that run already, their successors.
    started: Vec<Arc<Connector>>,
    removed: Vec<String>,
    missing: Vec<String>,
}

/// Reads the config anew; what the worker is from then on, or nothing where all stays as it was.
pub(super) async fn reload(now: Arc<App>, ask: Ask, running: &mut Running) -> Option<Arc<App>> {
    let reloads = Arc::clone(&now.reloads);
    let before = Arc::clone(&now);
    // It reads files and compiles schemas.
    let built = tokio::task::spawn_blocking(move || next(&now, ask)).await;
    let built = built.unwrap_or_else(|panic| {
        Err(vec![Diagnostic::new("foldline", "", format!("the reload broke off: {panic}"))])
    });
    let next = match built {
        Ok(next) => next,
        Err(problems) => {
            tracing::error!(
                "the config is wrong and the old one stays in use: {} problem(s)",
                problems.len()
            );
            problems.iter().for_each(|problem| tracing::error!("{problem}"));
            reloads.refused(&problems);
            return None;
        }
    };
    for name in &next.missing {
        tracing::warn!(connector = %name, "it is missing in the config's files and runs on: SIGHUP or a new start removes it");
    }
    for name in &next.removed {
        if before.running(name).is_some() {
            running.remove(name);
        } else {
            before.metrics.forget(name);
        }
    }
    next.started.iter().for_each(|connector| running.start(connector));
    let started: Vec<&str> = next.started.iter().map(|one| one.name()).collect();
    tracing::info!(?started, removed = ?next.removed, "config reloaded; all other connectors run on");
    reloads.taken(next.missing);
    Some(Arc::new(next.app))
}

fn next(now: &App, ask: Ask) -> Result<Next, Vec<Diagnostic>> {
    let mut config = config::load(&now.config.path, &process_env())?;
    keeps_its_place(&now.config, &config)?;
    let projections = projection::compile(&config.projections, &config.places)?;
    unsupported(&config).iter().chain(&suspects(&config)).for_each(|one| tracing::warn!("{one}"));
    let ingest = Ingest::new(&config, &now.metrics)?;
    config.share_unchanged(&now.config);
    let registries = if config.same_registries(&now.config) {
        Arc::clone(&now.registries)
    } else {
        Arc::new(Registries::default())
    };
    let names: Vec<String> = config.connectors.keys().cloned().collect();
    let gone = now.config.connectors.keys().filter(|name| !names.contains(name));
    let gone: Vec<String> = gone.cloned().collect();
    let (removed, missing) =
        if ask == Ask::Files { (Vec::new(), gone) } else { (gone, Vec::new()) };
    let mut made = Made::default();
    let mut problems = Vec::new();
    for name in &names {
        let Some(connector) = config.connectors.get(name) else { continue };
        let Some(projection) = projections.get(&connector.projection) else { continue };
        let print = config.print(connector);
        let unchanged = now.prints.get(name) == Some(&print);
        made.prints.insert(name.clone(), print);
        if let (true, Some(running)) = (unchanged, now.running(name)) {
            made.connectors.push(Arc::clone(running));
            continue;
        }
        match registry::connector(&config, connector, projection, &now.metrics, &registries) {
            Ok(spec) => made.specs.push(spec),
            Err(error) if unchanged => {
                made.refused.push(registry::refusal(&config, name, &error));
            }
            Err(error) => {
                problems
                    .push(config.places.problem(&format!("connectors.{name}"), error.message()));
            }
        }
    }
    if !problems.is_empty() {
        made.specs.iter().for_each(|spec| forget_new(now, &spec.name));
        return Err(problems);
    }
    made.start();
    missing.iter().for_each(|name| made.keep(name, now, &mut config));
    let Made { connectors, refused, prints, started, .. } = made;
    let (metrics, replays) = (now.metrics.clone(), Arc::clone(&now.replays));
    let (reloads, turns) = (Arc::clone(&now.reloads), Arc::clone(&now.turns));
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
    Ok(Next { app, started, removed, missing })
}

/// What a process cannot change while it runs.
fn keeps_its_place(now: &Config, next: &Config) -> Result<(), Vec<Diagnostic>> {
    let (old, new) = (&now.worker, &next.worker);
    let changed = [
        ("name", old.name != new.name),
        ("listen", old.listen != new.listen),
        ("advertised", old.advertised != new.advertised),
    ];
    let problem = |(key, _): &(&str, bool)| {
        let message = "cannot change while the worker runs: start it anew";
        next.places.problem(&format!("worker.{key}"), message)
    };
    let problems: Vec<Diagnostic> = changed.iter().filter(|(_, is)| *is).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A spec makes the series of its connector: of one that is not taken they go again.
fn forget_new(now: &App, name: &str) {
    if !now.config.connectors.contains_key(name) {
        now.metrics.forget(name);
    }
}

/// The connectors of the next config.
#[derive(Default)]
struct Made {
    specs: Vec<ConnectorSpec>,
    connectors: Vec<Arc<Connector>>,
    refused: Vec<(String, String)>,
    prints: BTreeMap<String, u64>,
    started: Vec<Arc<Connector>>,
}

impl Made {
    /// Makes connectors of the specs. Only once nothing stands against the config any more: a new one shows its state in
    /// the series of the one that runs under its name.
    fn start(&mut self) {
        let made = self.specs.drain(..).map(|spec| Arc::new(Connector::new(spec)));
        self.started.extend(made);
        self.connectors.extend(self.started.iter().cloned());
    }

    /// Keeps a connector that is missing in the files, with what is shown of its config.
    fn keep(&mut self, name: &str, now: &App, config: &mut Config) {
        config.keep_connector(name, &now.config);
        self.prints.extend(now.prints.get(name).map(|print| (name.to_owned(), *print)));
        self.connectors.extend(now.running(name).cloned());
        self.refused.extend(now.refused.iter().filter(|(refused, _)| refused == name).cloned());
    }
}
