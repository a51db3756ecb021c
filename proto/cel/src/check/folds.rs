//! Macros over lists, maps and optional values: what cel-go expands them to decides which types
//! their parts must have, and what is told when they have not.

use crate::ast::{Each, Expr};

use super::checker::Checker;
use super::types::Type;

/// The names of what a macro goes over: a list's elements, or a map's keys and values.
type Names<'a> = [(&'a str, Type)];

impl Checker<'_> {
    pub fn each(
        &mut self,
        at: usize,
        range: &Expr,
        variable: &str,
        second: Option<&str>,
        what: &Each,
    ) -> Type {
        if let Each::SortBy(key) = what {
            self.bound();
            let over = self.expr(range);
            let keys = self.map_to(at, &over, at, (variable, None), (None, key));
            return self.resolve(at, "@sortByAssociatedKeys", true, vec![over, keys]);
        }
        let over = self.expr(range);
        match what {
            Each::All(body) | Each::Exists(body) => {
                let names = self.elements(&over, range.at, variable, second);
                let step = self.within(&names, |checker| checker.expr(body));
                // What has been found so far `&&` or `||` the step.
                if !self.fits(&step, &Type::Bool) {
                    self.mismatch(body.at, &Type::Bool, &step);
                }
                Type::Bool
            }
            Each::ExistsOne(body) => {
                let names = self.elements(&over, range.at, variable, second);
                let test = self.within(&names, |checker| checker.expr(body));
                let more = self.resolve(at, "_+_", false, vec![Type::Int, Type::Int]);
                let step = self.resolve(at, "_?_:_", false, vec![test, more, Type::Int]);
                self.accumulate(at, &Type::Int, &step);
                self.resolve(at, "_==_", false, vec![Type::Int, Type::Int])
            }
            Each::Filter(body) => {
                let so_far = Type::list(self.fresh());
                let names = self.elements(&over, range.at, variable, second);
                let test = self.within(&names, |checker| checker.expr(body));
                let more = Type::list(names.first().map_or(Type::Dyn, |(_, of)| of.clone()));
                let more = self.resolve(at, "_+_", false, vec![so_far.clone(), more]);
                let step = self.resolve(at, "_?_:_", false, vec![test, more, so_far.clone()]);
                self.accumulate(at, &so_far, &step);
                self.so_far(&so_far)
            }
            Each::Map(condition, body) => {
                let parts = (condition.as_ref(), body);
                self.map_to(at, &over, range.at, (variable, second), parts)
            }
            Each::TransformMap(condition, body) | Each::TransformMapEntry(condition, body) => {
                let so_far = Type::map(self.fresh(), self.fresh());
                let names = self.elements(&over, range.at, variable, second);
                let test = condition
                    .as_ref()
                    .map(|test| self.within(&names, |checker| checker.expr(test)));
                let mut arguments = vec![so_far.clone()];
                if let (Each::TransformMap(..), Some((_, key))) = (what, names.first()) {
                    arguments.push(key.clone());
                }
                arguments.push(self.within(&names, |checker| checker.expr(body)));
                let more = self.resolve(at, "cel.@mapInsert", false, arguments);
                self.keep(at, test, more, so_far)
            }
            // Above.
            Each::SortBy(_) => Type::Dyn,
        }
    }

    /// Where cel-go binds a name it goes over an empty list, of nothing that is known. The numbers
    /// of unknown types are seen in texts.
    fn bound(&mut self) {
        self.fresh();
    }

    /// `map` and `transformList`: a list of what the body makes.
    fn map_to(
        &mut self,
        at: usize,
        over: &Type,
        place: usize,
        (variable, second): (&str, Option<&str>),
        (condition, body): (Option<&Expr>, &Expr),
    ) -> Type {
        let so_far = Type::list(self.fresh());
        let names = self.elements(over, place, variable, second);
        let test = condition.map(|test| self.within(&names, |checker| checker.expr(test)));
        let of = self.within(&names, |checker| checker.expr(body));
        let more = vec![so_far.clone(), Type::list(of)];
        let more = self.resolve(at, "_+_", false, more);
        self.keep(at, test, more, so_far)
    }

    /// The end of a macro that gathers: `more` each time, or only where a test says so.
    fn keep(&mut self, at: usize, test: Option<Type>, more: Type, so_far: Type) -> Type {
        let step = match test {
            Some(test) => self.resolve(at, "_?_:_", false, vec![test, more, so_far.clone()]),
            None => more,
        };
        self.accumulate(at, &so_far, &step);
        self.so_far(&so_far)
    }

    fn accumulate(&mut self, at: usize, so_far: &Type, step: &Type) {
        if !self.fits(so_far, step) {
            self.mismatch(at, so_far, step);
        }
    }

    /// The names that the body of a macro may use, and their types.
    fn elements<'n>(
        &mut self,
        over: &Type,
        place: usize,
        variable: &'n str,
        second: Option<&'n str>,
    ) -> Vec<(&'n str, Type)> {
        let (key, value) = match self.so_far(over) {
            Type::List(of) if second.is_some() => (Type::Int, (*of).clone()),
            Type::List(of) => ((*of).clone(), Type::Dyn),
            Type::Map(of) => of.as_ref().clone(),
            unknown @ (Type::Dyn | Type::Error | Type::Param(_)) => {
                self.fits(&Type::Dyn, &unknown);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.wrong(
                    place,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension \
                         (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        let mut names = vec![(variable, key)];
        names.extend(second.map(|name| (name, value)));
        names
    }

    /// `a.optMap(b, c)`: `a.hasValue() ? optional.of(c) : optional.none()`.
    pub fn optional_map(
        &mut self,
        at: usize,
        of: &Expr,
        name: &str,
        body: &Expr,
        flat: bool,
    ) -> Type {
        // It stands there twice, and what is wrong with it is told twice. But it is looked at
        // once: of one that begins with another, and so on, there would soon be too many.
        let before = self.told();
        let option = self.expr(of);
        self.tell_again(before);
        let test = self.resolve(at, "hasValue", true, vec![option.clone()]);
        self.bound();
        let value = self.resolve(at, "value", true, vec![option]);
        let names: &Names<'_> = &[(name, value)];
        let mut yes = self.within(names, |checker| checker.expr(body));
        if !flat {
            yes = self.resolve(at, "optional.of", false, vec![yes]);
        }
        let no = self.resolve(at, "optional.none", false, Vec::new());
        self.resolve(at, "_?_:_", false, vec![test, yes, no])
    }
}
