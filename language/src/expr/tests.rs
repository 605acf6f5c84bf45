//! Expressions by table, and what their errors say.

mod bounds;

use foldline_api::json;
use foldline_api::value::Value;
use proptest::prelude::*;
use std::fmt::Write as _;

use super::table::{agrees, columns, compile, outcome, with_env};
use super::*;
use crate::event::PathSet;

/// Runs a table: expression, event and what is expected, with tabs between; `#` starts a remark.
fn run_table(name: &str, table: &str, least: usize) {
    let mut wrong = String::new();
    let mut rows = 0;
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').filter(|field| !field.is_empty()).collect();
        let (source, event, wanted) = match fields.as_slice() {
            [source, wanted] => (source, "{}", wanted),
            [source, event, wanted] => (source, *event, wanted),
            _ => panic!("{name}: {line:?} has {} fields", fields.len()),
        };
        rows += 1;
        let got = outcome(source, event);
        if !agrees(&got, wanted) {
            let _ = writeln!(wrong, "{source}\n  over {event}\n  wanted {wanted}\n  got    {got}");
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{wrong}");
    assert!(rows >= least, "{name} holds only {rows} rows");
}

macro_rules! tables {
    ($($test:ident: $file:literal, $least:literal;)*) => {$(
        #[test]
        fn $test() {
            run_table($file, include_str!(concat!("../../tests/fixtures/cel/", $file)), $least);
        }
    )*};
}

tables! {
    foldline_expressions: "foldline.tsv", 150;
    conformance_of_the_core: "core.tsv", 100;
    conformance_of_strings: "strings.tsv", 80;
    conformance_of_lists_and_macros: "lists.tsv", 60;
    conformance_of_math: "math.tsv", 60;
    conformance_of_time: "time.tsv", 50;
    differences_from_cel: "differences.tsv", 20;
}

#[test]
fn numbers_mix_on_both_sides_of_every_operator() {
    let same: [(&str, &[&str]); 3] = [
        ("6", &["6", "6.0", "double(6)"]),
        ("4", &["4", "4.00", "double(4)"]),
        ("0", &["0", "0.0"]),
    ];
    let [(_, sixes), (_, fours), _] = same;
    for six in sixes {
        for four in fours {
            for (op, wanted) in [
                ("+", "10"),
                ("-", "2"),
                ("*", "24"),
                ("==", "false"),
                ("!=", "true"),
                ("<", "false"),
                ("<=", "false"),
                (">", "true"),
                (">=", "true"),
            ] {
                let source = format!("{six} {op} {four} == {wanted}");
                let source = match wanted {
                    "true" | "false" => format!("({six} {op} {four}) == {wanted}"),
                    _ => source,
                };
                assert_eq!(outcome(&source, "{}"), "true", "{source}");
            }
            assert_eq!(outcome(&format!("{six} in [1, {six}]"), "{}"), "true");
            assert_eq!(outcome(&format!("{six} == {six} && !({six} == {four})"), "{}"), "true");
            assert_eq!(outcome(&format!("[{four}] == [4]"), "{}"), "true");
            assert_eq!(outcome(&format!("{{'a': {four}}} == {{'a': 4.0}}"), "{}"), "true");
        }
    }
    for (left, right) in [("7", "2.0"), ("7.0", "2"), ("7.0", "2.0")] {
        assert_eq!(outcome(&format!("{left} / {right} == 3.5"), "{}"), "true");
        assert_eq!(outcome(&format!("{left} % {right} == 1"), "{}"), "true");
    }
}

#[test]
fn a_path_tells_absent_from_null() {
    let presence = |source: &str, event: &str| {
        let (expr, paths) = compile(source).unwrap();
        with_env(event, &paths, |env| {
            expr.eval_presence(env).map(|v| v.map(|v| json::to_string(&v)))
        })
    };
    let some = |text: &str| Ok(Some(text.to_owned()));
    for source in ["event.a.b", "event.a['b']", "event['a'].b", "event.list[0].b"] {
        assert_eq!(presence(source, "{}"), Ok(None), "{source}");
        let null = r#"{"a":{"b":null},"list":[{"b":null}]}"#;
        assert_eq!(presence(source, null), some("null"), "{source}");
    }
    assert_eq!(presence("event.a.b", r#"{"a":3}"#), Ok(None));
    assert_eq!(presence("event", "{}"), some("{}"));
    assert_eq!(presence("item.a", "{}"), some("1"));
    assert_eq!(presence("item.n", "{}"), some("null"));
    assert_eq!(presence("item.none", "{}"), Ok(None));
    assert_eq!(presence("key.id", "{}"), some("7"));
    assert_eq!(presence("key.none", "{}"), Ok(None));
    assert_eq!(presence("headers['none-such']", "{}"), Ok(None));
    assert_eq!(presence("state.empty", "{}"), some("null"));
    assert_eq!(presence("coalesce(event.a)", "{}"), some("null"));
    assert_eq!(presence("3", "{}"), some("3"));
}

#[test]
fn what_an_expression_reads_is_known() {
    let (expr, _) =
        compile("event.a.b + state.id + item.x + state.price + event['ship-to'] + state.id")
            .unwrap();
    assert!(expr.reads_state() && expr.reads_event() && expr.reads_item());
    assert!(!expr.reads_record() && !expr.reads_child() && !expr.is_path());
    assert_eq!(expr.columns_read(), [0, 1]);
    assert_eq!(expr.event_paths(), ["event.a.b", "event['ship-to']"]);
    for path in [
        "event",
        "event.a",
        "event['a']['b-c']",
        "state.id",
        "item.a",
        "key",
        "key.a",
        "timestamp",
        "headers.x",
        "event.a[0]",
    ] {
        assert!(compile(path).unwrap().0.is_path(), "{path}");
    }
    for other in ["1", "event.a + 1", "size(event.a)", "event.a[event.b]", "exists"] {
        assert!(!compile(other).unwrap().0.is_path(), "{other}");
    }
    assert!(compile("key").unwrap().0.is_record_key());
    assert!(!compile("key.id").unwrap().0.is_record_key());
    assert!(compile("exists").unwrap().0.reads_state());
    assert!(compile("offset").unwrap().0.reads_record());
    assert_eq!(compile("2 * 3").unwrap().0.constant_value(), Some(&Value::Int(6)));
    assert_eq!(Expr::constant(Value::from("a")).source(), "\"a\"");
}

#[test]
fn fields_of_the_event_need_no_source() {
    let mut paths = PathSet::default();
    let mut expr = Expr::path_of_event("ship-to", &mut paths);
    expr.link(&paths.layout());
    assert_eq!(expr.source(), "event['ship-to']");
    assert!(expr.is_path());
    let value = with_env(r#"{"ship-to":"x"}"#, &paths, |env| expr.eval(env));
    assert_eq!(value, Ok(Value::from("x")));
}

#[test]
fn paths_share_slots_with_their_prefix() {
    let columns = columns();
    let scope = Scope { columns: &columns, event: true, ..Scope::default() };
    let mut paths = PathSet::default();
    let mut exprs: Vec<Expr> = ["event.a.b", "event.a", "event.c", "has(event.a.x)"]
        .iter()
        .map(|source| Expr::compile(source, &scope, &mut paths).unwrap())
        .collect();
    assert_eq!(paths.mask().1, 2);
    for expr in &mut exprs {
        expr.link(&paths.layout());
    }
    let got: Vec<String> = with_env(r#"{"a":{"b":1},"c":2}"#, &paths, |env| {
        exprs.iter().map(|expr| json::to_string(&expr.eval(env).unwrap())).collect()
    });
    assert_eq!(got, ["1", r#"{"b":1}"#, "2", "false"]);
}

#[test]
fn an_expression_that_is_not_linked_fails() {
    let scope = Scope { event: true, ..Scope::default() };
    let expr = Expr::compile("event.a", &scope, &mut PathSet::default()).unwrap();
    let result = with_env("{}", &PathSet::default(), |env| expr.eval(env));
    assert!(result.unwrap_err().message.contains("not linked"));
}

#[test]
fn scopes_say_what_may_be_read() {
    let columns = columns();
    let compile = |source: &str, scope: Scope<'_>| {
        Expr::compile(source, &scope, &mut PathSet::default()).map_err(|error| error.to_string())
    };
    let computed = Scope { columns: &columns, state: true, ..Scope::default() };
    assert!(compile("state.price * 2", computed).is_ok());
    for source in ["event.a", "key", "timestamp", "headers['x']", "'a' in event"] {
        let error = compile(source, computed).unwrap_err();
        assert!(
            error.contains("cannot be read here") && error.contains("state, exists"),
            "{error}"
        );
    }
    let key = Scope { event: true, ..Scope::default() };
    assert!(compile("state.id", key).unwrap_err().contains("cannot be read here"));
    assert!(compile("exists", key).unwrap_err().contains("cannot be read here"));
    assert!(compile("item.a", key).unwrap_err().contains("for_each"));
    assert!(compile("child.a", key).unwrap_err().contains("put"));
    assert!(compile("envelope.before.id", key).unwrap_err().contains("has one"));
    assert!(compile("paid + 1", Scope::default()).unwrap_err().contains("only values"));
}

#[test]
fn errors_show_the_place_and_the_corrected_line() {
    for (source, parts) in [
        ("paid", &["unknown variable `paid`", "\"'paid'\""][..]),
        ("order placed", &["these words", "\"'order placed'\""]),
        ("es-orders", &["unknown variable `es`", "\"'es-orders'\""]),
        ("event.order-id", &["`order-id` is a subtraction", "event['order-id']", "     ^^^^^^^^^"]),
        ("event.routing-key", &["event['routing-key']", "with spaces"]),
        ("string", &["unknown variable `string`", "\"'string'\""]),
        ("event.a == True", &["did you mean event.a == true ?"]),
        ("event.a == None", &["did you mean event.a == null ?"]),
        ("event.a.order-line-id == 3", &["did you mean event.a['order-line-id'] == 3 ?"]),
        ("event.in", &["CEL's own", "event['in']"]),
        ("event.a.true > 1", &["event.a['true'] > 1"]),
        ("event.a = 1", &["equal is `==`", "did you mean event.a == 1 ?"]),
        ("event.a and event.b", &["and is `&&`", "event.a && event.b"]),
        ("event.a === 1", &["equal is `==`"]),
        ("evnt.id", &["unknown variable `evnt`", "did you mean event.id ?"]),
        ("state.prize", &["no column `prize`", "did you mean state.price ?", "          ^^^^^"]),
        ("state.zzzzzzz", &["columns are: id, price"]),
        ("state['prize']", &["no column `prize`"]),
        ("child.skew", &["`child` has no field `skew`"]),
        ("price * 2", &["of the row it is state.price, of the event event.price"]),
        ("name", &["state.name", "the text itself is \"'name'\""]),
        ("event.type == Placed", &["a text is written 'Placed'"]),
        ("event.a || 0", &["`||` is for true and false, not an integer", "coalesce"]),
        ("2026-01-01", &["a date is no expression", "\"'2026-01-01'\""]),
        ("in-transit", &["\"'in-transit'\""]),
        ("event.a ?? 0", &["coalesce(event.a, event.b)"]),
        ("event.a <> 1", &["did you mean event.a != 1 ?"]),
        ("event.a is null", &["did you mean event.a == null ?"]),
        ("len(event.a)", &["write size(x)"]),
        ("sum(event.a)", &["write x.sum()"]),
        ("state", &["column by column"]),
        ("event.a.startWith('x')", &["unknown function `startWith`", "did you mean startsWith?"]),
        ("now()", &["no clock and no chance"]),
        ("startsWith(event.a, 'x')", &["write x.startsWith(...)"]),
        ("event.a.int()", &["write int(x)"]),
        ("size()", &["size does not take 0 arguments"]),
        ("event.a.map(1, 2)", &["names its variable"]),
        ("event.a.map(x)", &["map is a macro over a list"]),
        ("has(event['a'])", &["has() takes a path", "'ship-to' in event"]),
        ("9223372036854775808", &["does not fit 64 bits", "decimal('9223372036854775808')"]),
        ("1 +", &["ends too early"]),
        ("true ? false ? 1 : 2 : 3", &["parentheses"]),
        ("(1 + 2", &["ends too early"]),
        ("1 + + 2", &["`+` is unexpected here", "    1 + + 2\n        ^"]),
        ("'abc", &["not closed"]),
        ("", &["empty"]),
        ("event.a &  1", &["and is `&&`"]),
        ("€", &["only inside a text"]),
        ("duration('1d')", &["a day is 24h"]),
        ("timestamp('yesterday')", &["RFC 3339"]),
        ("event.a.matches('(')", &["no regular expression"]),
        ("date(timestamp, 'Europe/Berlim')", &["no time zone"]),
        ("window(timestamp, duration('0s'))", &["longer than nothing"]),
        ("{1: 2}", &["a key is a text", "an object's key is a text"]),
        ("Foo{a: 1}", &["no message type Foo"]),
        ("let", &["CEL reserves"]),
        ("\n  event.a +\n  bad", &["(line 3, column 3)", "    ^^^"]),
    ] {
        let error = compile(source).map(|_| ()).unwrap_err().to_string();
        let all = if source == "{1: 2}" { &parts[1..] } else { parts };
        for part in all {
            assert!(error.contains(part), "{source:?} lacks {part:?} in:\n{error}");
        }
    }
}

#[test]
fn a_record_without_a_timestamp_has_null_and_one_in_microseconds_has_none() {
    for source in ["timestamp", "[timestamp][0]"] {
        let (expr, paths) = compile(source).unwrap();
        let value = |timestamp: Option<i64>| {
            with_env("{}", &paths, |env| {
                let event = Event { timestamp, ..env.event.clone() };
                expr.eval(&Env { event: &event, ..*env }).map_err(|error| error.message)
            })
        };
        assert_eq!(value(None), Ok(Value::Null));
        let moment = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(value(Some(1_767_225_600_000)), Ok(Value::Timestamp(moment)));
        let error = value(Some(1_767_225_600_000_000)).unwrap_err();
        assert!(error.contains("years 1 to 9999") && error.contains("microseconds"), "{error}");
    }
}

#[test]
fn evaluation_errors_name_types_and_no_values() {
    for (source, event, wanted) in [
        ("event.a + 1", r#"{"a":"secret"}"#, "`+` does not take (a text, an integer)"),
        ("event.a + 1", "{}", "`+` does not take (null, an integer)"),
        ("int(event.a)", r#"{"a":"secret"}"#, "`int`: the text is no 64-bit integer"),
        ("event.a ? 1 : 2", r#"{"a":"secret"}"#, "`? :` is for true and false, not a text"),
        ("event.a.map(x, x)", r#"{"a":"secret"}"#, "`map` is for lists and objects, not a text"),
        ("event.a.matches('x')", "{}", "`matches` is for texts, not null"),
        ("size(event.a)", "{}", "`size` does not take (null)"),
        ("event.a[event.b]", r#"{"a":[1],"b":true}"#, "`[]` does not take (a list, a boolean)"),
    ] {
        assert_eq!(outcome(source, event), format!("error: {wanted}"), "{source}");
    }
    assert!(Expr::as_bool(&Value::Null).unwrap_err().message.contains("not null"));
    assert!(Expr::as_bool(&Value::Int(1)).is_err());
    assert_eq!(Expr::as_bool(&Value::Bool(true)), Ok(true));
}

#[test]
fn an_expression_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + fmt::Debug>(_: &T) {}
    let (expr, _) = compile("event.a").unwrap();
    shared(&expr);
    assert_eq!(format!("{expr:?}"), "Expr(\"event.a\")");
}

/// Tokens that make up expressions, and some that do not.
const SOUP: &[&str] = &[
    "event",
    "state",
    ".a",
    ".price",
    "['x-y']",
    "[0]",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'a':",
    ",",
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
    "1",
    "1.5",
    "0x1f",
    "2u",
    "1e400",
    "9223372036854775807",
    "'text'",
    "b'\\x00'",
    "r'\\d'",
    "'''t'''",
    "\"",
    "'",
    "`a b`",
    "true",
    "null",
    "has(",
    "has(event.a)",
    ".map(x, ",
    ".filter(x,",
    ".all(x, x > 0)",
    ".exists_one(x, x)",
    ".sortBy(x, x)",
    ".size()",
    "size(",
    ".substring(",
    ".format([",
    "math.greatest(",
    "lists.range(",
    "duration('1h')",
    "timestamp",
    "timestamp(",
    "coalesce(",
    "x",
    ".",
    "..",
    "\n",
    "// c\n",
    "\\",
    "é",
    "\u{1f600}",
    "\0",
    "and",
    "=",
    "let",
    "int(",
    ".split(",
    "''",
    ".matches('a+')",
    "window(",
    "date(",
    ".?a",
    "[?0]",
    "Foo{a: 1}",
    "google.protobuf.Duration",
    ";",
    "#",
    "@",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_token_soup_panics(tokens in prop::collection::vec(prop::sample::select(SOUP), 0..24)) {
        let source = tokens.concat();
        if let Err(error) = compile(&source) {
            let text = error.to_string();
            prop_assert!(!text.is_empty());
            prop_assert!(error.offset <= source.len());
        }
        outcome(&source, r#"{"a":[1,2.5,"x",null]}"#);
    }

    #[test]
    fn no_text_panics(source in "\\PC{0,60}") {
        outcome(&source, "{}");
    }

    #[test]
    fn integers_and_decimals_agree(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        for op in ["+", "-", "*", "==", "<", "<=", "!="] {
            let ints = outcome(&format!("event.a {op} event.b"), &format!(r#"{{"a":{a},"b":{b}}}"#));
            let mixed = outcome(&format!("event.a {op} event.b"), &format!(r#"{{"a":{a}.0,"b":{b}}}"#));
            let turned = outcome(&format!("event.a {op} event.b"), &format!(r#"{{"a":{a},"b":{b}.0}}"#));
            prop_assert_eq!(&ints, mixed.trim_end_matches(".0"));
            prop_assert_eq!(&ints, turned.trim_end_matches(".0"));
        }
    }
}
