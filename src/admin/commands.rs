//! What the operator asks of a connector: pause, resume, stop, restart, rebuild.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use foldline_api::sink::DesiredState;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value as Json_, json};

use super::json::Json;
use super::{Answer, App, Failure, Shared, status_json};
use crate::connector::{Connector, State};

/// The paths below a connector.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connectors/{name}/pause", put(pause))
        .route("/connectors/{name}/resume", put(resume))
        .route("/connectors/{name}/stop", put(stop))
        .route("/connectors/{name}/restart", post(restart))
        .route("/connectors/{name}/rebuild", post(rebuild).delete(cancel_rebuild))
        .route("/connectors/{name}/rollback", post(roll_back))
}

/// Whom a command is for; Kafka Connect has other words here than where it is asked for a config.
fn known<'a>(app: &'a App, name: &str) -> Answer<&'a Arc<Connector>> {
    if app.config.connectors.contains_key(name) {
        return app.connector(name);
    }
    Err(Failure(StatusCode::NOT_FOUND, format!("Unknown connector {name}")))
}

async fn set(app: &App, name: &str, desired: DesiredState) -> Answer<()> {
    Ok(known(app, name)?.command(desired).await?)
}

async fn pause(Extract(app): Shared, Path(name): Path<String>) -> Answer<StatusCode> {
    set(&app, &name, DesiredState::Paused).await?;
    Ok(StatusCode::ACCEPTED)
}

/// What is to go on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// The horizon of `expire`, and not the connector.
    #[serde(default, deserialize_with = "boolean")]
    expiry: bool,
}

async fn resume(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(what): Query<Resume>,
) -> Answer<Response> {
    if !what.expiry {
        set(&app, &name, DesiredState::Running).await?;
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let (from, to) = known(&app, &name)?.resume_expiry().await?;
    let from = from.map(|from| from.to_string());
    Ok(Json(json!({ "name": name, "from": from, "horizon": to.to_string() })).into_response())
}

async fn stop(Extract(app): Shared, Path(name): Path<String>) -> Answer<StatusCode> {
    set(&app, &name, DesiredState::Stopped).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to restart. A connector and its tasks have one session, so that either restarts both.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Restart {
    /// Answers the status instead of nothing.
    #[serde(default, deserialize_with = "boolean")]
    include_tasks: bool,
    /// Leaves alone what has not failed.
    #[serde(default, deserialize_with = "boolean")]
    only_failed: bool,
}

/// A boolean as Java reads one, in any case: clients in Python write `True`.
pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?.to_ascii_lowercase();
    text.parse().map_err(|_| D::Error::custom("allowed is true and false"))
}

async fn restart(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(what): Query<Restart>,
) -> Answer<Response> {
    let connector = known(&app, &name)?;
    let restarts = !what.only_failed || connector.view().state == State::Failed;
    let told = status_json(&app, &name).await?;
    if restarts {
        connector.restart();
    }
    if !what.include_tasks && !what.only_failed {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let status = if restarts { restarting(told) } else { told };
    Ok((StatusCode::ACCEPTED, Json(status)).into_response())
}

/// A status as of what has just been told to restart.
fn restarting(mut status: Json_) -> Json_ {
    let state = json!(State::Restarting.name());
    status["connector"]["state"] = state.clone();
    for task in status["tasks"].as_array_mut().into_iter().flatten() {
        task["state"] = state.clone();
    }
    status
}

/// How to rebuild.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuild {
    /// Empties the target first, instead of building beside it.
    #[serde(default)]
    in_place: bool,
    /// `earliest`: from what the log still has.
    from: Option<String>,
    /// The live one that whoever asks has seen, which is the one to empty.
    generation: Option<u64>,
}

async fn rebuild(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(how): Query<Rebuild>,
) -> Answer {
    let from_earliest = match how.from.as_deref() {
        None => false,
        Some("earliest") => true,
        Some(other) => {
            let message = format!("from={other:?}: allowed is \"earliest\"");
            return Err(Failure(StatusCode::BAD_REQUEST, message));
        }
    };
    if !how.in_place && how.generation.is_some() {
        let message = "generation=N says which generation to empty: give it with in_place=true";
        return Err(Failure(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    let connector = app.connector(&name)?;
    let generation = if how.in_place {
        connector.rebuild_in_place(from_earliest, how.generation).await?
    } else {
        connector.rebuild(from_earliest).await?
    };
    Ok(Json(json!({ "name": name, "generation": generation })))
}

/// Which generation whoever asks has seen.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The one that is being built, or the one that is live.
    generation: Option<u64>,
}

async fn cancel_rebuild(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(expected): Query<Expected>,
) -> Answer {
    let cancelled = app.connector(&name)?.cancel_rebuild(expected.generation).await?;
    Ok(Json(json!({ "name": name, "cancelled": cancelled })))
}

async fn roll_back(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(expected): Query<Expected>,
) -> Answer {
    let generation = app.connector(&name)?.roll_back(expected.generation).await?;
    Ok(Json(json!({ "name": name, "generation": generation })))
}
