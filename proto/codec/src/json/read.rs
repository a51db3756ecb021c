//! Reading JSON text value by value, with Go's errors. It checks the grammar as it goes
//! and builds nothing; strings are borrowed where they hold no escapes.

use std::borrow::Cow;

use meta::gofmt::quote;
use serde_json::{Map, Value};

use super::write::find_special;
use crate::MAX_DEPTH;
use crate::error::{Error, Result};

/// What the next value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    /// What encoding/json calls it when it is not what was wanted.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::Object => "object",
        }
    }
}

pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
    depth: usize,
    /// Insignificant space, or characters that Go would escape, have been passed over.
    loose: bool,
}

/// What [`check`] found out.
pub struct Checked {
    /// Go would write the same bytes.
    pub canonical: bool,
}

/// Checks that `raw` is one JSON value.
pub fn check(raw: &[u8]) -> Result<Checked> {
    let mut r = Reader::new(raw);
    r.skip()?;
    r.end()?;
    Ok(Checked {
        canonical: !r.loose,
    })
}

/// Whether JSON may nest this deep. It need not be well-formed: what is not is refused by
/// whoever reads it.
pub fn nests(raw: &[u8], levels: usize) -> bool {
    let opening = |b: &&u8| matches!(b, b'[' | b'{');
    if raw.iter().filter(opening).count() < levels {
        return false;
    }
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(&b) = raw.get(at) {
        match b {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                at += 1;
                while raw.get(at).is_some_and(|b| *b != b'"') {
                    at += if raw[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    deepest >= levels
}

impl<'a> Reader<'a> {
    pub fn new(buf: &'a [u8]) -> Self {
        Reader {
            buf,
            pos: 0,
            depth: 0,
            loose: false,
        }
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.buf.get(self.pos) {
            self.pos += 1;
            self.loose = true;
        }
    }

    fn unexpected(&self, context: &str) -> Error {
        match self.buf.get(self.pos) {
            None => Error::Syntax("unexpected end of JSON input".into()),
            Some(&b) => {
                let c = match b {
                    b'\'' => r"\'".to_string(),
                    b'"' => "\"".to_string(),
                    b => {
                        let quoted = quote(char::from(b).encode_utf8(&mut [0; 4]));
                        quoted[1..quoted.len() - 1].to_string()
                    }
                };
                Error::Syntax(format!("invalid character '{c}' {context}"))
            }
        }
    }

    /// The kind of the next value, which is not consumed.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind> {
        self.space();
        match self.buf.get(self.pos) {
            Some(b'"') => Ok(Kind::String),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<()> {
        for want in word.bytes() {
            if self.buf.get(self.pos) != Some(&want) {
                let context = format!("in literal {word} (expecting '{}')", want as char);
                return Err(self.unexpected(&context));
            }
            self.pos += 1;
        }
        Ok(())
    }

    pub fn null(&mut self) -> Result<()> {
        self.space();
        self.literal("null")
    }

    pub fn bool(&mut self) -> Result<bool> {
        self.space();
        let value = self.buf.get(self.pos) == Some(&b't');
        self.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// A number's literal text.
    pub fn number(&mut self) -> Result<&'a str> {
        self.space();
        let start = self.pos;
        if self.buf.get(self.pos) == Some(&b'-') {
            self.pos += 1;
        }
        match self.buf.get(self.pos) {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.buf.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.buf.get(self.pos) {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.buf.get(self.pos) {
                self.pos += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(std::str::from_utf8(&self.buf[start..self.pos]).expect("digits are ASCII"))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.buf.get(self.pos) {
            self.pos += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<()> {
        let start = self.pos;
        self.digits();
        if self.pos == start {
            return Err(self.unexpected(context));
        }
        Ok(())
    }

    /// A string; what is no UTF-8 or an unpaired surrogate becomes U+FFFD.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        let (start, end, escaped) = self.scan_string()?;
        let body = &self.buf[start..end];
        if escaped {
            return Ok(Cow::Owned(unescape(body)));
        }
        match std::str::from_utf8(body) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => Ok(String::from_utf8_lossy(body)),
        }
    }

    /// Passes over a string and says where its body is and whether it holds escapes.
    fn scan_string(&mut self) -> Result<(usize, usize, bool)> {
        self.space();
        if self.buf.get(self.pos) != Some(&b'"') {
            return Err(self.unexpected("looking for beginning of value"));
        }
        self.pos += 1;
        let start = self.pos;
        let mut escaped = false;
        loop {
            self.pos = find_special(self.buf, self.pos);
            match self.buf.get(self.pos) {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok((start, self.pos - 1, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.pos += 1;
                    match self.buf.get(self.pos) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                            self.pos += 1;
                        }
                        Some(b'u') => {
                            self.pos += 1;
                            for _ in 0..4 {
                                if !self.buf.get(self.pos).is_some_and(u8::is_ascii_hexdigit) {
                                    return Err(
                                        self.unexpected("in \\u hexadecimal character escape")
                                    );
                                }
                                self.pos += 1;
                            }
                        }
                        _ => return Err(self.unexpected("in string escape code")),
                    }
                }
                Some(b'<' | b'>' | b'&') => {
                    self.loose = true;
                    self.pos += 1;
                }
                Some(&b) if b >= 0x80 => {
                    let rest = &self.buf[self.pos..];
                    if rest.starts_with(&[0xe2, 0x80, 0xa8])
                        || rest.starts_with(&[0xe2, 0x80, 0xa9])
                    {
                        self.loose = true;
                    }
                    self.pos += 1;
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.unexpected("exceeded max depth"));
        }
        self.pos += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.pos += 1;
        self.depth -= 1;
    }

    /// Enters an array; then call [`Reader::element`] until it says no.
    pub fn array(&mut self) -> Result<()> {
        self.space();
        self.enter()
    }

    /// Whether another element follows. `first` starts as true.
    pub fn element(&mut self, first: &mut bool) -> Result<bool> {
        self.space();
        match self.buf.get(self.pos) {
            Some(b']') => {
                self.leave();
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.pos += 1;
                self.peek()?;
            }
            _ if *first => {}
            _ => return Err(self.unexpected("after array element")),
        }
        *first = false;
        Ok(true)
    }

    /// Enters an object; then call [`Reader::key`] until it gives none.
    pub fn object(&mut self) -> Result<()> {
        self.space();
        self.enter()
    }

    /// The next member's name; its value follows. `first` starts as true.
    pub fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if !self.member(first)? {
            return Ok(None);
        }
        let key = self.string()?;
        self.colon()?;
        Ok(Some(key))
    }

    fn member(&mut self, first: &mut bool) -> Result<bool> {
        self.space();
        match self.buf.get(self.pos) {
            Some(b'}') => {
                self.leave();
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.pos += 1;
                self.space();
            }
            _ if *first => {}
            _ => return Err(self.unexpected("after object key:value pair")),
        }
        *first = false;
        if self.buf.get(self.pos) != Some(&b'"') {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        Ok(true)
    }

    fn colon(&mut self) -> Result<()> {
        self.space();
        if self.buf.get(self.pos) != Some(&b':') {
            return Err(self.unexpected("after object key"));
        }
        self.pos += 1;
        Ok(())
    }

    /// Passes over the next value.
    pub fn skip(&mut self) -> Result<()> {
        /// What we are in the middle of. Not the stack's, which is for what is kept.
        #[derive(PartialEq)]
        enum In {
            Array,
            Object,
        }
        let mut inside = Vec::new();
        loop {
            let opened = match self.peek()? {
                Kind::Null => self.null().map(|()| None),
                Kind::Bool => self.bool().map(|_| None),
                Kind::Number => self.number().map(|_| None),
                Kind::String => self.scan_string().map(|_| None),
                Kind::Array => self.array().map(|()| Some(In::Array)),
                Kind::Object => self.object().map(|()| Some(In::Object)),
            }?;
            let mut first = opened.is_some();
            inside.extend(opened);
            // To the next value: what ends here ends.
            loop {
                let more = match inside.last() {
                    None => return Ok(()),
                    Some(In::Array) => self.element(&mut first)?,
                    Some(In::Object) => self.member(&mut first)?,
                };
                if more {
                    break;
                }
                inside.pop();
                first = false;
            }
            if inside.last() == Some(&In::Object) {
                self.scan_string()?;
                self.colon()?;
            }
        }
    }

    /// The next value's text, without the space around it.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        self.space();
        let start = self.pos;
        self.skip()?;
        Ok(&self.buf[start..self.pos])
    }

    /// The next value as a tree, as Go reads it into an `any`: whole numbers as integers
    /// where they fit, the last of equal members winning.
    pub fn tree(&mut self) -> Result<Value> {
        Ok(match self.peek()? {
            Kind::Null => {
                self.null()?;
                Value::Null
            }
            Kind::Bool => Value::Bool(self.bool()?),
            Kind::Number => number(self.number()?)?,
            Kind::String => Value::String(self.string()?.into_owned()),
            Kind::Array => {
                self.array()?;
                let mut items = Vec::new();
                let mut first = true;
                while self.element(&mut first)? {
                    items.push(self.tree()?);
                }
                Value::Array(items)
            }
            Kind::Object => {
                self.object()?;
                let mut members = Map::new();
                let mut first = true;
                while let Some(key) = self.key(&mut first)? {
                    let value = self.tree()?;
                    members.insert(key.into_owned(), value);
                }
                Value::Object(members)
            }
        })
    }

    /// Checks that nothing but space is left.
    pub fn end(&mut self) -> Result<()> {
        self.space();
        if self.pos < self.buf.len() {
            return Err(self.unexpected("after top-level value"));
        }
        Ok(())
    }
}

/// A number of a tree, which cannot hold what is beyond doubles.
fn number(text: &str) -> Result<Value> {
    if let Ok(v) = text.parse::<i64>() {
        return Ok(v.into());
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(float.into()),
        _ => Err(Error::Custom(format!(
            "json: cannot unmarshal number {text} into Go value of type float64"
        ))),
    }
}

/// Resolves the escapes of a string's body, which [`Reader::scan_string`] has checked.
fn unescape(body: &[u8]) -> String {
    let mut out = Vec::with_capacity(body.len());
    let mut i = 0;
    while let Some(at) = body[i..].iter().position(|&b| b == b'\\') {
        out.extend_from_slice(&body[i..i + at]);
        i += at + 2;
        let b = match body[i - 1] {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = hex4(&body[i..]);
                i += 4;
                if (0xd800..0xdc00).contains(&unit) && body[i..].starts_with(b"\\u") {
                    let low = hex4(&body[i + 2..]);
                    if (0xdc00..0xe000).contains(&low) {
                        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        i += 6;
                    }
                }
                let c = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            other => other,
        };
        out.push(b);
    }
    out.extend_from_slice(&body[i..]);
    match String::from_utf8(out) {
        Ok(s) => s,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    }
}

fn hex4(s: &[u8]) -> u32 {
    s[..4].iter().fold(0, |v, &b| {
        v << 4 | (b as char).to_digit(16).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(raw: &str) -> String {
        check(raw.as_bytes())
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn errors_are_go_s() {
        for (raw, want) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("}", "invalid character '}' looking for beginning of value"),
            (
                "{a",
                "invalid character 'a' looking for beginning of object key string",
            ),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (
                r#"{"a":1 "b"}"#,
                "invalid character '\"' after object key:value pair",
            ),
            (
                r#"{"a":1,}"#,
                "invalid character '}' looking for beginning of object key string",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("1 2", "invalid character '2' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("-", "unexpected end of JSON input"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "tru ",
                "invalid character ' ' in literal true (expecting 'e')",
            ),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (
                r#""\u12g""#,
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
        ] {
            assert_eq!(error(raw), want, "{raw:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(error(&deep), "invalid character '[' exceeded max depth");
        let deep = r#"{"a":"#.repeat(10_001);
        assert_eq!(error(&deep), "invalid character '{' exceeded max depth");
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(check(deep.as_bytes()).is_ok());
    }

    #[test]
    fn nesting_is_found() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(nests(nested(3).as_bytes(), 3));
        assert!(!nests(nested(2).as_bytes(), 3));
        assert!(!nests(b"[[],[],{}]", 3));
        assert!(!nests(br#"["[[[", "\"[[["]"#, 3));
        assert!(nests(br#"["]]", ["\\", {"#, 3));
        assert!(!nests(br#"[[["\"#, 4));
    }

    #[test]
    fn strings_are_read_as_go_does() {
        let read = |s: &str| Reader::new(s.as_bytes()).string().unwrap().into_owned();
        assert_eq!(read(r#""a\"\\\/\b\f\n\r\té""#), "a\"\\/\u{8}\u{c}\n\r\té");
        assert_eq!(
            read(r#""\ud834\udd1e \ud834 \udd1e \ud834A""#),
            "𝄞 \u{fffd} \u{fffd} \u{fffd}A"
        );
        assert_eq!(Reader::new(b"\"a\xff\"").string().unwrap(), "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(s in r#"[\[\]{},:0-9eE.+\-" a\\utrnl]{0,12}"#) {
            prop_assert_eq!(check(s.as_bytes()).is_ok(), serde_json::from_str::<&serde_json::value::RawValue>(&s).is_ok(), "{}", s);
        }

        #[test]
        fn any_string_returns(s: String) {
            let json = serde_json::to_string(&s).unwrap();
            prop_assert_eq!(Reader::new(json.as_bytes()).string().unwrap(), s);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = check(&bytes);
        }
    }
}
