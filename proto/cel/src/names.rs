//! What the names in an expression stand for, where it is to be evaluated: variables, types and
//! functions that there are. What is not there is found before anything is evaluated.

use std::sync::Arc;

use crate::ast::{Each, Expr, Kind};
use crate::lexer::wrong;
use crate::value::Value;
use crate::{SyntaxError, functions};

/// Types are values, too.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

struct Names<'a> {
    text: &'a str,
    /// The innermost last.
    scope: Vec<Box<str>>,
}

type Outcome = Result<(), SyntaxError>;

/// Puts into the expression what its names stand for.
///
/// # Errors
///
/// When there is no variable or function of a name.
pub fn resolve(expr: &mut Expr, text: &str, variables: &[&str]) -> Outcome {
    let mut names = Names {
        text,
        scope: variables.iter().map(|name| (*name).into()).collect(),
    };
    names.expr(expr)
}

impl Names<'_> {
    fn undeclared(&self, at: usize, name: &str) -> Outcome {
        let message = format!("undeclared reference to '{name}' (in container '')");
        Err(wrong(self.text, at, message))
    }

    fn unsupported(&self, at: usize) -> Outcome {
        let message = "sortBy() and macros with two variables cannot be evaluated here";
        Err(wrong(self.text, at, message.to_owned()))
    }

    fn knows(&self, name: &str) -> bool {
        self.scope.iter().any(|known| **known == *name)
    }

    fn within(&mut self, name: &str, body: &mut Expr) -> Outcome {
        self.scope.push(name.into());
        let outcome = self.expr(body);
        self.scope.pop();
        outcome
    }

    fn expr(&mut self, expr: &mut Expr) -> Outcome {
        match &mut expr.kind {
            Kind::Literal(_) => Ok(()),
            Kind::Ident(name) => {
                if self.knows(name) {
                    return Ok(());
                }
                let Some(known) = TYPES.iter().find(|known| ***known == **name) else {
                    return self.undeclared(expr.at, name);
                };
                expr.kind = Kind::Literal(Value::Type(known));
                Ok(())
            }
            Kind::Select { of, .. } | Kind::Has(of, _) | Kind::Not(of) | Kind::Negate(of) => {
                self.expr(of)
            }
            Kind::Index { of, index, .. } => {
                self.expr(of)?;
                self.expr(index)
            }
            Kind::And(left, right) | Kind::Or(left, right) => {
                self.expr(left)?;
                self.expr(right)
            }
            Kind::Binary(_, sides) => {
                self.expr(&mut sides.0)?;
                self.expr(&mut sides.1)
            }
            Kind::Conditional(parts) => {
                self.expr(&mut parts.0)?;
                self.expr(&mut parts.1)?;
                self.expr(&mut parts.2)
            }
            Kind::Map(entries) => entries.iter_mut().try_for_each(|(key, value, _)| {
                self.expr(key)?;
                self.expr(value)
            }),
            Kind::List(elements) => {
                for (element, _) in &mut *elements {
                    self.expr(element)?;
                }
                if let Some(literal) = literal_list(elements) {
                    expr.kind = Kind::Literal(literal);
                }
                Ok(())
            }
            Kind::Bind { name, value, body } => {
                self.expr(value)?;
                self.within(name, body)
            }
            Kind::OptionalMap { of, name, body, .. } => {
                self.expr(of)?;
                self.within(name, body)
            }
            Kind::Each {
                range,
                variable,
                second,
                what,
            } => {
                self.expr(range)?;
                match &mut **what {
                    // Only checked, not evaluated yet.
                    _ if second.is_some() => self.unsupported(expr.at),
                    Each::SortBy(_) | Each::TransformMap(..) | Each::TransformMapEntry(..) => {
                        self.unsupported(expr.at)
                    }
                    Each::All(body)
                    | Each::Exists(body)
                    | Each::ExistsOne(body)
                    | Each::Filter(body) => self.within(variable, body),
                    Each::Map(condition, body) => {
                        if let Some(condition) = condition {
                            self.within(variable, condition)?;
                        }
                        self.within(variable, body)
                    }
                }
            }
            Kind::Call {
                function,
                target,
                arguments,
            } => {
                for argument in arguments {
                    self.expr(argument)?;
                }
                // `sets.contains(a, b)` has no target, but a name with a dot.
                if let Some(Kind::Ident(name)) = target.as_deref().map(|target| &target.kind)
                    && !self.knows(name)
                {
                    let qualified = format!("{name}.{function}");
                    if functions::exists(&qualified, false) {
                        *function = qualified.into();
                        *target = None;
                    }
                }
                if let Some(target) = target {
                    self.expr(target)?;
                }
                if functions::exists(function, target.is_some()) {
                    return Ok(());
                }
                self.undeclared(expr.at, function)
            }
        }
    }
}

/// A list of literals is one itself.
fn literal_list(elements: &[(Expr, bool)]) -> Option<Value> {
    let literals: Option<Arc<[Value]>> = elements
        .iter()
        .map(|(element, optional)| match &element.kind {
            Kind::Literal(value) if !optional => Some(value.clone()),
            _ => None,
        })
        .collect();
    literals.map(Value::List)
}
