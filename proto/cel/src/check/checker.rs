//! The walk over an expression that finds its type.

use std::collections::HashMap;

use crate::ast::{Binary, Expr, Kind};
use crate::value::Value;

use super::literals::{Homogeneous, Literals};
use super::types::{Type, named};
use super::unify::{Substitutions, most_general};
use super::{Environment, Field, Issues};

/// What is wrong beyond that is not told a second time.
const MOST_TOLD: usize = 1000;

pub struct Checker<'a> {
    pub environment: &'a Environment<'a>,
    /// Names that macros have made, the innermost last.
    pub scope: Vec<(Box<str>, Type)>,
    pub known: Substitutions,
    pub literals: Literals,
    /// The types of what stands within a call of `format`, by where it is in memory.
    pub formatted: HashMap<*const Expr, Type>,
    /// Places and texts of what is wrong.
    found: Vec<(usize, String)>,
}

pub fn check(expr: &Expr, text: &str, environment: &Environment<'_>) -> Result<Type, Issues> {
    let mut checker = Checker {
        environment,
        scope: Vec::new(),
        known: Substitutions::default(),
        literals: Literals::default(),
        formatted: HashMap::new(),
        found: Vec::new(),
    };
    let of = checker.expr(expr);
    if checker.found.is_empty() {
        // Only where the types are right it is asked whether literals are.
        checker.found = checker.literals.wrong(&checker.known);
    }
    if checker.found.is_empty() {
        return Ok(checker.known.apply(&of, true));
    }
    Err(Issues::of(text, checker.found))
}

impl Checker<'_> {
    pub fn wrong(&mut self, at: usize, message: String) -> Type {
        self.found.push((at, message));
        Type::Error
    }

    /// How much is wrong so far.
    pub fn told(&self) -> usize {
        self.found.len()
    }

    /// Tells again what has been found since.
    pub fn tell_again(&mut self, since: usize) {
        if self.found.len() <= MOST_TOLD {
            self.found.extend_from_within(since..);
        }
    }

    pub fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.wrong(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    pub fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) -> Type {
        self.wrong(
            at,
            format!("expected type '{expected}' but found '{found}'"),
        )
    }

    /// Whether a value of one type can be used where the other is asked for.
    pub fn fits(&mut self, asked: &Type, found: &Type) -> bool {
        let pair = [asked.clone(), found.clone()];
        self.known.assignable(&pair[..1], &pair[1..])
    }

    /// What is not known of the type by now.
    pub fn so_far(&self, of: &Type) -> Type {
        self.known.apply(of, false)
    }

    pub fn fresh(&mut self) -> Type {
        Type::Param(self.known.fresh(1))
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.scope.iter().rev().find(|(known, _)| **known == *name);
        if let Some((_, of)) = local {
            return Some(of.clone());
        }
        let declared = self.environment.variables.get(name).cloned();
        declared.or_else(|| named(name).map(|of| Type::Type(Some(of.into()))))
    }

    /// The type of a part that has been checked within a call of `format`.
    pub fn seen(&self, expr: &Expr) -> Type {
        let of = self.formatted.get(&std::ptr::from_ref(expr));
        of.map_or(Type::Dyn, |of| self.known.apply(of, true))
    }

    pub fn expr(&mut self, expr: &Expr) -> Type {
        let mut of = self.check(expr);
        if of.is_huge() {
            of = Type::Dyn;
        }
        if self.literals.mixed > 0 {
            self.formatted.insert(std::ptr::from_ref(expr), of.clone());
        }
        of
    }

    fn check(&mut self, expr: &Expr) -> Type {
        let at = expr.at;
        match &expr.kind {
            Kind::Literal(value) => of_literal(value),
            Kind::Ident(name) => match self.lookup(name) {
                Some(of) => of,
                None => self.undeclared(at, name),
            },
            Kind::Select {
                of,
                field,
                optional,
            } => {
                let declared = qualified(expr).and_then(|name| self.lookup(&name));
                declared.unwrap_or_else(|| self.field(at, of, field, *optional))
            }
            Kind::Has(of, field) => {
                self.field(at, of, field, false);
                Type::Bool
            }
            Kind::Index {
                of,
                index,
                optional,
            } => {
                let function = if *optional { "_[?_]" } else { "_[_]" };
                self.operator(at, function, &[of, index])
            }
            Kind::And(left, right) => self.logical(left, right),
            Kind::Or(left, right) => self.logical(left, right),
            Kind::Not(of) => self.operator(at, "!_", &[of]),
            Kind::Negate(of) => self.operator(at, "-_", &[of]),
            Kind::Conditional(parts) => self.operator(at, "_?_:_", &[&parts.0, &parts.1, &parts.2]),
            Kind::Binary(operator, sides) => {
                self.operator(at, name(*operator), &[&sides.0, &sides.1])
            }
            Kind::Call {
                function,
                target,
                arguments,
            } => self.call(at, function, target.as_deref(), arguments),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Each {
                range,
                variable,
                second,
                what,
            } => self.each(at, range, variable, second.as_deref(), what),
            Kind::Bind { name, value, body } => {
                let value = self.expr(value);
                self.within(&[(name, value)], |checker| checker.expr(body))
            }
            Kind::OptionalMap {
                of,
                name,
                body,
                flat,
            } => self.optional_map(at, of, name, body, *flat),
        }
    }

    /// With names that a macro makes.
    pub fn within<T>(&mut self, names: &[(&str, Type)], body: impl FnOnce(&mut Self) -> T) -> T {
        let outside = self.scope.len();
        let names = names.iter().map(|(name, of)| ((*name).into(), of.clone()));
        self.scope.extend(names);
        let result = body(self);
        self.scope.truncate(outside);
        result
    }

    fn field(&mut self, at: usize, of: &Expr, field: &str, optional: bool) -> Type {
        let of = self.expr(of);
        let of = self.so_far(&of);
        let within = of.within_optional();
        let found = match within.unwrap_or(&of) {
            Type::Map(of) => of.1.clone(),
            Type::Object(name) => match self.environment.objects.field(name, field) {
                Field::Is(of) => of,
                Field::Undefined => self.wrong(at, format!("undefined field '{field}'")),
                Field::UnknownObject => {
                    self.wrong(at, format!("unexpected failed resolution of '{name}'"))
                }
            },
            param @ Type::Param(_) => {
                self.fits(&Type::Dyn, param);
                Type::Dyn
            }
            Type::Dyn | Type::Any | Type::Error => Type::Dyn,
            other => {
                let message = format!("type '{other}' does not support field selection");
                self.wrong(at, message);
                Type::Dyn
            }
        };
        if within.is_some() || optional {
            return self.so_far(&Type::optional(found));
        }
        self.so_far(&found)
    }

    fn logical(&mut self, left: &Expr, right: &Expr) -> Type {
        // Each side first, as the arguments of a call are.
        let sides = [(left.at, self.expr(left)), (right.at, self.expr(right))];
        let mut result = Type::Bool;
        for (at, side) in &sides {
            if !self.fits(side, &Type::Bool) {
                result = self.mismatch(*at, &Type::Bool, side);
            }
        }
        result
    }

    /// What an optional element has.
    fn element(&mut self, expr: &Expr, optional: bool) -> Type {
        let of = self.expr(expr);
        if !optional {
            return of;
        }
        match of.within_optional() {
            Some(within) => within.clone(),
            None => {
                if of != Type::Dyn {
                    self.mismatch(expr.at, &Type::optional(of.clone()), &of);
                }
                of
            }
        }
    }

    /// What two elements of one list have in common.
    fn join(&mut self, before: Option<Type>, of: &Type) -> Type {
        match before {
            None => of.clone(),
            Some(before) if self.fits(&before, of) => most_general(&before, of).clone(),
            // That they differ is told where all else is right.
            Some(_) => Type::Dyn,
        }
    }

    fn list(&mut self, elements: &[(Expr, bool)]) -> Type {
        let mut joined = None;
        let mut all = Homogeneous::default();
        for (element, optional) in elements {
            let of = self.element(element, *optional);
            all.push(element.at, of.clone());
            joined = Some(self.join(joined, &of));
        }
        self.literals.list(all);
        Type::list(joined.unwrap_or_else(|| self.fresh()))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Type {
        let (mut keys, mut values) = (None, None);
        let (mut all_keys, mut all_values) = (Homogeneous::default(), Homogeneous::default());
        for (key, value, optional) in entries {
            let of = self.expr(key);
            all_keys.push(key.at, of.clone());
            keys = Some(self.join(keys, &of));
            let of = self.element(value, *optional);
            all_values.push(value.at, of.clone());
            values = Some(self.join(values, &of));
        }
        self.literals.map(all_keys, all_values);
        let keys = keys.unwrap_or_else(|| self.fresh());
        Type::map(keys, values.unwrap_or_else(|| self.fresh()))
    }
}

/// `a.b.c`, if the expression is such a name.
pub fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select {
            of,
            field,
            optional: false,
        } => Some(format!("{}.{field}", qualified(of)?)),
        _ => None,
    }
}

fn of_literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        // No text stands for these.
        Value::List(_)
        | Value::Map(_)
        | Value::Quantity(_)
        | Value::Version(_)
        | Value::Optional(_)
        | Value::Type(_) => Type::Dyn,
    }
}

fn name(operator: Binary) -> &'static str {
    match operator {
        Binary::Add => "_+_",
        Binary::Subtract => "_-_",
        Binary::Multiply => "_*_",
        Binary::Divide => "_/_",
        Binary::Remainder => "_%_",
        Binary::Equal => "_==_",
        Binary::Unequal => "_!=_",
        Binary::Less => "_<_",
        Binary::LessOrEqual => "_<=_",
        Binary::Greater => "_>_",
        Binary::GreaterOrEqual => "_>=_",
        Binary::In => "@in",
    }
}
