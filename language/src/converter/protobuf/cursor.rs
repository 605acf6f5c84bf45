//! Protobuf's wire format, read from the front. Nothing is believed that the bytes do not hold.

use foldline_api::json::DEPTH_MAX;

use super::fault::{Fault, Read, What};

pub(super) const VARINT: u8 = 0;
pub(super) const I64: u8 = 1;
pub(super) const LEN: u8 = 2;
pub(super) const START: u8 = 3;
pub(super) const END: u8 = 4;
pub(super) const I32: u8 = 5;

/// The largest number that a field may have.
const FIELD_MAX: u64 = (1 << 29) - 1;

/// A stretch of a record's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) at: usize,
    pub(super) end: usize,
}

/// A field's number and its wire type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) number: u32,
    pub(super) wire: u8,
}

pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], span: Span) -> Self {
        Cursor { rest: bytes.get(span.at..span.end).unwrap_or_default(), end: span.end }
    }

    /// How many of the record's bytes are read.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.end - self.rest.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[cold]
    pub(super) fn fault(&self, what: What) -> Box<Fault> {
        Fault::new(self.at(), what)
    }

    #[cold]
    fn truncated(&self, wanted: u64) -> Box<Fault> {
        self.fault(What::Truncated { wanted, left: self.rest.len() })
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.truncated(N as u64)),
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Read<u64> {
        match self.rest.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Read<u64> {
        let mut number = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte has room for one bit.
            if at == 9 && *byte > 1 {
                return Err(self.fault(What::Varint));
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(number);
            }
        }
        Err(self.truncated(self.rest.len() as u64 + 1))
    }

    #[inline]
    pub(super) fn tag(&mut self) -> Read<Tag> {
        let before = self.rest;
        let tag = self.varint()?;
        let (number, wire) = (tag >> 3, (tag & 7) as u8);
        match u32::try_from(number) {
            Ok(number) if number > 0 && u64::from(number) <= FIELD_MAX => Ok(Tag { number, wire }),
            _ => {
                self.rest = before;
                Err(self.fault(What::Field(number)))
            }
        }
    }

    /// What stands behind its length.
    #[inline]
    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.varint()?;
        match usize::try_from(length).ok().and_then(|len| self.rest.split_at_checked(len)) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.truncated(length)),
        }
    }

    /// Where that stands.
    #[inline]
    pub(super) fn span(&mut self) -> Read<Span> {
        let len = self.bytes()?.len();
        Ok(Span { at: self.at() - len, end: self.at() })
    }

    /// Passes over the value of a field.
    #[inline]
    pub(super) fn skip(&mut self, tag: Tag, depth: usize) -> Read<()> {
        match tag.wire {
            VARINT => self.varint().map(drop),
            I64 => self.array::<8>().map(drop),
            LEN => self.bytes().map(drop),
            I32 => self.array::<4>().map(drop),
            START => self.group(tag.number, depth).map(drop),
            END => Err(self.fault(What::Group)),
            wire => Err(self.fault(What::NoWire(wire))),
        }
    }

    /// What stands in a group that has begun; its end is passed over.
    pub(super) fn group(&mut self, number: u32, depth: usize) -> Read<Span> {
        if depth >= DEPTH_MAX {
            return Err(self.fault(What::Depth));
        }
        let at = self.at();
        loop {
            let end = self.at();
            if self.rest.is_empty() {
                return Err(self.fault(What::Group));
            }
            let tag = self.tag()?;
            match tag.wire {
                END if tag.number == number => return Ok(Span { at, end }),
                _ => self.skip(tag, depth + 1)?,
            }
        }
    }
}
