//! What an expression costs: paths and literals by their fast path, beside the same by the general evaluator.
//!
//! `cargo bench -p foldline-language --bench expressions` prints nanoseconds per evaluation: the best of several rounds, as the rest is noise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldline_api::column::ColumnType;
use foldline_api::record::Record;
use foldline_api::value::Value;
use foldline_language::converter::{Decoder, Format};
use foldline_language::event::PathSet;
use foldline_language::expr::{Env, Expr, Scope};

const ROUNDS: u32 = 9;
const EVALUATIONS: u32 = 200_000;

const EVENT: &str = r#"{"id":7,"type":"OrderChanged","price":12.50,"qty":3,"note":null,"ship":{"to":{"city":"Berlin"}},
    "lines":[{"qty":1,"price":2.5},{"qty":2,"price":3},{"qty":3,"price":4.25}]}"#;

/// By the fast path on the left, the same value by the general evaluator on the right.
const PAIRS: &[(&str, &str)] = &[
    ("1", "dyn(1) + event.zero"),
    ("'paid'", "coalesce(event.none, 'paid')"),
    ("event.price", "dyn(event.price)"),
    ("event.ship.to.city", "dyn(event.ship.to.city)"),
    ("state.price", "dyn(state.price)"),
    ("key", "dyn(key)"),
    ("timestamp", "dyn(timestamp)"),
];

/// What has no fast path.
const GENERAL: &[&str] = &[
    "event.qty + 1",
    "event.qty * event.price",
    "event.type == 'OrderChanged' && exists",
    "coalesce(event.note, state.name, 'none')",
    "event.lines.map(l, l.qty * l.price).sum()",
    "event.type.startsWith('Order') && event.type.matches('^[A-Za-z]+$')",
    "window(timestamp, duration('1h'))",
];

fn nanos(source: &str) -> f64 {
    let columns: Vec<(Arc<str>, ColumnType)> = [("price", "numeric(12,2)"), ("name", "text")]
        .map(|(name, ty)| (Arc::from(name), ColumnType::parse(ty).unwrap()))
        .to_vec();
    let scope = Scope { columns: &columns, state: true, event: true, ..Scope::default() };
    let mut paths = PathSet::default();
    let mut expr = Expr::compile(source, &scope, &mut paths).expect(source);
    let (mask, slots) = paths.mask();
    expr.link(&paths.layout());
    let decoder =
        Decoder { key: Some(Format::Text), value: Format::Json, mask, slots, opener: None };
    let text = EVENT.replace("\"id\"", "\"zero\":0,\"id\"");
    let event = decoder
        .decode(&Record {
            topic: Arc::from("orders"),
            partition: 0,
            offset: 1,
            timestamp: Some(1_772_360_100_123),
            key: Some(Bytes::from_static(b"7")),
            value: Some(Bytes::from(text)),
            headers: Vec::new(),
        })
        .unwrap();
    let state = [Value::Decimal("12.50".parse().unwrap()), Value::Null];
    let budget = foldline_api::budget::Budget::unlimited();
    let env = Env {
        event: &event,
        state: &state,
        exists: true,
        item: None,
        child: None,
        budget: &budget,
    };
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..EVALUATIONS {
            black_box(black_box(&expr).eval(black_box(&env)).expect(source));
        }
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e9 / f64::from(EVALUATIONS)
}

fn main() {
    println!(
        "{:>8} {:>8}  nanoseconds by the fast path, by the general evaluator",
        "fast", "general"
    );
    for (fast, general) in PAIRS {
        println!("{:8.1} {:8.1}  {fast}   {general}", nanos(fast), nanos(general));
    }
    for source in GENERAL {
        println!("{:>8} {:8.1}  {source}", "", nanos(source));
    }
}
