//! What stands before a key or a value in its bytes, or beside it in the record's headers: the id of its schema.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::ConvertError;
use super::schema::Encoded;

/// How keys or values are framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// As the bytes say. By a schema from a file: the mark of single-object encoding and this schema's own fingerprint, else none.
    /// Of a registry: the record's headers, then the bytes.
    #[default]
    Auto,
    /// Nothing but the value.
    None,
    /// Single-object encoding: `C3 01`, then the schema's fingerprint.
    SingleObject,
    /// Confluent's: `00` and an id of four bytes, or `01` and a GUID.
    Confluent,
    /// The id is in the record's headers.
    Headers,
    /// `00` and an id of eight bytes, as Apicurio's older serializers write it.
    Apicurio8,
}

/// Which schema it is, as its writer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaId {
    /// The id of Confluent's API.
    Id(u32),
    /// The GUID of Confluent's API.
    Guid(Uuid),
    /// Apicurio's id of a version of an artifact.
    GlobalId(u64),
    /// Apicurio's id of a text.
    ContentId(u64),
    /// CRC-64-AVRO of a schema's canonical form, or whatever its writer took for it.
    Fingerprint(u64),
}

impl SchemaId {
    /// As it is written where schemas are kept.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            SchemaId::Id(id) => format!("id:{id}"),
            SchemaId::Guid(guid) => format!("guid:{guid}"),
            SchemaId::GlobalId(id) => format!("global-id:{id}"),
            SchemaId::ContentId(id) => format!("content-id:{id}"),
            SchemaId::Fingerprint(one) => format!("fingerprint:{one:016x}"),
        }
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Id(id) => write!(f, "schema {id}"),
            SchemaId::Guid(guid) => write!(f, "the schema of GUID {guid}"),
            SchemaId::GlobalId(id) => write!(f, "the schema of Apicurio's global id {id}"),
            SchemaId::ContentId(id) => write!(f, "the schema of Apicurio's content id {id}"),
            SchemaId::Fingerprint(one) => write!(f, "the schema of fingerprint {one:#018x}"),
        }
    }
}

/// A part of a record, as headers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its key.
    Key,
    /// Its value.
    Value,
}

/// By how many bytes a GUID is written.
const GUID: usize = 16;

/// Which schema a value is of, and the value.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The schema.
    pub id: SchemaId,
    /// Where a header has the id: what else the header has.
    pub of_header: Option<&'a [u8]>,
    /// The value, and before it what else the frame has of the schema's type.
    pub value: &'a [u8],
}

/// The schema's id and the value without its frame.
///
/// # Errors
/// When there is no such frame; the message says what there is.
pub(super) fn unframe<'a>(
    framing: Framing,
    part: Part,
    encoded: Encoded<'a>,
) -> Result<Frame<'a>, ConvertError> {
    let bytes = encoded.bytes;
    let headers = matches!(framing, Framing::Auto | Framing::Headers);
    if headers && let Some((id, rest)) = of_headers(part, encoded)? {
        return Ok(Frame { id, of_header: Some(rest), value: bytes });
    }
    let framed = match framing {
        Framing::Headers | Framing::None => None,
        Framing::SingleObject => {
            single_object(bytes).map(|(one, value)| (SchemaId::Fingerprint(one), value))
        }
        Framing::Auto | Framing::Confluent => confluent(bytes),
        Framing::Apicurio8 => bytes
            .strip_prefix(&[0])
            .and_then(|rest| rest.split_first_chunk::<8>())
            .map(|(id, value)| (SchemaId::GlobalId(u64::from_be_bytes(*id)), value)),
    };
    match framed {
        Some((SchemaId::Id(0), _)) => Err(ConvertError::Schema(
            "begins with 00 and the number 0, which is no schema's id; where ids have eight bytes: \
             framing = \"apicurio-8-byte\""
                .to_owned(),
        )),
        Some((id, value)) => Ok(Frame { id, of_header: None, value }),
        None => Err(unframed(framing, bytes)),
    }
}

/// Confluent's frame.
pub(super) fn confluent(bytes: &[u8]) -> Option<(SchemaId, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => {
            let (id, value) = rest.split_first_chunk::<4>()?;
            Some((SchemaId::Id(u32::from_be_bytes(*id)), value))
        }
        (1, rest) => {
            let (guid, value) = rest.split_first_chunk::<GUID>()?;
            Some((SchemaId::Guid(Uuid::from_bytes(*guid)), value))
        }
        _ => None,
    }
}

/// The fingerprint and the value, of what is single-object encoded.
pub(super) fn single_object(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (fingerprint, value) = bytes.strip_prefix(&[0xc3, 0x01])?.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*fingerprint), value))
}

/// The id that the headers name; the last header of a name counts, as to those who write them.
fn of_headers<'a>(
    part: Part,
    encoded: Encoded<'a>,
) -> Result<Option<(SchemaId, &'a [u8])>, ConvertError> {
    if encoded.headers.is_empty() {
        return Ok(None);
    }
    let header = |of_key: &str, of_value: &str| {
        let name = if part == Part::Key { of_key } else { of_value };
        let last = encoded.headers.iter().rev().find(|(known, _)| &**known == name);
        last.and_then(|(_, value)| value.as_deref())
    };
    if let Some(id) = header("__key_schema_id", "__value_schema_id") {
        return confluent(id).map(Some).ok_or_else(|| no_id("__value_schema_id", id));
    }
    let global = header("apicurio.key.globalId", "apicurio.value.globalId");
    let content = header("apicurio.key.contentId", "apicurio.value.contentId");
    let (name, id, make): (_, _, fn(u64) -> SchemaId) = match (global, content) {
        (Some(id), _) => ("globalId", id, SchemaId::GlobalId),
        (None, Some(id)) => ("contentId", id, SchemaId::ContentId),
        (None, None) => return Ok(None),
    };
    let encoding = header("apicurio.key.encoding", "apicurio.value.encoding");
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"BINARY")) {
        return Err(ConvertError::Schema(
            "is encoded otherwise than BINARY, as its header apicurio.value.encoding says".into(),
        ));
    }
    let id = <[u8; 8]>::try_from(id).map_err(|_| no_id(name, id))?;
    Ok(Some((make(u64::from_be_bytes(id)), &[])))
}

fn no_id(name: &str, found: &[u8]) -> ConvertError {
    ConvertError::Schema(format!("has a header {name} of {} bytes, which is no id", found.len()))
}

#[cold]
pub(super) fn unframed(framing: Framing, bytes: &[u8]) -> ConvertError {
    let expected = match framing {
        Framing::Headers => "no id of a schema in the headers",
        Framing::Apicurio8 => "no frame of 00 and eight bytes",
        Framing::SingleObject => "no mark of single-object encoding, C3 01 and a fingerprint",
        Framing::None | Framing::Auto | Framing::Confluent => "no id of a schema before the value",
    };
    let met = met(bytes).map(|met| format!("; {met}")).unwrap_or_default();
    ConvertError::Schema(format!("has {expected}{met}"))
}

/// What bytes may be that are not what they were taken for.
#[cold]
pub(super) fn met(bytes: &[u8]) -> Option<String> {
    let met = match bytes {
        // Of ids beyond this more are data than ids.
        [0, 0, a, b, c, _, ..] => format!(
            "it begins with 00 and the number {}, as a schema registry's frame does: by that id the registry has the schema",
            u32::from_be_bytes([0, *a, *b, *c])
        ),
        [3, 0 | 5, ..] if bytes.len() > 18 => {
            "it begins with 03 as a frame of AWS Glue does, which cannot be read".to_owned()
        }
        [0xc3, 1, ..] if bytes.len() > 10 => {
            "it begins with C3 01 as Avro's single-object encoding does, whose schemas a registry of type \"topic\" has".to_owned()
        }
        [b'{', .., b'}'] => "it looks like JSON".to_owned(),
        _ => return None,
    };
    Some(met)
}

/// JSON without its frame. A text begins with neither 00 nor 01, so that there is nothing to guess.
///
/// # Errors
/// When the framing is Confluent's and there is none.
pub(super) fn json(framing: Framing, bytes: &[u8]) -> Result<&[u8], ConvertError> {
    match (framing, confluent(bytes)) {
        (Framing::Auto | Framing::Confluent, Some((_, value))) => Ok(value),
        (Framing::Confluent, None) => Err(unframed(framing, bytes)),
        _ => Ok(bytes),
    }
}

/// What else JSON is than text, where a frame stands before it.
pub(super) fn json_error(error: foldline_api::json::JsonError, bytes: &[u8]) -> ConvertError {
    match confluent(bytes) {
        Some((SchemaId::Id(id), [b'{' | b'[', ..])) => ConvertError::Schema(format!(
            "begins with 00 and the number {id}, as a schema registry's frame does, and JSON behind it: \
             value = {{ type = \"json\", framing = \"confluent\" }}"
        )),
        Some((SchemaId::Id(id), _)) if bytes.get(1) == Some(&0) => ConvertError::Schema(format!(
            "is no JSON; it begins with 00 and the number {id}, as a schema registry's frame does: \
             value = {{ type = \"avro\", registry = \"…\" }}"
        )),
        _ => error.into(),
    }
}

/// For messages of what a registry has.
pub(super) fn told(text: impl Into<Arc<str>>) -> ConvertError {
    ConvertError::Schema(text.into().to_string())
}

#[cfg(test)]
mod tests {
    use foldline_api::budget::Budget;

    use super::*;
    use crate::converter::{Format, whole};

    #[test]
    fn json_behind_a_frame_is_json_and_elsewhere_the_frame_is_named() {
        let read = |format: &Format, bytes: &[u8]| {
            let value = whole(format, Encoded { bytes, headers: &[] }, &Budget::default());
            value.map(|value| foldline_api::json::to_string(&value)).map_err(|e| e.to_string())
        };
        let text: &[u8] = b"{\"a\":7}";
        let framed = [&[0, 0, 0, 0, 9], text].concat();
        let seven = Ok("{\"a\":7}".to_owned());
        for framing in [Framing::Auto, Framing::Confluent] {
            assert_eq!(read(&Format::FramedJson(framing), &framed), seven);
        }
        assert_eq!(read(&Format::FramedJson(Framing::Auto), text), seven);
        let unframed = read(&Format::FramedJson(Framing::Confluent), text).unwrap_err();
        assert!(unframed.contains("no id of a schema before the value; it looks like JSON"));
        let json = read(&Format::Json, &framed).unwrap_err();
        assert!(json.contains("the number 9") && json.contains("framing = \"confluent\""));
        let avro = read(&Format::Json, &[0, 0, 0, 0, 9, 14]).unwrap_err();
        assert!(avro.contains("type = \"avro\", registry"), "{avro}");
    }
}
