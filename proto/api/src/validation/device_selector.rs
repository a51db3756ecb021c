//! The CEL expression of a device selector (KEP-4381), checked before there is any device.
//!
//! What an expression may cost at most is not estimated: the allocator stops one that costs
//! too much.

use cel::{Environment, Field, ObjectTypes, Type};
use meta::field::{ErrorList, FieldError};

use super::at::At;

/// In bytes.
const LIMIT: usize = 10 * 1024;
/// The type of the only variable.
const DEVICE: &str = "kubernetes.DRADevice";

struct Types;

impl ObjectTypes for Types {
    fn field(&self, object: &str, field: &str) -> Field {
        // Both are by domain, then by name.
        let by_name = |of| Type::map(Type::String, Type::map(Type::String, of));
        match (object, field) {
            (DEVICE, "driver") => Field::Is(Type::String),
            (DEVICE, "allowMultipleAllocations") => Field::Is(Type::Bool),
            (DEVICE, "attributes") => Field::Is(by_name(Type::Any)),
            (DEVICE, "capacity") => Field::Is(by_name(Type::object("kubernetes.Quantity"))),
            (DEVICE, _) => Field::Undefined,
            _ => Field::UnknownObject,
        }
    }
}

/// A selector, whose only sort is CEL.
pub(super) fn selector(selector: &At<'_>, errors: &mut ErrorList) {
    let cel = selector.get("cel");
    if !cel.is_set() {
        cel.required(errors, "");
        return;
    }
    let expression = cel.get("expression");
    if expression.text().len() > LIMIT {
        errors.push(FieldError::too_long(&expression.path, LIMIT));
        return;
    }
    let environment = Environment::new(&Types).with_bindings();
    let environment = environment.variable("device", Type::object(DEVICE));
    match environment.check(expression.text()) {
        // An attribute may be a boolean.
        Ok(Type::Bool | Type::Any) => {}
        Ok(other) => {
            let message = format!("must evaluate to bool or the unknown type, not {other}");
            expression.invalid(errors, message);
        }
        Err(issues) => expression.invalid(errors, format!("compilation failed: {issues}")),
    }
}

#[cfg(test)]
mod tests {
    use meta::field::Path;
    use serde_json::json;

    use super::*;

    fn wrong(expression: &str) -> Vec<String> {
        let value = json!({"cel": {"expression": expression}});
        let mut errors = ErrorList::default();
        selector(&At::new(Path::new("s"), &value), &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_device_has_may_be_asked_for() {
        for expression in [
            r#"device.driver == "gpu.example.com" && device.allowMultipleAllocations"#,
            r#"device.attributes["a.example.com"].model.startsWith("x")"#,
            r#"device.attributes["a.example.com"].shared"#,
            r#"cel.bind(a, device.attributes["a.example.com"], a.b && a.c > 5)"#,
            r#"device.capacity["a.example.com"].memory.isGreaterThan(quantity("1Gi"))"#,
        ] {
            assert_eq!(wrong(expression), [""; 0], "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_told() {
        for (expression, why) in [
            ("device.nope", "undefined field 'nope'"),
            ("1 +", "Syntax error"),
            ("", "Syntax error"),
            (
                "'a'",
                "must evaluate to bool or the unknown type, not string",
            ),
            (
                "dyn(true)",
                "must evaluate to bool or the unknown type, not dyn",
            ),
            (
                r#"device.attributes["a"].b.exists(x, x)"#,
                "expression of type 'any' cannot be range of a comprehension",
            ),
        ] {
            let wrong = wrong(expression);
            assert_eq!(wrong.len(), 1, "{expression}: {wrong:?}");
            assert!(wrong[0].starts_with("s.cel.expression: Invalid value"));
            assert!(wrong[0].contains(why), "{}", wrong[0]);
        }
    }
}
