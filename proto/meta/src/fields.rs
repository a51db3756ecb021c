//! Field selectors: `metadata.name=x,status.phase!=Running`.
//!
//! Which fields a kind can be selected by is the kind's business, not this module's.

use std::fmt;

/// Comparison of one field with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub field: String,
    /// `true` for `=` and `==`, `false` for `!=`.
    pub equals: bool,
    pub value: String,
}

/// All of its requirements must hold; without any it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

/// Why a text is no field selector. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// Upstream prints the character's number.
    #[error("invalid field selector: unescaped character in value: {}", *.0 as u32)]
    Unescaped(char),
}

impl Selector {
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects the objects whose `field` is `value`.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self(vec![Requirement {
            field: field.into(),
            equals: true,
            value: value.into(),
        }])
    }

    /// Selects the objects whose `field` is not `value`.
    pub fn not_equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self(vec![Requirement {
            field: field.into(),
            equals: false,
            value: value.into(),
        }])
    }

    /// What both select.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Reads the text of a `fieldSelector` parameter. In values, `\`, `,` and `=` are escaped
    /// by a backslash. A term of no field and no value (`=`, `!=`) asks for nothing.
    pub fn parse(s: &str) -> Result<Self, ParseError> {
        let mut terms = split_terms(s);
        terms.sort_unstable();
        let mut out = Vec::with_capacity(terms.len());
        for term in terms.into_iter().filter(|t| !t.is_empty()) {
            let (field, equals, value) = split_term(term).ok_or_else(|| ParseError::Term {
                selector: s.to_owned(),
                term: term.to_owned(),
            })?;
            let value = unescape(value)?;
            if !field.is_empty() || !value.is_empty() {
                out.push(Requirement {
                    field: field.to_owned(),
                    equals,
                    value,
                });
            }
        }
        Ok(Self(out))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls the fields by other names.
    pub fn try_rename<E>(
        mut self,
        name: impl Fn(&str) -> Result<Option<String>, E>,
    ) -> Result<Self, E> {
        for requirement in &mut self.0 {
            if let Some(other) = name(&requirement.field)? {
                requirement.field = other;
            }
        }
        Ok(self)
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// The value that `field` must have, if this selector says so: what an index can be asked for.
    pub fn requires_exact_match(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|r| r.equals && r.field == field)
            .map(|r| r.value.as_str())
    }

    /// Whether an object matches; `get` gives its field's value, `None` counting as empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0
            .iter()
            .all(|r| (get(&r.field).unwrap_or_default() == r.value) == r.equals)
    }
}

impl std::str::FromStr for Selector {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        Self::parse(s)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let op = if r.equals { "=" } else { "!=" };
            write!(f, "{comma}{}{op}{}", r.field, escape(&r.value))?;
        }
        Ok(())
    }
}

/// Escapes a value for use in a selector's text.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, ParseError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(ParseError::Escape(format!("\\{c}"))),
                None => return Err(ParseError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(ParseError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Splits at the commas that are not escaped.
fn split_terms(s: &str) -> Vec<&str> {
    let mut escaped = false;
    s.split(move |c| {
        let split = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        split
    })
    .collect()
}

/// Field, whether it must equal, value: split at the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term
        .find(['=', '!'])
        .filter(|i| !term[*i..].starts_with('!'))
        .or_else(|| {
            // A lone `!` belongs to the field's name.
            term.char_indices()
                .map(|(i, _)| i)
                .find(|i| term[*i..].starts_with('=') || term[*i..].starts_with("!="))
        })?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, false, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, true, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_displays() {
        for (input, want) in [
            ("", ""),
            ("x=a", "x=a"),
            ("x==a", "x=a"),
            ("x!=a", "x!=a"),
            ("y=b,x=a", "x=a,y=b"),
            ("x=,z= ", "x=,z= "),
            ("x=a\\,b\\=c\\\\", "x=a\\,b\\=c\\\\"),
            ("a!b=c", "a!b=c"),
            (",,x=a,", "x=a"),
        ] {
            assert_eq!(Selector::parse(input).unwrap().to_string(), want, "{input}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        let err = |s: &str| Selector::parse(s).unwrap_err().to_string();
        assert_eq!(err("x"), "invalid selector: 'x'; can't understand 'x'");
        assert_eq!(
            err("x=a\\b"),
            "invalid field selector: invalid escape sequence: \\b"
        );
        assert_eq!(
            err("x=a=b"),
            "invalid field selector: unescaped character in value: 61"
        );
    }

    #[test]
    fn matches_and_indexes() {
        let s = Selector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
        let get = |f: &str| match f {
            "spec.nodeName" => Some("n1"),
            _ => None,
        };
        assert!(s.matches(get));
        assert_eq!(s.requires_exact_match("spec.nodeName"), Some("n1"));
        assert_eq!(s.requires_exact_match("status.phase"), None);
        assert!(!Selector::equals("x", "1").and(s).matches(get));
        assert!(Selector::everything().matches(get));
    }
}
