//! CloudEvents: rule by rule, and against a plain model of what was sent.

mod sent;

use std::sync::Arc;

use apache_avro::types::Record as AvroRecord;
use bytes::Bytes;
use foldline_api::record::Headers;

use super::config;
use super::log::Log;
use crate::config::projection::ProjectionConfig;
use crate::converter::avro::{Avro, Schema};
use crate::converter::{Format, Framing};
use crate::projection::Projection;

fn read(text: &str) -> ProjectionConfig {
    config(text).unwrap_or_else(|problems| panic!("{problems:#?}")).remove(0)
}

fn log(text: &str) -> Log {
    let projection = Projection::compile(&read(text));
    Log::new(projection.unwrap_or_else(|problems| panic!("{problems:#?}\n{text}")))
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let header = |(name, text): &(&str, &str)| {
        (Arc::from(*name), Some(Bytes::copy_from_slice(text.as_bytes())))
    };
    pairs.iter().map(header).collect()
}

/// A projection with these handlers, whose rows go by the record's key.
fn projection(on: &str) -> String {
    format!(
        "[projections.p]\ntopics = [\"t\"]\nenvelope = \"cloudevents\"\nkey = {{ id = \"key\" }}\n\
         fields = {{ id = \"bigint\", name = \"text\", note = \"text\" }}\n{on}"
    )
}

const SET: &str = "[[projections.p.on]]\nevent = \"named\"\nset = { name = \"event.name\", note = \"envelope.source\" }\n\
                   [[projections.p.on]]\nevent = \"noted\"\nset = { note = \"envelope.time\" }";
const BINARY: [(&str, &str); 3] =
    [("ce_specversion", "1.0"), ("ce_type", "named"), ("ce_source", "/a")];
const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");

fn structured(rest: &str) -> String {
    format!(r#"{{"specversion":"1.0","type":"named","source":"/a"{rest}}}"#)
}

#[test]
fn the_headers_say_which_mode_it_is_whatever_their_case() {
    let data = r#","data":{"name":"ann"}"#;
    for (given, value) in [
        (headers(&BINARY), r#"{"name":"ann"}"#.to_owned()),
        (
            headers(&[("CE_SpecVersion", "1.0"), ("Ce_TYPE", "named"), ("ce_Source", "/a")]),
            r#"{"name":"ann"}"#.to_owned(),
        ),
        // The last of a name counts, as everywhere.
        (
            headers(&[&[("ce_type", "other"), ("ce_source", "/b")], &BINARY[..]].concat()),
            r#"{"name":"ann"}"#.to_owned(),
        ),
        (headers(&[STRUCTURED]), structured(data)),
        (
            headers(&[("Content-Type", "Application/CloudEvents+JSON; charset=utf-8")]),
            structured(data),
        ),
        // Structured mode may repeat the attributes in headers.
        (headers(&[("ce_specversion", "1.0"), ("ce_type", "other"), STRUCTURED]), structured(data)),
        (
            headers(&[STRUCTURED]),
            structured(r#","data":null,"data_base64":"eyJuYW1lIjoiYW5uIn0=""#),
        ),
    ] {
        let mut log = log(&projection(SET));
        assert_eq!(log.fold_with(Some("1"), Some(value.as_bytes()), given), "applied", "{value}");
        assert_eq!(log.rows(), [r#"1 "ann" "/a""#], "{value}");
    }
}

#[test]
fn what_is_no_cloudevent_says_what_is_wrong() {
    let whole = |text: &str| text.to_owned();
    let version = |version| [("ce_specversion", version), ("ce_type", "named")];
    for (given, value, says) in [
        (vec![], whole("{}"), "neither a header ce_specversion nor the content-type"),
        (vec![("ce_type", "named")], whole("{}"), "neither a header ce_specversion"),
        (vec![("content-type", "application/json")], whole("{}"), "neither a header"),
        (
            vec![("content-type", "application/cloudevents-batch+json; charset=utf-8")],
            whole("[]"),
            "a batch of CloudEvents is not read",
        ),
        (vec![("content-type", "application/cloudevents+avro")], whole(""), "+json only"),
        (version("0.3").to_vec(), whole("{}"), "specversion \"0.3\" is not read"),
        (vec![("ce_specversion", "1.0")], whole("{}"), "has no `type`"),
        (vec![("ce_specversion", "1.0"), ("ce_type", "")], whole("{}"), "has no `type`"),
        (vec![STRUCTURED], whole("[]"), "a list is no CloudEvent"),
        (vec![STRUCTURED], whole("null"), "null is no CloudEvent"),
        (vec![STRUCTURED], whole(r#"{"type":"named"}"#), "has no `specversion`"),
        (vec![STRUCTURED], whole(r#"{"specversion":"1.0"}"#), "has no `type`"),
        (vec![STRUCTURED], whole(r#"{"specversion":1.0,"type":"named"}"#), "`specversion` is"),
        (vec![STRUCTURED], structured(r#","source":{}"#), "the attribute `source` is"),
        (
            vec![STRUCTURED],
            structured(r#","data":{"name":1},"data_base64":"e30=""#),
            "may have one",
        ),
        (vec![STRUCTURED], structured(r#","data":7,"data_base64":"e30=""#), "may have one"),
        (vec![STRUCTURED], structured(r#","data_base64":"*""#), "is not base64"),
        (vec![STRUCTURED], structured(r#","data_base64":7"#), "not base64"),
        (vec![STRUCTURED], whole("{"), "value"),
        (BINARY.to_vec(), whole("{"), "value"),
        // Into what is no object there is no path, and an event without data empties no row.
        (BINARY.to_vec(), whole("7"), "the value is a number, not an object"),
        (BINARY.to_vec(), whole(""), "the CloudEvent has no data"),
        (BINARY.to_vec(), whole("null"), "the CloudEvent has no data"),
        (vec![STRUCTURED], structured(""), "the CloudEvent has no data"),
        (vec![STRUCTURED], structured(r#","data":null"#), "the CloudEvent has no data"),
        (vec![STRUCTURED], structured(r#","data":[1]"#), "the value is a list, not an object"),
        (vec![STRUCTURED], structured(r#","data":"{}""#), "a text that looks like JSON"),
    ] {
        let mut log = log(&projection(SET));
        let outcome = log.fold_with(Some("1"), Some(value.as_bytes()), headers(&given));
        assert!(outcome.contains(says), "{given:?} {value}: {outcome}");
        assert!(log.rows().is_empty());
    }
    let broken = vec![(Arc::from("ce_specversion"), Some(Bytes::from_static(b"\xff")))];
    let outcome = log(&projection(SET)).fold_with(Some("1"), Some(b"{}"), broken);
    assert!(outcome.contains("no UTF-8"), "{outcome}");
}

#[test]
fn an_event_without_data_is_one_and_only_a_null_value_is_a_tombstone() {
    let mut log = log(&projection(SET));
    assert_eq!(log.fold_with(Some("1"), Some(br#"{"name":"ann"}"#), headers(&BINARY)), "applied");
    let noted = [("ce_specversion", "1.0"), ("ce_type", "noted"), ("ce_time", "then")];
    for value in [&b""[..], b"null"] {
        assert_eq!(log.fold_with(Some("1"), Some(value), headers(&noted)), "applied");
        assert_eq!(log.rows(), [r#"1 "ann" "then""#]);
    }
    // A tombstone has no need of headers, and of those that it has none makes it anything else.
    for given in [vec![], BINARY.to_vec(), vec![STRUCTURED]] {
        log.fold_with(Some("1"), Some(br#"{"name":"ann"}"#), headers(&BINARY));
        assert_eq!(log.fold_with(Some("1"), None, headers(&given)), "applied");
        assert!(log.rows().is_empty());
    }
}

#[test]
fn the_topics_converter_reads_what_is_no_json() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"name","type":"string"}]}"#;
    let own = apache_avro::Schema::parse_str(schema).unwrap();
    let mut record = AvroRecord::new(&own).unwrap();
    record.put("name", "ann");
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&own).build().unwrap();
    let mut datum = Vec::new();
    writer.write_value(&mut datum, record).unwrap();
    let avro = || {
        let mut log = log(&projection(SET));
        let schema = Arc::new(Schema::parse(schema, &[]).unwrap());
        let mask = &log.decoder.mask;
        log.decoder.value = Format::Avro(Arc::new(Avro::new(schema, Framing::Auto, mask)));
        log
    };
    let mut base64 = String::new();
    foldline_api::json::write_base64(&datum, &mut base64);
    let binary = (datum, headers(&BINARY));
    let in_base64 = (structured(&format!(r#","data_base64":"{base64}""#)), headers(&[STRUCTURED]));
    let json = (structured(r#","data":{"name":"ann"}"#), headers(&[STRUCTURED]));
    for (value, given) in [binary, (in_base64.0.into(), in_base64.1), (json.0.into(), json.1)] {
        let mut log = avro();
        let outcome = log.fold_with(Some("1"), Some(&value), given);
        assert_eq!(outcome, "applied", "{:?}", String::from_utf8_lossy(&value));
        assert_eq!(log.rows(), [r#"1 "ann" "/a""#]);
    }
    // A text of another media type than JSON is what the value would be.
    let set = "[[projections.p.on]]\nset = { name = \"event\" }";
    for (media, binary_value, document, row) in [
        ("text/plain", "{}", r#","data":"{}""#, r#"1 "{}" null"#),
        ("application/vnd.a+json", "\"a\"", r#","data":"a""#, r#"1 "a" null"#),
    ] {
        let text = |value: &str, given: &[(&str, &str)]| {
            let mut log = log(&projection(set));
            if media == "text/plain" {
                log.decoder.value = Format::Text;
            }
            assert_eq!(log.fold_with(Some("1"), Some(value.as_bytes()), headers(given)), "applied");
            log.rows()
        };
        let binary = [&BINARY[..], &[("content-type", media)]].concat();
        let document = structured(&format!(r#"{document},"datacontenttype":"{media}""#));
        assert_eq!(text(binary_value, &binary), [row]);
        assert_eq!(text(&document, &[STRUCTURED]), [row]);
    }
}

#[test]
fn only_attributes_are_read_of_the_envelope() {
    for (path, says) in [
        ("envelope", "read name by name"),
        ("envelope.data", "the data of a CloudEvent is `event`"),
        ("envelope.data_base64.a", "the data of a CloudEvent is `event`"),
        ("envelope.Type", "lower-case letters and digits"),
        ("envelope['my-ext']", "lower-case letters and digits"),
        ("envelope.source.a", "is a text, which has no fields"),
        ("has(envelope.Type)", "lower-case letters and digits"),
    ] {
        let on = format!("[[projections.p.on]]\nset = {{ name = \"{path}\" }}");
        let problems = Projection::compile(&read(&projection(&on))).unwrap_err();
        let text = problems[0].to_string();
        assert!(text.contains(says), "{path}: {text}");
    }
    // A name that means something in Debezium's envelope is an extension here.
    let mut log = log(&projection("[[projections.p.on]]\nset = { name = \"envelope.before\" }"));
    let given = [&BINARY[..], &[("ce_before", "b")]].concat();
    assert_eq!(log.fold_with(Some("1"), Some(b"{}"), headers(&given)), "applied");
    assert_eq!(log.rows(), [r#"1 "b" null"#]);
}
