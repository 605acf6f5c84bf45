//! Avro's bytes, read from the front. Nothing is believed that the bytes do not hold.

use super::fault::{Fault, What};

pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes, len: bytes.len() }
    }

    /// How many bytes are read.
    pub(super) fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    #[cold]
    pub(super) fn fault(&self, what: What) -> Box<Fault> {
        Fault::new(self.at(), what)
    }

    #[inline]
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Box<Fault>> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.fault(What::Truncated { wanted: len, left: self.rest.len() })),
        }
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Box<Fault>> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.fault(What::Truncated { wanted: N, left: self.rest.len() })),
        }
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Box<Fault>> {
        match self.rest.split_first() {
            Some((byte @ (0 | 1), rest)) => {
                self.rest = rest;
                Ok(*byte == 1)
            }
            Some((other, _)) => Err(self.fault(What::Boolean(*other))),
            None => Err(self.fault(What::Truncated { wanted: 1, left: 0 })),
        }
    }

    /// A number of up to 64 bits, zigzag.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Box<Fault>> {
        let raw = match self.rest.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                u64::from(*byte)
            }
            _ => self.long_number()?,
        };
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    fn long_number(&mut self) -> Result<u64, Box<Fault>> {
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
        Err(self.fault(What::Truncated { wanted: self.left() + 1, left: self.left() }))
    }

    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, Box<Fault>> {
        let before = self.rest;
        let long = self.long()?;
        i32::try_from(long).map_err(|_| {
            self.rest = before;
            self.fault(What::Int)
        })
    }

    /// How many bytes follow, which are there.
    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, Box<Fault>> {
        let before = self.rest;
        let long = self.long()?;
        match usize::try_from(long) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            Ok(length) => Err(self.fault(What::Truncated { wanted: length, left: self.left() })),
            Err(_) => {
                self.rest = before;
                Err(self.fault(What::Length(long)))
            }
        }
    }

    /// A choice of so many: a union's branch, an enum's symbol.
    #[inline]
    pub(super) fn index(&mut self, what: &'static str, of: usize) -> Result<usize, Box<Fault>> {
        let before = self.rest;
        let long = self.long()?;
        match usize::try_from(long) {
            Ok(index) if index < of => Ok(index),
            _ => {
                self.rest = before;
                Err(self.fault(What::Index { what, found: long, of }))
            }
        }
    }

    /// A block's head: how many items, none behind the last block, and where it ends if it says so. `least` is what an item
    /// takes at least.
    #[inline]
    pub(super) fn block(&mut self, least: usize) -> Result<Option<Block>, Box<Fault>> {
        let before = self.rest;
        let count = self.long()?;
        if count == 0 {
            return Ok(None);
        }
        let end = if count < 0 { Some(self.at_end_of_block()?) } else { None };
        let items = count.unsigned_abs();
        let room = end.map_or(self.left(), |end| end - self.at());
        match usize::try_from(items) {
            Ok(items) if items.checked_mul(least).is_some_and(|bytes| bytes <= room) => {
                Ok(Some(Block { items, end }))
            }
            _ => {
                self.rest = before;
                Err(self.fault(What::Count { items, left: room }))
            }
        }
    }

    fn at_end_of_block(&mut self) -> Result<usize, Box<Fault>> {
        let size = self.length()?;
        Ok(self.at() + size)
    }
}

/// A stretch of an array's or a map's items.
pub(super) struct Block {
    pub(super) items: usize,
    pub(super) end: Option<usize>,
}
