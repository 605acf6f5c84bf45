//! Work, depth and memory are bounded.

use super::*;

#[test]
fn work_is_bounded() {
    let items: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let event = format!(r#"{{"a":[{}],"t":"{}"}}"#, items.join(","), "x".repeat(100_000));
    for (source, wanted) in [
        ("event.a.map(x, event.a.map(y, x * y)).size() == 400", "ok"),
        ("event.a.map(x, event.a.map(y, event.a.map(z, z)))", "steps"),
        ("event.a.all(x, event.a.all(y, event.a.all(z, true)))", "steps"),
        ("event.a.exists(x, event.a.exists(y, event.a.exists(z, z < 0)))", "steps"),
        ("event.a.map(x, event.t + string(x))", "32 MiB"),
        ("event.t.replace('', event.t)", "32 MiB"),
        ("event.a.map(x, event.t).join(event.t)", "32 MiB"),
        ("lists.range(event.a[399] * 100000000)", "32 MiB"),
        ("event.a.map(x, event.a.map(y, event.t.matches(string(y))))", "steps"),
        ("event.a.map(x, event.a).map(x, event.a).flatten(9).size() >= 0", "ok"),
        ("event.a.all(x, event.a.all(y, !event.t.contains('y')))", "steps"),
        ("event.a.all(x, event.a.all(y, event.a == event.a))", "steps"),
        ("event.a.filter(x, x in event.a).size() == 400", "ok"),
        ("event.t.matches('[a-z]*x[a-z]{6000}[0-9]')", "steps"),
        ("event.t.matches(event.t.substring(0, 3) + '[0-9]')", "ok"),
        ("event.a.map(x, event.a.map(y, decimal('1e' + string(16000 + x))))", "steps"),
        ("event.a.map(x, decimal('1e-16383') * x).size() == 400", "ok"),
    ] {
        let got = outcome(source, &event);
        match wanted {
            "ok" => assert!(!got.contains("error"), "{source}: {got}"),
            _ => assert!(got.starts_with("error") && got.contains(wanted), "{source}: {got}"),
        }
    }
    let squares = vec!["decimal(event.d)"; 60].join(" * ");
    let digits = format!(r#"{{"d":"{}"}}"#, "7".repeat(9_000));
    let got = outcome(&squares, &digits);
    assert!(got.contains("too many digits"), "{got:.200}");
    assert!(compile("'x'.matches('(a{1000}){1000}')").unwrap_err().message.contains("too large"));
}

#[test]
fn depth_is_bounded_before_the_parser_follows_it() {
    let deep = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for source in [
        deep("(", "1", ")", 20_000),
        deep("[", "1", "]", 20_000),
        deep("[", "", "", 60_000),
        deep("!(", "true", ")", 20_000),
        deep("1+", "1", "", 30_000),
        deep("event.a.", "b", "", 7_000),
        deep("true?", "1", ":2", 8_000),
        deep("true ? 1 : ", "1", "", 4_000),
        deep("event.a[", "1", "]", 5_000),
        deep("size(", "1", ")", 5_000),
        deep("{'a':", "1", "}", 5_000),
        format!("event{}", "['a']".repeat(5_000)),
        format!("'a'{}", ".trim()".repeat(5_000)),
        "-".repeat(60_000) + "1",
    ] {
        let error = compile(&source).map(|_| ()).unwrap_err();
        assert!(error.message.contains("deeper than"), "{}", error.message);
    }
    assert!(compile(&"1".repeat(70_000)).unwrap_err().message.contains("64 KiB"));
    // What is allowed also fits the stack of an ordinary thread.
    for source in [
        deep("(", "event.a", ")", 90),
        deep("[", "event.a", "]", 90),
        deep("event.a + ", "1", "", 180),
        deep("true ? 1 : ", "event.a", "", 180),
        format!("{}x{}", "event.a.map(x, ".repeat(40), ")".repeat(40)),
        deep("event.a == 1 || ", "true", "", 2_000),
        format!("event.a in [{}]", vec!["'some text'"; 3_000].join(",")),
        format!("event{}", ".a".repeat(190)),
    ] {
        assert!(compile(&source).is_ok(), "{}", compile(&source).unwrap_err());
        outcome(&source, r#"{"a":1}"#);
    }
}
