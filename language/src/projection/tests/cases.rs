//! One case per line of the contract, in `cases/*.toml`: handlers, records, rows.

use toml::{Table, Value};

use super::outcomes;

/// What every case has, unless it says otherwise.
const BASE: &str = include_str!("cases/base.toml");

/// The case as a config of its own: the base projection, the case's handlers, the case as a test.
fn config(mut case: Table) -> String {
    let mut projection: Table = BASE.parse().unwrap();
    for name in ["topics", "event_type", "key", "on"] {
        if let Some(own) = case.remove(name) {
            projection.insert(name.to_owned(), own);
        }
    }
    case.entry("filtered").or_insert(Value::Integer(0));
    case.entry("order").or_insert(Value::from("given"));
    projection.insert("tests".to_owned(), Value::Array(vec![Value::Table(case)]));
    let table = |name: &str, inner| Table::from_iter([(name.to_owned(), Value::Table(inner))]);
    toml::to_string(&table("projections", table("p", projection))).unwrap()
}

fn check(text: &str, at_least: usize) {
    let mut cases: Table = text.parse().unwrap();
    let Some(Value::Array(cases)) = cases.remove("case") else { panic!("no cases") };
    assert!(cases.len() >= at_least, "{} cases", cases.len());
    let mut failed = Vec::new();
    for case in cases {
        let Value::Table(case) = case else { panic!("{case}") };
        failed
            .extend(outcomes(&config(case)).iter().filter(|o| !o.passed()).map(|o| o.to_string()));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

macro_rules! tables {
    ($($name:ident: $at_least:literal;)*) => {$(
        #[test]
        fn $name() {
            check(include_str!(concat!("cases/", stringify!($name), ".toml")), $at_least);
        }
    )*};
}

tables! {
    assignments: 17;
    sums_and_extremes: 15;
    lists_and_children: 16;
    matching: 21;
    deletes_and_tombstones: 20;
    for_each: 9;
    types_and_computed_fields: 7;
}
