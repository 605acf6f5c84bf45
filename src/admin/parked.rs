//! Parked keys: `GET …/parked`, and what is to become of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::routing::{get, post};
use foldline_api::parked::{Parked, Place, Request};
use foldline_api::record::Record;
use serde::Deserialize;
use serde_json::{Value as Json_, json};

use super::json::Json;
use super::{Answer, App, Failure, Shared};

/// The paths below a connector.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connectors/{name}/parked", get(list))
        .route("/connectors/{name}/parked/{id}", get(show).delete(leave_out))
        .route("/connectors/{name}/parked/{id}/retry", post(retry))
}

/// A group's name: the place of its first event.
fn id_of(group: &[Parked]) -> String {
    group.first().map(Parked::id).unwrap_or_default()
}

/// The group that has this event.
async fn one(app: &App, name: &str, id: &str) -> Answer<Vec<Parked>> {
    let groups = app.connector(name)?.parked().await?;
    let found = groups.into_iter().find(|group| group.iter().any(|event| event.id() == id));
    found.ok_or_else(|| gone(name, id))
}

fn gone(name: &str, id: &str) -> Failure {
    let message = format!(
        "no event {id:?} is parked: `foldline parked list {name}` shows what is, as topic:partition:offset"
    );
    Failure(StatusCode::NOT_FOUND, message)
}

fn summary(group: &[Parked]) -> Json_ {
    let mut keys: Vec<&String> = group.iter().flat_map(|event| &event.keys).collect();
    keys.sort_unstable();
    keys.dedup();
    let first = group.first();
    json!({
        "id": id_of(group),
        "keys": keys,
        "events": group.len(),
        "topic": first.map(|event| &*event.partition.topic),
        "partition": first.map(|event| event.partition.partition),
        "reason": group.iter().find_map(|event| event.reason.as_deref()),
        "request": group.iter().find_map(|event| event.request).map(Request::name),
    })
}

/// What is set aside.
async fn list(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    let groups = app.connector(&name)?.parked().await?;
    let parked: Vec<Json_> = groups.iter().map(|group| summary(group)).collect();
    Ok(Json(json!({ "parked": parked })))
}

/// Bytes as JSON where they are JSON, else as text.
pub(super) fn shown(bytes: Option<&bytes::Bytes>) -> Json_ {
    let Some(bytes) = bytes else { return Json_::Null };
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}

/// One group with its events, in order.
async fn show(Extract(app): Shared, Path((name, id)): Path<(String, String)>) -> Answer {
    let group = one(&app, &name, &id).await?;
    let places: Vec<Place> = group.iter().map(Parked::place).collect();
    let records = app.connector(&name)?.parked_records(&places).await?;
    let event = |parked: &Parked| {
        let mine = |record: &&Record| {
            record.offset == parked.offset && record.topic_partition() == parked.partition
        };
        let record = records.iter().find(mine);
        json!({
            "topic": &*parked.partition.topic,
            "partition": parked.partition.partition,
            "offset": parked.offset,
            "timestamp": record.and_then(|record| record.timestamp),
            "keys": parked.keys,
            "reason": parked.reason,
            "key": shown(record.and_then(|record| record.key.as_ref())),
            "value": shown(record.and_then(|record| record.value.as_ref())),
        })
    };
    let mut answer = summary(&group);
    answer["parked"] = group.iter().map(event).collect();
    Ok(Json(answer))
}

async fn ask(
    app: &App,
    name: &str,
    id: &str,
    request: Request,
) -> Answer<(StatusCode, Json<Json_>)> {
    let group = one(app, name, id).await?;
    let Some(place) = group.first().map(Parked::place) else { return Err(gone(name, id)) };
    if !app.connector(name)?.ask_parked(&place, request).await? {
        return Err(gone(name, id));
    }
    let body = json!({ "id": id_of(&group), "events": group.len(), "request": request.name() });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// Asks the owner of the partition to fold the events again.
async fn retry(
    Extract(app): Shared,
    Path((name, id)): Path<(String, String)>,
) -> Answer<(StatusCode, Json<Json_>)> {
    ask(&app, &name, &id, Request::Retry).await
}

/// Which events to leave out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaveOut {
    /// Only those that are bad; those that wait behind them are folded.
    #[serde(default)]
    bad: bool,
}

/// Asks the owner of the partition to leave the events out for good.
async fn leave_out(
    Extract(app): Shared,
    Path((name, id)): Path<(String, String)>,
    Query(which): Query<LeaveOut>,
) -> Answer<(StatusCode, Json<Json_>)> {
    let request = if which.bad { Request::Skip } else { Request::Drop };
    ask(&app, &name, &id, request).await
}
