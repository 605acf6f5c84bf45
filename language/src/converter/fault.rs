//! Why bytes are not what their schema says. A fault names the place by the schema's names and holds nothing of what the
//! bytes say, but for numbers that are no data: lengths, counts, indexes.

use std::fmt;
use std::sync::Arc;

use foldline_api::budget::Exceeded;

use super::ConvertError;

/// What a format's bytes can be at fault.
pub(super) trait What: fmt::Display + From<Exceeded> {
    /// The limit that was met, where it is none of the bytes' own faults.
    fn exceeded(&self) -> Option<Exceeded>;
}

#[derive(Debug)]
pub(super) struct Fault<W> {
    at: usize,
    what: W,
    /// The innermost first.
    path: Vec<Part>,
}

/// A step into a value.
#[derive(Debug)]
pub(super) enum Part {
    Field(Arc<str>),
    Item(usize),
    /// A map's entry; its key is data.
    Entry,
}

pub(super) fn field_part(name: &Arc<str>) -> Part {
    Part::Field(Arc::clone(name))
}

impl<W: What> Fault<W> {
    #[cold]
    pub(super) fn new(at: usize, what: W) -> Box<Self> {
        Box::new(Fault { at, what, path: Vec::new() })
    }

    #[cold]
    pub(super) fn within(mut self: Box<Self>, part: Part) -> Box<Self> {
        self.path.push(part);
        self
    }

    /// For a record: not what the schema of this `format` says, with what else the bytes may be.
    #[cold]
    pub(super) fn told(&self, format: &str, hint: Option<String>) -> ConvertError {
        if let Some(exceeded) = self.what.exceeded() {
            return ConvertError::Budget(exceeded);
        }
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        ConvertError::Schema(format!("not what its {format} schema says: {self}{hint}"))
    }
}

impl<W: What> From<Exceeded> for Box<Fault<W>> {
    fn from(exceeded: Exceeded) -> Self {
        Fault::new(0, W::from(exceeded))
    }
}

impl<W: What> fmt::Display for Fault<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}", self.at)?;
        for (nth, part) in self.path.iter().rev().enumerate() {
            match (nth, part) {
                (0, Part::Field(name)) => write!(f, ", {name}")?,
                (_, Part::Field(name)) => write!(f, ".{name}")?,
                (0, Part::Item(item)) => write!(f, ", [{item}]")?,
                (_, Part::Item(item)) => write!(f, "[{item}]")?,
                (0, Part::Entry) => f.write_str(", an entry")?,
                (_, Part::Entry) => f.write_str("[…]")?,
            }
        }
        write!(f, ": {}", self.what)
    }
}
