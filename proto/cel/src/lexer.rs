//! Text to tokens.

use std::sync::Arc;

use crate::SyntaxError;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Ident(Box<str>),
    Int(i64),
    /// One more than the largest `Int`, which only a minus makes a number.
    IntMinimum,
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// Punctuation and operators.
    Op(&'static str),
    End,
}

/// A token and where it begins, in characters.
pub type Placed = (Token, usize);

/// The longest first.
const OPERATORS: [&str; 26] = [
    "[?", "==", "!=", "<=", ">=", "&&", "||", ".?", "<", ">", "(", ")", "[", "]", "{", "}", ".",
    ",", ":", "?", "+", "-", "*", "/", "%", "!",
];

pub struct Lexer<'a> {
    text: &'a str,
    chars: Vec<char>,
    at: usize,
}

/// What is wrong with the text.
pub fn error(text: &str, at: usize, message: impl Into<String>) -> SyntaxError {
    wrong(text, at, format!("Syntax error: {}", message.into()))
}

/// What is wrong at a character, which people count by lines.
pub fn wrong(text: &str, at: usize, message: String) -> SyntaxError {
    let before: String = text.chars().take(at).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    SyntaxError {
        line,
        column,
        message,
    }
}

pub fn tokens(text: &str) -> Result<Vec<Placed>, SyntaxError> {
    let mut lexer = Lexer {
        text,
        chars: text.chars().collect(),
        at: 0,
    };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        tokens.push((token, at));
        if end {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(error(self.text, self.at, message))
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                ' ' | '\t' | '\n' | '\r' | '\x0c' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        if self.at >= self.chars.len() {
            return Ok(Token::End);
        }
        if let Some((raw, bytes, prefix)) = self.quote() {
            self.at += prefix;
            return self.text_literal(raw, bytes);
        }
        let c = self.peek(0);
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            return Ok(Token::Ident(word.into()));
        }
        for operator in OPERATORS {
            let matches = operator.chars().enumerate().all(|(i, c)| self.peek(i) == c);
            // `a ? .5 : b` is rarer than `a.?b`, and is not written so.
            if matches {
                self.at += operator.len();
                return Ok(Token::Op(operator));
            }
        }
        self.fail(format!("token recognition error at: '{c}'"))
    }

    /// Whether a string begins here: raw, of bytes, and how long its prefix is.
    fn quote(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes) = (false, false);
        for prefix in 0..3 {
            match self.peek(prefix) {
                '"' | '\'' => return Some((raw, bytes, prefix)),
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                _ => return None,
            }
        }
        None
    }

    fn text_literal(&mut self, raw: bool, bytes: bool) -> Result<Token, SyntaxError> {
        let quote = self.peek(0);
        let long = self.peek(1) == quote && self.peek(2) == quote;
        let width = if long { 3 } else { 1 };
        self.at += width;
        let mut text: Vec<u8> = Vec::new();
        loop {
            if self.at >= self.chars.len() || (!long && matches!(self.peek(0), '\n' | '\r')) {
                return self.fail("unterminated string");
            }
            if (0..width).all(|i| self.peek(i) == quote) {
                self.at += width;
                break;
            }
            let c = self.peek(0);
            if c == '\\' && !raw {
                self.escape(&mut text, bytes)?;
                continue;
            }
            self.at += 1;
            text.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if bytes {
            return Ok(Token::Bytes(text.into()));
        }
        match String::from_utf8(text) {
            Ok(text) => Ok(Token::String(text.into())),
            Err(_) => self.fail("invalid UTF-8"),
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>, bytes: bool) -> Result<(), SyntaxError> {
        let letter = self.peek(1);
        let plain = match letter {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            '\\' | '"' | '\'' | '?' | '`' => u8::try_from(u32::from(letter)).ok(),
            _ => None,
        };
        if let Some(byte) = plain {
            text.push(byte);
            self.at += 2;
            return Ok(());
        }
        let (skip, digits, radix) = match letter {
            'x' | 'X' => (2, 2, 16),
            'u' => (2, 4, 16),
            'U' => (2, 8, 16),
            '0'..='3' => (1, 3, 8),
            _ => return self.fail("unable to unescape string"),
        };
        let code: String = (0..digits).map(|i| self.peek(skip + i)).collect();
        let Ok(code) = u32::from_str_radix(&code, radix) else {
            return self.fail("unable to unescape string");
        };
        self.at += skip + digits;
        match u8::try_from(code) {
            Ok(byte) if bytes => text.push(byte),
            _ => match char::from_u32(code) {
                Some(c) => text.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                None => return self.fail("invalid unicode code point"),
            },
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let hex = self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X');
        let mut double = false;
        if hex {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
        } else {
            self.digits();
            if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
                double = true;
                self.at += 1;
                self.digits();
            }
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
                double = true;
                self.at += 1 + sign;
                self.digits();
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if double {
            return match text.parse() {
                Ok(number) => Ok(Token::Double(number)),
                Err(_) => self.fail("invalid double literal"),
            };
        }
        let digits = if hex { &text[2..] } else { &text };
        let number = u64::from_str_radix(digits, if hex { 16 } else { 10 });
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return match number {
                Ok(number) => Ok(Token::Uint(number)),
                Err(_) => self.fail("invalid uint literal"),
            };
        }
        match number {
            Ok(number @ 0..0x8000_0000_0000_0000) => {
                Ok(Token::Int(i64::try_from(number).unwrap_or_default()))
            }
            Ok(number) if number == 1 << 63 => Ok(Token::IntMinimum),
            _ => self.fail("invalid int literal"),
        }
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }
}
