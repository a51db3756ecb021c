//! What is asked of literals once all types are known: that lists have elements of one type, and
//! that texts which a function reads can be read.

use std::sync::LazyLock;

use regex::Regex;

use crate::ast::{Expr, Kind};
use crate::value::Value;

use super::types::Type;
use super::unify::Substitutions;

/// Elements that should be of one type, and where they stand.
#[derive(Debug, Default)]
pub struct Homogeneous(Vec<(usize, Type)>);

impl Homogeneous {
    pub fn push(&mut self, at: usize, of: Type) {
        self.0.push((at, of));
    }
}

/// What is to be asked.
#[derive(Debug, Default)]
pub struct Literals {
    lists: Vec<Homogeneous>,
    /// Of keys, and of values.
    maps: Vec<(Homogeneous, Homogeneous)>,
    /// What is wrong with literals by themselves.
    told: Vec<(usize, String)>,
    /// Within how many calls we are whose literals may be mixed.
    pub mixed: usize,
}

impl Literals {
    pub fn list(&mut self, elements: Homogeneous) {
        if self.mixed == 0 {
            self.lists.push(elements);
        }
    }

    pub fn map(&mut self, keys: Homogeneous, values: Homogeneous) {
        if self.mixed == 0 {
            self.maps.push((keys, values));
        }
    }

    /// What is to be told if nothing else is wrong.
    pub fn tell(&mut self, at: usize, message: String) {
        self.told.push((at, message));
    }

    /// A function's first argument, where it is a literal that the function reads.
    pub fn argument(&mut self, function: &str, argument: &Expr) {
        let Kind::Literal(Value::String(text)) = &argument.kind else {
            return;
        };
        let readable = match function {
            "duration" => is_duration(text),
            "timestamp" => is_timestamp(text),
            "matches" => Regex::new(text).is_ok(),
            _ => true,
        };
        if !readable {
            self.tell(argument.at, format!("invalid {function} argument"));
        }
    }

    /// What is wrong, by its place.
    pub fn wrong(&mut self, known: &Substitutions) -> Vec<(usize, String)> {
        let mut wrong = std::mem::take(&mut self.told);
        let differing = |all: &Homogeneous| {
            let mut types = all.0.iter().map(|(at, of)| (*at, known.apply(of, true)));
            let first = types.next();
            let differing = types.filter_map(move |(at, of)| {
                let (_, first) = first.as_ref()?;
                let message = format!("expected type '{first}' but found '{of}'");
                (of != *first).then_some((at, message))
            });
            differing.collect::<Vec<_>>()
        };
        // Of a list only the first one is told.
        wrong.extend(
            self.lists
                .iter()
                .flat_map(|l| differing(l).into_iter().take(1)),
        );
        for (keys, values) in &self.maps {
            wrong.extend(differing(keys));
            wrong.extend(differing(values));
        }
        wrong
    }
}

static DURATION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^[-+]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$").ok()
});

static TIMESTAMP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let date = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
    let time = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.,][0-9]+)?";
    Regex::new(&format!("^{date}T{time}(Z|[-+][0-9]{{2}}:[0-9]{{2}})$")).ok()
});

fn is_duration(text: &str) -> bool {
    DURATION.as_ref().is_none_or(|form| form.is_match(text))
}

fn is_timestamp(text: &str) -> bool {
    TIMESTAMP.as_ref().is_none_or(|form| form.is_match(text))
}
