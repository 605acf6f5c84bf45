//! The OpenAPI document: what clients are made from, and what the answers are held to.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// Written by hand; tests hold it to the routes and to the page of REST, and the answers to it.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// The document's path.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}
