//! What Kafka Connect calls plugins: one for each kind of store that this build writes to. Each knows its keys, and what
//! is wrong with a connector that is not in the files yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde::Deserialize;
use serde_json::{Value as Json_, json};

use super::json::Json;
use super::{Answer, App, Failure, Shared, VERSION};
use crate::config::flat::{self, FlatKey, Kind};
use crate::config::{Config, ConnectorConfig, process_env};

const CLASS: &str = "connector.class";
/// What the flat map has beside a connector's own keys: they are in it and are not read.
const SHOWN: [&str; 4] = [CLASS, "name", "topics", "topics.regex"];

/// The paths of plugins.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connector-plugins", get(list))
        .route("/connector-plugins/{plugin}/config", get(config))
        .route("/connector-plugins/{plugin}/config/validate", put(validate))
}

/// The class of a kind of store, in the form of Kafka Connect's.
fn class(kind: Kind) -> String {
    let mut letters = kind.name.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let name: String = first.into_iter().chain(letters).collect();
    format!("foldline.{name}SinkConnector")
}

/// A connector's class, where this build has its store.
pub(super) fn class_of(config: &Config, connector: &ConnectorConfig) -> Option<(String, String)> {
    let store = config.sinks.get(&connector.sink)?.store.name();
    let kind = flat::kinds().find(|kind| kind.name == store)?;
    Some((CLASS.to_owned(), class(kind)))
}

/// The kind that a class names: whole, without what is before its last dot, or without `Connector` too.
fn find(plugin: &str) -> Option<Kind> {
    flat::kinds().find(|kind| {
        let class = class(*kind);
        let short = class.trim_start_matches("foldline.");
        [&class, short, short.trim_end_matches("Connector")].contains(&plugin)
    })
}

fn named(plugin: &str) -> Answer<Kind> {
    let missing = || Failure(StatusCode::NOT_FOUND, format!("Unknown plugin {plugin}."));
    find(plugin).ok_or_else(missing)
}

/// What is left out of the list: nothing, since all of them are connectors.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Which {
    #[serde(default, rename = "connectorsOnly", deserialize_with = "super::commands::boolean")]
    _connectors_only: bool,
}

async fn list(Query(_): Query<Which>) -> Json<Json_> {
    let one = |kind| json!({ "class": class(kind), "type": "sink", "version": VERSION });
    Json(flat::kinds().map(one).collect())
}

async fn config(Path(plugin): Path<String>) -> Answer {
    let keys = flat::keys(named(&plugin)?);
    let all: Vec<Json_> =
        definitions(&keys).into_iter().map(|(_, definition)| definition).collect();
    Ok(Json(json!(all)))
}

/// Each key's name and definition, in Kafka Connect's form.
fn definitions(keys: &[FlatKey]) -> Vec<(String, Json_)> {
    let name = json!({ "type": "string" });
    let own = [
        ("name", "The connector's name", true),
        (CLASS, "The kind of store; the config has it from the sink", false),
    ];
    let own = own.map(|(key, doc, required)| (key.to_owned(), &name, doc, required, None));
    let schemas: Vec<Json_> = keys.iter().map(|key| key.declared.schema()).collect();
    let declared = keys.iter().zip(&schemas).map(|(key, schema)| {
        let of = key.declared;
        (key.name.clone(), schema, of.doc(), of.is_required(), of.default())
    });
    let all = own.into_iter().chain(declared).enumerate();
    all.map(|(order, (name, schema, doc, required, default))| {
        let definition = json!({
            "name": name,
            "type": kind_of(schema),
            "required": required,
            "default_value": default,
            "importance": if required { "HIGH" } else { "MEDIUM" },
            "documentation": format!("{doc}."),
            "group": name.split_once('.').map_or("connector", |(group, _)| group),
            "width": "MEDIUM",
            "display_name": name,
            "dependents": [],
            "order": order + 1,
        });
        (name, definition)
    })
    .collect()
}

/// Kafka's name for what stands there.
fn kind_of(schema: &Json_) -> &'static str {
    let several = schema["anyOf"].as_array().into_iter().flatten();
    let kinds: Vec<&str> =
        std::iter::once(schema).chain(several).filter_map(|one| one["type"].as_str()).collect();
    match kinds.first() {
        Some(&"integer") => "LONG",
        Some(&"boolean") => "BOOLEAN",
        _ => "STRING",
    }
}

/// What may stand there, where that is a list.
fn recommended(schema: &Json_) -> Json_ {
    let several = schema["anyOf"].as_array().into_iter().flatten();
    let listed = std::iter::once(schema).chain(several).find_map(|one| one["enum"].as_array());
    json!(listed.cloned().unwrap_or_default())
}

async fn validate(
    Extract(app): Shared,
    Path(plugin): Path<String>,
    body: Result<axum::Json<BTreeMap<String, Option<String>>>, JsonRejection>,
) -> Answer {
    let axum::Json(given) =
        body.map_err(|error| Failure(super::offsets::refusal(&error), error.body_text()))?;
    let kind = named(&plugin)?;
    let given: BTreeMap<String, String> =
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    if let Some(other) =
        given.get(CLASS).filter(|other| find(other).is_none_or(|k| k.name != kind.name))
    {
        let message =
            format!("Included connector type {other} does not match request type {}", class(kind));
        return Err(Failure(StatusCode::BAD_REQUEST, message));
    }
    let mut errors = problems(&app, kind, &given).await?;
    let keys = flat::keys(kind);
    let mut configs: Vec<Json_> = Vec::new();
    let mut answer = |definition: Json_, allowed: Json_| {
        let name = definition["name"].as_str().unwrap_or_default().to_owned();
        let (mine, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut errors).into_iter().partition(|(key, _)| *key == name);
        errors = rest;
        let told: Vec<String> = mine.into_iter().map(|(_, message)| message).collect();
        let value =
            given.get(&name).cloned().map_or(definition["default_value"].clone(), Json_::from);
        configs.push(json!({
            "definition": definition,
            "value": { "name": name, "value": value, "recommended_values": allowed, "errors": told, "visible": true },
        }));
        told.len()
    };
    let mut count = 0;
    for (name, definition) in definitions(&keys) {
        let key = keys.iter().find(|key| key.name == name);
        let allowed = key.map_or_else(|| json!([]), |key| recommended(&key.declared.schema()));
        count += answer(definition, allowed);
    }
    // What no key of it is called.
    for (key, message) in errors {
        count += 1;
        let definition = json!({
            "name": key, "type": "STRING", "required": false, "default_value": null, "importance": "LOW",
            "documentation": "", "group": "connector", "width": "MEDIUM", "display_name": key, "dependents": [],
            "order": -1,
        });
        configs.push(json!({
            "definition": definition,
            "value": { "name": key, "value": given.get(&key), "recommended_values": [], "errors": [message], "visible": true },
        }));
    }
    let groups = ["connector", "batch", "errors"];
    Ok(Json(
        json!({ "name": class(kind), "error_count": count, "groups": groups, "configs": configs }),
    ))
}

/// What is wrong with a connector beside what the files say now, by key.
async fn problems(
    app: &App,
    kind: Kind,
    given: &BTreeMap<String, String>,
) -> Answer<Vec<(String, String)>> {
    let Some(name) = given.get("name").cloned() else {
        let message = "Missing required configuration \"name\" which has no default value.";
        return Ok(vec![("name".to_owned(), message.to_owned())]);
    };
    let own = given.iter().filter(|(key, _)| !SHOWN.contains(&key.as_str()));
    let own: BTreeMap<String, String> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    let path = app.config.path.clone();
    let checked = tokio::task::spawn_blocking(move || {
        flat::check((&path, &process_env()), kind, &name, &own)
    });
    let failed = |message: String| Failure(StatusCode::INTERNAL_SERVER_ERROR, message);
    let found = checked.await.map_err(|error| failed(error.to_string()))?;
    found.map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        failed(format!("the config's files cannot be read: {first}"))
    })
}
