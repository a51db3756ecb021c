//! Go's `%q`, which is part of the text of most of the API's error messages.

use std::fmt::{self, Write};

/// Displays a string as Go's `%q` does: in double quotes, with everything that is not
/// printable escaped.
///
/// ```
/// assert_eq!(meta::gofmt::Quoted("a\"b\n").to_string(), r#""a\"b\n""#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

/// `s` as Go's `%q` would print it.
pub fn quote(s: &str) -> String {
    Quoted(s).to_string()
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0c' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x0b' => f.write_str("\\v")?,
                c if is_print(c) => f.write_char(c)?,
                c if (c as u32) < 0x80 => write!(f, "\\x{:02x}", c as u32)?,
                c if (c as u32) < 0x10000 => write!(f, "\\u{:04x}", c as u32)?,
                c => write!(f, "\\U{:08x}", c as u32)?,
            }
        }
        f.write_char('"')
    }
}

/// Go's `strconv.IsPrint`, as far as it can be told without Unicode's category tables:
/// control, format, private-use and all space characters but U+0020 are not printable.
fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let n = c as u32;
    let format = matches!(n, 0xad | 0x61c | 0x6dd | 0x70f | 0x180e | 0xfeff)
        || (0x200b..=0x200f).contains(&n)
        || (0x202a..=0x202e).contains(&n)
        || (0x2060..=0x206f).contains(&n)
        || (0xfff0..=0xfffb).contains(&n)
        || (0xe0000..=0xe0fff).contains(&n);
    let private = (0xe000..=0xf8ff).contains(&n) || n >= 0xf0000;
    !c.is_control() && !c.is_whitespace() && !format && !private && n & 0xfffe != 0xfffe
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go() {
        assert_eq!(quote("plain"), r#""plain""#);
        assert_eq!(quote("a\"b\\c\n\t"), r#""a\"b\\c\n\t""#);
        assert_eq!(quote("\x00\x7f"), r#""\x00\x7f""#);
        assert_eq!(quote("héß日"), "\"héß日\"");
        assert_eq!(
            quote("\u{a0}\u{feff}\u{e0001}"),
            r#""\u00a0\ufeff\U000e0001""#
        );
    }
}
