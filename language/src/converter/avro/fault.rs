//! Why bytes are not what their schema says. A fault names the place by the schema's names and holds nothing of what the
//! bytes say, but for numbers that are no data: lengths, counts, indexes.

use std::fmt;
use std::sync::Arc;

use foldline_api::budget::Exceeded;
use foldline_api::json::DEPTH_MAX;

use crate::converter::ConvertError;

/// Values that take no bytes, in lists of one record: a few bytes could claim any number of them.
pub(super) const EMPTY_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Fault {
    at: usize,
    what: What,
    /// The innermost first.
    path: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum What {
    Truncated { wanted: usize, left: usize },
    LeftOver(usize),
    Varint,
    Int,
    Boolean(u8),
    Length(i64),
    Index { what: &'static str, found: i64, of: usize },
    Count { items: u64, left: usize },
    Block { says: usize, ends: usize },
    Empty,
    Utf8,
    Depth,
    Logical(&'static str),
    Budget(Exceeded),
}

/// A step into a value.
#[derive(Debug)]
pub(super) enum Part {
    Field(Arc<str>),
    Item(usize),
    /// A map's entry; its key is data.
    Entry,
}

impl Fault {
    #[cold]
    pub(super) fn new(at: usize, what: What) -> Box<Self> {
        Box::new(Fault { at, what, path: Vec::new() })
    }

    #[cold]
    pub(super) fn within(mut self: Box<Self>, part: Part) -> Box<Self> {
        self.path.push(part);
        self
    }

    /// For a record, with what else the bytes may be.
    #[cold]
    pub(super) fn told(&self, hint: Option<String>) -> ConvertError {
        if let What::Budget(exceeded) = self.what {
            return ConvertError::Budget(exceeded);
        }
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        ConvertError::Schema(format!("not what its Avro schema says: {self}{hint}"))
    }
}

impl From<Exceeded> for Box<Fault> {
    fn from(exceeded: Exceeded) -> Self {
        Fault::new(0, What::Budget(exceeded))
    }
}

impl fmt::Display for Fault {
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

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Truncated { wanted, left } => {
                write!(f, "{wanted} bytes are needed, {left} are left")
            }
            What::LeftOver(left) => write!(f, "the value ends here, {left} bytes are left over"),
            What::Varint => f.write_str("a number of more than 64 bits"),
            What::Int => f.write_str("an int of more than 32 bits"),
            What::Boolean(byte) => write!(f, "a boolean that is {byte}"),
            What::Length(length) => write!(f, "a length of {length}"),
            What::Index { what, found, of } => write!(f, "{what} {found} of {of}"),
            What::Count { items, left } => write!(f, "{items} items in {left} bytes"),
            What::Block { says, ends } => {
                write!(f, "a block says that it ends at byte {says}, its items end at {ends}")
            }
            What::Empty => write!(f, "more than {EMPTY_MAX} items that take no bytes"),
            What::Utf8 => f.write_str("a string that is not UTF-8"),
            What::Depth => write!(f, "nested deeper than {DEPTH_MAX}"),
            What::Logical(name) => write!(f, "no {name}, or one that is out of range"),
            What::Budget(exceeded) => exceeded.fmt(f),
        }
    }
}
