//! Calls that stand for something else: they have names and numbers of arguments, and what they
//! stand for may use names that they make.

use crate::ast::{Each, Expr, Kind};

/// Why a macro cannot be used so, and the place of the argument that is wrong.
type Misuse = (Option<usize>, &'static str);

/// What a call stands for: itself, where there is no macro of that name with so many arguments.
pub fn expand(
    function: Box<str>,
    target: Option<Box<Expr>>,
    mut arguments: Vec<Expr>,
    bindings: bool,
) -> Result<Kind, Misuse> {
    let Some(target) = target else {
        if &*function == "has" && arguments.len() == 1 {
            return arguments.pop().map_or(Err((None, NO_FIELD)), has);
        }
        return Ok(Kind::Call {
            function,
            target: None,
            arguments,
        });
    };
    let names = match (&*function, arguments.len()) {
        ("all" | "exists" | "exists_one" | "filter" | "sortBy", 2)
        | ("map", 2 | 3)
        | ("optMap" | "optFlatMap", 2) => 1,
        ("bind", 3)
            if bindings && matches!(&target.kind, Kind::Ident(name) if **name == *"cel") =>
        {
            1
        }
        ("all" | "exists" | "exists_one" | "existsOne", 3)
        | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => 2,
        _ => {
            return Ok(Kind::Call {
                function,
                target: Some(target),
                arguments,
            });
        }
    };
    if &*function == "sortBy" && matches!(target.kind, Kind::Literal(_) | Kind::Map(_)) {
        return Err((Some(target.at), NOT_SORTED));
    }
    let bodies = arguments.split_off(names);
    let second = if names == 2 {
        arguments.pop().map(name).transpose()?
    } else {
        None
    };
    let Some(variable) = arguments.pop().map(name).transpose()? else {
        return Err((None, NO_NAME));
    };
    if second.as_ref() == Some(&variable) {
        return Err((None, "duplicate variable name"));
    }
    let mut bodies = bodies.into_iter();
    let (first, last) = (bodies.next(), bodies.next());
    let (condition, body) = match (first, last) {
        (condition, Some(body)) => (condition, body),
        (Some(body), None) => (None, body),
        (None, None) => return Err((None, NO_NAME)),
    };
    let what = match &*function {
        "bind" => {
            return Ok(Kind::Bind {
                name: variable,
                value: condition.map(Box::new).ok_or((None, NO_NAME))?,
                body: body.into(),
            });
        }
        "optMap" | "optFlatMap" => {
            return Ok(Kind::OptionalMap {
                of: target,
                name: variable,
                body: body.into(),
                flat: &*function == "optFlatMap",
            });
        }
        "all" => Each::All(body),
        "exists" => Each::Exists(body),
        "exists_one" | "existsOne" => Each::ExistsOne(body),
        "filter" => Each::Filter(body),
        "sortBy" => Each::SortBy(body),
        "transformMap" => Each::TransformMap(condition, body),
        "transformMapEntry" => Each::TransformMapEntry(condition, body),
        _ => Each::Map(condition, body),
    };
    Ok(Kind::Each {
        range: target,
        variable,
        second,
        what: what.into(),
    })
}

const NO_FIELD: &str = "invalid argument to has() macro";
const NOT_SORTED: &str =
    "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
const NO_NAME: &str = "argument must be a simple name";

fn has(argument: Expr) -> Result<Kind, Misuse> {
    match argument.kind {
        Kind::Select {
            of,
            field,
            optional: false,
        } => Ok(Kind::Has(of, field)),
        _ => Err((Some(argument.at), NO_FIELD)),
    }
}

/// The name that an argument is.
fn name(argument: Expr) -> Result<Box<str>, Misuse> {
    match argument.kind {
        Kind::Ident(name) => Ok(name),
        _ => Err((Some(argument.at), NO_NAME)),
    }
}
