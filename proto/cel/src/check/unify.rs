//! Whether a type can be used where another is asked for, and what that says of types that are
//! not known yet.

use std::sync::Arc;

use super::types::Type;

/// What is known of types that were not known: by the number of the [`Type::Param`].
#[derive(Debug, Default)]
pub struct Substitutions {
    known: Vec<Option<Type>>,
    /// What has been learned since an attempt began, to be forgotten if it fails.
    learned: Vec<(usize, Option<Type>)>,
}

impl Substitutions {
    /// The first of so many types of which nothing is known.
    pub fn fresh(&mut self, count: usize) -> usize {
        let first = self.known.len();
        self.known.resize(first + count, None);
        first
    }

    /// Whether each of these types can be used where the other is asked for. Only if so is
    /// anything learned.
    pub fn assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        self.learned.clear();
        if from.len() == to.len() && from.iter().zip(to).all(|(a, b)| self.unify(a, b)) {
            return true;
        }
        while let Some((param, before)) = self.learned.pop() {
            self.known[param] = before;
        }
        false
    }

    /// The type with what is known put in for parameters. Those that are not known stay, or are
    /// `dyn` if nothing more can be learned.
    pub fn apply(&self, of: &Type, finally: bool) -> Type {
        match of {
            Type::Param(n) => match self.find(*n) {
                Some(known) => self.apply(known, finally),
                None if finally => Type::Dyn,
                None => of.clone(),
            },
            Type::List(of) => Type::list(self.apply(of, finally)),
            Type::Map(of) => Type::map(self.apply(&of.0, finally), self.apply(&of.1, finally)),
            Type::Opaque(name, parameters) if !parameters.is_empty() => {
                let parameters = parameters.iter().map(|of| self.apply(of, finally));
                Type::Opaque(Arc::clone(name), parameters.collect())
            }
            Type::Type(Some(of)) => Type::Type(Some(self.apply(of, finally).into())),
            _ => of.clone(),
        }
    }

    fn find(&self, param: usize) -> Option<&Type> {
        self.known.get(param).and_then(Option::as_ref)
    }

    fn learn(&mut self, param: usize, is: Type) {
        let before = self.known[param].replace(is);
        self.learned.push((param, before));
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(param) = b {
            let known = self.find(*param).is_some();
            if self.substitute(a, *param) {
                return true;
            }
            if known {
                return false;
            }
        }
        if let Type::Param(param) = a {
            return self.substitute(b, *param);
        }
        match (a, b) {
            _ if a.is_dyn_or_error() || b.is_dyn_or_error() => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.unify(a, b),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => {
                a == b
                    && of_a.len() == of_b.len()
                    && of_a.iter().zip(&**of_b).all(|(a, b)| self.unify(a, b))
            }
            _ => a == b,
        }
    }

    /// Whether the parameter can stand for the type.
    fn substitute(&mut self, of: &Type, param: usize) -> bool {
        if *of == Type::Param(param) {
            return true;
        }
        let Some(known) = self.find(param).cloned() else {
            // A type within itself would have no end.
            if self.occurs(param, of) {
                return false;
            }
            self.learn(param, of.clone());
            return true;
        };
        if *of == known {
            return true;
        }
        if !self.unify(of, &known) {
            return false;
        }
        let general = most_general(of, &known);
        if !self.occurs(param, general) {
            self.learn(param, general.clone());
        }
        true
    }

    fn occurs(&self, param: usize, within: &Type) -> bool {
        match within {
            Type::Param(n) => {
                *n == param || self.find(*n).is_some_and(|known| self.occurs(param, known))
            }
            Type::List(of) => self.occurs(param, of),
            Type::Map(of) => self.occurs(param, &of.0) || self.occurs(param, &of.1),
            Type::Opaque(_, parameters) => parameters.iter().any(|of| self.occurs(param, of)),
            Type::Type(Some(of)) => self.occurs(param, of),
            _ => false,
        }
    }
}

/// Of two types that fit each other, the one that says less.
pub fn most_general<'a>(a: &'a Type, b: &'a Type) -> &'a Type {
    if less_specific(a, b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Any | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Any | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => {
            a == b
                && of_a.len() == of_b.len()
                && of_a.iter().zip(&**of_b).all(|(a, b)| less_specific(a, b))
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}
