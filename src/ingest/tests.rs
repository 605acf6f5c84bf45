use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::error::Error;
use foldline_api::producer::{Undelivered, Written};
use foldline_language::config::env::Env;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::load;

const SCHEMA: &str = r##"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
  "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"$ref": "#/$defs/count"}},
  "$defs": {"count": {"type": "integer", "minimum": 1}}}"##;

/// The config of a source with these topics, beside a schema.
fn config(source: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("s.json"), SCHEMA).unwrap();
    std::fs::write(directory.path().join("broken.json"), r#"{"type": "text"}"#).unwrap();
    let path = directory.path().join("f.toml");
    std::fs::write(&path, source).unwrap();
    let config = load(&path, &Env::default()).unwrap();
    // What is read later is read while the files are there.
    std::mem::forget(directory);
    config
}

const KAFKA: &str = "[sources.a]\ntype = \"kafka\"\nbootstrap_servers = \"localhost:1\"\n";

fn rules(topic: &str) -> Rules {
    let config = config(&format!("{KAFKA}[sources.a.topics.t]\n{topic}\n"));
    Rules::of(&config.sources["a"], "t").unwrap()
}

fn admit(rules: &Rules, record: &str) -> Result<NewRecord, String> {
    let posted = records(&Bytes::copy_from_slice(record.as_bytes())).unwrap();
    rules.admit(posted.into_iter().next().unwrap())
}

#[test]
fn a_body_is_one_record_or_many() {
    let read = |body: &'static str| records(&Bytes::from_static(body.as_bytes()));
    assert_eq!(read(r#"{"value":{"records":[]}}"#).unwrap().len(), 1);
    assert_eq!(read(r#"{"records":[{"value":1}, {"key":"a"}]}"#).unwrap().len(), 2);
    let value = read(r#"{"records":[{"value": {"n" : 1.50}}]}"#).unwrap().remove(0).record.value;
    assert_eq!(value.as_deref(), Some(&br#"{"n" : 1.50}"#[..]), "digits are kept");
    for (body, wrong) in [
        ("", "the body is no JSON object"),
        ("[]", "the body is no JSON object"),
        (r#"{"value":}"#, "the body is no JSON object"),
        (r#"{"records":{}}"#, "`records` is no list"),
        (r#"{"records":[]}"#, "`records` is empty"),
        (r#"{"records":[{}],"key":1}"#, "`key` does not stand beside `records`"),
    ] {
        assert!(matches!(read(body), Err(Wrong::Body(why)) if why.contains(wrong)), "{body}");
    }
    for (body, wrong) in [
        (r#"{"records":[{"value":1},{"vlaue":1}]}"#, "records[1]: `vlaue`: an unknown name"),
        (r#"{"vlaue":1}"#, "records[0]: `vlaue`: an unknown name"),
        (r#"{"records":[{"value":1},7]}"#, "records[1]: not an object"),
    ] {
        assert!(matches!(read(body), Err(Wrong::Record(why)) if why.contains(wrong)), "{body}");
    }
}

#[test]
fn an_event_is_a_header() {
    let named = |rules: &Rules| admit(rules, r#"{"event":"Named","value":1}"#).unwrap().headers;
    let header = |name: &str| vec![(Arc::from(name), Some(Bytes::from("Named")))];
    assert_eq!(named(&rules("ingest = true")), header("event-type"));
    assert_eq!(named(&rules("ingest = { event_header = \"ce_type\" }")), header("ce_type"));
    let both = r#"{"event":"Named","headers":{"event-type":"Other"},"value":1}"#;
    assert!(admit(&rules("ingest = true"), both).unwrap_err().starts_with("`event`: "));
}

#[test]
fn values_fit_the_schema_and_what_they_are_is_not_told() {
    let rules = rules("ingest = { schema = \"s.json\" }");
    for fits in [r#"{"value":{"name":"a","n":3}}"#, r#"{"key":"tombstone"}"#] {
        admit(&rules, fits).unwrap();
    }
    for (record, wrong) in [
        (r#"{"value":{"name":4711}}"#, "`value`: at /name: "),
        (r#"{"value":{"name":"a","n":-4711}}"#, "`value`: at /n: "),
        (r#"{"value":{"n":4711}}"#, "`value`: \"name\" is a required property"),
        (r#"{"value":4711}"#, "`value`: "),
        (r#"{"value_base64":"NDcxMSA0NzEx"}"#, "`value`: malformed JSON"),
    ] {
        let why = admit(&rules, record).unwrap_err();
        assert!(why.starts_with(wrong) && !why.contains("4711"), "{record}: {why}");
    }
}

#[test]
fn values_that_the_topic_is_not_read_by_are_refused() {
    let binary = r#"{"value_base64":"/w=="}"#;
    assert!(admit(&rules("ingest = true"), binary).unwrap_err().starts_with("`value`: "));
    admit(&rules("ingest = true\nvalue = \"bytes\""), binary).unwrap();
}

#[test]
fn what_is_wrong_with_a_topic_is_told_with_its_place() {
    let file =
        "[sources.f]\ntype = \"file\"\npath = \"log\"\n[sources.f.topics.t]\ningest = true\n";
    for (source, path, message) in [
        (
            format!("{KAFKA}[sources.a.topics.t]\ningest = {{ schema = \"none.json\" }}\n"),
            "sources.a.topics.t.ingest",
            "none.json cannot be read",
        ),
        (
            format!("{KAFKA}[sources.a.topics.t]\ningest = {{ schema = \"broken.json\" }}\n"),
            "sources.a.topics.t.ingest",
            "no JSON Schema",
        ),
        (
            format!(
                "{KAFKA}[sources.a.topics.t]\ningest = true\nvalue = {{ type = \"json\", framing = \"confluent\" }}\n"
            ),
            "sources.a.topics.t.ingest",
            "are read as json",
        ),
        (file.to_owned(), "sources.f.topics.t.ingest", "posted to Kafka"),
        (
            format!(
                "{KAFKA}[sources.a.topics.t]\ningest = true\n{}[sources.b.topics.t]\ningest = true\n",
                KAFKA.replace(".a]", ".b]")
            ),
            "sources.b.topics.t.ingest",
            "opened by the source `a` already",
        ),
    ] {
        let found = problems(&config(&source));
        let [problem] = found.as_slice() else { panic!("{source}: {found:?}") };
        assert_eq!(problem.path, path);
        assert!(problem.message.contains(message), "{problem}");
        assert!(Ingest::new(&config(&source), &Metrics::new().unwrap()).is_err());
    }
}

#[test]
fn a_topic_is_closed_unless_the_config_opens_it() {
    let topics = "[sources.a.topics.t]\ningest = true\n[sources.a.topics.u]\npartitions = 1\n[sources.a.topics.v]\ningest = false\n";
    let ingest = Ingest::new(&config(&format!("{KAFKA}{topics}")), &Metrics::new().unwrap());
    assert_eq!(
        ingest.unwrap_or_else(|found| panic!("{found:?}")).names().collect::<Vec<_>>(),
        ["t"]
    );
}

/// A topic that gives these ends.
struct Double(std::sync::Mutex<Vec<Result<Written, Undelivered>>>);

#[async_trait]
impl Producer for Double {
    async fn send_each(&self, _: &str, _: &[NewRecord]) -> Vec<Result<Written, Undelivered>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// An end that a producer gives, and how it is counted.
fn end(kind: u8) -> (Result<Written, Undelivered>, &'static str) {
    let failed = |error, may_be_written| Err(Undelivered { error, may_be_written });
    match kind {
        0 => (Ok(Written { partition: 2, offset: 7 }), "written"),
        1 => (failed(Error::record("too large"), false), "refused"),
        2 => (failed(Error::retriable("timed out"), false), "not_written"),
        _ => (failed(Error::retriable("timed out"), true), "unknown"),
    }
}

proptest! {
    #[test]
    fn only_503_lets_all_be_sent_again(kinds in proptest::collection::vec(0..4_u8, 1..8)) {
        let count = |kind: u8| kinds.iter().filter(|one| **one == kind).count();
        let metrics = Metrics::new().unwrap();
        let ends = kinds.iter().map(|kind| end(*kind).0).collect();
        let open = Open {
            topic: "t".to_owned(),
            rules: rules("ingest = true"),
            producer: Arc::new(Double(std::sync::Mutex::new(ends))),
            metrics: metrics.ingest("t"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ends = runtime.block_on(open.write(&[]));
        let (status, answer) = (ends.status(), ends.json());
        prop_assert_eq!(status == 503, count(2) == kinds.len(), "nothing was written, and nothing may be");
        prop_assert_eq!(status == 504, count(3) > 0);
        prop_assert_eq!(status == 200, count(0) == kinds.len());
        prop_assert_eq!(status == 400, count(0) + count(3) == 0 && count(1) > 0);
        let offsets = answer["offsets"].as_array().unwrap();
        for (told, kind) in offsets.iter().zip(&kinds) {
            let (code, offset) = match kind {
                0 => (Value::Null, json!(7)),
                1 => (json!(400), Value::Null),
                2 => (json!(503), Value::Null),
                _ => (json!(504), Value::Null),
            };
            prop_assert_eq!((&told["error_code"], &told["offset"]), (&code, &offset));
        }
        let text = metrics.render().unwrap();
        for kind in 0..4 {
            let series = match end(kind).1 {
                "written" => "foldline_records_produced_total{topic=\"t\"}".to_owned(),
                reason => format!("foldline_record_produce_failures_total{{reason=\"{reason}\",topic=\"t\"}}"),
            };
            let line = format!("{series} {}\n", count(kind));
            prop_assert!(text.contains(&line), "{} in {}", line, text);
        }
    }
}
