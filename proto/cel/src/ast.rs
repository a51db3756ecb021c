//! An expression as it is written: its parts, and where they stand.

use crate::value::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

/// What is done with the elements of a list or the keys of a map.
#[derive(Debug)]
pub enum Each {
    All(Expr),
    Exists(Expr),
    ExistsOne(Expr),
    Filter(Expr),
    /// Of those of which the first is true, if it is given, the second: `map` and
    /// `transformList`.
    Map(Option<Expr>, Expr),
    /// As `Map`, to the values of a map with the same keys.
    TransformMap(Option<Expr>, Expr),
    /// As `Map`, to maps of which one is made.
    TransformMapEntry(Option<Expr>, Expr),
    /// The elements in the order of these keys.
    SortBy(Expr),
}

/// A part of an expression, and where it stands.
#[derive(Debug)]
pub struct Expr {
    /// The character at which cel-go points when it speaks of this part: an operator, the dot of
    /// a field, the parenthesis of a call, or where anything else begins.
    pub at: usize,
    pub kind: Kind,
    /// How many parts are within each other, this one among them.
    pub height: usize,
}

#[derive(Debug)]
pub enum Kind {
    Literal(Value),
    Ident(Box<str>),
    Select {
        of: Box<Expr>,
        field: Box<str>,
        /// `a.?b`
        optional: bool,
    },
    /// `has(a.b)`
    Has(Box<Expr>, Box<str>),
    Index {
        of: Box<Expr>,
        index: Box<Expr>,
        /// `a[?b]`
        optional: bool,
    },
    Call {
        function: Box<str>,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    /// Optional elements are left out when they are not there.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Conditional(Box<(Expr, Expr, Expr)>),
    Binary(Binary, Box<(Expr, Expr)>),
    Each {
        range: Box<Expr>,
        variable: Box<str>,
        /// Of the forms with two variables: the element, where `variable` is its index or key.
        second: Option<Box<str>>,
        what: Box<Each>,
    },
    /// `cel.bind(a, b, c)`
    Bind {
        name: Box<str>,
        value: Box<Expr>,
        body: Box<Expr>,
    },
    /// `a.optMap(b, c)`, or `optFlatMap` where `c` is optional itself.
    OptionalMap {
        of: Box<Expr>,
        name: Box<str>,
        body: Box<Expr>,
        flat: bool,
    },
}

impl Kind {
    /// The expression at a place.
    pub fn at(self, at: usize) -> Expr {
        Expr {
            at,
            height: 1 + self.deepest(),
            kind: self,
        }
    }

    /// The height of the highest part.
    fn deepest(&self) -> usize {
        let highest = |parts: &[&Expr]| parts.iter().map(|part| part.height).max().unwrap_or(0);
        match self {
            Self::Literal(_) | Self::Ident(_) => 0,
            Self::Select { of, .. } | Self::Has(of, _) | Self::Not(of) | Self::Negate(of) => {
                of.height
            }
            Self::Index { of, index, .. } => highest(&[of, index]),
            Self::Call {
                target, arguments, ..
            } => {
                let target = target.as_ref().map_or(0, |target| target.height);
                arguments
                    .iter()
                    .map(|of| of.height)
                    .fold(target, usize::max)
            }
            Self::List(elements) => elements.iter().map(|(of, _)| of.height).max().unwrap_or(0),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value, _)| highest(&[key, value]));
                entries.max().unwrap_or(0)
            }
            Self::And(left, right) | Self::Or(left, right) => highest(&[left, right]),
            Self::Conditional(parts) => highest(&[&parts.0, &parts.1, &parts.2]),
            Self::Binary(_, sides) => highest(&[&sides.0, &sides.1]),
            Self::Bind { value, body, .. } => highest(&[value, body]),
            Self::OptionalMap { of, body, .. } => highest(&[of, body]),
            Self::Each { range, what, .. } => match &**what {
                Each::All(body)
                | Each::Exists(body)
                | Each::ExistsOne(body)
                | Each::Filter(body)
                | Each::SortBy(body)
                | Each::Map(None, body)
                | Each::TransformMap(None, body)
                | Each::TransformMapEntry(None, body) => highest(&[range, body]),
                Each::Map(Some(test), body)
                | Each::TransformMap(Some(test), body)
                | Each::TransformMapEntry(Some(test), body) => highest(&[range, test, body]),
            },
        }
    }
}
