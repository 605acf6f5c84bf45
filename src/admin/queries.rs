//! Rows asked for by what they hold, and reads that wait for what was written.

mod asked;
mod cursor;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use foldline_api::model::Model;
use foldline_api::query::{Lookup, Queries, RowQuery, leading, page};
use foldline_api::{Error, sink::Target};
use serde_json::{Value as Json_, json};
use tokio::sync::Semaphore;

use self::asked::Asked;
pub(super) use self::wait::{Wait, until_durable};
use super::json::Json;
use super::{Answer, Failure, Shared};
use crate::explain;

/// Pages that are gathered at a time, each of [`BYTES_MAX`] about; others wait.
const PAGES_MAX: usize = 4;
/// Reads that wait for positions at a time.
const WAITS_MAX: usize = 64;
/// A page ends behind the row that makes it so large.
const BYTES_MAX: usize = 4 << 20;

/// The turns of readers, of the whole worker.
pub(crate) struct Turns {
    pages: Semaphore,
    waits: Semaphore,
}

impl Turns {
    pub(crate) fn new() -> Arc<Self> {
        let (pages, waits) = (Semaphore::new(PAGES_MAX), Semaphore::new(WAITS_MAX));
        Arc::new(Turns { pages, waits })
    }
}

/// What became of a read that the store was asked for.
pub(super) async fn in_time<T>(
    time: Duration,
    read: impl Future<Output = foldline_api::Result<T>>,
) -> Answer<T> {
    let late = || {
        let message = format!(
            "no answer within {} s (worker.query_time): ask for less, or by a field that has an index",
            time.as_secs_f64()
        );
        Failure(StatusCode::GATEWAY_TIMEOUT, message)
    };
    // The store ends it by itself first, and keeps its connection.
    match tokio::time::timeout(time + Duration::from_secs(5), read).await {
        Err(_) => Err(late()),
        Ok(Err(error)) if error.is_too_much() => Err(late()),
        Ok(read) => Ok(read?),
    }
}

/// What reads the rows of a connector's store.
pub(super) fn queries_of<'t>(target: &'t dyn Target, name: &str) -> Answer<&'t dyn Queries> {
    target.queries().ok_or_else(|| {
        Failure(StatusCode::BAD_REQUEST, format!(
            "{name} writes a state topic, which answers no queries: read the topic, or run its projection into \
             PostgreSQL, Elasticsearch or SQLite too"
        ))
    })
}

/// A page of rows.
pub(super) async fn rows(
    Extract(app): Shared,
    Path(name): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Answer {
    let connector = app.connector(&name)?;
    let parts = connector.parts()?;
    let (model, worker) = (parts.projection.model(), &app.config.worker);
    let asked = Asked::read(model, &pairs, worker.query_rows)
        .map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))?;
    let queries = queries_of(&*parts.target, &name)?;
    let query = RowQuery {
        filter: asked.filter,
        search: asked.search,
        order: asked.order,
        max: asked.limit,
        bytes_max: BYTES_MAX,
        time: worker.query_time,
    };
    check(&query, (model, queries), &name, asked.scan)?;
    let print = cursor::print(&name, &query);
    let after = asked.cursor.map(|text| cursor::read(&text, &print, model, &query.order));
    let after = after.transpose().map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))?;
    until_durable(&app, connector, &asked.wait).await?;
    let read = async {
        let turn = app.turns.pages.acquire().await;
        let _turn = turn.map_err(|error| Error::retriable(error.to_string()))?;
        if !asked.wait.is_empty() {
            queries.refresh().await?;
        }
        page(queries, model, &query, after.as_deref()).await
    };
    let page = in_time(worker.query_time, read).await?;
    let next = page.after.map(|values| cursor::write(&print, &values)).transpose();
    let next = next.map_err(|reason| Failure(StatusCode::BAD_REQUEST, reason))?;
    let row = |row: &foldline_api::model::Row| {
        let key = model.key_of(row).to_string();
        json!({ "key": key, "row": explain::object(model, Some(row)) })
    };
    let rows: Vec<Json_> = page.rows.iter().map(row).collect();
    Ok(Json(json!({ "rows": rows, "cursor": next })))
}

/// Refuses what no index leads to, unless all rows may be looked at, and a search where there is none.
fn check(
    query: &RowQuery,
    (model, queries): (&Model, &dyn Queries),
    name: &str,
    scan: bool,
) -> Answer<()> {
    let refused = |message| Err(Failure(StatusCode::BAD_REQUEST, message));
    if query.search.is_some() && !queries.searches() {
        return refused(format!(
            "q is Elasticsearch's query string, and {name} writes into another store: say it by filter"
        ));
    }
    if scan || query.is_indexed(model, queries) {
        return Ok(());
    }
    let found_by = |how| {
        let served = leading(model).into_iter().filter_map(|at| model.columns.get(at));
        let names: Vec<&str> =
            served.filter(|c| queries.serves(&c.ty, how)).map(|c| &*c.name).collect();
        names.join(", ")
    };
    refused(format!(
        "no index leads to these rows: compare one of {} by == or in, or one of {} by <, <=, > or >= (or sort by it \
         alone), in a condition that all rows meet; give a field `index = true`; or add scan=true, which may look at \
         every row",
        found_by(Lookup::Equal),
        match found_by(Lookup::Order) {
            none if none.is_empty() => "none".to_owned(),
            names => names,
        },
    ))
}
