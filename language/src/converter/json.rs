//! JSON, streamed: what the mask does not name is skipped, not built.

use foldline_api::budget::Budget;
use foldline_api::json::{DEPTH_MAX, JsonError, read_known};
use foldline_api::value::Value;
use jiter::{Jiter, Peek};

use super::Shape;
use crate::event::Mask;

/// Fills the slots that `mask` names from one JSON document, and says what that is. Of `null` nothing is taken.
///
/// # Errors
/// When the bytes are not one JSON document, also in parts that are skipped.
pub(super) fn fill(
    bytes: &[u8],
    mask: &Mask,
    slots: &mut [Option<Value>],
    budget: &Budget,
) -> Result<Shape, JsonError> {
    // Skipping does not look at the encoding of texts, so all of it is checked here.
    std::str::from_utf8(bytes).map_err(|_| JsonError::Utf8)?;
    let mut reader = Jiter::new(bytes);
    let peek = reader.peek()?;
    let shape = match peek {
        Peek::Object => Shape::Object,
        Peek::Null => Shape::Null,
        Peek::Array => Shape::Other("a list"),
        Peek::String => Shape::Other(text_shape(bytes)),
        Peek::True | Peek::False => Shape::Other("a boolean"),
        _ => Shape::Other("a number"),
    };
    match shape {
        Shape::Null => reader.known_null()?,
        _ => Step { reader: &mut reader, slots, budget }.take(peek, mask, 0)?,
    }
    reader.finish()?;
    Ok(shape)
}

/// What a document that is a text is called, by the first letter of the text.
fn text_shape(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii().strip_prefix(b"\"").unwrap_or_default();
    if text.trim_ascii_start().starts_with(b"{") || text.trim_ascii_start().starts_with(b"[") {
        super::JSON_TEXT
    } else {
        "a text"
    }
}

/// The document under way.
struct Step<'a, 'j> {
    reader: &'a mut Jiter<'j>,
    slots: &'a mut [Option<Value>],
    budget: &'a Budget,
}

impl Step<'_, '_> {
    fn take(&mut self, peek: Peek, mask: &Mask, depth: usize) -> Result<(), JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::Depth);
        }
        match mask {
            Mask::Whole(slot) => {
                let value = read_known(self.reader, peek, depth, self.budget)?;
                if let Some(place) = self.slots.get_mut(*slot) {
                    *place = Some(value);
                }
            }
            Mask::Fields(fields) if peek == Peek::Object => {
                let mut key = self.reader.known_object()?;
                while let Some(name) = key {
                    let found = fields.iter().find(|(field, _)| **field == *name);
                    let peek = self.reader.peek()?;
                    match found {
                        Some((_, inner)) => {
                            // Of a name given twice the last wins, as in `jsonb`, whole.
                            clear(inner, self.slots);
                            self.take(peek, inner, depth + 1)?;
                        }
                        None => self.reader.known_skip(peek)?,
                    }
                    key = self.reader.next_key()?;
                }
            }
            Mask::Fields(_) => self.reader.known_skip(peek)?,
        }
        Ok(())
    }
}

fn clear(mask: &Mask, slots: &mut [Option<Value>]) {
    match mask {
        Mask::Whole(slot) => {
            if let Some(place) = slots.get_mut(*slot) {
                *place = None;
            }
        }
        Mask::Fields(fields) => fields.iter().for_each(|(_, inner)| clear(inner, slots)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use foldline_api::json::{parse, to_string};

    use super::*;
    use crate::event::PathSet;

    fn filled(paths: &[&str], json: &str) -> Result<Vec<Option<String>>, JsonError> {
        let mut set = PathSet::default();
        for path in paths {
            let names: Vec<Arc<str>> =
                path.split('.').filter(|s| !s.is_empty()).map(Arc::from).collect();
            set.insert(&names);
        }
        let (mask, count) = set.mask();
        let mut slots = vec![None; count];
        let shape = fill(json.as_bytes(), &mask, &mut slots, &Budget::default())?;
        let mut whole = vec![None; count];
        let built = parse(json.as_bytes())?;
        super::super::take(&built, &mask, &mut whole);
        let kinds = |shape: Shape| std::mem::discriminant(&shape);
        assert_eq!(kinds(shape), kinds(Shape::of(&built)), "{json}");
        assert_eq!(slots, whole, "streamed and built agree on {json}");
        Ok(slots.into_iter().map(|slot| slot.map(|v| to_string(&v))).collect())
    }

    #[test]
    fn only_what_is_named_is_taken() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            filled(&["a.b", "c"], r#"{"x":[{"a":1}],"a":{"b":12.50,"z":0},"c":null}"#),
            Ok(vec![some("12.50"), some("null")])
        );
        assert_eq!(filled(&["a.b", "c"], r#"{"a":7}"#), Ok(vec![None, None]));
        assert_eq!(filled(&["a.b"], r#"{"a":{"b":1},"a":{"c":2}}"#), Ok(vec![None]));
        assert_eq!(filled(&["a"], "[1]"), Ok(vec![None]));
        assert_eq!(filled(&[""], "[1]"), Ok(vec![some("[1]")]));
    }

    #[test]
    fn malformed_parts_are_seen_even_where_they_are_skipped() {
        for wrong in [r#"{"a":1,"x":}"#, r#"{"a":1"#, r#"{"a":1} x"#, r#"{"x":01}"#, ""] {
            assert!(filled(&["a"], wrong).is_err(), "{wrong}");
        }
        let mut slots = vec![None];
        let bytes = b"{\"x\":\"\xff\"}";
        assert_eq!(
            fill(bytes, &Mask::Whole(0), &mut slots, &Budget::default()),
            Err(JsonError::Utf8)
        );
    }
}
