//! The shape of every answer: Kafka Connect's paths with a slash at their end, its body for each error, also for those
//! that no handler gives, and what a client accepts.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::PathAndQuery};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::Failure;

/// What a framework says of a request is short.
const SAID_MAX: usize = 16 << 10;

/// The same routes, with or without a slash at the end of a path.
pub(super) fn without_slash(routes: Router) -> Router {
    Router::new().fallback_service(routes.map_request(|mut request: Request| {
        if let Some(shorter) = shorter(request.uri()) {
            *request.uri_mut() = shorter;
        }
        request
    }))
}

/// The path without the slash at its end; none where it has none, or is only that.
fn shorter(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty())?;
    let rest = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{rest}")).ok()?);
    Uri::from_parts(parts).ok()
}

/// Refuses what the client could not read, and gives each error its body.
pub(super) async fn answers(request: Request, next: Next) -> Response {
    if is_data(request.uri().path()) && !takes_data(request.headers()) {
        let message = "HTTP 406 Not Acceptable: answers here are application/json, of verify and explain application/x-ndjson";
        return Failure(StatusCode::NOT_ACCEPTABLE, message.to_owned()).into_response();
    }
    let answer = next.run(request).await;
    let status = answer.status();
    let failed = status.is_client_error() || status.is_server_error();
    if !failed || is_json(answer.headers()) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let said = to_bytes(body, SAID_MAX).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let reason = status.canonical_reason().unwrap_or("refused").to_owned();
    let (other, body) =
        Failure(status, if said.is_empty() { reason } else { said }).into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(other.headers);
    Response::from_parts(parts, Body::new(body))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// Whether the answer is data, in JSON or lines of it.
fn is_data(path: &str) -> bool {
    ["/connectors", "/connector-plugins", "/admin", "/topics/"]
        .iter()
        .any(|first| path.starts_with(first))
}

/// Whether a client takes JSON. One that names nothing takes anything.
fn takes_data(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::ACCEPT).iter().peekable();
    if named.peek().is_none() {
        return true;
    }
    let ranges = named.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.into_iter().any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused =
            parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        !refused
            && matches!(
                &*kind,
                "*/*" | "application/*" | "application/json" | "application/x-ndjson"
            )
    })
}

/// What is asked of a path that has other methods: where it would change the config, how that is done here.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let message = match (&method, path.as_slice()) {
        (&Method::POST, ["connectors"]) => {
            "the config lives in files: add a [connectors.NAME] table to them and restart the worker".to_owned()
        }
        (&Method::PUT | &Method::PATCH, ["connectors", name, "config"]) => format!(
            "the config lives in files: change [connectors.{name}] in them and restart the worker"
        ),
        (&Method::DELETE, ["connectors", name]) => format!(
            "the config lives in files: take [connectors.{name}] out of them and restart the worker; PUT \
             /connectors/{name}/stop only ends its folding"
        ),
        _ => format!("HTTP 405 Method Not Allowed: {method} {}", uri.path()),
    };
    Failure(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_says_nothing() {
        for (given, without) in [
            ("/connectors/", Some("/connectors")),
            (
                "/connectors/?expand=info&expand=status",
                Some("/connectors?expand=info&expand=status"),
            ),
            ("/connectors/a%2Fb/", Some("/connectors/a%2Fb")),
            ("http://h:1/health/", Some("http://h:1/health")),
            ("/connectors", None),
            ("/", None),
        ] {
            let found = shorter(&given.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), without, "{given}");
        }
    }

    #[test]
    fn json_is_taken_unless_only_something_else_is_named() {
        for (accept, taken) in [
            ("*/*", true),
            ("application/json", true),
            ("text/html, */*;q=0.1", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", true),
            ("text/plain", false),
            ("application/xml", false),
            ("application/json;q=0", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(takes_data(&headers), taken, "{accept}");
        }
        assert!(takes_data(&HeaderMap::new()));
    }
}
