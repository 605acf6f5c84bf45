//! A writer's schema: what it is compiled to, its canonical form and its fingerprint.

use std::fmt::Write as _;
use std::sync::Arc;

use super::parse;
use super::scalar::{FixedKind, Scalar};

/// The field under which a record that names an event has its full name; one of its own of that name wins.
pub(super) const RECORD_NAME: &str = "@record";

/// Why a text is no schema that can be read by: where in it, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct SchemaError {
    pub(super) place: String,
    pub(super) what: String,
}

/// Another schema, whose names this one uses.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Its JSON.
    pub text: &'a str,
}

/// A schema to read by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub(super) types: Vec<Type>,
    pub(super) root: usize,
}

/// A type; others are named by where they stand in [`Schema::types`], so that one may hold itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar(Scalar),
    Fixed(Fixed),
    Enum { name: Arc<str>, symbols: Vec<Arc<str>> },
    Array(usize),
    Map(usize),
    Union(Union),
    Record(Record),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) name: Arc<str>,
    pub(super) size: usize,
    pub(super) kind: FixedKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Union {
    pub(super) branches: Vec<usize>,
    /// Whether several of them are records: then which one it is says something.
    pub(super) tells: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// With its namespace.
    pub(super) name: Arc<str>,
    /// Without.
    pub(super) short: Arc<str>,
    pub(super) fields: Vec<Field>,
    /// The fields' names as an object has them, sorted.
    pub(super) names: Vec<Arc<str>>,
    /// Where [`RECORD_NAME`] stands among them; none where a field has that name.
    pub(super) tag: Option<usize>,
    /// It is Debezium's number with a scale of its own: `scale` and `value`.
    pub(super) number: bool,
    pub(super) size: Size,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) ty: usize,
    /// Where its name stands in [`Record::names`].
    pub(super) sorted: usize,
}

/// How many bytes values take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) least: usize,
    /// All take the same, and any bytes are one.
    pub(super) fixed: bool,
}

impl Size {
    pub(super) const EMPTY: Size = Size { least: 0, fixed: true };

    fn exactly(least: usize) -> Self {
        Size { least, fixed: true }
    }

    fn from(least: usize) -> Self {
        Size { least, fixed: false }
    }

    pub(super) fn plus(self, other: Size) -> Self {
        Size { least: self.least.saturating_add(other.least), fixed: self.fixed && other.fixed }
    }
}

const NULL: &Type = &Type::Scalar(Scalar::Null);

impl Schema {
    /// Reads a schema. `references` define the types that it names and does not define; each may use those before it.
    ///
    /// Names may be of any characters, and defaults and aliases are not looked at: it is the writer's schema, and
    /// nothing is resolved against another one.
    ///
    /// # Errors
    /// When it is no schema, with the place.
    pub fn parse(text: &str, references: &[Reference<'_>]) -> Result<Schema, SchemaError> {
        parse::schema(text, references)
    }

    pub(super) fn ty(&self, at: usize) -> &Type {
        self.types.get(at).unwrap_or(NULL)
    }

    pub(super) fn size(&self, at: usize) -> Size {
        match self.ty(at) {
            Type::Scalar(scalar) => match scalar.base() {
                "null" => Size::EMPTY,
                "float" => Size::exactly(4),
                "double" => Size::exactly(8),
                // A boolean is a byte of two, a length is followed by what it says.
                _ => Size::from(1),
            },
            Type::Fixed(fixed) => Size::exactly(fixed.size),
            Type::Enum { .. } | Type::Array(_) | Type::Map(_) | Type::Union(_) => Size::from(1),
            Type::Record(record) => record.size,
        }
    }

    /// The parsing canonical form, by which schemas that read alike are one: it has neither logical types nor defaults.
    #[must_use]
    pub fn canonical_form(&self) -> String {
        let mut out = String::new();
        self.write(self.root, &mut vec![false; self.types.len()], &mut out);
        out
    }

    /// CRC-64-AVRO of the canonical form, by which single-object encoding names a schema.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        crc_64_avro(self.canonical_form().as_bytes())
    }

    fn write(&self, at: usize, written: &mut [bool], out: &mut String) {
        let ty = self.ty(at);
        if let Type::Fixed(Fixed { name, .. })
        | Type::Enum { name, .. }
        | Type::Record(Record { name, .. }) = ty
        {
            if written.get(at).copied().unwrap_or_default() {
                let _ = write!(out, "\"{name}\"");
                return;
            }
            if let Some(written) = written.get_mut(at) {
                *written = true;
            }
        }
        match ty {
            Type::Scalar(scalar) => {
                let _ = write!(out, "\"{}\"", scalar.base());
            }
            Type::Fixed(Fixed { name, size, .. }) => {
                let _ = write!(out, r#"{{"name":"{name}","type":"fixed","size":{size}}}"#);
            }
            Type::Enum { name, symbols } => {
                let symbols: Vec<String> = symbols.iter().map(|one| format!("\"{one}\"")).collect();
                let symbols = symbols.join(",");
                let _ = write!(out, r#"{{"name":"{name}","type":"enum","symbols":[{symbols}]}}"#);
            }
            Type::Array(items) => {
                out.push_str(r#"{"type":"array","items":"#);
                self.write(*items, written, out);
                out.push('}');
            }
            Type::Map(values) => {
                out.push_str(r#"{"type":"map","values":"#);
                self.write(*values, written, out);
                out.push('}');
            }
            Type::Union(union) => {
                for (nth, branch) in union.branches.iter().enumerate() {
                    out.push(if nth == 0 { '[' } else { ',' });
                    self.write(*branch, written, out);
                }
                out.push(']');
            }
            Type::Record(record) => self.write_record(record, written, out),
        }
    }

    fn write_record(&self, record: &Record, written: &mut [bool], out: &mut String) {
        let _ = write!(out, r#"{{"name":"{}","type":"record","fields":["#, record.name);
        for (nth, field) in record.fields.iter().enumerate() {
            if nth > 0 {
                out.push(',');
            }
            let _ = write!(out, r#"{{"name":"{}","type":"#, field.name);
            self.write(field.ty, written, out);
            out.push('}');
        }
        out.push_str("]}");
    }
}

/// The specification's: Rabin's fingerprint of 64 bits.
fn crc_64_avro(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    let step = |crc: u64| (crc >> 1) ^ (EMPTY & 0u64.wrapping_sub(crc & 1));
    let mut crc = EMPTY;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = step(crc);
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Schema {
        Schema::parse(text, &[]).unwrap()
    }

    /// From the specification's own list of test cases, `schema-tests.txt`.
    #[test]
    fn fingerprints_are_the_specifications() {
        for (text, expected) in [
            (r#""null""#, 7_195_948_357_588_979_594_i64),
            (r#"{"type":"boolean"}"#, -6_970_731_678_124_411_036),
            (r#""int""#, 8_247_732_601_305_521_295),
            (r#"["int"]"#, -5_232_228_896_498_058_493),
            (r#"["int",{"type":"boolean"}]"#, 5_392_556_393_470_105_090),
        ] {
            assert_eq!(schema(text).fingerprint().cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn the_canonical_form_leaves_out_what_does_not_change_the_bytes() {
        let text = r#"{"type":"record","doc":"d","namespace":"x.y","name":"A","aliases":["B"],"fields":[
            {"default":null,"name":"n","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
            {"name":"f","type":{"type":"fixed","size":16,"name":"F","logicalType":"uuid"}},
            {"name":"e","type":{"symbols":["a","b"],"type":"enum","name":"z.E","default":"a"}},
            {"name":"a","type":{"type":"array","items":"A"}},
            {"name":"m","type":{"type":"map","values":{"type":{"type":"bytes","logicalType":"decimal","precision":4}}}},
            {"name":"g","type":"F"}]}"#;
        assert_eq!(
            schema(text).canonical_form(),
            concat!(
                r#"{"name":"x.y.A","type":"record","fields":[{"name":"n","type":["null","long"]},"#,
                r#"{"name":"f","type":{"name":"x.y.F","type":"fixed","size":16}},"#,
                r#"{"name":"e","type":{"name":"z.E","type":"enum","symbols":["a","b"]}},"#,
                r#"{"name":"a","type":{"type":"array","items":"x.y.A"}},"#,
                r#"{"name":"m","type":{"type":"map","values":"bytes"}},{"name":"g","type":"x.y.F"}]}"#
            )
        );
    }
}
