//! REST: Kafka Connect's paths where it has them, Foldline's own beside them; metrics and probes.

mod browser;
mod json;
mod listener;
mod offsets;
mod page;
mod parked;
pub(crate) mod replays;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use foldline_api::ErrorClass;
use foldline_api::sink::DesiredState;
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::json::Json;
use crate::config::{Config, ConnectorConfig};
use crate::connector::{Connector, State, View};
use crate::metrics::Metrics;
use crate::rebuild::Progress;
use crate::task::{BlockedBy, Snapshot};

/// What the handlers share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) connectors: Vec<Arc<Connector>>,
    pub(crate) refused: Vec<(String, String)>,
    /// Turns of what folds the log again.
    pub(crate) replays: Arc<tokio::sync::Semaphore>,
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

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    listener::serve(listener, router(app), stop).await;
}

fn router(app: Arc<App>) -> Router {
    let fixed = || async {
        Failure(
            StatusCode::METHOD_NOT_ALLOWED,
            "the config lives in files: change them and restart the worker".to_owned(),
        )
    };
    Router::new()
        .route("/", get(root))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/connectors", get(list).post(fixed))
        .route("/connectors/{name}", get(info).delete(fixed))
        .route("/connectors/{name}/config", get(config).put(fixed).patch(fixed))
        .route("/connectors/{name}/status", get(status))
        .route("/connectors/{name}/tasks", get(tasks))
        .route("/connectors/{name}/topics", get(topics))
        .route("/connectors/{name}/pause", put(pause))
        .route("/connectors/{name}/resume", put(resume))
        .route("/connectors/{name}/stop", put(stop_connector))
        .route("/connectors/{name}/restart", post(restart))
        .route("/connectors/{name}/rebuild", post(rebuild).delete(cancel_rebuild))
        .route("/connectors/{name}/rollback", post(roll_back))
        .route("/connectors/{name}/rows/{key}", get(replays::row))
        .route("/connectors/{name}/rows/{key}/explain", get(replays::explain))
        .route("/connectors/{name}/explain", get(replays::explain_any))
        .route("/connectors/{name}/verify", post(replays::verify))
        .merge(offsets::routes())
        .merge(parked::routes())
        .merge(page::routes())
        .fallback(|| async { Failure(StatusCode::NOT_FOUND, "no such path".to_owned()) })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), authorize))
        .with_state(app)
}

/// With a token configured, everything but the probes and the page's files wants it. Compared in constant
/// time. Without one, a request must be addressed to this machine. What a browser sends for a page from
/// elsewhere is refused in both cases, but for a link to the page.
async fn authorize(Extract(app): Shared, request: Request, next: Next) -> Response {
    let (document, file) = (page::is_document(&request), page::is_file(&request));
    let open = matches!(request.uri().path(), "/livez" | "/readyz") || document || file;
    let guarded = app.config.worker.token.is_some();
    if let Err(reason) = browser::check(request.headers(), guarded, document) {
        return Failure(StatusCode::FORBIDDEN, reason).into_response();
    }
    if let Some(token) = app.config.worker.token.as_ref().filter(|_| !open) {
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given = given.strip_prefix("Bearer ").unwrap_or_default();
        if !same(given.as_bytes(), token.expose().as_bytes()) {
            return Failure(StatusCode::UNAUTHORIZED, "a bearer token is needed".to_owned())
                .into_response();
        }
    }
    next.run(request).await
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

async fn root(Extract(app): Shared, headers: HeaderMap) -> Response {
    if page::wants_html(&headers) {
        return page::document();
    }
    let worker = json!({
        "kafka_cluster_id": app.connectors.iter().find_map(|c| c.log_identity()),
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("FOLDLINE_COMMIT").unwrap_or("unknown"),
    });
    ([(header::VARY, "accept")], Json(worker)).into_response()
}

async fn metrics(Extract(app): Shared) -> Answer<Response> {
    let text = app
        .metrics
        .render()
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn ready(Extract(app): Shared) -> Answer<&'static str> {
    let waiting: Vec<&str> =
        app.connectors.iter().filter(|c| !c.is_ready()).map(|c| c.name()).collect();
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
        let found = self.connectors.iter().find(|connector| connector.name() == name);
        found.ok_or_else(|| not_found(name))
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

    fn worker_id(&self) -> String {
        self.config.worker.listen.to_string()
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
    let mut all = serde_json::Map::new();
    for name in names {
        let mut one = serde_json::Map::new();
        if expand.contains(&"status") {
            one.insert("status".to_owned(), status_json(&app, name)?);
        }
        if expand.contains(&"info") {
            one.insert("info".to_owned(), info_json(&app, name)?);
        }
        all.insert(name.clone(), Json_::Object(one));
    }
    Ok(Json(Json_::Object(all)))
}

async fn info(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    info_json(&app, &name).map(Json)
}

fn info_json(app: &App, name: &str) -> Answer<Json_> {
    let config = app.config(name)?.flat();
    let tasks: Vec<Json_> = (0..app.view(name)?.tasks.len())
        .map(|task| json!({ "connector": name, "task": task }))
        .collect();
    Ok(json!({ "name": name, "config": config, "tasks": tasks, "type": "sink" }))
}

async fn config(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(json!(app.config(&name)?.flat())))
}

async fn status(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    status_json(&app, &name).map(Json)
}

fn status_json(app: &App, name: &str) -> Answer<Json_> {
    app.config(name)?;
    let view = app.view(name)?;
    let worker = app.worker_id();
    let mut connector = json!({ "state": view.state.name(), "worker_id": worker });
    if let Some(trace) = &view.trace {
        connector["trace"] = json!(trace);
    }
    let task = |(id, task): (usize, &Snapshot)| {
        let mut one = json!({
            "id": id,
            "state": view.state.name(),
            "worker_id": worker,
            "partitions": partitions_json(task),
            "blocked_by": task.blocked_by().map(BlockedBy::name),
        });
        if let Some(trace) = &task.trouble {
            one["trace"] = json!(trace);
        }
        one
    };
    let tasks: Vec<Json_> = view.tasks.iter().enumerate().map(task).collect();
    Ok(json!({
        "name": name,
        "type": "sink",
        "connector": connector,
        "tasks": tasks,
        "generation": view.generation,
        "lag": view.lag(),
        "rate": (view.rate * 10.0).round() / 10.0,
        "parked_keys": view.parked_keys,
        "blocked_by": view.blocked_by().map(BlockedBy::name),
        "last_error": view.last_error(),
        "rebuild": view.rebuild.as_ref().map(Progress::json),
        "kept_generations": view.kept,
        "holes": offsets::holes_json(&view.holes),
    }))
}

fn partitions_json(task: &Snapshot) -> Vec<Json_> {
    let one = |p: &crate::task::PartitionStatus| {
        json!({
            "topic": &*p.partition.topic,
            "partition": p.partition.partition,
            "position": p.position.0,
            "end": p.end.map(|end| end.0),
            "lag": p.lag(),
        })
    };
    task.partitions.iter().map(one).collect()
}

async fn tasks(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    let config = app.config(&name)?.flat();
    let tasks: Vec<Json_> = (0..app.view(&name)?.tasks.len())
        .map(|task| json!({ "id": { "connector": name, "task": task }, "config": config }))
        .collect();
    Ok(Json(json!(tasks)))
}

async fn topics(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    let view = app.view(&name)?;
    let partitions = view.tasks.iter().flat_map(|task| &task.partitions);
    let mut topics: Vec<&str> = partitions.map(|p| &*p.partition.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    Ok(Json(json!({ name: { "topics": topics } })))
}

async fn set(app: &App, name: &str, desired: DesiredState) -> Answer<StatusCode> {
    let connector = app.connector(name)?;
    connector.set_desired(desired).await?;
    connector.restart();
    Ok(StatusCode::ACCEPTED)
}

async fn pause(Extract(app): Shared, Path(name): Path<String>) -> Answer<StatusCode> {
    set(&app, &name, DesiredState::Paused).await
}

async fn resume(Extract(app): Shared, Path(name): Path<String>) -> Answer<StatusCode> {
    set(&app, &name, DesiredState::Running).await
}

async fn stop_connector(Extract(app): Shared, Path(name): Path<String>) -> Answer<StatusCode> {
    set(&app, &name, DesiredState::Stopped).await
}

async fn restart(Extract(app): Shared, Path(name): Path<String>) -> Answer<StatusCode> {
    app.connector(&name)?.restart();
    Ok(StatusCode::NO_CONTENT)
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
    let connector = app.connector(&name)?;
    let generation = if how.in_place {
        connector.rebuild_in_place(from_earliest).await?
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
