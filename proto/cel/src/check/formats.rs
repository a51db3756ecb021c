//! `'%d of %s'.format([1, 'x'])`: whether the values suit the clauses, where both are written
//! down. cel-go tells what it would fail with.

use crate::ast::{Expr, Kind};
use crate::value::Value;

use super::checker::Checker;
use super::types::Type;

/// What is wrong, and its place where that is not the call's.
type Wrong = (Option<usize>, String);

impl Checker<'_> {
    /// Looks at a call of `format` whose parts have been checked.
    pub fn formatted(&mut self, at: usize, target: &Expr, arguments: &[Expr]) {
        let Kind::Literal(Value::String(format)) = &target.kind else {
            return;
        };
        let [
            Expr {
                kind: Kind::List(values),
                ..
            },
        ] = arguments
        else {
            return;
        };
        let values: Vec<&Expr> = values.iter().map(|(value, _)| value).collect();
        if let Err((place, message)) = self.clauses(format, &values) {
            self.literals.tell(place.unwrap_or(at), message);
        }
    }

    fn clauses(&self, format: &str, values: &[&Expr]) -> Result<(), Wrong> {
        let end = || (None, "unexpected end of string".to_owned());
        let mut used = 0;
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' || chars.next_if_eq(&'%').is_some() {
                continue;
            }
            let mut clause = chars.next().ok_or_else(end)?;
            let Some(value) = values.get(used) else {
                return Err((None, format!("index {used} out of range")));
            };
            used += 1;
            if clause == '.' {
                while chars.next_if(char::is_ascii_digit).is_some() {}
                clause = chars.next().ok_or_else(|| {
                    let message = "could not parse formatting clause: error while parsing \
                        precision: could not find end of precision specifier";
                    (None, message.to_owned())
                })?;
            }
            self.clause(clause, value)?;
        }
        if values.len() > used {
            let given = values.len();
            let message = "too many arguments supplied to string.format";
            return Err((None, format!("{message} (expected {used}, got {given})")));
        }
        Ok(())
    }

    fn clause(&self, clause: char, value: &Expr) -> Result<(), Wrong> {
        let of = self.seen(value);
        let (suits, what) = match clause {
            's' => {
                let wrong = self.unprintable(value);
                return wrong.map_or(Ok(()), |wrong| {
                    let what = "string clause can only be used on strings, bools, bytes, ints, \
                        doubles, maps, lists, types, durations, and timestamps";
                    Err(self.unsuited(wrong, what))
                });
            }
            'd' => (
                matches!(of, Type::Int | Type::Uint),
                "decimal clause can only be used on integers",
            ),
            'f' => (
                matches!(of, Type::Double | Type::String),
                "fixed-point clause can only be used on doubles",
            ),
            'e' => (
                matches!(of, Type::Double | Type::String),
                "scientific clause can only be used on doubles",
            ),
            'b' => (
                matches!(of, Type::Int | Type::Uint | Type::Bool),
                "only integers and bools can be formatted as binary",
            ),
            'x' | 'X' => (
                matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
                "only integers, byte buffers, and strings can be formatted as hex",
            ),
            'o' => (
                matches!(of, Type::Int | Type::Uint),
                "octal clause can only be used on integers",
            ),
            other => {
                let message = "could not parse formatting clause: unrecognized formatting clause";
                return Err((None, format!("{message} \"{other}\"")));
            }
        };
        if suits || of == Type::Dyn {
            return Ok(());
        }
        Err(self.unsuited(value, what))
    }

    fn unsuited(&self, value: &Expr, what: &str) -> Wrong {
        let given = runtime_name(&self.seen(value));
        let message = format!("error during formatting: {what}, was given {given}");
        (Some(value.at), message)
    }

    /// The first part of a value that cannot be shown as text.
    fn unprintable<'e>(&self, value: &'e Expr) -> Option<&'e Expr> {
        if matches!(
            self.seen(value),
            Type::Any | Type::Object(_) | Type::Opaque(..) | Type::Error
        ) {
            return Some(value);
        }
        match &value.kind {
            Kind::List(elements) => {
                let mut elements = elements.iter();
                elements.find_map(|(element, _)| self.unprintable(element))
            }
            Kind::Map(entries) => entries.iter().find_map(|(key, value, _)| {
                let key = self.unprintable(key);
                key.or_else(|| self.unprintable(value))
            }),
            _ => None,
        }
    }
}

/// What a type is called where values are at hand: without what it has parameters for.
fn runtime_name(of: &Type) -> String {
    match of {
        Type::List(_) => "list".to_owned(),
        Type::Map(_) => "map".to_owned(),
        Type::Type(_) => "type".to_owned(),
        Type::Null => "null_type".to_owned(),
        Type::Any => "google.protobuf.Any".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        Type::Opaque(name, _) => name.to_string(),
        other => other.to_string(),
    }
}
