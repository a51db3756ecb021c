//! JSON as people read it, indented by two spaces as Go indents it.
//!
//! What must not be here: when somebody wants that (see [`super::negotiate`]).

/// Beyond so many bytes of indentation the rest goes on as it is: deep nesting makes the square
/// of its length.
const MOST: usize = 256 << 20;

/// Indents compact JSON that comes in pieces, keeping the order of members.
#[derive(Debug, Default)]
pub struct Indenter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last byte opened an object or a list; what is empty is not broken into lines.
    opened: bool,
    /// How much has been added.
    added: usize,
}

impl Indenter {
    pub fn feed(&mut self, json: &[u8], out: &mut Vec<u8>) {
        for byte in json.iter().copied() {
            if self.in_string {
                out.push(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if std::mem::take(&mut self.opened) != closes {
                self.line(out);
            }
            match byte {
                // The end of the text.
                b'\n' => {}
                b':' => out.extend_from_slice(b": "),
                _ => out.push(byte),
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(out),
                _ => {}
            }
        }
    }

    fn line(&mut self, out: &mut Vec<u8>) {
        let added = 1 + 2 * self.depth;
        if self.added + added > MOST {
            return;
        }
        self.added += added;
        out.push(b'\n');
        out.resize(out.len() + added - 1, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_is_gos() {
        let json = br#"{"a":{},"b":[1,"x:{,}\""],"c":[],"d":[[],{"e":null}]}"#;
        let want = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    \"x:{,}\\\"\"\n  ],\n  \"c\": [],\n  \"d\": [\n    [],\n    {\n      \"e\": null\n    }\n  ]\n}";
        // Wherever it is cut.
        for at in 0..json.len() {
            let (mut indenter, mut out) = (Indenter::default(), Vec::new());
            indenter.feed(&json[..at], &mut out);
            indenter.feed(&json[at..], &mut out);
            indenter.feed(b"\n", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn indentation_has_bounds() {
        let depth = 40_000;
        let json = [vec![b'['; depth], vec![b']'; depth]].concat();
        let mut out = Vec::new();
        Indenter::default().feed(&json, &mut out);
        assert!(out.len() <= json.len() + MOST);
        out.retain(|byte| !byte.is_ascii_whitespace());
        assert_eq!(out, json);
    }
}
