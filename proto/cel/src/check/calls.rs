//! Functions and operators: which overloads take what they are given.

use crate::ast::Expr;

use super::checker::{Checker, qualified};
use super::overloads::{self, Overload};
use super::types::Type;

impl Checker<'_> {
    pub fn operator(&mut self, at: usize, function: &str, arguments: &[&Expr]) -> Type {
        let arguments = arguments.iter().map(|argument| self.expr(argument));
        let arguments = arguments.collect();
        self.resolve(at, function, false, arguments)
    }

    pub fn call(
        &mut self,
        at: usize,
        function: &str,
        target: Option<&Expr>,
        arguments: &[Expr],
    ) -> Type {
        // In what is formatted the elements need not be alike.
        let formats = function == "format";
        self.literals.mixed += usize::from(formats);
        let mut types: Vec<Type> = arguments.iter().map(|a| self.expr(a)).collect();
        let result = match target {
            None => self.resolve(at, function, false, types),
            Some(target) => {
                let name = qualified(target).map(|prefix| format!("{prefix}.{function}"));
                match name.filter(|name| overloads::of(name).is_some()) {
                    Some(name) => self.resolve(at, &name, false, types),
                    None => {
                        types.insert(0, self.expr(target));
                        self.resolve(at, function, true, types)
                    }
                }
            }
        };
        if let Some(target) = target.filter(|_| formats) {
            self.formatted(at, target, arguments);
        }
        self.literals.mixed -= usize::from(formats);
        if self.literals.mixed == 0 {
            self.formatted.clear();
        }
        if let Some(first) = arguments.first() {
            self.literals.argument(function, first);
        }
        result
    }

    /// The type of a function's result. The first argument of a method is what it is called on.
    pub fn resolve(
        &mut self,
        at: usize,
        function: &str,
        method: bool,
        arguments: Vec<Type>,
    ) -> Type {
        let Some(overloads) = overloads::of(function) else {
            return self.undeclared(at, function);
        };
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.method == method) {
            let Some(found) = self.try_overload(overload, &arguments) else {
                continue;
            };
            result = Some(match result {
                None => found,
                Some(before) if before == found => before,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let shown = arguments.iter().map(|of| self.known.apply(of, true));
            let mut shown = shown.map(|of| of.to_string());
            let target = if method { shown.next() } else { None };
            let target = target.map(|target| target + ".").unwrap_or_default();
            let shown: Vec<String> = shown.collect();
            let shown = shown.join(", ");
            self.wrong(
                at,
                format!(
                    "found no matching overload for '{function}' applied to '{target}({shown})'"
                ),
            )
        })
    }

    /// The result's type if this overload takes the arguments.
    fn try_overload(&mut self, overload: &Overload, arguments: &[Type]) -> Option<Type> {
        if overload.params == 0 {
            let takes = self.known.assignable(arguments, &overload.arguments);
            return takes.then(|| overload.result.clone());
        }
        let first = self.known.fresh(overload.params);
        let asked: Vec<Type> = overload
            .arguments
            .iter()
            .map(|of| of.shifted(first))
            .collect();
        let takes = self.known.assignable(arguments, &asked);
        takes.then(|| self.so_far(&overload.result.shifted(first)))
    }
}
