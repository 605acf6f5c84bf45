//! A connector's tasks, one by one, and the topics that they fold.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use foldline_api::record::TopicPartition;
use foldline_api::source::FleetMember;
use serde_json::{Value as Json_, json};

use super::json::Json;
use super::{Answer, App, Failure, Shared, VERSION};
use crate::connector::{State, View};
use crate::task::{BlockedBy, PartitionStatus, Snapshot};

/// The paths below a connector.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connectors/{name}/tasks", get(tasks))
        .route("/connectors/{name}/tasks/{id}/status", get(status))
        .route("/connectors/{name}/tasks/{id}/restart", post(restart))
        .route("/connectors/{name}/topics", get(topics))
        .route("/connectors/{name}/topics/reset", put(reset_topics))
}

/// A task, on whichever worker.
pub(super) struct Task<'a> {
    worker: String,
    number: u32,
    run: Run<'a>,
}

/// What is known of it.
enum Run<'a> {
    /// All, since it runs here.
    Here(&'a Snapshot),
    /// What its group tells.
    Elsewhere(Vec<TopicPartition>),
}

/// The tasks of a connector over all workers, in an order that each of them tells: by worker, then by its own number.
pub(super) async fn all<'a>(app: &App, name: &str, view: &'a View) -> Vec<Task<'a>> {
    let own = app.worker_id();
    let here = (0..).zip(&view.tasks);
    let mut all: Vec<Task<'_>> = here
        .map(|(number, task)| Task { worker: own.to_owned(), number, run: Run::Here(task) })
        .collect();
    if let Ok(connector) = app.connector(name) {
        let others = connector.fleet().await.into_iter().filter(|member| member.worker != own);
        all.extend(others.map(|FleetMember { worker, task, partitions }| Task {
            worker,
            number: task,
            run: Run::Elsewhere(partitions),
        }));
    }
    all.sort_by(|a, b| (&a.worker, a.number).cmp(&(&b.worker, b.number)));
    all
}

impl Task<'_> {
    /// As the status shows it.
    pub(super) fn json(&self, id: usize, view: &View) -> Json_ {
        let state = match &self.run {
            Run::Here(task) => view.state_of(task),
            Run::Elsewhere(partitions) if partitions.is_empty() => State::Unassigned,
            // A member that has failed or stopped has left, and a pause is for all workers.
            Run::Elsewhere(_) if view.state == State::Paused => State::Paused,
            Run::Elsewhere(_) => State::Running,
        };
        let mut one = json!({ "id": id, "state": state.name(), "worker_id": self.worker });
        match &self.run {
            Run::Here(task) => {
                one["version"] = json!(VERSION);
                one["partitions"] = json!(partitions_json(task));
                one["blocked_by"] = json!(task.blocked_by().map(BlockedBy::name));
                if let Some(trace) = &task.trouble {
                    one["trace"] = json!(trace);
                }
            }
            Run::Elsewhere(partitions) => {
                let shown =
                    |p: &TopicPartition| json!({ "topic": &*p.topic, "partition": p.partition });
                one["partitions"] = partitions.iter().map(shown).collect();
            }
        }
        one
    }

    fn topics(&self) -> Vec<&str> {
        match &self.run {
            Run::Here(task) => task.partitions.iter().map(|p| &*p.partition.topic).collect(),
            Run::Elsewhere(partitions) => partitions.iter().map(|p| &*p.topic).collect(),
        }
    }
}

fn partitions_json(task: &Snapshot) -> Vec<Json_> {
    let one = |p: &PartitionStatus| {
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
    let config = app.flat(&name)?;
    let count = all(&app, &name, &app.view(&name)?).await.len();
    let tasks: Vec<Json_> = (0..count)
        .map(|task| json!({ "id": { "connector": name, "task": task }, "config": config }))
        .collect();
    Ok(Json(json!(tasks)))
}

async fn status(Extract(app): Shared, Path((name, id)): Path<(String, String)>) -> Answer {
    let missing =
        || Failure(StatusCode::NOT_FOUND, format!("No status found for task {name}-{id}"));
    let number: usize = id.parse().map_err(|_| missing())?;
    let view = app.view(&name).map_err(|_| missing())?;
    let tasks = all(&app, &name, &view).await;
    let task = tasks.get(number).ok_or_else(missing)?;
    Ok(Json(task.json(number, &view)))
}

/// A task has its connector's session: all of this worker's are begun anew.
async fn restart(
    Extract(app): Shared,
    Path((name, id)): Path<(String, String)>,
) -> Answer<StatusCode> {
    if !app.config.connectors.contains_key(&name) {
        return Err(Failure(StatusCode::NOT_FOUND, format!("Unknown connector {name}")));
    }
    let connector = app.connector(&name)?;
    let view = connector.view();
    let tasks = all(&app, &name, &view).await;
    let task = id.parse().ok().and_then(|number: usize| tasks.get(number));
    match task.map(|task| (&task.run, &task.worker)) {
        None => Err(Failure(StatusCode::NOT_FOUND, format!("Task {name}-{id} not found"))),
        Some((Run::Elsewhere(_), worker)) => {
            let message = format!("Task {name}-{id} is on the worker {worker}: ask that one");
            Err(Failure(StatusCode::MISDIRECTED_REQUEST, message))
        }
        Some((Run::Here(_), _)) => {
            connector.restart();
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// As Kafka Connect has it, a connector that nobody knows has no topics.
async fn topics(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    let view = app.view(&name).unwrap_or_default();
    let tasks = all(&app, &name, &view).await;
    let topics: BTreeSet<&str> = tasks.iter().flat_map(Task::topics).collect();
    Ok(Json(json!({ name: { "topics": topics } })))
}

/// Kafka Connect notes topics as they are used, and forgets them here. These are what is assigned now: there is
/// nothing to forget.
async fn reset_topics() -> StatusCode {
    StatusCode::ACCEPTED
}
