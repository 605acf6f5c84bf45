//! A record's value as an envelope is opened over it: in its bytes, or built already.

use foldline_api::budget::Budget;
use foldline_api::record::Record;
use foldline_api::value::Value;

use super::envelope::{Closed, Content, Opener, Payload};
use super::{ConvertError, Decoder, Encoded, Shape, fill, framing, json, take};
use crate::event::{Event, Mask, Slots};

/// A record's value in its bytes.
pub(super) struct InBytes<'r> {
    pub(super) decoder: &'r Decoder,
    pub(super) record: &'r Record,
    pub(super) budget: &'r Budget,
}

impl Payload for InBytes<'_> {
    fn content(&self) -> Content {
        match self.record.value.as_deref() {
            None => Content::Tombstone,
            Some([]) if !self.decoder.value.may_be_empty() => Content::Empty,
            Some(_) => Content::Some,
        }
    }

    fn document(&self, mask: &Mask, slots: &mut [Option<Value>]) -> Result<Shape, ConvertError> {
        let bytes = self.record.value.as_deref().unwrap_or_default();
        json::fill(bytes, mask, slots, self.budget)
            .map_err(|error| framing::json_error(error, bytes))
    }

    fn data(
        &self,
        bytes: Option<&[u8]>,
        slots: &mut [Option<Value>],
    ) -> Result<Shape, ConvertError> {
        let bytes = bytes.or(self.record.value.as_deref()).unwrap_or_default();
        let encoded = Encoded { bytes, headers: &self.record.headers };
        let Decoder { value, mask, .. } = self.decoder;
        Ok(fill(value, encoded, mask, slots, self.budget)?.shape)
    }
}

/// A record's value that is already built.
struct Built<'v>(Option<&'v Value>, &'v Mask);

impl Payload for Built<'_> {
    fn content(&self) -> Content {
        if self.0.is_some() { Content::Some } else { Content::Tombstone }
    }

    fn document(&self, mask: &Mask, slots: &mut [Option<Value>]) -> Result<Shape, ConvertError> {
        Ok(self.0.map_or(Shape::Null, |value| {
            take(value, mask, slots);
            Shape::of(value)
        }))
    }

    fn data(
        &self,
        bytes: Option<&[u8]>,
        slots: &mut [Option<Value>],
    ) -> Result<Shape, ConvertError> {
        match bytes.map(foldline_api::json::parse).transpose()? {
            Some(value) => Built(Some(&value), self.1).document(self.1, slots),
            None => self.document(self.1, slots),
        }
    }
}

/// Takes an envelope off a value that is already built, none of a record without one: what there is of a record beside it comes
/// with `of`.
///
/// # Errors
/// When it is none.
pub fn open(opener: &Opener, value: Option<&Value>, of: Event) -> Result<Event, ConvertError> {
    let opened = match opener {
        Opener::CloudEvents(events) => events.open(&of.headers, &Built(value, opener.mask()))?,
        Opener::Changes(changes) => {
            let value = value.unwrap_or(&Value::Null);
            let mut slots: Slots = std::iter::repeat_with(|| None).take(opener.width()).collect();
            take(value, opener.mask(), &mut slots);
            let (whole, filled) = (|| Ok(value.clone()), Shape::of(value).into());
            let (key, topic) = (&of.key, &of.topic);
            let closed = Closed { filled: &filled, slots: &slots, key, topic, whole: &whole };
            changes.open(&closed)?
        }
    };
    Ok(opened.into_event(of))
}
