//! A list in JSON, chunk by chunk: its items are the objects at the second depth, and those of a
//! table, inside of its rows, the objects at the third.

use anyhow::{Result, ensure};

use super::{Digest, Seen, find};

/// Bytes at the front that hold the list's own metadata.
const HEAD: usize = 1024;

/// The scan.
#[derive(Debug)]
pub struct JsonList {
    /// How many brackets are open around an item.
    around: u32,
    depth: u32,
    in_string: bool,
    escaped: bool,
    head: Vec<u8>,
    digest: Option<Digest>,
    seen: Seen,
}

impl JsonList {
    /// A scan at the list's first byte.
    pub fn new(digest: bool) -> Self {
        Self::around(2, digest)
    }

    /// A scan at a table's first byte. Columns have no objects inside, rows have one each.
    pub fn of_table(digest: bool) -> Self {
        Self::around(3, digest)
    }

    fn around(around: u32, digest: bool) -> Self {
        Self {
            around,
            depth: 0,
            in_string: false,
            escaped: false,
            head: Vec::new(),
            digest: digest.then(Digest::default),
            seen: Seen::default(),
        }
    }

    /// The next bytes.
    ///
    /// # Errors
    ///
    /// When brackets do not match.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.seen.bytes += chunk.len() as u64;
        if let Some(digest) = &mut self.digest {
            if self.head.len() < HEAD {
                self.head.extend_from_slice(chunk);
                if self.head.len() >= HEAD {
                    digest.feed(items(&self.head));
                }
            } else {
                digest.feed(chunk);
            }
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.escaped {
                self.escaped = false;
                rest = &rest[1..];
            } else if self.in_string {
                let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                    break;
                };
                self.escaped = rest[at] == b'\\';
                self.in_string = self.escaped;
                rest = &rest[at + 1..];
            } else {
                let first = rest[0];
                rest = &rest[1..];
                match first {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => {
                        if first == b'{' && self.depth == self.around {
                            self.seen.items += 1;
                        }
                        self.depth += 1;
                    }
                    b'}' | b']' => {
                        ensure!(self.depth > 0, "a bracket closes what was not open");
                        self.depth -= 1;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// When the list is cut off.
    pub fn finish(mut self) -> Result<Seen> {
        ensure!(
            self.depth == 0 && !self.in_string && self.seen.bytes > 0,
            "the list is cut off"
        );
        if let Some(mut digest) = self.digest {
            if self.head.len() < HEAD {
                digest.feed(items(&self.head));
            }
            self.seen.digest = digest.value();
        }
        Ok(self.seen)
    }
}

/// Without what comes before the items.
fn items(head: &[u8]) -> &[u8] {
    &head[find(head, b"\"items\":").unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(json: &[u8], size: usize) -> Result<Seen> {
        let mut scan = JsonList::new(true);
        for chunk in json.chunks(size) {
            scan.feed(chunk)?;
        }
        scan.finish()
    }

    #[test]
    fn items_are_counted_whatever_is_in_them() {
        let json = br#"{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"a":"}]\"{"},{"b":[{},{"c":{}}]},{}]}"#;
        for size in [1, 5, 1000] {
            assert_eq!(scan(json, size).unwrap().items, 3);
        }
        assert!(scan(&json[..json.len() - 1], 7).is_err());
        assert!(scan(b"]", 1).is_err());
        assert!(scan(b"", 1).is_err());
    }

    #[test]
    fn rows_of_a_table_are_counted_and_columns_are_not() {
        let json = br#"{"kind":"Table","metadata":{},"columnDefinitions":[{"name":"Name"},{"name":"{"}],"rows":[{"cells":["a",1],"object":{"metadata":{"labels":{}}}},{"cells":[],"object":{}}]}"#;
        for size in [1, 5, 1000] {
            let mut scan = JsonList::of_table(false);
            for chunk in json.chunks(size) {
                scan.feed(chunk).unwrap();
            }
            assert_eq!(scan.finish().unwrap().items, 2);
        }
    }

    #[test]
    fn the_lists_revision_does_not_count_and_items_do() {
        let digest = |revision: &str, name: &str| {
            let json = format!(
                r#"{{"metadata":{{"resourceVersion":"{revision}"}},"items":[{{"name":"{name}"}}]}}"#
            );
            scan(json.as_bytes(), 10).unwrap().digest
        };
        assert_eq!(digest("7", "a"), digest("1234", "a"));
        assert_ne!(digest("7", "a"), digest("7", "b"));
    }
}
