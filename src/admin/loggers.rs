//! The log's levels, read and changed while the worker runs: `/admin/loggers`.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tracing_subscriber::filter::LevelFilter;

use super::json::Json;
use super::{Answer, App, Failure};
use crate::log::{Level, Levels, levels};

/// The paths of the worker's loggers.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/loggers", get(all))
        .route("/admin/loggers/{logger}", get(one).put(set))
}

fn started() -> Answer<&'static Levels> {
    let message = "this process has another program's log: its levels are not this worker's";
    levels().ok_or_else(|| Failure(StatusCode::CONFLICT, message.to_owned()))
}

fn shown(level: Level) -> Json_ {
    let name = level.level.to_string().to_uppercase();
    json!({ "level": name, "last_modified": level.modified })
}

async fn all() -> Answer {
    let all = started()?.all();
    let all: serde_json::Map<_, _> =
        all.into_iter().map(|(logger, level)| (logger, shown(level))).collect();
    Ok(Json(Json_::Object(all)))
}

async fn one(Path(logger): Path<String>) -> Answer {
    let level = started()?.all().get(&logger).copied();
    let missing = || Failure(StatusCode::NOT_FOUND, format!("Logger {logger} not found."));
    level.map(|level| Json(shown(level))).ok_or_else(missing)
}

/// The level that is wanted.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    level: Option<String>,
}

/// Which workers are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    scope: Option<String>,
}

async fn set(
    Path(logger): Path<String>,
    Query(Scope { scope }): Query<Scope>,
    body: Result<axum::Json<Wanted>, JsonRejection>,
) -> Answer {
    let bad = |message: &str| Failure(StatusCode::BAD_REQUEST, message.to_owned());
    match scope.as_deref() {
        None | Some("worker") => {}
        Some("cluster") => {
            return Err(bad(
                "each worker has levels of its own: ask every one of them, without scope=cluster",
            ));
        }
        Some(other) => return Err(bad(&format!("scope={other:?}: allowed is \"worker\""))),
    }
    let axum::Json(Wanted { level }) =
        body.map_err(|error| Failure(super::offsets::refusal(&error), error.body_text()))?;
    let Some(level) = level else {
        return Err(bad("Desired 'level' parameter was not specified in request."));
    };
    let Some(parsed) = parse(&level) else {
        let message = format!("invalid log level '{level}'.");
        return Err(Failure(StatusCode::NOT_FOUND, message));
    };
    started()?.set(&logger, parsed).map_err(|message| bad(&message))?;
    tracing::info!(%logger, level = %parsed, "the log's level was changed");
    Ok(Json(json!([logger])))
}

/// Log4j's levels: FATAL has no counterpart, and ERROR is the nearest.
fn parse(level: &str) -> Option<LevelFilter> {
    Some(match level.to_ascii_uppercase().as_str() {
        "OFF" => LevelFilter::OFF,
        "FATAL" | "ERROR" => LevelFilter::ERROR,
        "WARN" => LevelFilter::WARN,
        "INFO" => LevelFilter::INFO,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" | "ALL" => LevelFilter::TRACE,
        _ => return None,
    })
}
