//! What Protobuf's bytes can be at fault.

use std::fmt;

use foldline_api::budget::Exceeded;
use foldline_api::json::DEPTH_MAX;

use crate::converter::fault;

pub(super) type Fault = fault::Fault<What>;
pub(super) type Read<T> = Result<T, Box<Fault>>;

#[derive(Debug)]
pub(super) enum What {
    Truncated {
        wanted: u64,
        left: usize,
    },
    Varint,
    /// No number of a field.
    Field(u64),
    /// None of the six there are.
    NoWire(u8),
    /// Not that of the field's type.
    Wire {
        found: u8,
        type_name: &'static str,
        has: u8,
    },
    /// A group that ends and did not begin, or begins and does not end.
    Group,
    Utf8,
    Depth,
    Range(&'static str),
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
            What::Varint => f.write_str("a number of more than 64 bits"),
            What::Field(number) => write!(f, "a field of number {number}, which none has"),
            What::NoWire(wire) => write!(f, "wire type {wire}, which there is not"),
            What::Wire { found, type_name, has } => {
                write!(f, "wire type {found}, where a field of type {type_name} has {has}")
            }
            What::Group => f.write_str("a group without a beginning or an end"),
            What::Utf8 => f.write_str("a string that is not UTF-8"),
            What::Depth => write!(f, "nested deeper than {DEPTH_MAX}"),
            What::Range(name) => write!(f, "a {name} that is out of range"),
            What::Budget(exceeded) => exceeded.fmt(f),
        }
    }
}
