//! One case per line of the contract: handlers, records, rows.

use super::outcomes;

const HEAD: &str = r#"
[projections.p]
topics     = ["t", "u"]
event_type = "event.type"
key        = { id = "event.id" }
[projections.p.fields]
id    = "bigint"
a     = "text"
b     = "text"
n     = "bigint"
m     = "numeric(12,2)"
d     = "double precision"
x     = { type = "integer", default = 5 }
tags  = "text[]"
nums  = "integer[]"
at    = "timestamptz"
day   = "date"
j     = "jsonb"
lines = { type = "children", by = "line", fields = { line = "integer", sku = "text", qty = { type = "integer", default = 1 } } }
twice = { type = "bigint", computed = "state.n * 2" }
size  = { type = "integer", computed = "size(state.lines)" }
short = { type = "varchar(3)", computed = "state.a" }
"#;

/// Name; handlers (`---` between them); records; rows; bad; filtered.
type Case = (&'static str, &'static str, &'static str, &'static str, u64, u64);

fn check(cases: &[Case]) {
    let mut failed = Vec::new();
    for (name, on, given, expect, bad, filtered) in cases {
        let mut text = HEAD.to_owned();
        for handler in on.split("---") {
            text.push_str("[[projections.p.on]]\n");
            text.push_str(handler);
            text.push('\n');
        }
        text.push_str(&format!(
            "[[projections.p.tests]]\nname = {name:?}\ngiven = [{given}]\nexpect = [{expect}]\n\
             bad = {bad}\nfiltered = {filtered}\norder = \"given\"\n"
        ));
        failed.extend(outcomes(&text).iter().filter(|o| !o.passed()).map(ToString::to_string));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn assignments() {
    check(&[
        (
            "set takes the value",
            r#"set = { a = "event.a" }"#,
            r#"'{"id":1,"a":"x"}'"#,
            r#"'{"id":1,"a":"x","b":null}'"#,
            0,
            0,
        ),
        (
            "set: absent becomes null",
            r#"set = { a = "event.a" }"#,
            r#"'{"id":1,"a":"x"}', '{"id":1}'"#,
            r#"'{"id":1,"a":null}'"#,
            0,
            0,
        ),
        (
            "merge: null and absent leave it",
            r#"merge = { a = "event.a" }"#,
            r#"'{"id":1,"a":"x"}', '{"id":1,"a":null}', '{"id":1}'"#,
            r#"'{"id":1,"a":"x"}'"#,
            0,
            0,
        ),
        (
            "patch: absent leaves it",
            r#"patch = { a = "event.a" }"#,
            r#"'{"id":1,"a":"x"}', '{"id":1}'"#,
            r#"'{"id":1,"a":"x"}'"#,
            0,
            0,
        ),
        (
            "patch: null clears it",
            r#"patch = { a = "event.a" }"#,
            r#"'{"id":1,"a":"x"}', '{"id":1,"a":null}'"#,
            r#"'{"id":1,"a":null}'"#,
            0,
            0,
        ),
        (
            "patch of an expression always sets",
            r#"patch = { a = "coalesce(event.a, 'none')" }"#,
            r#"'{"id":1,"a":"x"}', '{"id":1}'"#,
            r#"'{"id":1,"a":"none"}'"#,
            0,
            0,
        ),
        (
            "patch inside an object",
            r#"patch = { a = "event.o.a", b = "event.o['b-c']" }"#,
            r#"'{"id":1,"o":{"a":"x","b-c":"y"}}', '{"id":1,"o":{"b-c":null}}', '{"id":1}'"#,
            r#"'{"id":1,"a":"x","b":null}'"#,
            0,
            0,
        ),
        (
            "a text is an expression, so a literal has two quotes",
            r#"set = { a = "'paid'" }"#,
            r#"'{"id":1}'"#,
            r#"'{"id":1,"a":"paid"}'"#,
            0,
            0,
        ),
        (
            "numbers, booleans, dates and lists are themselves",
            r#"set = { n = 7, m = 1.005, a = true, at = 2026-01-01T00:00:00Z, day = 2026-01-02, tags = ["x", "y"] }"#,
            r#"'{"id":1}'"#,
            r#"'{"id":1,"n":7,"m":1.01,"a":"true","at":"2026-01-01T00:00:00Z","day":"2026-01-02","tags":["x","y"]}'"#,
            0,
            0,
        ),
        ("merge of a literal", "merge = { n = 7 }", r#"'{"id":1}'"#, r#"'{"id":1,"n":7}'"#, 0, 0),
        (
            "set = event takes every folded field",
            r#"set = "event""#,
            r#"'{"id":1,"a":"x","n":2,"twice":99,"size":99}'"#,
            r#"'{"id":1,"a":"x","n":2,"b":null,"x":null,"twice":4,"size":null}'"#,
            0,
            0,
        ),
        (
            "merge = event leaves what is absent",
            r#"merge = "event""#,
            r#"'{"id":1,"a":"x","n":2}', '{"id":1,"n":3,"a":null}'"#,
            r#"'{"id":1,"a":"x","n":3,"x":5}'"#,
            0,
            0,
        ),
        (
            "patch = event clears what is null",
            r#"patch = "event""#,
            r#"'{"id":1,"a":"x","n":2}', '{"id":1,"n":null}'"#,
            r#"'{"id":1,"a":"x","n":null,"x":5}'"#,
            0,
            0,
        ),
        (
            "the short form leaves out what the handler mentions",
            "set = \"event\"\nadd = { n = 1 }\nmerge = { b = \"'kept'\" }",
            r#"'{"id":1,"a":"x","n":50,"b":"y"}', '{"id":1,"n":50}'"#,
            r#"'{"id":1,"a":null,"n":2,"b":"kept"}'"#,
            0,
            0,
        ),
        (
            "the short form of an inner object",
            r#"patch = "event.after""#,
            r#"'{"id":1,"after":{"a":"x","n":1}}', '{"id":1,"after":{"n":null}}', '{"id":1}'"#,
            r#"'{"id":1,"a":"x","n":null}'"#,
            0,
            0,
        ),
        (
            "children are set whole, sorted by their key",
            r#"set = { lines = "event.lines" }"#,
            r#"'{"id":1,"lines":[{"line":2,"sku":"b"},{"line":1,"qty":"3"}]}'"#,
            r#"'{"id":1,"lines":[{"line":1,"sku":null,"qty":3},{"line":2,"sku":"b","qty":null}],"size":2}'"#,
            0,
            0,
        ),
        (
            "any JSON",
            r#"set = { j = "event.j" }"#,
            r#"'{"id":1,"j":{"b":[1.50,null],"a":true}}'"#,
            r#"'{"id":1,"j":{"a":true,"b":[1.5,null]}}'"#,
            0,
            0,
        ),
    ]);
}

#[test]
fn sums_and_extremes() {
    check(&[
        (
            "add: an empty field counts as 0",
            r#"add = { n = "event.n" }"#,
            r#"'{"id":1,"n":2}', '{"id":1,"n":3}'"#,
            r#"'{"id":1,"n":5,"twice":10}'"#,
            0,
            0,
        ),
        (
            "add: null leaves it",
            r#"add = { n = "event.n" }"#,
            r#"'{"id":1}', '{"id":2,"n":1}', '{"id":2,"n":null}'"#,
            r#"'{"id":1,"n":null}', '{"id":2,"n":1}'"#,
            0,
            0,
        ),
        (
            "add starts at the default",
            "add = { x = 1 }",
            r#"'{"id":1}', '{"id":1}'"#,
            r#"'{"id":1,"x":7}'"#,
            0,
            0,
        ),
        (
            "add rounds after each event, as the store would",
            r#"add = { m = "event.m" }"#,
            r#"'{"id":1,"m":0.004}', '{"id":1,"m":0.004}', '{"id":2,"m":0.005}'"#,
            r#"'{"id":1,"m":0.00}', '{"id":2,"m":0.01}'"#,
            0,
            0,
        ),
        (
            "add does not round what it adds",
            r#"add = { m = "event.m" }"#,
            r#"'{"id":1,"m":-1}', '{"id":1,"m":0.005}'"#,
            r#"'{"id":1,"m":-1.00}'"#,
            0,
            0,
        ),
        (
            "add takes a number in a text",
            r#"add = { n = "event.n" }"#,
            r#"'{"id":1,"n":"4"}'"#,
            r#"'{"id":1,"n":4}'"#,
            0,
            0,
        ),
        (
            "add of no number is bad",
            r#"add = { n = "event.n" }"#,
            r#"'{"id":1,"n":"many"}'"#,
            "",
            1,
            0,
        ),
        (
            "add beyond the type is bad and changes nothing",
            r#"add = { n = "event.n" }"#,
            r#"'{"id":1,"n":9223372036854775807}', '{"id":1,"n":1}'"#,
            r#"'{"id":1,"n":9223372036854775807}'"#,
            1,
            0,
        ),
        (
            "add with a fraction to an integer is bad",
            r#"add = { n = "event.n" }"#,
            r#"'{"id":1,"n":0.5}'"#,
            "",
            1,
            0,
        ),
        (
            "add of doubles",
            r#"add = { d = "event.d" }"#,
            r#"'{"id":1,"d":0.5}', '{"id":1,"d":1}'"#,
            r#"'{"id":1,"d":1.5}'"#,
            0,
            0,
        ),
        (
            "add subtracts",
            r#"add = { n = "-event.n" }"#,
            r#"'{"id":1,"n":2}'"#,
            r#"'{"id":1,"n":-2}'"#,
            0,
            0,
        ),
        (
            "min and max of numbers",
            r#"min = { n = "event.v" }
            max = { m = "event.v" }"#,
            r#"'{"id":1,"v":5}', '{"id":1,"v":3}', '{"id":1,"v":9}', '{"id":1,"v":null}'"#,
            r#"'{"id":1,"n":3,"m":9}'"#,
            0,
            0,
        ),
        (
            "max of moments",
            r#"max = { at = "event.at" }"#,
            r#"'{"id":1,"at":"2026-01-01T01:00:00+02:00"}', '{"id":1,"at":"2026-01-01T00:00:00Z"}', '{"id":1,"at":"2025-01-01T00:00:00Z"}'"#,
            r#"'{"id":1,"at":"2026-01-01T00:00:00Z"}'"#,
            0,
            0,
        ),
        (
            "min of texts goes by bytes",
            r#"min = { a = "event.a" }"#,
            r#"'{"id":1,"a":"b"}', '{"id":1,"a":"B"}', '{"id":1,"a":"ä"}'"#,
            r#"'{"id":1,"a":"B"}'"#,
            0,
            0,
        ),
        (
            "max of a wrong type is bad",
            r#"max = { at = "event.at" }"#,
            r#"'{"id":1,"at":1700000000000}'"#,
            "",
            1,
            0,
        ),
    ]);
}

#[test]
fn lists_and_children() {
    check(&[
        (
            "append one and many",
            r#"append = { tags = "event.tag" }"#,
            r#"'{"id":1,"tag":"x"}', '{"id":1,"tag":["y","x"]}', '{"id":1,"tag":null}', '{"id":1}'"#,
            r#"'{"id":1,"tags":["x","y","x"]}'"#,
            0,
            0,
        ),
        (
            "append converts its items",
            r#"append = { nums = "event.v" }"#,
            r#"'{"id":1,"v":"7"}'"#,
            r#"'{"id":1,"nums":[7]}'"#,
            0,
            0,
        ),
        (
            "append of a wrong item is bad",
            r#"append = { nums = "event.v" }"#,
            r#"'{"id":1,"v":"x"}'"#,
            "",
            1,
            0,
        ),
        (
            "append of a literal",
            r#"append = { nums = 4, tags = ["a", "b"] }"#,
            r#"'{"id":1}', '{"id":1}'"#,
            r#"'{"id":1,"nums":[4,4],"tags":["a","b","a","b"]}'"#,
            0,
            0,
        ),
        (
            "remove takes all equal ones",
            "event = \"add\"\nset = { tags = \"event.tags\" }---event = \"remove\"\nremove = { tags = \"event.tag\" }",
            r#"'{"type":"add","id":1,"tags":["x","y","x","z"]}', '{"type":"remove","id":1,"tag":"x"}', '{"type":"remove","id":1,"tag":["z","q"]}'"#,
            r#"'{"id":1,"tags":["y"]}'"#,
            0,
            0,
        ),
        (
            "remove from nothing",
            r#"remove = { tags = "event.tag" }"#,
            r#"'{"id":1,"tag":"x"}'"#,
            r#"'{"id":1,"tags":null}'"#,
            0,
            0,
        ),
        (
            "put makes a child, with defaults",
            r#"put = { lines = { line = "event.line", sku = "event.sku" } }"#,
            r#"'{"id":1,"line":2,"sku":"b"}', '{"id":1,"line":1,"sku":"a"}'"#,
            r#"'{"id":1,"lines":[{"line":1,"sku":"a","qty":1},{"line":2,"sku":"b","qty":1}],"size":2}'"#,
            0,
            0,
        ),
        (
            "put sets what it names and leaves the rest",
            "event = \"a\"\nput = { lines = { line = \"event.line\", sku = \"event.sku\", qty = 9 } }---put = { lines = { line = \"event.line\", sku = \"event.sku\" } }",
            r#"'{"type":"a","id":1,"line":1,"sku":"a"}', '{"id":1,"line":1}'"#,
            r#"'{"id":1,"lines":[{"line":1,"sku":null,"qty":9}]}'"#,
            0,
            0,
        ),
        (
            "put reads the child",
            r#"put = { lines = { line = "event.line", sku = "coalesce(event.sku, child.sku)", qty = "child.qty + 1" } }"#,
            r#"'{"id":1,"line":1,"sku":"a"}', '{"id":1,"line":1}'"#,
            r#"'{"id":1,"lines":[{"line":1,"sku":"a","qty":3}]}'"#,
            0,
            0,
        ),
        (
            "put converts the child's key",
            r#"put = { lines = { line = "event.line", qty = "event.qty" } }"#,
            r#"'{"id":1,"line":"1","qty":"2"}', '{"id":1,"line":1.0,"qty":3}'"#,
            r#"'{"id":1,"lines":[{"line":1,"qty":3}]}'"#,
            0,
            0,
        ),
        (
            "put without a key is bad",
            r#"put = { lines = { line = "event.line" } }"#,
            r#"'{"id":1}'"#,
            "",
            1,
            0,
        ),
        (
            "put of what does not fit is bad",
            r#"put = { lines = { line = "event.line", qty = "event.qty" } }"#,
            r#"'{"id":1,"line":1,"qty":"x"}'"#,
            "",
            1,
            0,
        ),
        (
            "put = event takes the child's fields",
            r#"put = { lines = "event" }"#,
            r#"'{"id":1,"line":1,"sku":"a","qty":2}', '{"id":1,"line":1,"qty":3}'"#,
            r#"'{"id":1,"lines":[{"line":1,"sku":null,"qty":3}]}'"#,
            0,
            0,
        ),
        (
            "children are sorted as their type sorts",
            r#"put = { lines = { line = "event.line" } }"#,
            r#"'{"id":1,"line":10}', '{"id":1,"line":9}', '{"id":1,"line":-1}'"#,
            r#"'{"id":1,"lines":[{"line":-1},{"line":9},{"line":10}]}'"#,
            0,
            0,
        ),
        (
            "take takes one out",
            "event = \"put\"\nput = { lines = { line = \"event.line\" } }---event = \"take\"\ntake = { lines = \"event.line\" }",
            r#"'{"type":"put","id":1,"line":1}', '{"type":"put","id":1,"line":2}', '{"type":"take","id":1,"line":"1"}', '{"type":"take","id":1,"line":7}', '{"type":"take","id":1}'"#,
            r#"'{"id":1,"lines":[{"line":2}],"size":1}'"#,
            0,
            0,
        ),
        (
            "the last child taken leaves an empty list",
            "event = \"put\"\nput = { lines = { line = 1 } }---take = { lines = 1 }",
            r#"'{"type":"put","id":1}', '{"id":1}'"#,
            r#"'{"id":1,"lines":[],"size":0}'"#,
            0,
            0,
        ),
    ]);
}

#[test]
fn matching() {
    check(&[
        (
            "the first that matches applies",
            "event = [\"A\", \"B\"]\nset = { a = \"'1'\" }---event = \"B\"\nset = { a = \"'2'\" }---set = { a = \"'3'\" }",
            r#"'{"type":"A","id":1}', '{"type":"B","id":2}', '{"type":"C","id":3}', '{"id":4}'"#,
            r#"'{"id":1,"a":"1"}', '{"id":2,"a":"1"}', '{"id":3,"a":"3"}', '{"id":4,"a":"3"}'"#,
            0,
            0,
        ),
        (
            "no handler matches: filtered",
            "event = \"A\"\nset = { a = \"'1'\" }",
            r#"'{"type":"B","id":1}', '{"id":1}'"#,
            "",
            0,
            2,
        ),
        (
            "a regex names events",
            "event = \"^Order\"\nset = { a = \"'1'\" }",
            r#"'{"type":"OrderPlaced","id":1}', '{"type":"PreOrder","id":2}'"#,
            r#"'{"id":1,"a":"1"}'"#,
            0,
            1,
        ),
        (
            "a regex and a list in config order",
            "event = \"^A.*\"\nset = { a = \"'regex'\" }---event = \"AB\"\nset = { a = \"'list'\" }",
            r#"'{"type":"AB","id":1}', '{"type":"AC","id":2}'"#,
            r#"'{"id":1,"a":"regex"}', '{"id":2,"a":"regex"}'"#,
            0,
            0,
        ),
        (
            "topics",
            "topic = \"u\"\nset = { a = \"'u'\" }---set = { a = \"topic\" }",
            r#"'{"id":1}', { topic = "u", value = { id = 2 } }"#,
            r#"'{"id":1,"a":"t"}', '{"id":2,"a":"u"}'"#,
            0,
            0,
        ),
        (
            "the converter's name stands where event_type is null",
            "event = \"A\"\nset = { a = \"'x'\" }",
            r#"{ event = "A", value = { id = 1 } }, { event = "A", value = { id = 2, type = "B" } }"#,
            r#"'{"id":1,"a":"x"}'"#,
            0,
            1,
        ),
        (
            "a number can name an event",
            "event = \"3\"\nset = { a = \"'x'\" }",
            r#"'{"id":1,"type":3}'"#,
            r#"'{"id":1,"a":"x"}'"#,
            0,
            0,
        ),
        ("an object names none", "set = { a = \"'x'\" }", r#"'{"id":1,"type":{}}'"#, "", 1, 0),
        (
            "when",
            "when = \"event.ok\"\nset = { a = \"'x'\" }",
            r#"'{"id":1,"ok":true}', '{"id":2,"ok":false}'"#,
            r#"'{"id":1}'"#,
            0,
            1,
        ),
        (
            "when that is no boolean is bad",
            "when = \"event.ok\"\nset = { a = \"'x'\" }",
            r#"'{"id":1,"ok":1}', '{"id":2}'"#,
            "",
            2,
            0,
        ),
        (
            "when exists",
            "event = \"new\"\nset = { a = \"'x'\" }---when = \"exists\"\nset = { a = \"'y'\" }",
            r#"'{"id":1}', '{"type":"new","id":2}', '{"id":2}'"#,
            r#"'{"id":2,"a":"y"}'"#,
            0,
            1,
        ),
        (
            "when reads the state and falls through",
            "when = \"state.n > 1\"\nset = { a = \"'many'\" }---add = { n = 1 }",
            r#"'{"id":1,"n":0}', '{"id":1}', '{"id":1}'"#,
            "",
            3,
            0,
        ),
        (
            "the state before there is a row has defaults and key",
            "set = { a = \"string(state.x) + string(state.id) + string(exists)\" }",
            r#"'{"id":3}'"#,
            r#"'{"id":3,"a":"53false"}'"#,
            0,
            0,
        ),
        (
            "all expressions see the state before",
            "set = { a = \"event.a\", b = \"state.a\" }",
            r#"'{"id":1,"a":"x"}', '{"id":1,"a":"y"}'"#,
            r#"'{"id":1,"a":"y","b":"x"}'"#,
            0,
            0,
        ),
        (
            "continue: the next sees what the former left",
            "continue = true\nadd = { x = 1 }---set = { n = \"state.x\" }",
            r#"'{"id":1}'"#,
            r#"'{"id":1,"x":6,"n":6}'"#,
            0,
            0,
        ),
        (
            "continue sees computed fields afresh",
            "continue = true\nset = { n = \"event.n\" }---set = { x = \"state.twice\" }",
            r#"'{"id":1,"n":4}'"#,
            r#"'{"id":1,"x":8,"twice":8}'"#,
            0,
            0,
        ),
        (
            "continue: exists is said of before the event",
            "continue = true\nset = { a = \"'x'\" }---set = { b = \"string(exists)\" }",
            r#"'{"id":1}', '{"id":2}', '{"id":2}'"#,
            r#"'{"id":1,"b":"false"}', '{"id":2,"b":"true"}'"#,
            0,
            0,
        ),
        (
            "continue whose when says no goes on",
            "when = \"false\"\ncontinue = true\nset = { a = \"'x'\" }---set = { b = \"'y'\" }",
            r#"'{"id":1}'"#,
            r#"'{"id":1,"a":null,"b":"y"}'"#,
            0,
            0,
        ),
        (
            "a fault in the second handler undoes the first",
            "continue = true\nadd = { n = 1 }---set = { m = \"event.m\" }",
            r#"'{"id":1,"m":1}', '{"id":1,"m":"x"}'"#,
            r#"'{"id":1,"n":1,"m":1}'"#,
            1,
            0,
        ),
        (
            "ignore filters",
            "event = \"A\"\nignore = true---set = { a = \"'x'\" }",
            r#"'{"type":"A","id":1}', '{"id":2}'"#,
            r#"'{"id":2}'"#,
            0,
            1,
        ),
        (
            "ignore after a change is still a change",
            "continue = true\nadd = { n = 1 }---ignore = true",
            r#"'{"id":1}'"#,
            r#"'{"id":1,"n":1}'"#,
            0,
            0,
        ),
    ]);
}

#[test]
fn deletes_and_tombstones() {
    const PUT: &str = "event = \"put\"\nset = { a = \"event.a\" }---event = \"del\"\ndelete = true";
    check(&[
        ("delete", PUT, r#"'{"type":"put","id":1}', '{"type":"del","id":1}'"#, "", 0, 0),
        ("delete of no row changes nothing: filtered", PUT, r#"'{"type":"del","id":1}'"#, "", 0, 1),
        (
            "a row after its delete starts anew",
            "event = \"add\"\nadd = { x = 1 }---delete = true",
            r#"'{"type":"add","id":1}', '{"type":"add","id":1}', '{"id":1}', '{"type":"add","id":1}'"#,
            r#"'{"id":1,"x":6}'"#,
            0,
            0,
        ),
        (
            "delete and go on makes a new row",
            "event = \"again\"\ndelete = true\ncontinue = true---add = { x = 1 }",
            r#"'{"id":1}', '{"type":"again","id":1}'"#,
            r#"'{"id":1,"x":6}'"#,
            0,
            0,
        ),
        (
            "made and deleted in one event: filtered",
            "set = { a = \"'x'\" }\ncontinue = true---delete = true",
            r#"'{"id":1}'"#,
            "",
            0,
            1,
        ),
        (
            "a tombstone where the key reads the event: filtered",
            "set = { a = \"'x'\" }",
            r#"'{"id":1}', { key = "1" }"#,
            r#"'{"id":1}'"#,
            0,
            1,
        ),
        (
            "a handler hears a tombstone by its name",
            "event = \"tombstone\"\nkey = { id = \"key\" }\nset = { a = \"'gone'\" }---set = { a = \"'x'\" }",
            r#"'{"id":1}', { key = "1" }"#,
            r#"'{"id":1,"a":"gone"}'"#,
            0,
            0,
        ),
        (
            "a key that does not fit is bad",
            "set = { a = \"'x'\" }",
            r#"'{"id":"x"}', '{"id":1.5}', '{"id":null}', '{}', '{"id":"7"}'"#,
            r#"'{"id":7}'"#,
            4,
            0,
        ),
        (
            "a null key is bad unless when says no",
            "when = \"event.ok\"\nset = { a = \"'x'\" }",
            r#"'{"ok":false}', '{"ok":true}'"#,
            "",
            1,
            1,
        ),
        (
            "a null key of a handler that is not reached",
            "when = \"!exists\"\nset = { a = \"'x'\" }---key = { id = \"event.other\" }\nset = { a = \"'y'\" }",
            r#"'{"id":1}', '{"id":1}', '{"id":1,"other":2}'"#,
            r#"'{"id":1,"a":"x"}', '{"id":2,"a":"y"}'"#,
            1,
            0,
        ),
        (
            "a handler's own key",
            "event = \"move\"\nkey = { id = \"event.to\" }\nadd = { n = 1 }---add = { n = 10 }",
            r#"'{"type":"move","id":1,"to":2}', '{"id":1}'"#,
            r#"'{"id":1,"n":10}', '{"id":2,"n":1}'"#,
            0,
            0,
        ),
        (
            "two rows by one event, whole or not at all",
            "continue = true\nadd = { n = \"-event.v\" }---key = { id = \"event.to\" }\nadd = { x = \"event.v\" }",
            r#"'{"id":1,"to":2,"v":3}', '{"id":1,"to":2,"v":9999999999}'"#,
            r#"'{"id":1,"n":-3}', '{"id":2,"x":8}'"#,
            1,
            0,
        ),
    ]);
}

#[test]
fn for_each() {
    const LINES: &str = "for_each = \"event.lines\"\nput = { lines = { line = \"item.line\", qty = \"item.qty\" } }";
    check(&[
        (
            "for_each runs once per item, on one row",
            LINES,
            r#"'{"id":1,"lines":[{"line":2,"qty":2},{"line":1,"qty":1},{"line":2,"qty":9}]}'"#,
            r#"'{"id":1,"lines":[{"line":1,"qty":1},{"line":2,"qty":9}],"size":2}'"#,
            0,
            0,
        ),
        (
            "for_each with a key per item",
            "for_each = \"event.items\"\nkey = { id = \"item.id\" }\nadd = { n = \"item.n\" }",
            r#"'{"items":[{"id":1,"n":1},{"id":2,"n":2},{"id":1,"n":4}]}'"#,
            r#"'{"id":1,"n":5}', '{"id":2,"n":2}'"#,
            0,
            0,
        ),
        (
            "for_each: later items see what earlier ones did",
            "for_each = \"event.items\"\nset = { n = \"coalesce(state.n, 0) * 10 + item\" }",
            r#"'{"id":1,"items":[1,2,3]}'"#,
            r#"'{"id":1,"n":123}'"#,
            0,
            0,
        ),
        (
            "for_each: one bad item and nothing is applied",
            "for_each = \"event.items\"\nkey = { id = \"item.id\" }\nadd = { n = \"item.n\" }",
            r#"'{"items":[{"id":1,"n":1},{"id":2,"n":"x"}]}', '{"items":[{"id":1,"n":1},{"n":1}]}'"#,
            "",
            2,
            0,
        ),
        (
            "for_each: when per item",
            "for_each = \"event.items\"\nwhen = \"item > 1\"\nadd = { n = \"item\" }---set = { a = \"'none'\" }",
            r#"'{"id":1,"items":[1,2,3]}', '{"id":2,"items":[1]}', '{"id":3}'"#,
            r#"'{"id":1,"n":5}', '{"id":2,"a":"none"}', '{"id":3,"a":"none"}'"#,
            0,
            0,
        ),
        (
            "for_each: when per item by the state",
            "for_each = \"event.items\"\nwhen = \"state.x < 7\"\nadd = { x = \"item\" }",
            r#"'{"id":1,"items":[1,1,1,1]}'"#,
            r#"'{"id":1,"x":7}'"#,
            0,
            0,
        ),
        (
            "for_each over nothing applies to nothing",
            "event = \"A\"\nfor_each = \"event.items\"\nadd = { n = 1 }---set = { a = \"'next'\" }",
            r#"'{"type":"A","id":1,"items":[]}', '{"type":"A","id":1,"items":null}', '{"type":"A","id":1}'"#,
            "",
            0,
            3,
        ),
        (
            "for_each over no list is bad",
            LINES,
            r#"'{"id":1,"lines":{}}', '{"id":1,"lines":"x"}'"#,
            "",
            2,
            0,
        ),
        (
            "for_each over many rows",
            "for_each = \"event.items\"\nkey = { id = \"item % 20\" }\nadd = { n = 1 }",
            r#"'{"items":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39]}'"#,
            MANY,
            0,
            0,
        ),
    ]);
}

const MANY: &str = "{id=0,n=2},{id=1,n=2},{id=2,n=2},{id=3,n=2},{id=4,n=2},{id=5,n=2},{id=6,n=2},{id=7,n=2},{id=8,n=2},{id=9,n=2},{id=10,n=2},{id=11,n=2},{id=12,n=2},{id=13,n=2},{id=14,n=2},{id=15,n=2},{id=16,n=2},{id=17,n=2},{id=18,n=2},{id=19,n=2}";

#[test]
fn types_and_computed_fields() {
    check(&[
        (
            "what does not fit is bad, and the row stays",
            r#"set = { m = "event.m", at = "event.at" }"#,
            r#"'{"id":1,"m":1}', '{"id":1,"m":99999999999}', '{"id":1,"at":1700000000000}'"#,
            r#"'{"id":1,"m":1}'"#,
            2,
            0,
        ),
        (
            "a number is a time once it says of what",
            r#"set = { at = "timestampMillis(event.at)" }"#,
            r#"'{"id":1,"at":1700000000000}'"#,
            r#"'{"id":1,"at":"2023-11-14T22:13:20Z"}'"#,
            0,
            0,
        ),
        (
            "the record's own coordinates",
            r#"set = { a = "topic", n = "offset", at = "timestamp", b = "headers.h" }"#,
            r#"'{"id":1}', { value = { id = 1 }, headers = { h = "x" }, timestamp = 2026-01-01T00:00:00Z }"#,
            r#"'{"id":1,"a":"t","n":1,"b":"x","at":"2026-01-01T00:00:00Z"}'"#,
            0,
            0,
        ),
        (
            "computed that fails is null",
            r#"set = { n = "event.n" }"#,
            r#"'{"id":1,"n":9223372036854775807}', '{"id":2}', '{"id":3,"n":2}'"#,
            r#"'{"id":1,"n":9223372036854775807,"twice":null}', '{"id":2,"twice":null}', '{"id":3,"twice":4}'"#,
            0,
            0,
        ),
        (
            "computed that does not fit is null",
            r#"set = { a = "event.a" }"#,
            r#"'{"id":1,"a":"abc"}', '{"id":2,"a":"abcd"}'"#,
            r#"'{"id":1,"short":"abc"}', '{"id":2,"a":"abcd","short":null}'"#,
            0,
            0,
        ),
        (
            "an expression that fails is a bad record",
            r#"set = { n = "event.n + 1" }"#,
            r#"'{"id":1}', '{"id":1,"n":"x"}', '{"id":1,"n":1}'"#,
            r#"'{"id":1,"n":2}'"#,
            2,
            0,
        ),
        (
            "numbers are exact and mix",
            r#"set = { m = "event.n * 1.1" }"#,
            r#"'{"id":1,"n":3}'"#,
            r#"'{"id":1,"m":3.30}'"#,
            0,
            0,
        ),
    ]);
}
