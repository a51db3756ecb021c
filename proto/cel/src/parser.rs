//! Tokens to an expression. Macros become what they stand for here.

use std::sync::Arc;

use crate::SyntaxError;
use crate::functions;
use crate::lexer::{Placed, Token, error, tokens};
use crate::value::Value;

/// How deep expressions may nest, as in cel-go.
const DEPTH: usize = 250;

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
    /// Of those of which the first is true, if it is given, the second.
    Map(Option<Expr>, Expr),
}

#[derive(Debug)]
pub enum Expr {
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
        what: Box<Each>,
    },
    /// `cel.bind(a, b, c)`, and `a.optMap(b, c)` after a fashion.
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

/// Namespaces of functions.
const NAMESPACES: [&str; 3] = ["cel", "optional", "sets"];
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

#[derive(Clone, Copy)]
enum Operator {
    Or,
    And,
    Binary(Binary),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    /// Names that may be used.
    scope: Vec<Box<str>>,
}

pub fn parse(text: &str, variables: &[&str]) -> Result<Expr, SyntaxError> {
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        scope: variables.iter().map(|name| (*name).into()).collect(),
    };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => parser.unexpected(),
    }
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(token, _)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, place)| *place)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn accept(&mut self, operator: &'static str) -> bool {
        let found = *self.peek() == Token::Op(operator);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &'static str) -> Result<(), SyntaxError> {
        if self.accept(operator) {
            return Ok(());
        }
        self.unexpected()
    }

    fn unexpected<T>(&self) -> Result<T, SyntaxError> {
        let shown = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Op(operator) => format!("'{operator}'"),
            Token::Ident(name) => format!("'{name}'"),
            _ => "literal".to_owned(),
        };
        Err(error(
            self.text,
            self.place(),
            format!("unexpected {shown}"),
        ))
    }

    /// What is wrong not with the text, but with what it says.
    fn wrong<T>(&self, place: usize, message: String) -> Result<T, SyntaxError> {
        let mut wrong = error(self.text, place, "");
        wrong.message = message;
        Err(wrong)
    }

    fn expression(&mut self) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.wrong(
                self.place(),
                format!("expression recursion limit exceeded: {DEPTH}"),
            );
        }
        let condition = self.operation(0)?;
        let expr = if self.accept("?") {
            let yes = self.operation(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            Expr::Conditional(Box::new((condition, yes, no)))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Operators that bind at least so tightly, from the left to the right.
    fn operation(&mut self, least: u8) -> Result<Expr, SyntaxError> {
        let mut left = self.unary()?;
        while let Some((operator, tightness)) = self.operator()
            && tightness >= least
        {
            self.at += 1;
            let right = self.operation(tightness + 1)?;
            left = match operator {
                Operator::Or => Expr::Or(left.into(), right.into()),
                Operator::And => Expr::And(left.into(), right.into()),
                Operator::Binary(binary) => Expr::Binary(binary, Box::new((left, right))),
            };
        }
        Ok(left)
    }

    /// The operator that is next, and how tightly it binds.
    fn operator(&self) -> Option<(Operator, u8)> {
        let operator = match self.peek() {
            Token::Op(operator) => operator,
            Token::Ident(word) if **word == *"in" => {
                return Some((Operator::Binary(Binary::In), 2));
            }
            _ => return None,
        };
        let (binary, tightness) = match *operator {
            "||" => return Some((Operator::Or, 0)),
            "&&" => return Some((Operator::And, 1)),
            "==" => (Binary::Equal, 2),
            "!=" => (Binary::Unequal, 2),
            "<" => (Binary::Less, 2),
            "<=" => (Binary::LessOrEqual, 2),
            ">" => (Binary::Greater, 2),
            ">=" => (Binary::GreaterOrEqual, 2),
            "+" => (Binary::Add, 3),
            "-" => (Binary::Subtract, 3),
            "*" => (Binary::Multiply, 4),
            "/" => (Binary::Divide, 4),
            "%" => (Binary::Remainder, 4),
            _ => return None,
        };
        Some((Operator::Binary(binary), tightness))
    }

    fn unary(&mut self) -> Result<Expr, SyntaxError> {
        if *self.peek() == Token::Op("!") {
            let mut negated = false;
            while self.accept("!") {
                negated = !negated;
            }
            let of = self.member()?;
            return Ok(if negated { Expr::Not(of.into()) } else { of });
        }
        let mut negative = false;
        let mut signs = 0;
        while self.accept("-") {
            negative = !negative;
            signs += 1;
        }
        if signs == 1 {
            let literal = match self.peek() {
                Token::Int(n) => Some(Value::Int(-n)),
                Token::IntMinimum => Some(Value::Int(i64::MIN)),
                Token::Double(x) => Some(Value::Double(-x)),
                _ => None,
            };
            if let Some(literal) = literal {
                self.at += 1;
                return self.members(Expr::Literal(literal));
            }
        }
        let of = self.member()?;
        Ok(if negative {
            Expr::Negate(of.into())
        } else {
            of
        })
    }

    fn member(&mut self) -> Result<Expr, SyntaxError> {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Result<Expr, SyntaxError> {
        loop {
            let place = self.place();
            if self.accept(".") {
                let Token::Ident(field) = self.take() else {
                    self.at -= 1;
                    return self.unexpected();
                };
                expr = if self.accept("(") {
                    self.method(expr, field, place)?
                } else {
                    Expr::Select {
                        of: expr.into(),
                        field,
                        optional: false,
                    }
                };
            } else if self.accept(".?") {
                let Token::Ident(field) = self.take() else {
                    self.at -= 1;
                    return self.unexpected();
                };
                expr = Expr::Select {
                    of: expr.into(),
                    field,
                    optional: true,
                };
            } else if *self.peek() == Token::Op("[") || *self.peek() == Token::Op("[?") {
                let optional = self.take() == Token::Op("[?");
                let index = self.expression()?;
                self.expect("]")?;
                expr = Expr::Index {
                    of: expr.into(),
                    index: index.into(),
                    optional,
                };
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, SyntaxError> {
        let place = self.place();
        match self.take() {
            Token::Int(n) => Ok(Expr::Literal(Value::Int(n))),
            Token::Uint(n) => Ok(Expr::Literal(Value::Uint(n))),
            Token::Double(x) => Ok(Expr::Literal(Value::Double(x))),
            Token::String(text) => Ok(Expr::Literal(Value::String(text))),
            Token::Bytes(bytes) => Ok(Expr::Literal(Value::Bytes(bytes))),
            Token::Op("(") => {
                let expr = self.expression()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Op("[") => self.list(false),
            Token::Op("[?") => self.list(true),
            Token::Op("{") => self.map(),
            Token::Ident(name) => self.name(name, place),
            _ => {
                self.at -= 1;
                self.unexpected()
            }
        }
    }

    fn name(&mut self, name: Box<str>, place: usize) -> Result<Expr, SyntaxError> {
        match &*name {
            "true" => return Ok(Expr::Literal(Value::Bool(true))),
            "false" => return Ok(Expr::Literal(Value::Bool(false))),
            "null" => return Ok(Expr::Literal(Value::Null)),
            _ => {}
        }
        if self.accept("(") {
            return self.function(name, place);
        }
        if self.scope.contains(&name) {
            return Ok(Expr::Ident(name));
        }
        if NAMESPACES.contains(&&*name)
            && self.accept(".")
            && let Token::Ident(function) = self.take()
            && self.accept("(")
        {
            return self.function(format!("{name}.{function}").into(), place);
        }
        if let Some(name) = TYPES.iter().find(|t| ***t == *name) {
            return Ok(Expr::Literal(Value::Type(name)));
        }
        self.wrong(
            place,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, SyntaxError> {
        let mut arguments = Vec::new();
        if self.accept(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if self.accept(")") {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }

    /// A name that a macro makes, and the comma behind it.
    fn variable(&mut self) -> Result<Box<str>, SyntaxError> {
        match self.take() {
            Token::Ident(name) => {
                self.expect(",")?;
                Ok(name)
            }
            _ => {
                self.at -= 1;
                self.wrong(self.place(), "argument must be a simple name".to_owned())
            }
        }
    }

    fn within(&mut self, name: &str) -> Result<Expr, SyntaxError> {
        self.scope.push(name.into());
        let expr = self.expression();
        self.scope.pop();
        expr
    }

    fn function(&mut self, name: Box<str>, place: usize) -> Result<Expr, SyntaxError> {
        match &*name {
            "has" => {
                let mut arguments = self.arguments()?;
                match arguments.pop() {
                    Some(Expr::Select {
                        of,
                        field,
                        optional: false,
                    }) if arguments.is_empty() => Ok(Expr::Has(of, field)),
                    _ => self.wrong(place, "invalid argument to has() macro".to_owned()),
                }
            }
            "cel.bind" => {
                let name = self.variable()?;
                let value = self.expression()?;
                self.expect(",")?;
                let body = self.within(&name)?;
                self.expect(")")?;
                Ok(Expr::Bind {
                    name,
                    value: value.into(),
                    body: body.into(),
                })
            }
            _ => {
                let arguments = self.arguments()?;
                self.call(name, None, arguments, place)
            }
        }
    }

    fn method(&mut self, of: Expr, name: Box<str>, place: usize) -> Result<Expr, SyntaxError> {
        let of = Box::new(of);
        match &*name {
            "all" | "exists" | "exists_one" | "existsOne" | "filter" | "map" => {
                let variable = self.variable()?;
                let first = self.within(&variable)?;
                let what = match &*name {
                    "all" => Each::All(first),
                    "exists" => Each::Exists(first),
                    "exists_one" | "existsOne" => Each::ExistsOne(first),
                    "filter" => Each::Filter(first),
                    _ if self.accept(",") => Each::Map(Some(first), self.within(&variable)?),
                    _ => Each::Map(None, first),
                };
                self.expect(")")?;
                Ok(Expr::Each {
                    range: of,
                    variable,
                    what: what.into(),
                })
            }
            "optMap" | "optFlatMap" => {
                let variable = self.variable()?;
                let body = self.within(&variable)?;
                self.expect(")")?;
                Ok(Expr::OptionalMap {
                    of,
                    name: variable,
                    body: body.into(),
                    flat: &*name == "optFlatMap",
                })
            }
            _ => {
                let arguments = self.arguments()?;
                self.call(name, Some(of), arguments, place)
            }
        }
    }

    fn call(
        &mut self,
        function: Box<str>,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
        place: usize,
    ) -> Result<Expr, SyntaxError> {
        if !functions::exists(&function, target.is_some()) {
            return self.wrong(
                place,
                format!("undeclared reference to '{function}' (in container '')"),
            );
        }
        Ok(Expr::Call {
            function,
            target,
            arguments,
        })
    }

    fn list(&mut self, mut optional: bool) -> Result<Expr, SyntaxError> {
        let mut elements = Vec::new();
        loop {
            if !optional && self.accept("]") {
                return Ok(literal_list(elements));
            }
            optional |= self.accept("?");
            elements.push((self.expression()?, optional));
            optional = false;
            if !self.accept(",") {
                self.expect("]")?;
                return Ok(literal_list(elements));
            }
        }
    }

    fn map(&mut self) -> Result<Expr, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            if self.accept("}") {
                return Ok(Expr::Map(entries));
            }
            let optional = self.accept("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.accept(",") {
                self.expect("}")?;
                return Ok(Expr::Map(entries));
            }
        }
    }
}

/// A list of literals is one itself.
fn literal_list(elements: Vec<(Expr, bool)>) -> Expr {
    let literals: Option<Arc<[Value]>> = elements
        .iter()
        .map(|(element, optional)| match element {
            Expr::Literal(value) if !optional => Some(value.clone()),
            _ => None,
        })
        .collect();
    match literals {
        Some(literals) => Expr::Literal(Value::List(literals)),
        None => Expr::List(elements),
    }
}
