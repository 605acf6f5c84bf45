//! CloudEvents on Kafka: binary mode, whose attributes are headers and whose value is the data, and structured mode, whose value is a JSON
//! document of both. A record's headers say which, so one topic may mix them, and the same event is the same in both.
//!
//! In binary mode the topic's converter reads the value. It reads `data_base64` too, and `data` that is a text of another media type than
//! JSON: both are what the value would be in binary mode. Other `data` is JSON.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use foldline_api::budget::Budget;
use foldline_api::json::parse_base64;
use foldline_api::record::Record;
use foldline_api::value::Value;

use super::{Opened, wrong};
use crate::converter::{ConvertError, Shape, json};
use crate::event::{Kind, Layout, Mask, PathSet, Slots};

/// Takes a CloudEvent out of a record.
#[derive(Debug)]
pub struct CloudEvents {
    /// What is taken of the data.
    event: Mask,
    /// How many slots an event has.
    slots: usize,
    /// What expressions read around it.
    attributes: Vec<Attribute>,
    /// What is taken of a document in structured mode.
    document: Mask,
    /// How many slots that has.
    width: usize,
    own: Own,
    /// From a slot of the document to the event's.
    data: Vec<(usize, usize)>,
    /// `data`, whole.
    whole: Mask,
}

/// Where the document keeps what is always read.
#[derive(Debug)]
struct Own {
    version: usize,
    name: usize,
    media: usize,
    base64: usize,
}

/// An attribute that is read: its name, its slot of the event, its slot of the document.
#[derive(Debug)]
struct Attribute {
    name: Arc<str>,
    slot: usize,
    found: usize,
}

/// Whether a record has a value.
pub(in crate::converter) enum Content {
    Tombstone,
    /// One of no bytes, which is no value to its converter.
    Empty,
    Some,
}

/// How a record's value is read, once the headers have told what it is.
pub(in crate::converter) trait Payload {
    fn content(&self) -> Content;

    /// As JSON, by this mask.
    fn document(&self, mask: &Mask, slots: &mut [Option<Value>]) -> Result<Shape, ConvertError>;

    /// As its topic's converter reads it, or these bytes in its place.
    fn data(
        &self,
        bytes: Option<&[u8]>,
        slots: &mut [Option<Value>],
    ) -> Result<Shape, ConvertError>;
}

/// How it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
}

type Headers = [(Arc<str>, Option<Bytes>)];

const VERSION: &str = "specversion";
const NAME: &str = "type";
const MEDIA: &str = "datacontenttype";
const DATA: &str = "data";
const BASE64: &str = "data_base64";
/// What messages call an event without data, into which no path leads.
const NO_DATA: &str = "absent (the CloudEvent has no data)";
const STRUCTURED: &str = "application/cloudevents";

impl CloudEvents {
    pub(super) fn new(layout: &Layout) -> Self {
        let (leaves, around) = (layout.event.leaves(), layout.envelope.leaves());
        let in_data = |path: &[Arc<str>]| -> Vec<Arc<str>> {
            std::iter::once(Arc::from(DATA)).chain(path.iter().cloned()).collect()
        };
        let mut paths = PathSet::default();
        for name in [VERSION, NAME, MEDIA, BASE64] {
            paths.insert(&[Arc::from(name)]);
        }
        leaves.iter().for_each(|(path, _)| paths.insert(&in_data(path)));
        around.iter().for_each(|(path, _)| paths.insert(path));
        let (document, width) = paths.mask();
        // Each path is a leaf of it: an attribute has no paths, and those of the data are a mask's already.
        let slot = |path: &[Arc<str>]| document.locate(path).map_or(width, |(slot, _)| slot);
        let named = |name: &str| slot(&[Arc::from(name)]);
        let attribute = |(path, to): &(Vec<Arc<str>>, usize)| {
            let name = Arc::clone(path.first()?);
            Some(Attribute { name, slot: *to, found: slot(path) })
        };
        CloudEvents {
            event: layout.event.clone(),
            slots: layout.slots,
            attributes: around.iter().filter_map(attribute).collect(),
            own: Own {
                version: named(VERSION),
                name: named(NAME),
                media: named(MEDIA),
                base64: named(BASE64),
            },
            data: leaves.iter().map(|(path, to)| (slot(&in_data(path)), *to)).collect(),
            whole: Mask::Fields(vec![(Arc::from(DATA), Mask::Whole(0))]),
            document,
            width,
        }
    }

    pub(super) fn mask(&self) -> &Mask {
        &self.event
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(in crate::converter) fn open(
        &self,
        headers: &Headers,
        payload: &dyn Payload,
    ) -> Result<Opened, ConvertError> {
        let slots: Slots = std::iter::repeat_with(|| None).take(self.slots).collect();
        let mut opened = Opened { slots, ..Opened::default() };
        let content = payload.content();
        if matches!(content, Content::Tombstone) {
            opened.kind = Kind::Tombstone;
            self.take_headers(headers, &mut opened.slots)?;
            return Ok(opened);
        }
        let shape = match mode_of(headers)? {
            Mode::Structured => self.open_document(payload, &mut opened)?,
            Mode::Binary => {
                check_version(of_header(headers, VERSION)?.as_ref())?;
                opened.name = Some(name_of(of_header(headers, NAME)?)?);
                self.take_headers(headers, &mut opened.slots)?;
                match content {
                    Content::Empty => Shape::Null,
                    _ => payload.data(None, &mut opened.slots)?,
                }
            }
        };
        opened.no_object = match shape {
            Shape::Null => Some(NO_DATA),
            shape => shape.no_object(),
        };
        Ok(opened)
    }

    fn take_headers(&self, headers: &Headers, slots: &mut Slots) -> Result<(), ConvertError> {
        for attribute in &self.attributes {
            if let Some(place) = slots.get_mut(attribute.slot) {
                *place = of_header(headers, &attribute.name)?;
            }
        }
        Ok(())
    }

    fn open_document(
        &self,
        payload: &dyn Payload,
        opened: &mut Opened,
    ) -> Result<Shape, ConvertError> {
        let mut found = vec![None; self.width];
        match payload.document(&self.document, &mut found)? {
            Shape::Object => {}
            Shape::Null => return Err(wrong("null is no CloudEvent in structured mode")),
            Shape::Other(what) => {
                return Err(wrong(format!("{what} is no CloudEvent in structured mode")));
            }
        }
        let at = |slot: usize| found.get(slot).and_then(Option::as_ref);
        check_version(text_of(at(self.own.version), VERSION)?.as_ref())?;
        opened.name = Some(name_of(text_of(at(self.own.name), NAME)?)?);
        for attribute in &self.attributes {
            if let Some(place) = opened.slots.get_mut(attribute.slot) {
                *place = text_of(at(attribute.found), &attribute.name)?;
            }
        }
        let (base64, media) = (at(self.own.base64), at(self.own.media));
        // What is found below it is found in an object; else `data` tells what it is, when it is read as a whole.
        let inside = self.data.iter().any(|(from, _)| at(*from).is_some());
        let whole = match self.event {
            Mask::Whole(_) => self.data.first().and_then(|(from, _)| at(*from)).cloned(),
            Mask::Fields(_) if inside => None,
            Mask::Fields(_) => {
                let mut data = [None];
                payload.document(&self.whole, &mut data)?;
                data.into_iter().flatten().next()
            }
        };
        if inside && base64.is_some_and(|value| !value.is_null()) {
            return Err(both());
        }
        if let Some(bytes) = for_converter(base64, whole.as_ref(), media)? {
            return payload.data(Some(&bytes), &mut opened.slots);
        }
        let shape = match &whole {
            None if inside => Shape::Object,
            None => Shape::Null,
            Some(value) => Shape::of(value),
        };
        for (from, to) in &self.data {
            if let (Some(from), Some(to)) = (found.get_mut(*from), opened.slots.get_mut(*to)) {
                *to = from.take().filter(|_| shape != Shape::Null);
            }
        }
        Ok(shape)
    }

    /// The bytes of a record that its topic's converter will read, if any.
    pub(in crate::converter) fn for_converter<'r>(
        &self,
        record: &'r Record,
    ) -> Option<Cow<'r, [u8]>> {
        let bytes = record.value.as_deref().filter(|bytes| !bytes.is_empty())?;
        match mode_of(&record.headers).ok()? {
            Mode::Binary => Some(Cow::Borrowed(bytes)),
            Mode::Structured => {
                // In the order of their names, as a mask has them.
                let names = [DATA, BASE64, MEDIA];
                let field = |(at, name): (usize, &str)| (Arc::from(name), Mask::Whole(at));
                let mask = Mask::Fields(names.into_iter().enumerate().map(field).collect());
                let mut found = [None, None, None];
                json::fill(bytes, &mask, &mut found, &Budget::default()).ok()?;
                let [data, base64, media] = &found;
                for_converter(base64.as_ref(), data.as_ref(), media.as_ref())
                    .ok()
                    .flatten()
                    .map(Cow::Owned)
            }
        }
    }
}

/// What in a document stands for a value of binary mode, which the topic's converter reads.
fn for_converter(
    base64: Option<&Value>,
    data: Option<&Value>,
    media: Option<&Value>,
) -> Result<Option<Vec<u8>>, ConvertError> {
    let data = data.filter(|value| !value.is_null());
    match (base64, data) {
        (None | Some(Value::Null), Some(Value::Text(text))) => {
            let media = text_of(media, MEDIA)?;
            let is_json = match &media {
                Some(Value::Text(media)) => is_json(media),
                _ => true,
            };
            Ok((!is_json).then(|| text.as_bytes().to_vec()))
        }
        (None | Some(Value::Null), _) => Ok(None),
        (Some(_), Some(_)) => Err(both()),
        (Some(Value::Text(text)), None) => {
            let bytes = parse_base64(text).ok_or_else(|| wrong("`data_base64` is not base64"))?;
            Ok(Some(bytes))
        }
        (Some(other), None) => {
            Err(wrong(format!("`data_base64` is {}, not base64", other.type_name())))
        }
    }
}

fn both() -> ConvertError {
    wrong("the CloudEvent has `data` and `data_base64`, of which it may have one")
}

/// Whether data of this media type is JSON.
fn is_json(media: &str) -> bool {
    let ends = |media: &str, end: &str| {
        let tail = media.len().checked_sub(end.len()).and_then(|at| media.get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    let media = essence(media);
    ends(media, "/json") || ends(media, "+json")
}

/// A media type without its parameters.
fn essence(media: &str) -> &str {
    media.split(';').next().unwrap_or_default().trim()
}

fn mode_of(headers: &Headers) -> Result<Mode, ConvertError> {
    let media = header(headers, MEDIA).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let media = media.map(essence).unwrap_or_default();
    let (head, kind) = media.split_at_checked(STRUCTURED.len()).unwrap_or_default();
    if head.eq_ignore_ascii_case(STRUCTURED) {
        if kind.eq_ignore_ascii_case("+json") {
            return Ok(Mode::Structured);
        }
        let batch = kind.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case("-batch"));
        return Err(wrong(if batch {
            "a batch of CloudEvents is not read: Kafka has one event in a record"
        } else {
            "a CloudEvent in structured mode is read as application/cloudevents+json only, and the header content-type says another"
        }));
    }
    if header(headers, VERSION).is_some() {
        return Ok(Mode::Binary);
    }
    Err(wrong(
        "no CloudEvent: the record has neither a header ce_specversion nor the content-type application/cloudevents+json",
    ))
}

/// The last header that has this attribute.
fn header<'r>(headers: &'r Headers, attribute: &str) -> Option<&'r Bytes> {
    let has = |(name, _): &&(Arc<str>, Option<Bytes>)| {
        if attribute == MEDIA {
            return name.eq_ignore_ascii_case("content-type");
        }
        let (head, tail) = name.split_at_checked(3).unwrap_or_default();
        head.eq_ignore_ascii_case("ce_") && tail.eq_ignore_ascii_case(attribute)
    };
    headers.iter().rev().find(has)?.1.as_ref()
}

fn of_header(headers: &Headers, attribute: &str) -> Result<Option<Value>, ConvertError> {
    let Some(bytes) = header(headers, attribute) else { return Ok(None) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(Value::text(text))),
        Err(_) => Err(wrong(format!("the attribute `{attribute}` is no UTF-8 text"))),
    }
}

/// An attribute of a document as a header would have it.
fn text_of(found: Option<&Value>, attribute: &str) -> Result<Option<Value>, ConvertError> {
    match found {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(Value::Text(Arc::clone(text)))),
        Some(Value::Int(number)) => Ok(Some(Value::text(&number.to_string()))),
        Some(Value::Bool(flag)) => Ok(Some(Value::text(if *flag { "true" } else { "false" }))),
        Some(other) => Err(wrong(format!(
            "the attribute `{attribute}` is {}, not a text, an integer or a boolean",
            other.type_name()
        ))),
    }
}

fn check_version(version: Option<&Value>) -> Result<(), ConvertError> {
    match version {
        Some(Value::Text(version)) if version.starts_with("1.") => Ok(()),
        Some(Value::Text(version)) => {
            let shown: String = version.chars().take(8).collect();
            Err(wrong(format!("a CloudEvent of specversion {shown:?} is not read, but of 1.0")))
        }
        _ => Err(wrong("the CloudEvent has no `specversion`")),
    }
}

fn name_of(name: Option<Value>) -> Result<Arc<str>, ConvertError> {
    match name {
        Some(Value::Text(name)) if !name.is_empty() => Ok(name),
        _ => Err(wrong("the CloudEvent has no `type`")),
    }
}
