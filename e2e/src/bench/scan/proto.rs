//! A list in Kubernetes' protobuf, chunk by chunk: what is inside of an item is skipped.

use anyhow::{Context as _, Result, ensure};

use super::{Digest, Seen};

const MAGIC: &[u8] = b"k8s\0";
/// Fields of `runtime.Unknown`.
const RAW: u64 = 2;
/// Fields of every list.
const METADATA: u64 = 1;
const ITEMS: u64 = 2;

/// The scan.
#[derive(Debug)]
pub struct ProtoList {
    /// Bytes that are too few to go on with.
    carry: Vec<u8>,
    /// Bytes of the current field that are still to come, and whether they count.
    skip: u64,
    counts: bool,
    /// Bytes of the list itself that are still to come, once it has begun.
    list: Option<u64>,
    magic: bool,
    digest: Option<Digest>,
    seen: Seen,
}

impl ProtoList {
    /// A scan at the envelope's first byte.
    pub fn new(digest: bool) -> Self {
        Self {
            carry: Vec::new(),
            skip: 0,
            counts: false,
            list: None,
            magic: false,
            digest: digest.then(Digest::default),
            seen: Seen::default(),
        }
    }

    /// The next bytes.
    ///
    /// # Errors
    ///
    /// When they are not those of a list.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.seen.bytes += chunk.len() as u64;
        let mut rest = chunk;
        if !self.carry.is_empty() {
            // Headers are a few bytes: what is carried over is completed by copying.
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(rest);
            return self.walk(&joined);
        }
        rest = self.skipped(rest);
        self.walk(rest)
    }

    fn skipped<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let take = bytes
            .len()
            .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        if self.counts
            && let Some(digest) = &mut self.digest
        {
            digest.feed(&bytes[..take]);
        }
        self.skip -= take as u64;
        &bytes[take..]
    }

    fn walk(&mut self, mut rest: &[u8]) -> Result<()> {
        loop {
            rest = self.skipped(rest);
            if self.skip > 0 || rest.is_empty() {
                return Ok(());
            }
            if !self.magic {
                if rest.len() < MAGIC.len() {
                    break;
                }
                ensure!(rest.starts_with(MAGIC), "no envelope");
                self.magic = true;
                rest = &rest[MAGIC.len()..];
                continue;
            }
            let Some((key, length, used)) = header(rest)? else {
                break;
            };
            rest = &rest[used..];
            match &mut self.list {
                Some(left) if *left > 0 => {
                    let whole = used as u64 + length;
                    ensure!(whole <= *left, "a field is longer than the list");
                    *left -= whole;
                    self.seen.items += u64::from(key >> 3 == ITEMS);
                    self.counts = key >> 3 != METADATA;
                    self.skip = length;
                }
                None if key >> 3 == RAW => self.list = Some(length),
                _ => {
                    self.counts = false;
                    self.skip = length;
                }
            }
        }
        self.carry = rest.to_vec();
        Ok(())
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// When the list is cut off.
    pub fn finish(mut self) -> Result<Seen> {
        ensure!(
            self.list == Some(0) && self.skip == 0 && self.carry.is_empty(),
            "the list is cut off"
        );
        self.seen.digest = self.digest.map_or(0, |digest| digest.value());
        Ok(self.seen)
    }
}

/// Key, length and their size of a length-delimited field; none when cut off.
fn header(bytes: &[u8]) -> Result<Option<(u64, u64, usize)>> {
    let Some((key, first)) = varint(bytes)? else {
        return Ok(None);
    };
    let Some((length, second)) = varint(&bytes[first..])? else {
        return Ok(None);
    };
    // A varint field's value is in the place of the length.
    let length = match key & 7 {
        0 => 0,
        2 => length,
        other => anyhow::bail!("wire type {other}"),
    };
    Ok(Some((key, length, first + second)))
}

/// A varint and its size; none when it is cut off.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>> {
    let mut value = 0;
    for (n, byte) in bytes.iter().enumerate() {
        ensure!(n < 10, "a varint of more than ten bytes");
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((value, n + 1)));
        }
    }
    Ok(None)
}

/// The values of a length-delimited field of a message.
///
/// # Errors
///
/// When it is no message.
pub fn fields(mut message: &[u8], number: u64) -> Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let (key, length, used) = header(message)?.context("a field is cut off")?;
        let length = usize::try_from(length)?;
        ensure!(used + length <= message.len(), "a field is cut off");
        if key >> 3 == number && key & 7 == 2 {
            found.push(&message[used..used + length]);
        }
        message = &message[used + length..];
    }
    Ok(found)
}

/// The last of them.
///
/// # Errors
///
/// Likewise.
pub fn field(message: &[u8], number: u64) -> Result<Option<&[u8]>> {
    Ok(fields(message, number)?.pop())
}

/// A number of a message whose fields before it are numbers or length-delimited.
///
/// # Errors
///
/// When it is no message.
pub fn number(mut message: &[u8], number: u64) -> Result<Option<u64>> {
    while !message.is_empty() {
        let (key, length, used) = header(message)?.context("a field is cut off")?;
        if key == number << 3 {
            let (_, first) = varint(message)?.context("a field is cut off")?;
            return Ok(varint(&message[first..])?.map(|(value, _)| value));
        }
        message = message
            .get(used + usize::try_from(length)?..)
            .context("a field is cut off")?;
    }
    Ok(None)
}

/// The message inside of an envelope.
///
/// # Errors
///
/// When there is none.
pub fn unwrap(enveloped: &[u8]) -> Result<&[u8]> {
    let unknown = enveloped.strip_prefix(MAGIC).context("no envelope")?;
    field(unknown, RAW)?.context("an empty envelope")
}

/// The length in front of a frame of a watch.
const PREFIX: usize = 4;

/// The size of the first frame of a watch, its length included, when it is whole.
pub fn frame(bytes: &[u8]) -> Option<usize> {
    let length = PREFIX + u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    (bytes.len() >= length).then_some(length)
}

/// The type of an event (`ADDED`) and its object, in its envelope, of a whole frame.
///
/// # Errors
///
/// When it is none.
pub fn event(frame: &[u8]) -> Result<(&str, &[u8])> {
    const TYPE: u64 = 1;
    const OBJECT: u64 = 2;
    const RAW: u64 = 1;
    let event = frame.get(PREFIX..).context("no frame")?;
    let kind = field(event, TYPE)?.context("no type")?;
    let object = field(event, OBJECT)?.context("no object")?;
    let object = field(object, RAW)?.context("no object")?;
    Ok((std::str::from_utf8(kind)?, object))
}

/// An object's metadata, and the revision there.
///
/// # Errors
///
/// When it has none.
pub fn metadata(object: &[u8]) -> Result<(&[u8], u64)> {
    const METADATA: u64 = 1;
    const RESOURCE_VERSION: u64 = 6;
    let metadata = field(object, METADATA)?.context("no metadata")?;
    let revision = field(metadata, RESOURCE_VERSION)?.context("no resourceVersion")?;
    Ok((metadata, std::str::from_utf8(revision)?.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::proto::{Message, envelope};

    fn list(revision: &str, items: &[&str]) -> Vec<u8> {
        let mut list = Message::default().message(1, Message::default().text(2, revision));
        for item in items {
            list = list.text(2, item);
        }
        envelope("v1", "PodList", list)
    }

    fn scan(bytes: &[u8], size: usize) -> Result<Seen> {
        let mut scan = ProtoList::new(true);
        for chunk in bytes.chunks(size) {
            scan.feed(chunk)?;
        }
        scan.finish()
    }

    #[test]
    fn items_are_counted_whatever_the_chunks() {
        let long = "x".repeat(300);
        let bytes = list("7", &["a", &long, "", "b"]);
        let whole = scan(&bytes, bytes.len()).unwrap();
        assert_eq!((whole.items, whole.bytes), (4, bytes.len() as u64));
        for size in [1, 2, 3, 7, 100] {
            assert_eq!(scan(&bytes, size).unwrap(), whole);
        }
        for end in 0..bytes.len() - 10 {
            assert!(scan(&bytes[..end], 50).is_err(), "cut at {end}");
        }
        assert!(scan(b"json", 4).is_err());
    }

    #[test]
    fn the_lists_revision_does_not_count_and_items_do() {
        let digest = |bytes: Vec<u8>| scan(&bytes, 9).unwrap().digest;
        assert_eq!(digest(list("7", &["a"])), digest(list("1234", &["a"])));
        assert_ne!(digest(list("7", &["a"])), digest(list("7", &["b"])));
    }
}
