//! The page that a browser is shown: files that the binary holds, and what a browser is told of them.
//!
//! They hold no data, so they are open: what they show they ask of REST, with the token that the user enters.

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Failure;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Nothing but these files and REST's answers, nothing inline, and no text that becomes markup or code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const DOCUMENT: &str = include_str!("page/index.html");

/// Name, type and text of what the document needs.
const FILES: [(&str, &str, &str); 21] = [
    ("page.css", CSS, include_str!("page/page.css")),
    ("icon.svg", SVG, include_str!("page/icon.svg")),
    ("theme.js", JS, include_str!("page/theme.js")),
    ("main.js", JS, include_str!("page/main.js")),
    ("rest.js", JS, include_str!("page/rest.js")),
    ("json.js", JS, include_str!("page/json.js")),
    ("polls.js", JS, include_str!("page/polls.js")),
    ("metrics.js", JS, include_str!("page/metrics.js")),
    ("verdict.js", JS, include_str!("page/verdict.js")),
    ("words.js", JS, include_str!("page/words.js")),
    ("dom.js", JS, include_str!("page/dom.js")),
    ("sparkline.js", JS, include_str!("page/sparkline.js")),
    ("dialog.js", JS, include_str!("page/dialog.js")),
    ("token.js", JS, include_str!("page/token.js")),
    ("order.js", JS, include_str!("page/order.js")),
    ("figures.js", JS, include_str!("page/figures.js")),
    ("overview.js", JS, include_str!("page/overview.js")),
    ("connector.js", JS, include_str!("page/connector.js")),
    ("rebuild.js", JS, include_str!("page/rebuild.js")),
    ("parked.js", JS, include_str!("page/parked.js")),
    ("row.js", JS, include_str!("page/row.js")),
];

/// The paths of the files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/page/{file}", get(file))
}

/// Whether the page itself is asked for, as a link or an address bar does.
pub(super) fn is_document(request: &Request) -> bool {
    is_read(request) && request.uri().path() == "/" && wants_html(request.headers())
}

/// Whether one of the page's files is asked for.
pub(super) fn is_file(request: &Request) -> bool {
    is_read(request) && request.uri().path().starts_with("/page/")
}

fn is_read(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

/// Whether HTML is named among what the client takes, and JSON is not named as better. A browser names it;
/// `*/*`, which scripts send, does not.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    let ranges: Vec<&str> = accepted
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let quality = |wanted: &str| {
        let range = |range: &&str| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
            let weight = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(Some(1.0), |weight| weight.parse().ok());
            weight.filter(|_| named)
        };
        ranges.iter().filter_map(range).fold(0.0_f32, f32::max)
    };
    let html = quality("text/html");
    html > 0.0 && html >= quality("application/json")
}

/// The page.
pub(super) fn document() -> Response {
    answer(HTML, DOCUMENT)
}

async fn file(Path(name): Path<String>) -> Result<Response, Failure> {
    let found = FILES.iter().find(|(file, ..)| *file == name);
    let (_, kind, text) =
        found.ok_or_else(|| Failure(StatusCode::NOT_FOUND, "no such path".to_owned()))?;
    Ok(answer(kind, text))
}

fn answer(kind: &'static str, text: &'static str) -> Response {
    let told = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        // Another version of the worker brings other files.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
    ];
    (told, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 100_000;

    #[test]
    fn html_is_for_who_names_it() {
        for (accept, html) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("text/html", true),
            ("Text/HTML; charset=utf-8", true),
            ("application/json;q=0.5, text/html", true),
            ("application/json, text/html;q=0.5", false),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("application/json", false),
            ("text/*", false),
            ("*/*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(wants_html(&headers), html, "{accept}");
        }
        assert!(!wants_html(&HeaderMap::new()));
    }

    fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES.iter().map(|(name, _, text)| (*name, *text)).chain([("index.html", DOCUMENT)])
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        let bytes: usize = all().map(|(_, text)| text.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes} bytes");
        for (name, text) in all() {
            let namespace = "http://www.w3.org/2000/svg";
            let text = text.replace(namespace, "");
            for elsewhere in ["http:", "https:", "//cdn", "@import", "url("] {
                assert!(!text.contains(elsewhere), "{name} has {elsewhere}");
            }
        }
    }

    #[test]
    fn no_text_becomes_markup_or_code() {
        for (name, text) in all() {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "style=",
                "onclick=",
                "javascript:",
            ] {
                assert!(!text.contains(sink), "{name} has {sink}");
            }
        }
    }

    /// What is imported is a file of the page, and each file is in the directory and in the list.
    #[test]
    fn each_file_is_served() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        let mut found: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort_unstable();
        let mut served: Vec<&str> = all().map(|(name, _)| name).collect();
        served.sort_unstable();
        assert_eq!(found, served);
        for (name, text) in all() {
            for imported in text.lines().filter_map(|line| line.split_once(" from './")) {
                let imported = imported.1.trim_end_matches("';");
                assert!(served.contains(&imported), "{name} imports {imported}");
            }
        }
    }
}
