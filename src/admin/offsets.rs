//! A connector's positions: where they stand or would stand, and moving them forward past events that are left
//! out.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use foldline_api::hole::Hole;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::Start;
use foldline_api::time::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value as Json_, json};

use super::json::Json;
use super::{Answer, App, Failure, Shared};
use crate::connector::{Connector, State};

/// The paths below a connector.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connectors/{name}/offsets", get(offsets).patch(skip).delete(reset))
        .route("/connectors/{name}/holes", delete(forget))
}

/// The moment that is asked about.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moment {
    /// `latest`, or a moment in RFC 3339; where the positions stand if there is none.
    at: Option<String>,
}

/// Positions in Kafka Connect's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    offsets: Vec<WantedOffset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedOffset {
    partition: KafkaPartition,
    /// Null means a reset of one partition to Kafka Connect.
    offset: Option<KafkaOffset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaPartition {
    kafka_topic: String,
    #[serde(deserialize_with = "number")]
    kafka_partition: i32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaOffset {
    #[serde(deserialize_with = "number")]
    kafka_offset: i64,
}

/// A number, or a text of one: Kafka Connect takes both.
fn number<'de, D: Deserializer<'de>, N>(deserializer: D) -> Result<N, D::Error>
where
    N: TryFrom<i64> + FromStr,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    let number = match Either::deserialize(deserializer)? {
        Either::Number(number) => N::try_from(number).ok(),
        Either::Text(text) => text.parse().ok(),
    };
    number.ok_or_else(|| D::Error::custom("a partition or an offset is a number in its range"))
}

/// The holes of a generation as `status` shows them.
pub(super) fn holes_json(holes: &[Hole]) -> Vec<Json_> {
    let one = |hole: &Hole| {
        json!({
            "topic": &*hole.partition.topic,
            "partition": hole.partition.partition,
            "from": hole.from.0,
            "to": hole.to.0,
            "repeated": hole.repeated,
        })
    };
    holes.iter().map(one).collect()
}

async fn offsets(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(moment): Query<Moment>,
) -> Answer {
    let connector = app.connector(&name)?;
    let found = match moment.at.as_deref() {
        None => connector.offsets().await?,
        Some("latest") => connector.offsets_at(Start::Latest).await?,
        Some(text) => {
            let Ok(moment) = text.parse::<Timestamp>() else {
                let message = format!(
                    "at={text:?}: allowed is latest, or a moment such as 2026-01-31T12:00:00Z"
                );
                return Err(Failure(StatusCode::BAD_REQUEST, message));
            };
            connector.offsets_at(Start::Timestamp(moment.micros().div_euclid(1_000))).await?
        }
    };
    let one = |(partition, position): (TopicPartition, Position)| {
        json!({
            "partition": {
                "kafka_topic": &*partition.topic,
                "kafka_partition": partition.partition,
            },
            "offset": { "kafka_offset": position.0 },
        })
    };
    let offsets: Vec<Json_> = found.into_iter().map(one).collect();
    Ok(Json(json!({ "offsets": offsets })))
}

/// As Kafka Connect has it: of a stopped connector only. `done` is what is to be done to its offsets.
fn stopped(connector: &Connector, name: &str, done: &str, why: &str) -> Answer<()> {
    if connector.view().state == State::Stopped {
        return Ok(());
    }
    let message = format!(
        "Connectors must be in the STOPPED state before their offsets can be {done}, and {name} is not STOPPED: stop \
         it first (`foldline stop {name}`, PUT /connectors/{name}/stop); {why}"
    );
    Err(Failure(StatusCode::BAD_REQUEST, message))
}

/// What is no JSON of this form is a bad request; what does not say that it is JSON, no media type for this.
pub(super) fn refusal(error: &JsonRejection) -> StatusCode {
    match error.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    }
}

/// Kafka Connect's way to alter offsets; forward only.
async fn skip(
    Extract(app): Shared,
    Path(name): Path<String>,
    body: Result<axum::Json<Wanted>, JsonRejection>,
) -> Answer {
    let axum::Json(Wanted { offsets }) =
        body.map_err(|error| Failure(refusal(&error), error.body_text()))?;
    if offsets.is_empty() {
        let message = "Partitions / offsets need to be provided for an alter offsets request";
        return Err(Failure(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    let connector = app.connector(&name)?;
    stopped(connector, &name, "altered", "its positions are moved while nothing is folded")?;
    let mut to = Vec::with_capacity(offsets.len());
    for WantedOffset { partition, offset } in offsets {
        let place = TopicPartition::new(partition.kafka_topic, partition.kafka_partition);
        let Some(KafkaOffset { kafka_offset }) = offset else {
            let message = format!(
                "`{place}` without an offset: positions go forward only; DELETE of the same path folds all anew"
            );
            return Err(Failure(StatusCode::BAD_REQUEST, message));
        };
        to.push((place, Position(kafka_offset)));
    }
    let holes = connector.skip(&to).await?;
    let message = "The offsets for this connector have been altered successfully";
    Ok(Json(json!({ "message": message, "holes": holes_json(&holes) })))
}

/// The next rebuild folds what was left out.
async fn forget(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    let holes = app.connector(&name)?.forget_holes().await?;
    Ok(Json(json!({ "holes": holes_json(&holes) })))
}

/// Kafka Connect's way to begin anew: of a stopped connector only.
async fn reset(Extract(app): Shared, Path(name): Path<String>) -> Answer {
    let connector = app.connector(&name)?;
    stopped(
        connector,
        &name,
        "reset",
        "its offsets are reset by a rebuild, which begins when it is resumed",
    )?;
    let generation = connector.rebuild(false).await?;
    let message = format!(
        "generation {generation} is built from the fold's beginning when {name} is resumed"
    );
    Ok(Json(json!({ "message": message, "generation": generation })))
}
