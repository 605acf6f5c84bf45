//! Random projections and random records for them; a seed decides everything.

use bytes::Bytes;
use foldline_source_file::NewRecord;
use foldline_testkit::Rng;

/// Partitions of each topic. A key's records are all in one, so that its events have one order.
const PARTITIONS: u64 = 3;

/// The columns beside the key: every type, a default, children, and computed fields.
const FIELDS: &str = r#"
a     = "varchar(5)"
b     = "text"
n     = { type = "bigint", default = 1 }
i     = { type = "integer", index = true }
s     = "smallint"
m     = "numeric(9,2)"
free  = "numeric"
d     = "double precision"
r     = "real"
tags  = "text[]"
nums  = "numeric(5,1)[]"
at    = "timestamptz"
day   = "date"
clock = "time"
uid   = "uuid"
raw   = "bytea"
yes   = "boolean"
j     = "jsonb"
lines = { type = "children", by = "line", fields = { line = "numeric(4,1)", sku = "varchar(3)", qty = "real", since = { type = "timestamptz" }, n = { type = "integer", default = 7 } } }
sum   = { type = "numeric(6,2)", computed = "state.lines.map(l, l.line).sum() + state.m" }
both  = { type = "text", computed = "state.a + string(state.sum)" }
"#;

/// What handlers do; each alone is a handler.
const VERBS: &[&str] = &[
    r#"set = "event""#,
    r#"merge = "event""#,
    r#"patch = "event""#,
    r#"set = { j = "event", a = "state.a", at = "timestamp", i = "partition" }"#,
    r#"set = { b = "coalesce(event.a, headers.part, topic)", n = "offset" }"#,
    r#"add = { n = "event.n", m = "event.m", free = "event.m", d = "event.d", r = "event.m", s = 1 }"#,
    "min = { m = \"event.m\", a = \"event.a\", at = \"event.at\" }\nmax = { r = \"event.m\", d = \"event.m\", day = \"event.day\", clock = \"event.clock\" }",
    r#"append = { tags = "event.a", nums = "event.m" }"#,
    r#"append = { tags = "event.tags" }"#,
    r#"remove = { tags = "event.a", nums = "event.m" }"#,
    r#"put = { lines = { line = "event.m", sku = "event.a", qty = "child.qty + 0.1", since = "timestamp" } }"#,
    r#"put = { lines = { line = "event.m", qty = "event.m", n = "coalesce(child.n, 0) + 1" } }"#,
    "merge = { b = \"event.b\" }\nput = { lines = \"event\" }",
    r#"take = { lines = "event.m" }"#,
    r#"set = { m = "state.r * 1.005", d = "state.free / 3", free = "state.d", a = "state.both" }"#,
    "patch = { yes = \"event.yes\", raw = \"event.raw\" }\nmerge = { uid = \"event.uid\" }\nadd = { i = 1 }",
    "delete = true",
    "ignore = true",
];

const WHENS: &[&str] = &[
    "",
    "",
    "",
    "",
    "when = \"exists\"\n",
    "when = \"!exists\"\n",
    "when = \"state.n > 2\"\n",
    "when = \"event.n > 0\"\n",
    "when = \"state.sum == null\"\n",
    "when = \"has(event.a) && size(state.lines) < 3\"\n",
];

const NAMES: &[&str] = &["A", "B", "C"];

/// How a key is made: its columns, the projection's `key`, and how a record spells its parts.
struct Keys {
    columns: &'static str,
    expressions: &'static str,
    /// The record's key and headers decide it, so a tombstone names its row.
    by_record: bool,
}

const KEYS: &[Keys] = &[
    Keys {
        columns: "id = \"bigint\"\npart = \"numeric(6,1)\"\n",
        expressions: "{ id = \"event.id\", part = \"event.part\" }",
        by_record: false,
    },
    Keys {
        columns: "id = \"bigint\"\npart = \"numeric(6,1)\"\n",
        expressions: "{ part = \"headers.part\", id = \"key\" }",
        by_record: true,
    },
    Keys {
        columns: "name = \"text\"\n",
        expressions: "{ name = \"event.name\" }",
        by_record: false,
    },
    Keys {
        columns: "kuid = \"uuid\"\nkday = \"date\"\nkyes = \"boolean\"\n",
        expressions: "{ kday = \"event.kday\", kuid = \"event.kuid\", kyes = \"event.kyes\" }",
        by_record: false,
    },
    Keys {
        columns: "hour = \"timestamptz\"\nshort = \"varchar(4)\"\n",
        expressions: "{ hour = \"window(timestamp(event.kat), duration('1h'))\", short = \"event.short\" }",
        by_record: false,
    },
];

/// Texts that are keys; odd to ids, to SQL and to paths.
const TEXTS: &[&str] = &[
    "a",
    "a:b",
    "a%3Ab",
    "%",
    "",
    " a ",
    "äö ẞ",
    "sha256:a",
    "x/y?z#",
    "\\\"quoted\\\"",
    "_id",
    "NULL",
    "😀",
    "a\\u0001b",
    "'; --",
];

/// One random projection and the records for it.
#[derive(Debug)]
pub(crate) struct Case {
    /// The projection's tables in TOML.
    pub(crate) toml: String,
    /// Topic, partition and record, in the order in which they are produced.
    pub(crate) records: Vec<(String, NewRecord)>,
    /// The topics that it folds.
    pub(crate) topics: Vec<String>,
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[usize::try_from(rng.below(from.len() as u64)).unwrap()]
}

impl Case {
    /// The case of `name`, with that many records.
    pub(crate) fn new(rng: &mut Rng, name: &str, records: u64) -> Case {
        let kind = usize::try_from(rng.below(KEYS.len() as u64)).unwrap();
        let keys = &KEYS[kind];
        // A handler with a key of its own mixes keys: then all is in one partition.
        let crossed = kind == 0 && rng.chance(600);
        let topics: Vec<String> =
            (0..if crossed { 1 } else { 2 }).map(|n| format!("{name}_t{n}")).collect();
        let mut toml = format!(
            "[projections.{name}]\ntopics = {topics:?}\nevent_type = \"headers.type\"\nkey = {}\n\
             [projections.{name}.fields]\n{}{FIELDS}",
            keys.expressions, keys.columns
        );
        for _ in 0..=rng.below(4) {
            let (text, takes_all) = handler(rng, name, crossed, &topics);
            toml.push_str(&text);
            // Behind it nothing would ever apply, which the config is refused for.
            if takes_all {
                break;
            }
        }
        let pool = if rng.chance(300) { 1_200 } else { 1 + rng.below(12) };
        let make = |rng: &mut Rng| record(rng, keys, crossed, pool, &topics);
        let records = (0..records).map(|_| make(rng)).collect();
        Case { toml, records, topics }
    }
}

/// A handler, and whether it takes every event.
fn handler(rng: &mut Rng, name: &str, crossed: bool, topics: &[String]) -> (String, bool) {
    let event =
        pick(rng, &["", "event = \"A\"\n", "event = [\"A\", \"B\"]\n", "event = \"^[BC]$\"\n"]);
    let topic = if rng.chance(150) { format!("topic = {:?}\n", topics[0]) } else { String::new() };
    let each = pick(rng, &["", "", "", "for_each = \"event.items\"\n"]);
    let verb = pick(rng, VERBS);
    let when = pick(rng, WHENS);
    let goes_on = if rng.chance(400) && verb != "ignore = true" { "continue = true\n" } else { "" };
    let key = match (crossed && rng.chance(500), each) {
        (false, _) => "",
        (true, "") => "key = { id = \"event.other\", part = 1 }\n",
        (true, _) => "key = { id = \"item\", part = \"event.part\" }\n",
    };
    let takes_all = [event, &topic, when, goes_on].iter().all(|part| part.is_empty());
    let text =
        format!("[[projections.{name}.on]]\n{topic}{event}{each}{when}{key}{goes_on}{verb}\n");
    (text, takes_all)
}

fn record(
    rng: &mut Rng,
    keys: &Keys,
    crossed: bool,
    pool: u64,
    topics: &[String],
) -> (String, NewRecord) {
    let number = rng.below(pool);
    let (topic, partition) = match crossed {
        true => (&topics[0], 0),
        false => (&topics[usize::try_from(number % 2).unwrap()], number / 2 % PARTITIONS),
    };
    let part = pick(rng, &["1", "1.0", "\"1.04\"", "0.96"]);
    let mut value = format!("{{{}", spelled(rng, number, part));
    for _ in 0..rng.below(6) {
        let (name, json) = field(rng);
        value.push_str(&format!(",\"{name}\":{json}"));
    }
    value.push('}');
    let tombstone = rng.chance(if keys.by_record { 80 } else { 10 });
    let broken = rng.chance(8);
    let value = match (tombstone, broken) {
        (true, _) => None,
        (false, true) => Some(Bytes::from_static(b"{\"id\":")),
        (false, false) => Some(Bytes::from(value)),
    };
    let header =
        |name: &str, text: &str| (name.into(), Some(Bytes::copy_from_slice(text.as_bytes())));
    let headers = vec![header("type", pick(rng, NAMES)), header("part", part.trim_matches('"'))];
    let record = NewRecord {
        partition: Some(i32::try_from(partition).unwrap()),
        key: Some(Bytes::from(number.to_string())),
        value,
        headers,
        timestamp: Some(1_767_225_600_000 + i64::try_from(rng.below(100_000_000)).unwrap()),
    };
    (topic.clone(), record)
}

/// The parts of key `number` as JSON members, one of several spellings of the same key.
fn spelled(rng: &mut Rng, number: u64, part: &str) -> String {
    let text = usize::try_from(number).unwrap();
    let name = match TEXTS.get(text) {
        Some(name) => (*name).to_owned(),
        // Longer than an id may be.
        None if number % 100 == 99 => format!("{number}{}", "x".repeat(600)),
        None => format!("n{number}"),
    };
    let id = match rng.below(4) {
        0 => format!("\"{number}\""),
        1 => format!("{number}.0"),
        _ => number.to_string(),
    };
    let uuid = format!("6f1c8a52-94a8-4c1d-9d3e-{number:012x}");
    let uuid = if rng.chance(300) { uuid.to_uppercase() } else { uuid };
    let day = format!("{:04}-02-{:02}", 1 + number * 7 % 9_999, 1 + number % 28);
    // Some moment within the hour that the number says.
    let hour = number % 24;
    let at = match rng.below(3) {
        0 => format!("2026-01-01T{hour:02}:59:59.999999Z"),
        1 if hour < 22 => format!("2026-01-01T{:02}:45:00+02:30", hour + 2),
        _ => format!("2026-01-01T{hour:02}:00:00Z"),
    };
    let short = format!("s{}", number / 24);
    format!(
        "\"id\":{id},\"part\":{part},\"name\":\"{name}\",\"kuid\":\"{uuid}\",\"kday\":\"{day}\",\
         \"kyes\":{},\"kat\":\"{at}\",\"short\":\"{short}\",\"other\":{}",
        number.is_multiple_of(2),
        number % 5
    )
}

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "1.004",
    "-2.345",
    "0.005",
    "12.10",
    "1e2",
    "-0.0",
    "7",
    "99.95",
    "3.15",
    "0.1",
    "9223372036854775807",
    "1e20",
    "99999999",
    "\"3.5\"",
    "null",
    "\"x\"",
    "true",
    "1e-7",
    "123456789.125",
    "1e400",
];

const LISTS: &[&str] = &[
    "[]",
    "[1]",
    "[{\"line\":1}]",
    "null",
    "[{\"line\":2.04,\"qty\":0.1},{\"line\":1,\"since\":\"2026-01-01T00:00:00+01:00\"}]",
    "[{\"line\":3,\"sku\":\"toolong\"}]",
];

const TIMES: &[&str] = &[
    "\"2026-01-01T00:00:00.5Z\"",
    "\"2025-06-01T12:00:00+02:00\"",
    "null",
    "1",
    "\"0001-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59.999999Z\"",
    "\"1969-12-31T23:59:59.999999Z\"",
    "\"1883-11-18T12:00:00.000001Z\"",
];

const JSON: &[&str] = &[
    "{\"b\":1.50,\"a\":[null,1e2,\"x\"]}",
    "[]",
    "1.0",
    "\"t\"",
    "null",
    "{\"\":{}}",
    "[[1,{\"a.b\":null}]]",
    "12345678901234567890123",
    "{\"a\":\"\\u0000\"}",
    "false",
    "{\"deep\":{\"er\":[{\"x\":1},{\"x\":\"y\"}]}}",
];

/// Fields and what events hold for them: mostly what fits, sometimes what does not.
const VALUES: &[(&str, &[&str])] = &[
    ("m", NUMBERS),
    ("m", NUMBERS),
    ("d", NUMBERS),
    ("free", NUMBERS),
    ("r", NUMBERS),
    ("n", &["-3", "0", "1", "4", "4", "\"2\"", "null", "9223372036854775807"]),
    ("i", &["2147483647", "-1", "null", "7", "2147483648"]),
    (
        "a",
        &["\"\"", "\"a\"", "\"zz\"", "\"äöüß\"", "\"toolong\"", "5", "null", "{}", "\"a\\u0000\""],
    ),
    ("b", &["\"\"", "\"a\\nb\"", "\"\\\\\"", "\"%s'\\\"\"", "\"\\u2028😀\"", "null", "true"]),
    ("at", TIMES),
    ("j", JSON),
    ("lines", LISTS),
    (
        "day",
        &[
            "\"2026-01-01\"",
            "\"2024-02-29\"",
            "null",
            "\"0001-01-01\"",
            "\"9999-12-31\"",
            "\"2026-02-30\"",
        ],
    ),
    ("clock", &["\"10:00\"", "\"10:00:00.123456\"", "null", "\"23:59:59.999999\"", "\"00:00\""]),
    ("raw", &["\"AP8=\"", "\"\"", "null", "\"YQ==\"", "\"!\""]),
    ("tags", &["[\"a\",null]", "[]", "null", "[\"a,b\",\"{}\",\"\\\\\",\"\\\"\",\"NULL\"]", "[1]"]),
    ("items", &["[1,2]", "[]", "null", "[0]", "[3,3,1]", "\"x\""]),
    ("uid", &["\"6F1C8A52-94A8-4C1D-9D3E-0C8F0C7B1A01\"", "null"]),
    ("yes", &["true", "\"f\"", "null", "1"]),
    ("nums", &["[1.25,null,\"3\"]", "[]", "null", "[100000]"]),
];

/// A field's name and its JSON.
fn field(rng: &mut Rng) -> (&'static str, &'static str) {
    let (name, values) = VALUES[usize::try_from(rng.below(VALUES.len() as u64)).unwrap()];
    (name, pick(rng, values))
}
