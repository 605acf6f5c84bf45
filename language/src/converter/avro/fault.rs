//! What Avro's bytes can be at fault.

use std::fmt;

use foldline_api::budget::Exceeded;
use foldline_api::json::DEPTH_MAX;

use crate::converter::fault;

/// Values that take no bytes, in lists of one record: a few bytes could claim any number of them.
pub(super) const EMPTY_MAX: usize = 1_024;

pub(super) type Fault = fault::Fault<What>;

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

impl From<Exceeded> for What {
    fn from(exceeded: Exceeded) -> Self {
        What::Budget(exceeded)
    }
}

impl fault::What for What {
    fn exceeded(&self) -> Option<Exceeded> {
        match self {
            What::Budget(exceeded) => Some(*exceeded),
            _ => None,
        }
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
