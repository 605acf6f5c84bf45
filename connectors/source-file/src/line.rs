//! One line of the log: read into a record's parts, and written from them.

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::json;
use foldline_api::record::Headers;
use foldline_api::time::Timestamp;
use jiter::{Jiter, JiterError, Peek};

/// What a line holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Headers,
    pub(crate) timestamp: Option<i64>,
}

/// A line that someone posts, with what no line of a log has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) line: Line,
    pub(crate) partition: Option<i32>,
    pub(crate) event: Option<String>,
}

/// Why a line is no record of this format.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Not JSON at all.
    Syntax,
    /// JSON, but not of this shape.
    Shape(&'static str),
    /// The same of one name in it.
    At(String, &'static str),
}

impl Fault {
    /// The fault with the name that it was found at.
    fn at(self, name: &str) -> Self {
        match self {
            Fault::Shape(why) => Fault::At(name.to_owned(), why),
            other => other,
        }
    }
}

impl From<JiterError> for Fault {
    fn from(_: JiterError) -> Self {
        Fault::Syntax
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Syntax => f.write_str("not JSON"),
            Fault::Shape(why) => f.write_str(why),
            Fault::At(name, why) => write!(f, "`{name}`: {why}"),
        }
    }
}

/// Reads a line; none where it is blank. What is no record becomes one whose value no converter takes.
pub(crate) fn read(line: &Bytes) -> Option<Line> {
    let value = match read_strictly(line) {
        Ok(parsed) => return parsed,
        Err(Fault::Syntax) => line.clone(),
        Err(fault) => {
            let mut marked = format!("not a log line ({fault}): ").into_bytes();
            marked.extend_from_slice(line);
            Bytes::from(marked)
        }
    };
    Some(Line { value: Some(value), ..Line::default() })
}

/// Reads a line; none where it is blank.
fn read_strictly(line: &Bytes) -> Result<Option<Line>, Fault> {
    Ok(read_names(line, false)?.map(|sent| sent.line))
}

/// Reads a line that someone posts; none where it is blank.
///
/// # Errors
/// Why it is no record.
pub(crate) fn read_posted(line: &Bytes) -> Result<Option<Sent>, Fault> {
    read_names(line, true)
}

/// `posted` says that the names which no line of a log has are known too.
fn read_names(line: &Bytes, posted: bool) -> Result<Option<Sent>, Fault> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    if std::str::from_utf8(line).is_err() {
        return Err(Fault::Syntax);
    }
    match parse(line, posted) {
        Ok(parsed) => Ok(Some(parsed)),
        // A fault of shape may be met before the line turns out not to be JSON either.
        Err(_) if !is_json(line) => Err(Fault::Syntax),
        Err(fault) => Err(fault),
    }
}

fn parse(bytes: &Bytes, posted: bool) -> Result<Sent, Fault> {
    let mut reader = Jiter::new(bytes);
    if reader.peek()? != Peek::Object {
        return Err(Fault::Shape("not an object"));
    }
    let mut out = Sent::default();
    let mut seen = [false; 6];
    let mut name = Name::of(reader.known_object()?, posted)?;
    while let Some(current) = name {
        let (part, text) = current.part();
        if seen.get_mut(part).is_some_and(|seen| std::mem::replace(seen, true)) {
            return Err(Fault::Shape("a name twice").at(text));
        }
        out.read(current, &mut reader, bytes).map_err(|fault| fault.at(text))?;
        name = Name::of(reader.next_key()?, posted)?;
    }
    reader.finish()?;
    Ok(out)
}

impl Sent {
    fn read(&mut self, name: Name, reader: &mut Jiter<'_>, bytes: &Bytes) -> Result<(), Fault> {
        let line = &mut self.line;
        match name {
            Name::Key => line.key = read_raw(reader, bytes, true)?,
            Name::Value => line.value = read_raw(reader, bytes, false)?,
            Name::KeyBase64 => line.key = read_base64(reader)?,
            Name::ValueBase64 => line.value = read_base64(reader)?,
            Name::Headers => line.headers = read_headers(reader)?,
            Name::Timestamp => line.timestamp = read_timestamp(reader)?,
            Name::Partition => self.partition = read_partition(reader)?,
            Name::Event => self.event = read_event(reader)?,
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Key,
    KeyBase64,
    Value,
    ValueBase64,
    Headers,
    Timestamp,
    Partition,
    Event,
}

impl Name {
    fn of(name: Option<&str>, posted: bool) -> Result<Option<Self>, Fault> {
        let Some(name) = name else { return Ok(None) };
        Ok(Some(match name {
            "key" => Name::Key,
            "key_base64" => Name::KeyBase64,
            "value" => Name::Value,
            "value_base64" => Name::ValueBase64,
            "headers" => Name::Headers,
            "timestamp" => Name::Timestamp,
            "partition" if posted => Name::Partition,
            "event" if posted => Name::Event,
            _ => return Err(Fault::Shape("an unknown name").at(name)),
        }))
    }

    /// Which part it is of, as names of one part stand for each other, and how it is written.
    fn part(self) -> (usize, &'static str) {
        match self {
            Name::Key => (0, "key"),
            Name::KeyBase64 => (0, "key_base64"),
            Name::Value => (1, "value"),
            Name::ValueBase64 => (1, "value_base64"),
            Name::Headers => (2, "headers"),
            Name::Timestamp => (3, "timestamp"),
            Name::Partition => (4, "partition"),
            Name::Event => (5, "event"),
        }
    }
}

fn read_partition(reader: &mut Jiter<'_>) -> Result<Option<i32>, Fault> {
    let wrong = Fault::Shape("not a partition's number");
    match reader.peek()? {
        Peek::Null => {
            reader.known_null()?;
            Ok(None)
        }
        Peek::String | Peek::Object | Peek::Array | Peek::True | Peek::False => Err(wrong),
        number => {
            let digits = reader.known_number_bytes(number)?;
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            number.filter(|number| *number >= 0).map(Some).ok_or(wrong)
        }
    }
}

fn read_event(reader: &mut Jiter<'_>) -> Result<Option<String>, Fault> {
    match reader.peek()? {
        Peek::Null => {
            reader.known_null()?;
            Ok(None)
        }
        Peek::String => match reader.known_str()? {
            "" => Err(Fault::Shape("an event without a name")),
            name => Ok(Some(name.to_owned())),
        },
        _ => Err(Fault::Shape("not a text")),
    }
}

/// The bytes of any JSON as they stand in the line, not copied; of a string, its text if asked for.
fn read_raw(reader: &mut Jiter<'_>, line: &Bytes, text: bool) -> Result<Option<Bytes>, Fault> {
    let peek = reader.peek()?;
    let from = reader.current_index();
    if peek == Peek::Null {
        reader.known_null()?;
        return Ok(None);
    }
    if peek == Peek::String && text {
        let length = reader.known_str()?.len();
        let to = reader.current_index();
        // As long as what its quotes hold: no escapes in it, so the text stands there as it is.
        if length + 2 == to - from {
            return Ok(Some(line.slice(from + 1..to - 1)));
        }
        let quoted = line.slice(from..to);
        let mut again = Jiter::new(&quoted);
        return Ok(Some(Bytes::copy_from_slice(again.next_str()?.as_bytes())));
    }
    reader.known_skip(peek)?;
    Ok(Some(line.slice(from..reader.current_index())))
}

fn read_base64(reader: &mut Jiter<'_>) -> Result<Option<Bytes>, Fault> {
    match reader.peek()? {
        Peek::Null => {
            reader.known_null()?;
            Ok(None)
        }
        Peek::String => {
            let bytes = json::parse_base64(reader.known_str()?);
            Ok(Some(Bytes::from(bytes.ok_or(Fault::Shape("no base64"))?)))
        }
        _ => Err(Fault::Shape("no base64")),
    }
}

fn read_headers(reader: &mut Jiter<'_>) -> Result<Headers, Fault> {
    let wrong = Fault::Shape("not an object of texts");
    let mut headers = Headers::new();
    match reader.peek()? {
        Peek::Null => {
            reader.known_null()?;
            return Ok(headers);
        }
        Peek::Object => {}
        _ => return Err(wrong),
    }
    let mut name = reader.known_object()?.map(Arc::<str>::from);
    while let Some(current) = name {
        let value = match reader.peek()? {
            Peek::Null => {
                reader.known_null()?;
                None
            }
            Peek::String => Some(Bytes::copy_from_slice(reader.known_str()?.as_bytes())),
            Peek::Object if reader.known_object()? == Some("base64") => {
                let bytes = read_base64(reader)?;
                if reader.next_key()?.is_some() {
                    return Err(wrong);
                }
                bytes
            }
            _ => return Err(wrong),
        };
        headers.push((current, value));
        name = reader.next_key()?.map(Arc::from);
    }
    Ok(headers)
}

fn read_timestamp(reader: &mut Jiter<'_>) -> Result<Option<i64>, Fault> {
    let wrong = Fault::Shape("neither milliseconds nor RFC 3339");
    match reader.peek()? {
        Peek::Null => {
            reader.known_null()?;
            Ok(None)
        }
        Peek::String => {
            let moment: Timestamp = reader.known_str()?.parse().map_err(|_| wrong)?;
            Ok(Some(moment.micros().div_euclid(1_000)))
        }
        Peek::Object | Peek::Array | Peek::True | Peek::False => Err(wrong),
        number => {
            let digits = reader.known_number_bytes(number)?;
            let millis = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
            millis.map(Some).ok_or(wrong)
        }
    }
}

/// Writes a line, its end included; read back it gives the same bytes.
pub(crate) fn write(line: &Line) -> Vec<u8> {
    let mut out = String::from("{");
    let name = |out: &mut String, name: &str| {
        out.push_str(if out.len() > 1 { ",\"" } else { "\"" });
        out.push_str(name);
        out.push_str("\":");
    };
    match line.key.as_deref().map(|key| (std::str::from_utf8(key), key)) {
        None => {}
        Some((Ok(text), _)) => {
            name(&mut out, "key");
            json::write_text(text, &mut out);
        }
        Some((Err(_), key)) => {
            name(&mut out, "key_base64");
            write_base64(key, &mut out);
        }
    }
    match line.value.as_deref().map(|value| (as_it_is(value), value)) {
        None => {}
        Some((Some(text), _)) => {
            name(&mut out, "value");
            out.push_str(text);
        }
        Some((None, value)) => {
            name(&mut out, "value_base64");
            write_base64(value, &mut out);
        }
    }
    if !line.headers.is_empty() {
        name(&mut out, "headers");
        write_headers(&line.headers, &mut out);
    }
    if let Some(timestamp) = line.timestamp {
        name(&mut out, "timestamp");
        out.push_str(&timestamp.to_string());
    }
    out.push_str("}\n");
    out.into_bytes()
}

/// A value as the text to put into the line, if it can stand there byte by byte: JSON on one line that
/// is not null (which would be a tombstone) and has no space around it (which would be lost).
fn as_it_is(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    if value.trim_ascii().len() != value.len() || value.contains(&b'\n') || text == "null" {
        return None;
    }
    is_json(value).then_some(text)
}

/// Whether these bytes, known to be UTF-8, are one JSON document.
fn is_json(bytes: &[u8]) -> bool {
    let mut reader = Jiter::new(bytes);
    reader.next_skip().is_ok() && reader.finish().is_ok()
}

fn write_headers(headers: &Headers, out: &mut String) {
    out.push('{');
    for (at, (name, value)) in headers.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        json::write_text(name, out);
        out.push(':');
        match value.as_deref().map(|value| (std::str::from_utf8(value), value)) {
            None => out.push_str("null"),
            Some((Ok(text), _)) => json::write_text(text, out),
            Some((Err(_), bytes)) => {
                out.push_str("{\"base64\":");
                write_base64(bytes, out);
                out.push('}');
            }
        }
    }
    out.push('}');
}

fn write_base64(bytes: &[u8], out: &mut String) {
    out.push('"');
    json::write_base64(bytes, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(line: &str) -> (Option<String>, Option<String>) {
        let line = read(&Bytes::copy_from_slice(line.as_bytes())).unwrap();
        let text = |bytes: Option<Bytes>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
        (text(line.key), text(line.value))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn keys_and_values_are_handed_on_as_they_stand() {
        for (line, key, value) in [
            (r#"{"key":"a","value":{"n": 1.50 }}"#, some("a"), some(r#"{"n": 1.50 }"#)),
            (
                r#" { "value" : "text" , "key" : 12345678901234567890 } "#,
                some("12345678901234567890"),
                some("\"text\""),
            ),
            (r#"{"key":"a\"\u00e9","value":null}"#, some("a\"é"), None),
            (r#"{"key":{"id":1}}"#, some(r#"{"id":1}"#), None),
            (r#"{"key_base64":"YWI=","value_base64":"Y2Q="}"#, some("ab"), some("cd")),
            ("{}\r", None, None),
        ] {
            assert_eq!(parts(line), (key, value), "{line}");
        }
    }

    #[test]
    fn what_is_no_record_becomes_a_value_that_no_json_converter_takes() {
        for line in [
            "{",
            "{\"key\":1} x",
            "[1,2]",
            "3",
            "{\"vlaue\":1}",
            "{\"key\":1,\"key_base64\":\"YQ==\"}",
            "{\"value\":1,\"value\":2}",
            "{\"timestamp\":\"yesterday\"}",
            "{\"timestamp\":1.5}",
            "{\"headers\":{\"a\":1}}",
            "{\"headers\":[]}",
            "{\"key_base64\":\"?\"}",
            "{\"value\":01}",
        ] {
            let (key, value) = parts(line);
            let value = value.unwrap();
            assert!(key.is_none() && value.ends_with(line), "{line}");
            assert!(json::parse(value.as_bytes()).is_err(), "{value} must not pass for an event");
        }
        let binary = Bytes::from_static(b"{\"key\":\"\xff\"}");
        assert_eq!(read(&binary).unwrap().value, Some(binary));
        assert_eq!(read(&Bytes::from_static(b" \r")), None);
    }

    #[test]
    fn timestamps_are_milliseconds_or_rfc_3339() {
        for (line, expect) in [
            ("{\"timestamp\":1767225600123}", Some(1_767_225_600_123)),
            ("{\"timestamp\":\"2026-01-01T01:00:00.123+01:00\"}", Some(1_767_225_600_123)),
            ("{\"timestamp\":null}", None),
        ] {
            let line = read(&Bytes::from_static(line.as_bytes())).unwrap();
            assert_eq!(line.timestamp, expect);
        }
    }

    fn bytes() -> impl Strategy<Value = Option<Bytes>> {
        let json = prop_oneof![
            Just("null"),
            Just("{\"a\":1}"),
            Just(" 1"),
            Just("1\n"),
            Just("\"x\""),
            Just("{\"a\":1,}")
        ];
        proptest::option::of(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
            any::<String>().prop_map(Bytes::from),
            json.prop_map(Bytes::from),
        ])
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_byte_by_byte(
            (key, value) in (bytes(), bytes()),
            headers in proptest::collection::vec((any::<String>(), bytes()), 0..3),
            timestamp in any::<Option<i64>>(),
        ) {
            let headers = headers.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
            let line = Line { key, value, headers, timestamp };
            let text = write(&line);
            prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
            let text = Bytes::from(text);
            prop_assert_eq!(read(&text.slice(..text.len() - 1)), Some(line));
        }
    }
}
