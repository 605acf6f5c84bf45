//! `POST /topics/{topic}`: records into Kafka, where the config opens the topic.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use foldline_api::producer::NewRecord;
use foldline_language::config::diagnostic::listed;
use serde::Deserialize;

use super::json::Json;
use super::listener::received::Late;
use super::{Answer, App, Failure, Shared};
use crate::ingest::{self, BODY_MAX, Open, Wrong};

/// Seconds until what was not sent may be sent again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The paths of topics.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/topics/{topic}", post(produce))
}

/// Whether a path is one that records are posted to: the ingest token opens no other.
pub(super) fn is_topic(path: &str) -> bool {
    path.strip_prefix("/topics/").is_some_and(|rest| !rest.trim_end_matches('/').contains('/'))
}

/// No parameter is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn produce(
    Extract(app): Shared,
    Path(topic): Path<String>,
    Query(Nothing {}): Query<Nothing>,
    request: Request,
) -> Answer<Response> {
    open(&app, &topic)?;
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        let message = "the body's Content-Type must be application/json";
        return Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let Some(room) = app.ingest.room(announced(&parts.headers)?) else {
        let message = "other bodies take all the room that there is; nothing was sent";
        return Ok(again(Failure(StatusCode::SERVICE_UNAVAILABLE, message.to_owned())));
    };
    let body = read(body).await?;
    // Goes on where the client leaves: what is sent is counted.
    let written = tokio::spawn(async move {
        let _room = room;
        let open = open(&app, &topic)?;
        let records = admitted(open, &body)?;
        Ok::<_, Failure>(open.write(&records).await)
    });
    let lost = |error: tokio::task::JoinError| {
        Failure(StatusCode::GATEWAY_TIMEOUT, format!("unknown: {error}"))
    };
    let ends = written.await.map_err(lost)??;
    let status = StatusCode::from_u16(ends.status()).unwrap_or(StatusCode::GATEWAY_TIMEOUT);
    let answer = (status, Json(ends.json()));
    Ok(if status == StatusCode::SERVICE_UNAVAILABLE {
        again(answer)
    } else {
        answer.into_response()
    })
}

/// An answer that says when to come again.
fn again(answer: impl IntoResponse) -> Response {
    ([(header::RETRY_AFTER, RETRY_AFTER)], answer).into_response()
}

fn open<'a>(app: &'a App, topic: &str) -> Answer<&'a Open> {
    app.ingest.topic(topic).ok_or_else(|| {
        let open = listed(app.ingest.names());
        let open = if open.is_empty() { "none".to_owned() } else { open };
        let message = format!(
            "topic {topic:?} takes no records here: the config opens it by `ingest = true` in \
             [sources.NAME.topics.{topic}]; open are: {open}"
        );
        Failure(StatusCode::NOT_FOUND, message)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn too_large() -> Failure {
    let message = format!("the body has over {BODY_MAX} bytes; nothing was sent");
    Failure(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// The bytes that a body may have, by what its head says.
fn announced(headers: &HeaderMap) -> Answer<usize> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    match length.and_then(|length| length.parse().ok()) {
        Some(length) if length > BODY_MAX => Err(too_large()),
        Some(length) => Ok(length),
        None => Ok(BODY_MAX),
    }
}

async fn read(body: Body) -> Answer<Bytes> {
    let error = match to_bytes(body, BODY_MAX).await {
        Ok(body) => return Ok(body),
        Err(error) => error,
    };
    if has_source::<http_body_util::LengthLimitError>(&error) {
        return Err(too_large());
    }
    let (status, why) = match has_source::<Late>(&error) {
        true => (StatusCode::REQUEST_TIMEOUT, "did not come in time"),
        false => (StatusCode::BAD_REQUEST, "broke off"),
    };
    Err(Failure(status, format!("the body {why}; nothing was sent")))
}

/// Whether an error, or one that it came of, is of this type.
fn has_source<E: std::error::Error + 'static>(error: &axum::Error) -> bool {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<E>())
}

/// The records of a body, each as it is written.
fn admitted(open: &Open, body: &Bytes) -> Answer<Vec<NewRecord>> {
    let wrong = |wrong: Wrong| match wrong {
        Wrong::Body(why) => Failure(StatusCode::BAD_REQUEST, format!("{why}; nothing was sent")),
        Wrong::Record(why) => Failure(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let posted = ingest::records(body).map_err(wrong)?;
    let admit =
        |(at, posted)| open.rules.admit(posted).map_err(|why| wrong(ingest::wrong(at, &why)));
    posted.into_iter().enumerate().map(admit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ingest_token_opens_topics_alone() {
        for (path, is) in [
            ("/topics/orders", true),
            ("/topics/orders/", true),
            ("/topics/a%2Fb", true),
            ("/topics/orders/x", false),
            ("/topics", false),
            ("/connectors/orders/topics", false),
            ("/", false),
        ] {
            assert_eq!(is_topic(path), is, "{path}");
        }
    }

    #[test]
    fn only_json_is_taken() {
        for (kind, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.kafka.json.v2+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(is_json(&headers), taken, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
