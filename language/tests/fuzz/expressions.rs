//! Expressions: parse, compile, evaluate over random events.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::record::Record;
use foldline_api::value::Value;
use foldline_language::converter::{Decoder, Format};
use foldline_language::event::PathSet;
use foldline_language::expr::{Env, Expr, Scope};
use foldline_testkit::Rng;
use foldline_testkit::walk::{Walk, files};

/// Words of the language, and what stands between them.
const DICTIONARY: &[&str] = &[
    "event",
    "event.a",
    "event.list",
    "event['a-b']",
    "state.n",
    "state.price",
    "state.at",
    "state.tags",
    "state.meta",
    "state.day",
    "state.uid",
    "state.raw",
    "exists",
    "item",
    "item.a",
    "child.line",
    "key",
    "headers.x",
    "topic",
    "offset",
    "timestamp",
    "partition",
    "x",
    "1",
    "1.5",
    "2u",
    "'t'",
    "b'\\xff'",
    "r'\\d'",
    "true",
    "null",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'a':",
    ",",
    ".",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "&&",
    "||",
    "!",
    "?",
    ":",
    " in ",
    "has(event.a.b)",
    "size(",
    ".size()",
    ".map(x, ",
    ".filter(x, ",
    ".all(x, ",
    ".exists(x, ",
    ".exists_one(x, ",
    ".sortBy(x, ",
    ".sum()",
    "coalesce(",
    "decimal(",
    "int(",
    "uint(",
    "double(",
    "string(",
    "bytes(",
    "bool(",
    "dyn(",
    "type(",
    "duration('1h')",
    "duration(",
    "timestamp(",
    "timestampMillis(",
    "timestampMicros(",
    "window(",
    "date(",
    ".getHours('Europe/Berlin')",
    ".getFullYear()",
    ".getDayOfWeek()",
    "matches(",
    ".matches('(a+)+$')",
    ".startsWith(",
    ".endsWith(",
    ".contains(",
    ".charAt(",
    ".indexOf(",
    ".lastIndexOf(",
    ".lowerAscii()",
    ".upperAscii()",
    ".replace(",
    ".split(",
    ".join(",
    ".substring(",
    ".trim()",
    ".reverse()",
    "strings.quote(",
    ".format([",
    "'%d %.3f %s %x %e'",
    ".distinct()",
    ".flatten()",
    ".slice(",
    ".first()",
    ".last()",
    ".sort()",
    "lists.range(",
    "math.greatest(",
    "math.least(",
    "math.ceil(",
    "math.floor(",
    "math.round(",
    "math.trunc(",
    "math.abs(",
    "math.sign(",
    "math.sqrt(",
    "math.isNaN(",
    "math.bitAnd(",
    "math.bitShiftLeft(",
    "math.bitNot(",
];

fn columns() -> Vec<(Arc<str>, ColumnType)> {
    [
        ("n", "bigint"),
        ("price", "numeric(12,2)"),
        ("name", "text"),
        ("day", "date"),
        ("clock", "time"),
        ("uid", "uuid"),
        ("at", "timestamptz"),
        ("tags", "text[]"),
        ("meta", "jsonb"),
        ("ratio", "double precision"),
        ("raw", "bytea"),
    ]
    .map(|(name, ty)| (Arc::from(name), ColumnType::parse(ty).unwrap()))
    .to_vec()
}

const STATES: [&[&str]; 2] = [
    &[
        "-9223372036854775808",
        "9999999999.99",
        "\"ann\"",
        "\"2026-03-01\"",
        "\"23:59:59.999999\"",
        "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\"",
        "\"9999-12-31T23:59:59.999999Z\"",
        "[\"a\",null]",
        "{\"a\":{\"b\":[1,2.5]}}",
        "1e300",
        "\"AP8=\"",
    ],
    &["null"; 11],
];

fn state(columns: &[(Arc<str>, ColumnType)], texts: &[&str]) -> Vec<Value> {
    let value = |(text, (_, ty)): (&&str, &(Arc<str>, ColumnType))| {
        ty.coerce(json::parse(text.as_bytes()).unwrap()).unwrap()
    };
    texts.iter().zip(columns).map(value).collect()
}

/// A random JSON value; most objects have the fields that expressions ask for.
pub(super) fn json_value(rng: &mut Rng, depth: u32, out: &mut String) {
    const SCALARS: &[&str] = &[
        "null",
        "true",
        "false",
        "0",
        "-1",
        "7",
        "1.5",
        "-2.345",
        "1e30",
        "1e-30",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "123456789012345678901234567890.5",
        "1e400",
        "\"\"",
        "\"a\"",
        "\"7\"",
        "\"12.50\"",
        "\"2026-03-01T10:15:00Z\"",
        "\"2026-03-01\"",
        "\"10:00\"",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "\"äöü ẞ\"",
        "\"6F1C8A52-94A8-4C1D-9D3E-0C8F0C7B1A01\"",
        "\"AP8=\"",
        "\"1h30m\"",
        "\"%d%s\"",
        "[]",
        "{}",
    ];
    const NAMES: &[&str] = &[
        "a", "b", "c", "list", "id", "type", "lines", "qty", "a-b", "in", "", "line", "sku",
        "email",
    ];
    let pick = |rng: &mut Rng, length: usize| usize::try_from(rng.below(length as u64)).unwrap();
    match rng.below(if depth == 0 { 6 } else { 10 }) {
        0..6 => out.push_str(SCALARS[pick(rng, SCALARS.len())]),
        6 | 7 => {
            out.push('[');
            for at in 0..rng.below(4) {
                out.push_str(if at > 0 { "," } else { "" });
                json_value(rng, depth - 1, out);
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for at in 0..rng.below(6) {
                let comma = if at > 0 { "," } else { "" };
                let _ = write!(out, "{comma}\"{}\":", NAMES[pick(rng, NAMES.len())]);
                json_value(rng, depth - 1, out);
            }
            out.push('}');
        }
    }
}

/// A record with that value, and coordinates that expressions may read.
pub(super) fn record(topic: &str, value: &str) -> Record {
    Record {
        topic: Arc::from(topic),
        partition: 3,
        offset: 41,
        timestamp: Some(1_772_360_100_123),
        key: Some(Bytes::from_static(b"7")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![(Arc::from("x"), Some(Bytes::from_static(b"1"))), (Arc::from("none"), None)],
    }
}

fn answer(
    source: &str,
    columns: &[(Arc<str>, ColumnType)],
    states: &[Vec<Value>],
    rng: &mut Rng,
) -> String {
    let fields: [Arc<str>; 2] = [Arc::from("line"), Arc::from("sku")];
    let scope = Scope {
        columns,
        fields: false,
        state: true,
        item: true,
        child: Some(&fields),
        event: true,
        envelope: None,
    };
    let mut paths = PathSet::default();
    let mut expr = match Expr::compile(source, &scope, &mut paths) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(error.offset <= source.len(), "the place is in the expression");
            return format!("{} {}", error.message, error.to_string().len().min(1));
        }
    };
    let (mask, slots) = paths.mask();
    expr.link(&paths.layout());
    let decoder =
        Decoder { key: Some(Format::Text), value: Format::Json, mask, slots, opener: None };
    let mut shape = String::new();
    for state in states {
        let mut text = String::new();
        json_value(rng, 3, &mut text);
        let Ok(event) = decoder.decode(&record("orders", &text)) else { continue };
        let item = json::parse(br#"{"a":1,"n":null}"#).unwrap();
        let budget = foldline_api::budget::Budget::default();
        let env = Env {
            event: &event,
            state,
            exists: true,
            item: Some(&item),
            child: None,
            budget: &budget,
        };
        match expr.eval(&env) {
            Ok(value) => {
                shape.push_str(value.type_name());
                // What it yields can be written, and fits a column or is refused.
                let _ = json::to_string(&value);
                for (_, ty) in columns {
                    shape.push(if ty.coerce(value.clone()).is_ok() { '+' } else { '-' });
                }
            }
            Err(error) => shape.push_str(&error.message),
        }
        let _ = expr.eval_presence(&env);
    }
    shape
}

fn corpus() -> Vec<String> {
    let mut all = Vec::new();
    for (_, table) in files("language/tests/fixtures/cel", "tsv") {
        let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(rows.filter_map(|row| row.split('\t').next()).map(str::to_owned));
    }
    for (_, config) in files("tests/fixtures", "toml") {
        all.extend(config.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    all.retain(|text| !text.is_empty() && text.len() < 2_000);
    all.sort();
    all.dedup();
    all
}

#[test]
fn no_expression_panics() {
    let columns = columns();
    let states: Vec<Vec<Value>> = STATES.iter().map(|texts| state(&columns, texts)).collect();
    Walk::new("expressions", corpus())
        .go(6_000, DICTIONARY, |source, rng| answer(source, &columns, &states, rng));
}
