//! Commands that need no running worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foldline_language::config::diagnostic::{Diagnostic, Severity};
use foldline_language::projection::{self, Projection};
use indexmap::IndexMap;
use serde_json::json;

use super::{Failure, load, online, runtime};
use crate::config::{
    Config, ConnectorConfig, json_schema, presence, process_env, suspects, unsupported,
};
use crate::ingest;
use crate::metrics::Metrics;
use crate::printable;
use crate::registry::{self, Compared};

/// How long a plan waits for the store.
const COMPARE: Duration = Duration::from_secs(3);

pub(super) type Projections = IndexMap<String, Arc<Projection>>;

pub(super) fn validate(path: PathBuf, (online, json): (bool, bool)) -> Result<(), Failure> {
    let found = match load(path, &process_env()) {
        Ok(config) => {
            let (projections, mut found) =
                match projection::compile(&config.projections, &config.places) {
                    Ok(projections) => {
                        let warnings = order_warnings(&config, &projections);
                        (projections, warnings)
                    }
                    Err(problems) => (Projections::new(), problems),
                };
            found.extend(unsupported(&config));
            found.extend(presence(&config));
            found.extend(suspects(&config));
            found.extend(registry::limits(&config));
            found.extend(ingest::problems(&config));
            // What is wrong as it stands is not asked about.
            let right = found.iter().all(|d| d.severity == Severity::Warning);
            if online && right {
                crate::log::start("error");
                found.extend(runtime()?.block_on(online::check(&config, &projections)));
            }
            if !json && found.iter().all(|d| d.severity == Severity::Warning) {
                println!(
                    "ok: {} connectors, {} projections{}",
                    config.connectors.len(),
                    config.projections.len(),
                    if online { "; all that they name was reached" } else { "" }
                );
            }
            found
        }
        Err(Failure::Config(found)) => found,
        Err(other) => return Err(other),
    };
    if json {
        let all: Vec<_> = found.iter().map(diagnostic_json).collect();
        println!("{}", json!({ "problems": all }));
    }
    let (warnings, errors): (Vec<Diagnostic>, Vec<Diagnostic>) =
        found.into_iter().partition(|d| d.severity == Severity::Warning);
    if !json {
        warnings.iter().for_each(|warning| eprintln!("{warning}\n"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::Config(errors)) }
}

/// One warning for each projection whose rows depend on the order in which partitions are read.
fn order_warnings(config: &Config, projections: &Projections) -> Vec<Diagnostic> {
    let warning = |name: &String| {
        let warnings = projections.get(name)?.describe().order_warnings;
        let first = warnings.first()?;
        let more = match warnings.len() {
            1 => String::new(),
            count => format!(" ({} more like it: `foldline plan` shows all)", count - 1),
        };
        let path = format!("projections.{name}.key");
        Some(
            config
                .places
                .problem(&path, format!("{first}{more}"))
                .warning()
                .help("a replay may then end differently; it does not where all events of a key are in one partition"),
        )
    };
    config.projections.keys().filter_map(warning).collect()
}

pub(super) fn diagnostic_json(diagnostic: &Diagnostic) -> serde_json::Value {
    json!({
        "severity": if diagnostic.severity == Severity::Error { "error" } else { "warning" },
        "file": diagnostic.file,
        "line": diagnostic.line,
        "path": diagnostic.path,
        "message": diagnostic.message,
        "help": diagnostic.help,
    })
}

fn connector<'c>(config: &'c Config, name: &str) -> Result<&'c ConnectorConfig, Failure> {
    config.connectors.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.connectors.keys().map(String::as_str).collect();
        let known = known.join(", ");
        Failure::Failed(format!("there is no connector {name:?}: known are {known}"))
    })
}

/// Takes over what a restore left.
pub(super) fn adopt(path: PathBuf, name: &str) -> Result<(), Failure> {
    crate::log::start("warn");
    let config = load(path, &process_env())?;
    let connector = connector(&config, name)?;
    let projections =
        projection::compile(&config.projections, &config.places).map_err(Failure::Config)?;
    let Some(projection) = projections.get(&connector.projection) else { return Ok(()) };
    let report = runtime()?.block_on(async {
        let metrics = Metrics::new().map_err(Failure::failed)?;
        let registries = registry::Registries::default();
        let spec = registry::connector(&config, connector, projection, &metrics, &registries)
            .map_err(Failure::failed)?;
        crate::adopt::adopt(&spec).await.map_err(Failure::failed)
    })?;
    println!("{}", printable::lines(&report.to_string()));
    Ok(())
}

pub(super) fn plan(path: PathBuf, name: &str) -> Result<(), Failure> {
    let config = load(path, &process_env().with_placeholders())?;
    let connector = connector(&config, name)?;
    let projections =
        projection::compile(&config.projections, &config.places).map_err(Failure::Config)?;
    let Some(projection) = projections.get(&connector.projection) else { return Ok(()) };
    let described = projection.describe().to_string();
    // Of a store that speaks SQL the whole is a script.
    if registry::plans_sql(&config, connector) {
        println!("{}", registry::commented(&described));
    } else {
        println!("{described}");
    }
    for statement in registry::plan(&config, connector, projection).map_err(Failure::failed)? {
        println!("{statement}\n");
    }
    compare(&config, connector, projection)
}

/// Prints what differs from what stands in the store, where that answers.
fn compare(
    config: &Config,
    connector: &ConnectorConfig,
    projection: &Arc<Projection>,
) -> Result<(), Failure> {
    let compared = runtime()?.block_on(async {
        let compare = registry::compare(config, connector, projection);
        tokio::time::timeout(COMPARE, compare).await
    });
    match compared {
        Ok(Ok(compared)) => print!("{}", compared_text(&connector.name, &compared)),
        Ok(Err(error)) => eprintln!("not compared with what stands there: {error}"),
        Err(_) => eprintln!("not compared with what stands there: no answer"),
    }
    Ok(())
}

fn compared_text(name: &str, compared: &Compared) -> String {
    let mut out = String::new();
    for difference in &compared.store {
        out.push_str(&format!("-- in the store {difference}\n"));
    }
    if compared.projection.is_empty() {
        out.push_str("-- the same projection built what stands there\n");
    } else {
        let changes = compared.projection.join("; ");
        out.push_str(&format!("-- changed since it was built: {changes}\n"));
    }
    if !(compared.projection.is_empty() && compared.store.is_empty()) {
        out.push_str(&format!("-- `foldline rebuild {name}` builds it anew beside the live one\n"));
    }
    out
}

pub(super) fn schema() -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(&json_schema()).map_err(Failure::failed)?);
    Ok(())
}
