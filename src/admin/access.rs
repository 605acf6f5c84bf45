//! Who may ask: the worker's token, as Bearer, or as the password of Basic, which Kafka Connect's clients send.

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldline_api::secret::Secret;

use super::{Failure, Shared, browser, ingest, page};

/// Probes, and what is in every build.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/health", "/openapi.json"];
const WANTED: &str =
    "a bearer token is needed (worker.token), or Basic with any user and the token as its password";

/// With a token configured, everything but the probes, the OpenAPI document and the page's files wants it. Compared in constant
/// time. The ingest token opens the posting of records, and nothing else. Without a token, a request must be addressed to this machine. What a browser sends for a page from
/// elsewhere is refused in both cases, but for a link to the page.
pub(super) async fn authorize(Extract(app): Shared, request: Request, next: Next) -> Response {
    let (document, file) = (page::is_document(&request), page::is_file(&request));
    let path = request.uri().path();
    let open = document || file || OPEN.contains(&path);
    let guarded = app.config.worker.token.is_some();
    if let Err(reason) = browser::check(request.headers(), guarded, document) {
        return Failure(StatusCode::FORBIDDEN, reason).into_response();
    }
    if let Some(token) = app.config.worker.token.as_ref().filter(|_| !open) {
        let given = given(request.headers()).unwrap_or_default();
        let posts = request.method() == Method::POST && ingest::is_topic(path);
        let narrow = app.config.worker.ingest_token.as_ref().filter(|_| posts);
        let fits = |token: &Secret| same(&given, token.expose().as_bytes());
        // Both are compared always, so that the time tells nothing.
        if !(fits(token) | narrow.is_some_and(fits)) {
            return unauthorized(request.headers());
        }
    }
    next.run(request).await
}

/// The token that came with a request.
fn given(headers: &HeaderMap) -> Option<Vec<u8>> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = text.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(value).ok()?;
    let (_, password) = pair.split_at_checked(pair.iter().position(|byte| *byte == b':')? + 1)?;
    Some(password.to_vec())
}

/// A browser that hears of Basic asks its user for a name and a password, over the page's own form: it hears of
/// Bearer only.
fn unauthorized(headers: &HeaderMap) -> Response {
    let browser = headers.contains_key(browser::FETCH_SITE);
    let ways = if browser { "Bearer" } else { "Bearer, Basic realm=\"foldline\"" };
    let mut answer = Failure(StatusCode::UNAUTHORIZED, WANTED.to_owned()).into_response();
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(ways));
    answer
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(authorization: &str) -> Option<String> {
        let value = authorization.parse().unwrap();
        let token = given(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))?;
        Some(String::from_utf8(token).unwrap())
    }

    #[test]
    fn a_token_is_a_bearers_or_basics_password() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (authorization, token) in [
            ("Bearer abc".to_owned(), Some("abc")),
            ("bearer  abc ".to_owned(), Some("abc")),
            (basic("me:abc"), Some("abc")),
            (basic(":a:b"), Some("a:b")),
            (basic("me"), None),
            ("Basic ?".to_owned(), None),
            ("Digest abc".to_owned(), None),
            ("abc".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(of(&authorization).as_deref(), token, "{authorization}");
        }
        assert_eq!(given(&HeaderMap::new()), None);
    }

    #[test]
    fn a_browser_is_not_told_of_basic() {
        let told = |headers: &HeaderMap| {
            let answer = unauthorized(headers);
            answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned()
        };
        let browser = HeaderMap::from_iter([(browser::FETCH_SITE, "same-origin".parse().unwrap())]);
        assert_eq!(told(&browser), "Bearer");
        assert!(told(&HeaderMap::new()).contains("Basic"));
    }
}
