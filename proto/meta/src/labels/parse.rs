//! The grammar of label selectors, with upstream's error texts.
//!
//! ```text
//! selector    = [ requirement { "," requirement } ]
//! requirement = [ "!" ] KEY | KEY ( "=" | "==" | "!=" | ">" | "<" ) [ VALUE ]
//!             | KEY ( "in" | "notin" ) "(" [ VALUE ] { "," [ VALUE ] } ")"
//! ```

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError, key_error};
use crate::field::{ErrorList, Path};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Close,
    Comma,
    Not,
    Open,
    /// `=`, `in`, …, with its text.
    Operator(Operator, &'a str),
    Identifier(&'a str),
    /// Symbols that mean nothing.
    Error(&'a str),
}

impl<'a> Token<'a> {
    fn of(text: &'a str) -> Option<Self> {
        Some(match text {
            ")" => Self::Close,
            "," => Self::Comma,
            "!" => Self::Not,
            "(" => Self::Open,
            "==" => Self::Operator(Operator::DoubleEquals, text),
            "=" => Self::Operator(Operator::Equals, text),
            ">" => Self::Operator(Operator::GreaterThan, text),
            "<" => Self::Operator(Operator::LessThan, text),
            "!=" => Self::Operator(Operator::NotEquals, text),
            "in" => Self::Operator(Operator::In, text),
            "notin" => Self::Operator(Operator::NotIn, text),
            _ => return None,
        })
    }

    /// Where a value may stand, `in` and `notin` are values.
    fn as_value(self) -> Self {
        match self {
            Self::Operator(Operator::In | Operator::NotIn, text) => Self::Identifier(text),
            other => other,
        }
    }

    fn text(self) -> String {
        match self {
            Self::End => String::new(),
            Self::Close => ")".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Not => "!".to_owned(),
            Self::Open => "(".to_owned(),
            Self::Operator(_, text) | Self::Identifier(text) => text.to_owned(),
            Self::Error(text) => format!("error expected: keyword found '{text}'"),
        }
    }
}

fn is_symbol(b: u8) -> bool {
    matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn lex(s: &str) -> Vec<Token<'_>> {
    // A NUL ends the text for upstream's lexer.
    let s = s.split('\0').next().unwrap_or_default();
    let bytes = s.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        while at < bytes.len() && is_space(bytes[at]) {
            at += 1;
        }
        let start = at;
        let Some(first) = bytes.get(at) else {
            out.push(Token::End);
            return out;
        };
        if !is_symbol(*first) {
            while at < bytes.len() && !is_symbol(bytes[at]) && !is_space(bytes[at]) {
                at += 1;
            }
            let word = &s[start..at];
            out.push(Token::of(word).unwrap_or(Token::Identifier(word)));
            continue;
        }
        // The longest symbol that means something; if none does, all of them are the error.
        let mut found = None;
        while at < bytes.len() && is_symbol(bytes[at]) {
            match (Token::of(&s[start..=at]), found) {
                (Some(token), _) => found = Some(token),
                (None, Some(_)) => break,
                (None, None) => {}
            }
            at += 1;
        }
        out.push(found.unwrap_or(Token::Error(&s[start..at])));
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

fn syntax(text: String) -> SelectorError {
    SelectorError::Syntax(text)
}

/// The requirements in the order written.
pub(super) fn parse(s: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut p = Parser {
        tokens: lex(s),
        at: 0,
    };
    let mut out = Vec::new();
    loop {
        match p.peek_value() {
            Token::Identifier(_) | Token::Not => {
                out.push(
                    p.requirement()
                        .map_err(|e| syntax(format!("unable to parse requirement: {e}")))?,
                );
                match p.next_value() {
                    Token::End => return Ok(out),
                    Token::Comma => match p.peek_value() {
                        Token::Identifier(_) | Token::Not => {}
                        t => {
                            return Err(syntax(format!(
                                "found '{}', expected: identifier after ','",
                                t.text()
                            )));
                        }
                    },
                    t => {
                        return Err(syntax(format!(
                            "found '{}', expected: ',' or 'end of string'",
                            t.text()
                        )));
                    }
                }
            }
            Token::End => return Ok(out),
            t => {
                return Err(syntax(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    t.text()
                )));
            }
        }
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn peek_value(&self) -> Token<'a> {
        self.peek().as_value()
    }

    fn next_value(&mut self) -> Token<'a> {
        self.next().as_value()
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next_value();
        let negated = token == Token::Not;
        if negated {
            token = self.next_value();
        }
        let Token::Identifier(key) = token else {
            return Err(syntax(format!(
                "found '{}', expected: identifier",
                token.text()
            )));
        };
        if let Some(e) = key_error(key, &Path::root()) {
            return Err(ErrorList::from(e).into());
        }
        if negated {
            return Ok(Requirement::new(key, Operator::DoesNotExist, Vec::new())?);
        }
        if matches!(self.peek_value(), Token::End | Token::Comma) {
            return Ok(Requirement::new(key, Operator::Exists, Vec::new())?);
        }
        let operator = match self.next() {
            Token::Operator(operator, _) => operator,
            t => {
                return Err(syntax(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    t.text()
                )));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?.into_iter().collect(),
            _ => vec![self.exact_value()?],
        };
        Ok(Requirement::new(key, operator, values)?)
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek_value(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next_value() {
            Token::Identifier(value) => Ok(value.to_owned()),
            t => Err(syntax(format!(
                "found '{}', expected: identifier",
                t.text()
            ))),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next_value() {
            Token::Open => {}
            t => return Err(syntax(format!("found '{}' expected: '('", t.text()))),
        }
        match self.peek_value() {
            Token::Identifier(_) | Token::Comma => {
                let values = self.identifiers()?;
                self.next();
                Ok(values)
            }
            Token::Close => {
                self.next();
                Ok(BTreeSet::from([String::new()]))
            }
            t => Err(syntax(format!(
                "found '{}', expected: ',', ')' or identifier",
                t.text()
            ))),
        }
    }

    /// Up to, but not including, the closing parenthesis. Values may be empty.
    fn identifiers(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut out = BTreeSet::new();
        loop {
            match self.next_value() {
                Token::Identifier(value) => {
                    out.insert(value.to_owned());
                    match self.peek_value() {
                        Token::Comma => {}
                        Token::Close => return Ok(out),
                        t => {
                            return Err(syntax(format!(
                                "found '{}', expected: ',' or ')'",
                                t.text()
                            )));
                        }
                    }
                }
                Token::Comma => {
                    if out.is_empty() {
                        out.insert(String::new());
                    }
                    match self.peek_value() {
                        Token::Close => {
                            out.insert(String::new());
                            return Ok(out);
                        }
                        Token::Comma => {
                            out.insert(String::new());
                        }
                        _ => {}
                    }
                }
                t => {
                    return Err(syntax(format!(
                        "found '{}', expected: ',', or identifier",
                        t.text()
                    )));
                }
            }
        }
    }
}
