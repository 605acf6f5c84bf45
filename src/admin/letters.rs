//! Dead letters: `GET …/letters`, and how they go back.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json_, json};

use super::json::Json;
use super::parked::shown;
use super::replays::turn;
use super::{Answer, App, Failure, Shared, moment};
use crate::letters::{Id, Letter, Reason, Replayed};

/// Letters that are listed where nothing is said.
const LISTED: usize = 100;
/// Letters that are listed at most.
const LISTED_MAX: usize = 10_000;

/// The paths below a connector.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connectors/{name}/letters", get(list))
        .route("/connectors/{name}/letters/{id}", get(show))
        .route("/connectors/{name}/letters/{id}/replay", post(replay))
        .route("/connectors/{name}/letters/replay", post(replay_all))
}

fn reason_json(reason: &Reason) -> Json_ {
    json!({
        "reason": reason.text,
        "count": reason.count,
        "open": reason.open,
        "first": reason.ends.0.to_string(),
        "last": reason.ends.1.to_string(),
    })
}

fn letter_json(letter: &Letter) -> Json_ {
    json!({
        "id": letter.id.to_string(),
        "topic": &*letter.partition.topic,
        "partition": letter.partition.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "stage": letter.stage,
        "reason": letter.reason,
        "omitted": letter.omits,
        "written": letter.written.and_then(moment),
    })
}

fn replayed_json(done: Replayed) -> Json<Json_> {
    Json(json!({ "replayed": done.replayed, "left": done.left }))
}

/// Which letters to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    reason: Option<String>,
    limit: Option<usize>,
}

/// How many there are of each reason; with a reason, the letters that have it.
async fn list(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Answer {
    let connector = app.connector(&name)?;
    let _turn = turn(&app).await?;
    if let Some(reason) = which.reason {
        let most = which.limit.unwrap_or(LISTED).min(LISTED_MAX);
        let letters = connector.open_letters(&reason, most).await?;
        let letters: Vec<Json_> = letters.iter().map(letter_json).collect();
        return Ok(Json(json!({ "letters": letters })));
    }
    let reasons = connector.letter_reasons().await?;
    let reasons: Vec<Json_> = reasons.iter().map(reason_json).collect();
    Ok(Json(json!({ "reasons": reasons })))
}

fn no_such(name: &str, id: Id) -> Failure {
    let message = format!("{name} has no letter {id}: `foldline letters list {name}` shows them");
    Failure(StatusCode::NOT_FOUND, message)
}

/// How much of a letter to show.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shows {
    #[serde(default)]
    payload: bool,
}

/// One letter; its payload where it is asked for.
async fn show(
    Extract(app): Shared,
    Path((name, id)): Path<(String, String)>,
    Query(shows): Query<Shows>,
) -> Answer {
    let id: Id = id.parse()?;
    let connector = app.connector(&name)?;
    let _turn = turn(&app).await?;
    let found = connector.letter(id).await?;
    let (letter, replayed) = found.ok_or_else(|| no_such(&name, id))?;
    let mut answer = letter_json(&letter);
    answer["replayed"] = json!(replayed);
    if shows.payload {
        let header = |(name, value): &(Arc<str>, Option<Bytes>)| {
            let value = value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
            json!({ "name": &**name, "value": value })
        };
        answer["key"] = shown(letter.key.as_ref());
        answer["value"] = shown(letter.value.as_ref());
        answer["headers"] = letter.headers.iter().map(header).collect();
    }
    Ok(Json(answer))
}

/// How a letter goes back.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    #[serde(default)]
    again: bool,
}

/// The value that a record goes back with: JSON as it is written here, or any bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mended {
    #[serde(default, deserialize_with = "written")]
    value: Option<Box<RawValue>>,
    value_base64: Option<String>,
}

/// Where it is given, also as null.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Mended {
    fn of(body: &[u8]) -> Answer<Option<Bytes>> {
        let wrong = |what: String| Failure(StatusCode::BAD_REQUEST, what);
        if body.is_empty() {
            return Ok(None);
        }
        let mended: Mended =
            serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
        match (mended.value, mended.value_base64) {
            (Some(_), Some(_)) => Err(wrong("give `value` or `value_base64`, not both".to_owned())),
            (Some(value), None) => Ok(Some(Bytes::from(value.get().to_owned()))),
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text);
                bytes.map(Bytes::from).map(Some).map_err(|e| wrong(format!("value_base64: {e}")))
            }
            (None, None) => Ok(None),
        }
    }
}

/// Appends one letter's record to its topic.
async fn replay(
    Extract(app): Shared,
    Path((name, id)): Path<(String, String)>,
    Query(how): Query<How>,
    body: Bytes,
) -> Answer {
    let id: Id = id.parse()?;
    let value = Mended::of(&body)?;
    let connector = Arc::clone(app.connector(&name)?);
    let turn = turn(&app).await?;
    let done = to_its_end(async move {
        let _turn = turn;
        connector.replay_letter(id, value, how.again).await
    });
    done.await?.map(replayed_json).ok_or_else(|| no_such(&name, id))
}

/// Goes on where the client leaves: what was given back must be noted.
async fn to_its_end<T: Send + 'static>(
    replay: impl Future<Output = foldline_api::Result<T>> + Send + 'static,
) -> Answer<T> {
    let ended = tokio::spawn(replay).await;
    let lost = |error: tokio::task::JoinError| {
        Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("it broke off: {error}"))
    };
    Ok(ended.map_err(lost)??)
}

/// Which letters to give back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    reason: String,
}

/// The same of all letters of a reason that were not given back.
async fn replay_all(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(all): Query<All>,
) -> Answer {
    let connector = Arc::clone(app.connector(&name)?);
    let turn = turn(&app).await?;
    let done = to_its_end(async move {
        let _turn = turn;
        connector.replay_letters(&all.reason).await
    });
    Ok(replayed_json(done.await?))
}
