//! One expression over one event, as text: for the tests' tables, the page's too.

use std::sync::Arc;

use foldline_api::budget::{Budget, Left};
use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::value::Value;

use super::functions;
use super::names::VARIABLES;
use super::{Env, Expr, ExprError, Scope};
use crate::event::{Event, Mask, PathSet};

/// Every name that the language gives a meaning to: functions, variables, macros.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let macros =
        ["coalesce", "has", "all", "exists", "exists_one", "existsOne", "map", "filter", "sortBy"];
    functions::names().chain(VARIABLES).chain(macros)
}

const KEY: &str = r#"{"id":7}"#;

pub(crate) fn columns() -> Vec<(Arc<str>, ColumnType)> {
    let ty = |name: &str| ColumnType::parse(name).unwrap();
    [
        ("id", ty("bigint")),
        ("price", ty("numeric(12,2)")),
        ("name", ty("text")),
        ("day", ty("date")),
        ("at", ty("time")),
        ("uid", ty("uuid")),
        ("seen", ty("timestamptz")),
        ("tags", ty("text[]")),
        ("meta", ty("jsonb")),
        ("ratio", ty("double precision")),
        ("raw", ty("bytea")),
        ("empty", ty("text")),
    ]
    .map(|(name, ty)| (Arc::from(name), ty))
    .to_vec()
}

fn state() -> Vec<Value> {
    let texts = [
        "5",
        "12.5",
        "\"ann\"",
        "\"2026-03-01\"",
        "\"10:20:30\"",
        "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\"",
        "\"2026-03-01T10:15:00Z\"",
        "[\"a\",\"b\"]",
        "{\"a\":{\"b\":1}}",
        "0.5",
        "\"AP8=\"",
        "null",
    ];
    let columns = columns();
    let coerced = texts
        .iter()
        .zip(&columns)
        .map(|(text, (_, ty))| ty.coerce(json::parse(text.as_bytes()).unwrap()).unwrap());
    coerced.collect()
}

fn child_fields() -> Vec<Arc<str>> {
    vec![Arc::from("line"), Arc::from("sku")]
}

fn pick(value: &Value, mask: &Mask, slots: &mut [Option<Value>]) {
    match mask {
        Mask::Whole(slot) => slots[*slot] = Some(value.clone()),
        Mask::Fields(fields) => {
            for (name, mask) in fields {
                if let Value::Map(map) = value
                    && let Some(value) = map.get(name)
                {
                    pick(value, mask, slots);
                }
            }
        }
    }
}

/// A record whose event is `text`, decoded as a converter does it.
fn event(text: &str, paths: &PathSet) -> Event {
    let (mask, count) = paths.mask();
    let mut slots = vec![None; count];
    let value = json::parse(text.as_bytes()).unwrap();
    pick(&value, &mask, &mut slots);
    let header = |name: &str, bytes: &'static [u8]| {
        (Arc::from(name), Some(bytes::Bytes::from_static(bytes)))
    };
    Event {
        slots: slots.into(),
        name: None,
        kind: crate::event::Kind::Plain,
        of_key: false,
        unavailable: Vec::new(),
        no_object: (!matches!(value, Value::Map(_))).then(|| value.type_name()),
        key: json::parse(KEY.as_bytes()).unwrap(),
        headers: vec![
            header("x", b"1"),
            header("x", b"2"),
            header("bin", b"\xff"),
            (Arc::from("none"), None),
        ],
        topic: Arc::from("orders"),
        partition: 3,
        offset: 41,
        timestamp: Some(1_772_360_100_123),
        left: Left::default(),
    }
}

pub(crate) fn compile(source: &str) -> Result<(Expr, PathSet), ExprError> {
    let columns = columns();
    let fields = child_fields();
    let scope = Scope {
        columns: &columns,
        state: true,
        fields: false,
        item: true,
        child: Some(&fields),
        event: true,
        envelope: None,
    };
    let mut paths = PathSet::default();
    let mut expr = Expr::compile(source, &scope, &mut paths)?;
    expr.link(&paths.layout());
    Ok((expr, paths))
}

pub(crate) fn with_env<T>(text: &str, paths: &PathSet, run: impl FnOnce(&Env<'_>) -> T) -> T {
    let event = event(text, paths);
    let item = json::parse(br#"{"a":1,"n":null}"#).unwrap();
    let child = json::parse(br#"{"line":1,"sku":null}"#).unwrap();
    let state = state();
    run(&Env {
        event: &event,
        state: &state,
        exists: true,
        item: Some(&item),
        child: Some(&child),
        budget: &Budget::default(),
    })
}

/// What `source` yields over the event: JSON, `error: …` when it has no result there, or `compile: …`.
pub(crate) fn outcome(source: &str, event: &str) -> String {
    let (expr, paths) = match compile(source) {
        Ok(compiled) => compiled,
        Err(error) => return format!("compile: {}", error.message),
    };
    with_env(event, &paths, |env| match expr.eval(env) {
        Ok(Value::Double(double)) => format!("{double:?}"),
        Ok(value) => json::to_string(&value),
        Err(error) => format!("error: {error}"),
    })
}

pub(crate) fn agrees(got: &str, wanted: &str) -> bool {
    match wanted.split_once(": ") {
        Some(("error" | "compile", text)) if !wanted.starts_with(['"', '{']) => got
            .split_once(": ")
            .is_some_and(|(kind, message)| wanted.starts_with(kind) && message.contains(text)),
        _ => got == wanted,
    }
}
