//! Rows, as they are stored and as they were; `explain` and `verify`, which answer line by line.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use foldline_api::model::Key;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::json::Json;
use super::queries::{Wait, in_time, until_durable};
use super::{Answer, App, Failure, Shared};
use crate::explain::{self, At};
use crate::printable;
use crate::replay::Parts;
use crate::verify;

/// Lines that may wait for a slow reader.
const LINES: usize = 64;

/// Each replay has memory of its own, so only so many run at a time; others wait.
pub(crate) const REPLAYS_MAX: usize = 2;

/// The moment that is asked about.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moment {
    at: Option<String>,
}

impl Moment {
    fn parse(&self) -> Answer<Option<At>> {
        Ok(self.at.as_deref().map(At::parse).transpose()?)
    }
}

/// Which of a row, and what it is to hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneRow {
    at: Option<String>,
    wait: Option<String>,
}

/// Which row, and when. A path cannot hold every key: `..`, a tab, nothing at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyAt {
    key: String,
    at: Option<String>,
}

/// What to verify.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verify {
    sample: Option<u64>,
    #[serde(default)]
    repair: bool,
}

fn named(app: &App, name: &str, key: &str) -> Answer<(Parts, Key)> {
    let parts = app.connector(name)?.parts()?;
    let key = parts.projection.model().parse_key(key);
    let key = key.map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))?;
    Ok((parts, key))
}

pub(super) async fn turn(app: &App) -> Answer<OwnedSemaphorePermit> {
    let permit = Arc::clone(&app.replays).acquire_owned().await;
    permit.map_err(|error| Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

/// The turns of replays.
pub(crate) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(REPLAYS_MAX))
}

/// A row: as it is stored, or as the log made it up to a moment.
pub(super) async fn row(
    Extract(app): Shared,
    Path((name, key)): Path<(String, String)>,
    Query(OneRow { at, wait }): Query<OneRow>,
) -> Answer {
    let (parts, key) = named(&app, &name, &key)?;
    let model = Arc::clone(parts.projection.model());
    let moment = Moment { at };
    if let Some(wait) = wait {
        let waits = Wait::all(&wait).map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))?;
        until_durable(&app, app.connector(&name)?, &waits).await?;
    }
    let row = match moment.parse()? {
        Some(at) => {
            let _turn = turn(&app).await?;
            explain::row_at(parts, key.clone(), at).await?
        }
        None => match parts.target.queries() {
            Some(queries) => in_time(app.config.worker.query_time, queries.row(&key)).await?,
            None => {
                let mut snapshot = parts.target.snapshot().await?;
                let loaded = snapshot.load(std::slice::from_ref(&key)).await?.pop();
                loaded.and_then(|loaded| loaded.row)
            }
        },
    };
    let row = explain::object(&model, row.as_ref());
    let Some(row) = row else {
        let then = moment.at.map(|at| format!(" at {at}")).unwrap_or_default();
        return Err(Failure(StatusCode::NOT_FOUND, format!("{name} has no row {key}{then}")));
    };
    Ok(Json(json!({ "key": key.to_string(), "at": moment.at, "row": row })))
}

/// The events that made a row.
pub(super) async fn explain(
    Extract(app): Shared,
    Path((name, key)): Path<(String, String)>,
    Query(moment): Query<Moment>,
) -> Answer<Response> {
    explain_row(&app, &name, &key, &moment).await
}

/// The same for any key.
pub(super) async fn explain_any(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(KeyAt { key, at }): Query<KeyAt>,
) -> Answer<Response> {
    explain_row(&app, &name, &key, &Moment { at }).await
}

async fn explain_row(app: &App, name: &str, key: &str, moment: &Moment) -> Answer<Response> {
    let (parts, key) = named(app, name, key)?;
    let at = moment.parse()?;
    let turn = turn(app).await?;
    let (lines, told) = mpsc::channel(LINES);
    tokio::spawn(async move {
        explain::explain(parts, key, at, lines).await;
        drop(turn);
    });
    Ok(answer(told))
}

/// The rows that are not what the log gives.
pub(super) async fn verify(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(Verify { sample, repair }): Query<Verify>,
) -> Answer<Response> {
    if sample == Some(0) {
        let message = "sample=0: one key in 0 is none; give 1 or more";
        return Err(Failure(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    let parts = app.connector(&name)?.parts()?;
    let turn = turn(&app).await?;
    let (lines, told) = mpsc::channel(LINES);
    tokio::spawn(async move {
        verify::verify(parts, verify::Request { sample, repair }, lines).await;
        drop(turn);
    });
    Ok(answer(told))
}

/// JSON lines, as they come.
fn answer<T: Serialize + Send + 'static>(told: mpsc::Receiver<T>) -> Response {
    let lines = futures_util::stream::unfold(told, |mut told| async move {
        let line = told.recv().await?;
        let mut text = printable::json(&line).unwrap_or_default();
        text.push('\n');
        Some((Ok::<_, Infallible>(text), told))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
