//! The protobuf wire format: varints, tags, lengths. Nothing here knows a schema.

use crate::error::{Error, Result};

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const LEN: u8 = 2;
pub const START_GROUP: u8 = 3;
pub const END_GROUP: u8 = 4;
pub const FIXED32: u8 = 5;

/// Reads one message's bytes from front to back.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub fn new(buf: &'a [u8]) -> Self {
        Reader { buf, pos: 0 }
    }

    pub fn at(buf: &'a [u8], pos: usize) -> Self {
        Reader { buf, pos }
    }

    pub fn done(&self) -> bool {
        self.pos >= self.buf.len()
    }

    pub fn pos(&self) -> usize {
        self.pos
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64> {
        match self.buf.get(self.pos) {
            Some(&b) if b < 0x80 => {
                self.pos += 1;
                Ok(u64::from(b))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let &b = self.buf.get(self.pos).ok_or(Error::UnexpectedEof)?;
            self.pos += 1;
            value |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Overflow)
    }

    /// The next field's number and wire type.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<(u32, u8)> {
        let tag = self.varint()?;
        let (number, wire) = (tag >> 3, (tag & 7) as u8);
        if number == 0 || number > (1 << 29) - 1 || wire == END_GROUP {
            return Err(Error::IllegalTag { number, wire });
        }
        Ok((number as u32, wire))
    }

    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = usize::try_from(self.varint()?).map_err(|_| Error::Overflow)?;
        let end = self.pos.checked_add(len).ok_or(Error::Overflow)?;
        let bytes = self.buf.get(self.pos..end).ok_or(Error::UnexpectedEof)?;
        self.pos = end;
        Ok(bytes)
    }

    pub fn fixed64(&mut self) -> Result<u64> {
        let end = self.pos + 8;
        let bytes = self.buf.get(self.pos..end).ok_or(Error::UnexpectedEof)?;
        self.pos = end;
        Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }

    /// Skips the value of a field whose tag has been read.
    #[inline]
    pub fn skip(&mut self, wire: u8) -> Result<()> {
        match wire {
            VARINT => self.varint().map(drop),
            LEN => self.bytes().map(drop),
            _ => self.skip_rare(wire),
        }
    }

    /// Skips as [`Reader::skip`] does; what was skipped.
    pub fn skipped(&mut self, wire: u8) -> Result<&'a [u8]> {
        let start = self.pos;
        self.skip(wire)?;
        Ok(&self.buf[start..self.pos])
    }

    /// Groups may nest without bound: nothing is kept of them.
    fn skip_rare(&mut self, mut wire: u8) -> Result<()> {
        let mut groups = 0_usize;
        loop {
            match wire {
                VARINT => self.varint().map(drop)?,
                LEN => self.bytes().map(drop)?,
                FIXED64 | FIXED32 => {
                    self.pos += if wire == FIXED64 { 8 } else { 4 };
                    if self.pos > self.buf.len() {
                        return Err(Error::UnexpectedEof);
                    }
                }
                START_GROUP => groups += 1,
                END_GROUP if groups > 0 => groups -= 1,
                other => return Err(Error::IllegalWireType(other)),
            }
            if groups == 0 {
                return Ok(());
            }
            wire = (self.varint()? & 7) as u8;
        }
    }
}

/// The bytes that [`put_varint`] writes.
#[inline]
pub const fn varint_len(v: u64) -> usize {
    ((64 - (v | 1).leading_zeros()) as usize).div_ceil(7)
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire));
}

/// A varint field, tag included.
pub fn put_int(out: &mut Vec<u8>, number: u32, v: u64) {
    put_tag(out, number, VARINT);
    put_varint(out, v);
}

/// A length-delimited field, tag included.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, LEN);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Starts a length-delimited field whose length is not known yet; give what it returns
/// to [`close`].
pub fn open(out: &mut Vec<u8>, number: u32) -> usize {
    put_tag(out, number, LEN);
    out.push(0);
    out.len()
}

/// Ends a field that [`open`] started. One byte was set aside for the length, which is
/// enough for most; a longer one moves the field's bytes.
pub fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    let extra = varint_len(len as u64) - 1;
    if extra > 0 {
        let end = out.len();
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    let mut v = len as u64;
    let mut at = start - 1;
    while v >= 0x80 {
        out[at] = v as u8 | 0x80;
        v >>= 7;
        at += 1;
    }
    out[at] = v as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_return(v: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, v);
            prop_assert_eq!(out.len(), varint_len(v));
            prop_assert_eq!(Reader::new(&out).varint(), Ok(v));
        }

        #[test]
        fn lengths_are_patched(n in 0usize..40_000) {
            let mut out = vec![9];
            let at = open(&mut out, 3);
            out.extend(std::iter::repeat_n(7, n));
            close(&mut out, at);
            let mut want = vec![9];
            put_bytes(&mut want, 3, &vec![7; n]);
            prop_assert_eq!(out, want);
        }

        #[test]
        fn skipping_never_panics(bytes: Vec<u8>) {
            let mut r = Reader::new(&bytes);
            while !r.done() {
                let Ok((_, wire)) = r.tag() else { break };
                if r.skip(wire).is_err() { break }
            }
        }
    }

    #[test]
    fn groups_are_skipped() {
        let mut r = Reader::new(&[0x08, 1, 0x13, 0x15, 1, 2, 3, 4, 0x14, 0x0c, 0x10, 5]);
        r.skip(START_GROUP).unwrap();
        assert_eq!(r.tag(), Ok((2, VARINT)));
        assert_eq!(Reader::new(&[0x0c]).tag().ok(), None);
        let open = vec![0x0b; 1 << 20];
        let skipped = Reader::new(&open).skip(START_GROUP);
        assert_eq!(skipped, Err(Error::UnexpectedEof));
        let closed = [open, vec![0x0c; (1 << 20) + 1]].concat();
        assert_eq!(Reader::new(&closed).skip(START_GROUP), Ok(()));
    }
}
