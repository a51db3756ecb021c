//! Light scans of answers: enough to know that every item and event came, without
//! decoding any of them.

mod json;
pub mod proto;
mod watch;

pub use json::JsonList;
pub use proto::ProtoList;
pub use watch::{Event, Kind, WatchScan};

use anyhow::Result;

use crate::stand::http::{PROTOBUF, TABLE};

/// What was seen of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// How many items.
    pub items: u64,
    /// All bytes of the answer.
    pub bytes: u64,
    /// Of everything but the list's own metadata: two servers of the same data give
    /// the same. Zero unless asked for.
    pub digest: u64,
}

/// A scan of a list in either form.
#[derive(Debug)]
pub enum ListScan {
    /// Of JSON.
    Json(JsonList),
    /// Of protobuf in its envelope.
    Proto(ProtoList),
}

impl ListScan {
    /// A scan of a form; with the digest, which costs, or without.
    pub fn new(accept: &str, digest: bool) -> Self {
        match accept {
            PROTOBUF => Self::Proto(ProtoList::new(digest)),
            TABLE => Self::Json(JsonList::of_table(digest)),
            _ => Self::Json(JsonList::new(digest)),
        }
    }

    /// The next bytes.
    ///
    /// # Errors
    ///
    /// When they are not of a list.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        match self {
            Self::Json(scan) => scan.feed(chunk),
            Self::Proto(scan) => scan.feed(chunk),
        }
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// When the list did not end where the answer did.
    pub fn finish(self) -> Result<Seen> {
        match self {
            Self::Json(scan) => scan.finish(),
            Self::Proto(scan) => scan.finish(),
        }
    }
}

/// In the manner of FNV-1a, eight bytes at a time: tells answers apart, nothing more.
#[derive(Debug, Clone, Default)]
struct Digest {
    hash: u64,
    pending: Vec<u8>,
}

impl Digest {
    fn feed(&mut self, mut bytes: &[u8]) {
        if !self.pending.is_empty() {
            let take = bytes.len().min(8 - self.pending.len());
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.pending.len() < 8 {
                return;
            }
            let word = self.pending[..].try_into().expect("eight bytes");
            self.mix(u64::from_le_bytes(word));
            self.pending.clear();
        }
        let words = bytes.chunks_exact(8);
        self.pending.extend_from_slice(words.remainder());
        for word in words {
            self.mix(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word)
            .wrapping_mul(0x100_0000_01b3)
            .rotate_left(5);
    }

    fn value(mut self) -> u64 {
        for byte in std::mem::take(&mut self.pending) {
            self.mix(byte.into());
        }
        self.hash
    }
}

/// The first place of `needle`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The value of the first `"key":"value"`; the value must have nothing to escape.
pub fn json_string<'a>(json: &'a [u8], key: &str) -> Option<&'a str> {
    let pattern = format!("\"{key}\":\"");
    let start = find(json, pattern.as_bytes())? + pattern.len();
    let end = json[start..].iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&json[start..start + end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_do_not_depend_on_chunks() {
        let bytes: Vec<u8> = (0..100u8).collect();
        let digest = |bytes: &[u8], size: usize| {
            let mut digest = Digest::default();
            bytes.chunks(size).for_each(|chunk| digest.feed(chunk));
            digest.value()
        };
        for size in [1, 3, 8, 13] {
            assert_eq!(digest(&bytes, size), digest(&bytes, 1000));
        }
        assert_ne!(digest(&bytes, 1000), digest(&bytes[1..], 1000));
    }

    #[test]
    fn strings_of_json() {
        let json = br#"{"metadata":{"name":"a","resourceVersion":"12"}}"#;
        assert_eq!(json_string(json, "resourceVersion"), Some("12"));
        assert_eq!(json_string(json, "uid"), None);
    }
}
