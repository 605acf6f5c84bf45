//! REST: Kafka Connect's paths where it has them, Foldline's own beside them; metrics and probes.

mod access;
mod browser;
mod commands;
mod ingest;
mod json;
mod letters;
mod listener;
mod loggers;
mod offsets;
pub(crate) mod openapi;
mod page;
mod parked;
mod plugins;
pub(crate) mod queries;
pub(crate) mod replays;
mod shape;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use foldline_api::ErrorClass;
use foldline_api::time::Timestamp;
use foldline_language::config::projection::Names;
use futures_util::future::try_join_all;
use serde_json::{Value as Json_, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::json::Json;
use crate::clock::now_millis;
use crate::config::{Config, ConnectorConfig};
use crate::connector::{Connector, State, View};
use crate::expiry::ExpiryView;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::rebuild::Progress;
use crate::registry::Registries;
use crate::task::{BlockedBy, LastBad};
use crate::worker::Reloads;

/// What the handlers share: the config in use and who runs by it. A reload makes another one.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) connectors: Vec<Arc<Connector>>,
    pub(crate) refused: Vec<(String, String)>,
    /// The topics that take records.
    pub(crate) ingest: Ingest,
    /// Turns of what folds the log again.
    pub(crate) replays: Arc<tokio::sync::Semaphore>,
    /// Turns of readers.
    pub(crate) turns: Arc<queries::Turns>,
    /// What each connector is made of, as a number.
    pub(crate) prints: BTreeMap<String, u64>,
    pub(crate) registries: Arc<Registries>,
    pub(crate) reloads: Arc<Reloads>,
}

type Shared = Extract<Arc<App>>;

/// Kafka Connect's error body.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error_code": self.0.as_u16(), "message": self.1 });
        (self.0, Json(body)).into_response()
    }
}

impl From<foldline_api::Error> for Failure {
    fn from(error: foldline_api::Error) -> Self {
        let status = match error.class() {
            ErrorClass::Config | ErrorClass::Record => StatusCode::BAD_REQUEST,
            ErrorClass::Fenced => StatusCode::CONFLICT,
            ErrorClass::Retriable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, error.to_string())
    }
}

type Answer<T = Json<Json_>> = Result<T, Failure>;

/// The open listener; dropping it ends what it still serves.
pub(crate) struct Listener {
    routes: watch::Sender<Router>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Listener {
    pub(crate) fn open(listener: TcpListener, app: &Arc<App>) -> Self {
        let (routes, shown) = watch::channel(router(Arc::clone(app)));
        let stop = CancellationToken::new();
        let server = tokio::spawn(listener::serve(listener, shown, stop.clone()));
        Listener { routes, stop, server }
    }

    /// Answers by `app` from the next request on.
    pub(crate) fn show(&self, app: &Arc<App>) {
        drop(self.routes.send_replace(router(Arc::clone(app))));
    }

    /// Takes no more requests.
    pub(crate) fn close(&self) {
        self.stop.cancel();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The Kafka Connect whose REST this one is, with a word that it is not Connect itself. Its clients compare the first two
/// numbers before they use a path.
const CONNECT_VERSION: &str = "4.1.0-foldline";
/// What a connector's and a task's status tells as their version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/", get(root))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/connectors", get(list))
        .route("/connectors/{name}", get(info))
        .route("/connectors/{name}/config", get(config))
        .route("/connectors/{name}/status", get(status))
        .route("/connectors/{name}/rows", get(queries::rows))
        .route("/connectors/{name}/rows/{key}", get(replays::row))
        .route("/connectors/{name}/rows/{key}/explain", get(replays::explain))
        .route("/connectors/{name}/explain", get(replays::explain_any))
        .route("/connectors/{name}/verify", post(replays::verify))
        .merge(commands::routes())
        .merge(ingest::routes())
        .merge(letters::routes())
        .merge(loggers::routes())
        .merge(offsets::routes())
        .merge(openapi::routes())
        .merge(parked::routes())
        .merge(page::routes())
        .merge(plugins::routes())
        .merge(tasks::routes())
        .method_not_allowed_fallback(shape::no_such_method)
        .fallback(|| async { Failure(StatusCode::NOT_FOUND, "no such path".to_owned()) })
        .layer(middleware::from_fn(shape::answers))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), access::authorize))
        .with_state(app);
    shape::without_slash(routes)
}

async fn root(Extract(app): Shared, headers: HeaderMap) -> Response {
    if page::wants_html(&headers) {
        return page::document();
    }
    let config = app.reloads.last();
    let worker = json!({
        "kafka_cluster_id": app.connectors.iter().find_map(|c| c.log_identity()),
        "version": CONNECT_VERSION,
        "foldline_version": VERSION,
        "commit": option_env!("FOLDLINE_COMMIT").unwrap_or("unknown"),
        "config": {
            "loaded": moment(config.loaded),
            "error": config.error,
            "missing": config.missing,
        },
    });
    ([(header::VARY, "accept")], Json(worker)).into_response()
}

/// Kafka Connect's own probe: a worker that answers has started.
async fn health() -> Json<Json_> {
    let message = "Worker has completed startup and is ready to handle requests.";
    Json(json!({ "status": "healthy", "message": message }))
}

async fn metrics(Extract(app): Shared) -> Answer<Response> {
    let text = app
        .metrics
        .render()
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn ready(Extract(app): Shared) -> Answer<&'static str> {
    let not_ready = app.connectors.iter().filter(|c| !c.is_ready()).map(|c| c.name());
    let waiting: Vec<&str> =
        app.refused.iter().map(|(name, _)| name.as_str()).chain(not_ready).collect();
    if waiting.is_empty() {
        return Ok("ok\n");
    }
    let message = format!("not running: {}", waiting.join(", "));
    Err(Failure(StatusCode::SERVICE_UNAVAILABLE, message))
}

impl App {
    fn connector(&self, name: &str) -> Answer<&Arc<Connector>> {
        if let Some((_, reason)) = self.refused.iter().find(|(refused, _)| refused == name) {
            return Err(Failure(StatusCode::CONFLICT, reason.clone()));
        }
        self.running(name).ok_or_else(|| not_found(name))
    }

    /// The connector of this name, unless it was refused.
    pub(crate) fn running(&self, name: &str) -> Option<&Arc<Connector>> {
        self.connectors.iter().find(|connector| connector.name() == name)
    }

    fn view(&self, name: &str) -> Answer<View> {
        if let Some((_, reason)) = self.refused.iter().find(|(refused, _)| refused == name) {
            return Ok(View {
                state: State::Failed,
                trace: Some(reason.clone()),
                ..View::default()
            });
        }
        Ok(self.connector(name)?.view())
    }

    fn config(&self, name: &str) -> Answer<&ConnectorConfig> {
        self.config.connectors.get(name).ok_or_else(|| not_found(name))
    }

    /// A connector's config as Kafka Connect has it: flat, with its class and its topics.
    fn flat(&self, name: &str) -> Answer<BTreeMap<String, String>> {
        let connector = self.config(name)?;
        let mut flat = connector.flat();
        flat.extend(plugins::class_of(&self.config, connector));
        if let Some(projection) = self.config.projections.get(&connector.projection) {
            let (key, topics) = match &projection.topics {
                Names::List(names) => ("topics", names.join(",")),
                Names::Regex(regex) => ("topics.regex", regex.clone()),
            };
            flat.insert(key.to_owned(), topics);
        }
        Ok(flat)
    }

    fn worker_id(&self) -> &str {
        &self.config.worker.advertised
    }
}

fn not_found(name: &str) -> Failure {
    Failure(StatusCode::NOT_FOUND, format!("Connector {name} not found"))
}

async fn list(Extract(app): Shared, Query(query): Query<Vec<(String, String)>>) -> Answer {
    let names = app.config.connectors.keys();
    let expand: Vec<&str> =
        query.iter().filter(|(key, _)| key == "expand").map(|(_, value)| value.as_str()).collect();
    if expand.is_empty() {
        return Ok(Json(json!(names.collect::<Vec<_>>())));
    }
    // Beside each other: a log that does not answer keeps each of them waiting.
    let all = names.map(async |name| {
        let mut one = serde_json::Map::new();
        if expand.contains(&"status") {
            one.insert("status".to_owned(), status_json(&app, name).await?);
        }
        if expand.contains(&"info") {
            one.insert("info".to_owned(), info_json(&app, name).await?);
        }
        Ok::<_, Failure>((name.clone(), Json_::Object(one)))
    });
    let all: serde_json::Map<_, _> = try_join_all(all).await?.into_iter().collect();
    Ok(Json(Json_::Object(all)))
}

async fn info(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    info_json(&app, &name).await.map(Json)
}

async fn info_json(app: &App, name: &str) -> Answer<Json_> {
    let config = app.flat(name)?;
    let tasks = tasks::all(app, name, &app.view(name)?).await.len();
    let tasks: Vec<Json_> =
        (0..tasks).map(|task| json!({ "connector": name, "task": task })).collect();
    Ok(json!({ "name": name, "config": config, "tasks": tasks, "type": "sink" }))
}

async fn config(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(json!(app.flat(&name)?)))
}

async fn status(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    status_json(&app, &name).await.map(Json)
}

async fn status_json(app: &App, name: &str) -> Answer<Json_> {
    if !app.config.connectors.contains_key(name) {
        return Err(Failure(
            StatusCode::NOT_FOUND,
            format!("No status found for connector {name}"),
        ));
    }
    let view = app.view(name)?;
    let worker = app.worker_id();
    let mut connector =
        json!({ "state": view.state.name(), "worker_id": worker, "version": VERSION });
    if let Some(trace) = &view.trace {
        connector["trace"] = json!(trace);
    }
    let tasks = tasks::all(app, name, &view).await;
    let tasks: Vec<Json_> =
        tasks.iter().enumerate().map(|(id, task)| task.json(id, &view)).collect();
    Ok(json!({
        "name": name,
        "type": "sink",
        "connector": connector,
        "tasks": tasks,
        "generation": view.generation,
        "lag": view.lag(),
        "lag_seconds": view.behind(now_millis()).map(tenths),
        "rate": tenths(view.rate),
        "parked_keys": view.parked_keys,
        "blocked_by": view.blocked_by().map(BlockedBy::name),
        "last_error": view.last_error().map(|(message, _)| message),
        "last_error_since": view.last_error().map(|(_, since)| moment(since)),
        "past_error": view.past_error().map(|past| json!({
            "message": past.message,
            "since": moment(past.since),
            "until": moment(past.until),
        })),
        "bad_records": bad_json(&view),
        "rebuild": view.rebuild.as_ref().map(Progress::json),
        "kept_generations": view.kept,
        "holes": offsets::holes_json(&view.holes),
        "expiry": view.expiry.as_ref().map(expiry_json),
    }))
}

/// Rounded, for people.
fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A moment in milliseconds since the epoch, as text.
fn moment(millis: i64) -> Option<String> {
    Timestamp::from_millis(millis).map(|moment| moment.to_string())
}

fn expiry_json(expiry: &ExpiryView) -> Json_ {
    json!({
        "field": &*expiry.rule.field,
        "after_seconds": expiry.rule.after as f64 / 1_000.0,
        "horizon": expiry.horizon.map(|horizon| horizon.to_string()),
        "paused": expiry.paused.as_ref().map(|(message, _)| message),
    })
}

fn bad_json(view: &View) -> Json_ {
    let last = |bad: &LastBad| {
        let (of, offset) = &bad.place;
        json!({
            "topic": &*of.topic,
            "partition": of.partition,
            "offset": offset,
            "at": moment(bad.at),
            "reason": bad.reason,
        })
    };
    json!({
        "count": view.bad.count,
        "rate": tenths(view.bad_rate),
        "in_a_row": view.bad.in_a_row,
        "all": view.bad.is_all(),
        "last": view.bad.last.as_ref().map(last),
    })
}
