//! Tokens to an expression.

use crate::SyntaxError;
use crate::ast::{Binary, Expr, Kind};
use crate::lexer::{Placed, Token, error, tokens, wrong};
use crate::macros;
use crate::value::Value;

/// How deep expressions may nest, as in cel-go.
const DEPTH: usize = 250;
/// How deep they may be where they do not nest: a chain of operators or of fields is deep, too.
const HEIGHT: usize = DEPTH + 2;
/// How long they may be, in characters.
const LENGTH: usize = 100_000;

#[derive(Clone, Copy, PartialEq, Eq)]
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
    bindings: bool,
}

/// The expression as it is written. Names in it are not looked up. Whether there is `cel.bind`
/// differs: device selectors have it, policies and validation rules have not.
pub fn parse(text: &str, bindings: bool) -> Result<Expr, SyntaxError> {
    let length = text.chars().count();
    if length > LENGTH {
        let message = "expression code point size exceeds limit";
        let message = format!("{message}: size: {length}, limit {LENGTH}");
        return Err(wrong(text, 0, message));
    }
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        bindings,
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
        Err(wrong(self.text, place, message))
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
        let at = self.place();
        let expr = if self.accept("?") {
            let yes = self.operation(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            Kind::Conditional(Box::new((condition, yes, no))).at(at)
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
            let mut terms = vec![left];
            let mut places = Vec::new();
            // A chain of `&&` or `||` is made at once, so that it is not deep.
            loop {
                places.push(self.place());
                self.at += 1;
                terms.push(self.operation(tightness + 1)?);
                let more = self.operator() == Some((operator, tightness));
                if !more || matches!(operator, Operator::Binary(_)) {
                    break;
                }
            }
            left = chain(operator, terms, &places);
            self.check_height(&left)?;
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

    fn check_height(&self, expr: &Expr) -> Result<(), SyntaxError> {
        if expr.height <= HEIGHT {
            return Ok(());
        }
        self.wrong(expr.at, "max recursion depth exceeded".to_owned())
    }

    fn unary(&mut self) -> Result<Expr, SyntaxError> {
        let at = self.place();
        if *self.peek() == Token::Op("!") {
            let mut negated = false;
            while self.accept("!") {
                negated = !negated;
            }
            let of = self.member()?;
            return Ok(if negated {
                Kind::Not(of.into()).at(at)
            } else {
                of
            });
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
                return self.members(Kind::Literal(literal).at(at));
            }
        }
        let of = self.member()?;
        Ok(if negative {
            Kind::Negate(of.into()).at(at)
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
            let at = self.place();
            if self.accept(".") {
                let field = self.field()?;
                let open = self.place();
                expr = if self.accept("(") {
                    let arguments = self.arguments()?;
                    self.call(field, Some(expr.into()), arguments, open)?
                } else {
                    Kind::Select {
                        of: expr.into(),
                        field,
                        optional: false,
                    }
                    .at(at)
                };
            } else if self.accept(".?") {
                expr = Kind::Select {
                    field: self.field()?,
                    of: expr.into(),
                    optional: true,
                }
                .at(at);
            } else if *self.peek() == Token::Op("[") || *self.peek() == Token::Op("[?") {
                let optional = self.take() == Token::Op("[?");
                let index = self.expression()?;
                self.expect("]")?;
                expr = Kind::Index {
                    of: expr.into(),
                    index: index.into(),
                    optional,
                }
                .at(at);
            } else {
                return Ok(expr);
            }
            self.check_height(&expr)?;
        }
    }

    fn field(&mut self) -> Result<Box<str>, SyntaxError> {
        if let Token::Ident(field) = self.take() {
            return Ok(field);
        }
        self.at -= 1;
        self.unexpected()
    }

    fn primary(&mut self) -> Result<Expr, SyntaxError> {
        let at = self.place();
        let kind = match self.take() {
            Token::Int(n) => Kind::Literal(Value::Int(n)),
            Token::Uint(n) => Kind::Literal(Value::Uint(n)),
            Token::Double(x) => Kind::Literal(Value::Double(x)),
            Token::String(text) => Kind::Literal(Value::String(text)),
            Token::Bytes(bytes) => Kind::Literal(Value::Bytes(bytes)),
            Token::Op("(") => {
                let expr = self.expression()?;
                self.expect(")")?;
                return Ok(expr);
            }
            Token::Op("[") => self.list(false)?,
            Token::Op("[?") => self.list(true)?,
            Token::Op("{") => self.map()?,
            Token::Ident(name) => match &*name {
                "true" => Kind::Literal(Value::Bool(true)),
                "false" => Kind::Literal(Value::Bool(false)),
                "null" => Kind::Literal(Value::Null),
                _ => {
                    let open = self.place();
                    if self.accept("(") {
                        let arguments = self.arguments()?;
                        return self.call(name, None, arguments, open);
                    }
                    Kind::Ident(name)
                }
            },
            _ => {
                self.at -= 1;
                return self.unexpected();
            }
        };
        Ok(kind.at(at))
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

    /// A call, or what the macro of that name makes of it.
    fn call(
        &self,
        function: Box<str>,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
        at: usize,
    ) -> Result<Expr, SyntaxError> {
        match macros::expand(function, target, arguments, self.bindings) {
            Ok(kind) => Ok(kind.at(at)),
            Err((place, message)) => self.wrong(place.unwrap_or(at), message.to_owned()),
        }
    }

    fn list(&mut self, mut optional: bool) -> Result<Kind, SyntaxError> {
        let mut elements = Vec::new();
        loop {
            if !optional && self.accept("]") {
                return Ok(Kind::List(elements));
            }
            optional |= self.accept("?");
            elements.push((self.expression()?, optional));
            optional = false;
            if !self.accept(",") {
                self.expect("]")?;
                return Ok(Kind::List(elements));
            }
        }
    }

    fn map(&mut self) -> Result<Kind, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            if self.accept("}") {
                return Ok(Kind::Map(entries));
            }
            let optional = self.accept("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.accept(",") {
                self.expect("}")?;
                return Ok(Kind::Map(entries));
            }
        }
    }
}

/// Terms with operators between them: as high as it must be, and no higher.
fn chain(operator: Operator, mut terms: Vec<Expr>, places: &[usize]) -> Expr {
    let middle = terms.len() / 2;
    let rest = terms.split_off(middle);
    let half = |mut terms: Vec<Expr>, places: &[usize]| match (terms.len(), terms.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            terms.extend(last);
            chain(operator, terms, places)
        }
    };
    let left = half(terms, &places[..middle - 1]);
    let right = half(rest, &places[middle..]);
    match operator {
        Operator::Or => Kind::Or(left.into(), right.into()),
        Operator::And => Kind::And(left.into(), right.into()),
        Operator::Binary(binary) => Kind::Binary(binary, Box::new((left, right))),
    }
    .at(places[middle - 1])
}
