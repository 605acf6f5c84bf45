//! What stands before a value in a record's bytes. Here the schema is known, so that a frame only has to fit it; by a
//! frame that says which schema it is, a registry's converter finds it.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;

use super::{Compiled, Schema};
use crate::converter::framing::{Framing, met, single_object};
use crate::converter::{ConvertError, Filled};
use crate::event::Mask;

/// Avro by one schema, for the decoder of one mask.
#[derive(Clone, Debug)]
pub struct Avro {
    compiled: Compiled,
    framing: Framing,
    fingerprint: u64,
}

impl Avro {
    /// Of this schema, framed like that.
    #[must_use]
    pub fn new(schema: Arc<Schema>, framing: Framing, mask: &Mask) -> Self {
        let fingerprint = schema.fingerprint();
        Avro { compiled: Compiled::new(schema, mask), framing, fingerprint }
    }

    pub(in crate::converter) fn fill(
        &self,
        bytes: &[u8],
        slots: &mut [Option<Value>],
        budget: &Budget,
    ) -> Result<Filled, ConvertError> {
        let value = self.unframed(bytes)?;
        self.compiled.fill(value, slots, budget, || self.hint(value))
    }

    pub(in crate::converter) fn decode(
        &self,
        bytes: &[u8],
        budget: &Budget,
    ) -> Result<Value, ConvertError> {
        let value = self.unframed(bytes)?;
        self.compiled.decode(value, budget, || self.hint(value))
    }

    #[inline]
    fn unframed<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], ConvertError> {
        match (self.framing, single_object(bytes)) {
            (Framing::None, _) => Ok(bytes),
            (Framing::Auto | Framing::SingleObject, Some((fingerprint, value)))
                if fingerprint == self.fingerprint =>
            {
                Ok(value)
            }
            (Framing::SingleObject, _) => {
                let met = self.hint(bytes).map(|hint| format!("; {hint}")).unwrap_or_default();
                let what = "no single-object encoding, which begins with C3 01 and a fingerprint";
                let met = match single_object(bytes) {
                    Some(_) => met.trim_start_matches("; ").to_owned(),
                    None => format!("{what}{met}"),
                };
                Err(ConvertError::Schema(met))
            }
            // The others are of registries, and the config knows none of them beside a file.
            _ => Ok(bytes),
        }
    }

    /// What bytes may be that are not a value of the schema.
    #[cold]
    fn hint(&self, bytes: &[u8]) -> Option<String> {
        if let Some((fingerprint, _)) = single_object(bytes) {
            let own = self.fingerprint;
            return Some(if fingerprint == own {
                "it begins as single-object encoding by this schema: framing = \"single-object\""
                    .into()
            } else {
                format!(
                    "it begins as single-object encoding by a schema of fingerprint {fingerprint:#018x}, \
                     this schema's is {own:#018x}"
                )
            });
        }
        met(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"A","fields":[{"name":"n","type":"long"}]}"#;

    fn read(framing: Framing, bytes: &[u8]) -> Result<Value, String> {
        let schema = Arc::new(Schema::parse(SCHEMA, &[]).unwrap());
        let avro = Avro::new(schema, framing, &Mask::Whole(0));
        let value = avro.decode(bytes, &Budget::default()).map_err(|error| error.to_string())?;
        let Value::Map(map) = value else { return Err("no record".to_owned()) };
        Ok(map.get("n").cloned().unwrap_or_default())
    }

    fn framed(fingerprint: u64, value: &[u8]) -> Vec<u8> {
        [&[0xc3, 0x01][..], &fingerprint.to_le_bytes(), value].concat()
    }

    #[test]
    fn a_frame_of_the_schema_is_taken_off() {
        let own = Schema::parse(SCHEMA, &[]).unwrap().fingerprint();
        for (framing, bytes, expected) in [
            (Framing::None, vec![14], 7),
            (Framing::Auto, vec![14], 7),
            (Framing::Auto, framed(own, &[14]), 7),
            (Framing::SingleObject, framed(own, &[14]), 7),
            // A long whose bytes are the mark.
            (Framing::Auto, vec![0xc3, 0x01], -98),
            (Framing::None, vec![0xc3, 0x01], -98),
        ] {
            assert_eq!(read(framing, &bytes), Ok(Value::Int(expected)), "{framing:?}");
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_is_named() {
        let own = Schema::parse(SCHEMA, &[]).unwrap().fingerprint();
        let registry = [0, 0, 0, 0, 9, 14];
        for (framing, bytes, says) in [
            (Framing::None, &framed(own, &[14])[..], "single-object encoding by this schema"),
            (Framing::None, &framed(7, &[14]), "of fingerprint 0x0000000000000007"),
            (Framing::Auto, &framed(7, &[14]), "of fingerprint 0x0000000000000007"),
            (Framing::SingleObject, &framed(7, &[14]), "of fingerprint 0x0000000000000007"),
            (Framing::SingleObject, &[14], "no single-object encoding"),
            (Framing::SingleObject, &registry, "00 and the number 9"),
            (Framing::Auto, &registry, "00 and the number 9"),
            (Framing::None, &registry, "00 and the number 9"),
            (Framing::None, b"{\"n\":7}", "looks like JSON"),
            (Framing::None, &[[3, 0].as_slice(), &[1; 20]].concat(), "AWS Glue"),
            (Framing::None, &[14, 1, 2], "at byte 1: the value ends here, 2 bytes are left over"),
        ] {
            let error = read(framing, bytes).unwrap_err();
            assert!(error.contains(says), "{framing:?} {error}");
        }
    }
}
