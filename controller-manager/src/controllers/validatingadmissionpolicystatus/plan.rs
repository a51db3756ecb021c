//! What is to be warned of: which expressions of a policy cannot be right for a kind that it
//! matches.

use cel::{Environment, Issues, Type};
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
};
use meta::GroupVersionKind;

use super::environment::{AUTHORIZER, NAMESPACE, REQUEST, Types, VARIABLES};
use super::schema::Document;

/// A kind, and the document that describes it.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    pub gvk: &'a GroupVersionKind,
    pub document: &'a Document,
}

/// The warnings about a policy. `kinds` are those that it matches, `params` is that of its
/// parameters. `mark` makes the names of types unlike any that stand in expressions.
pub fn warnings(
    policy: &ValidatingAdmissionPolicy,
    kinds: &[Described<'_>],
    params: Option<Described<'_>>,
    mark: u32,
) -> Vec<ExpressionWarning> {
    let Some(spec) = &policy.spec else {
        return Vec::new();
    };
    let expressions = expressions(spec);
    let mut found: Vec<Vec<String>> = vec![Vec::new(); expressions.len()];
    for kind in kinds {
        let types = Types::default();
        let Some(object) = of_kind(*kind, mark, &types) else {
            continue;
        };
        // Of the same kind as the object they would still not be the same type.
        let params = params.and_then(|params| of_kind(params, mark + 1, &types));
        let environment = environment(spec, object, params, &types);
        for ((_, expression), found) in expressions.iter().zip(&mut found) {
            if let Err(issues) = environment.check(expression) {
                found.push(told(kind.gvk, &issues));
            }
        }
    }
    let all = expressions.into_iter().zip(found);
    let wrong = all.filter(|(_, found)| !found.is_empty());
    wrong
        .map(|((field_ref, _), found)| ExpressionWarning {
            field_ref,
            warning: found.join("\n"),
        })
        .collect()
}

fn told(gvk: &GroupVersionKind, issues: &Issues) -> String {
    format!("{gvk}: {issues}\n")
}

/// The expressions that are checked, and where they stand.
fn expressions(spec: &ValidatingAdmissionPolicySpec) -> Vec<(String, &str)> {
    let mut all = Vec::new();
    for (i, validation) in spec.validations.iter().flatten().enumerate() {
        let path = format!("spec.validations[{i}]");
        all.push((format!("{path}.expression"), validation.expression.as_str()));
        let message = validation.message_expression.as_deref();
        if let Some(message) = message.filter(|message| !message.is_empty()) {
            all.push((format!("{path}.messageExpression"), message));
        }
    }
    all
}

fn of_kind<'a>(of: Described<'a>, mark: u32, types: &Types<'a>) -> Option<Type> {
    let name = format!("{}{mark}", of.gvk.kind);
    of.document.kind(of.gvk, &name, &types.objects)
}

/// What the policy's expressions may speak of, its variables among them.
fn environment<'a>(
    spec: &ValidatingAdmissionPolicySpec,
    object: Type,
    params: Option<Type>,
    types: &'a Types<'_>,
) -> Environment<'a> {
    let mut environment = Environment::new(types)
        .variable("namespaceObject", Type::object(NAMESPACE))
        .variable("request", Type::object(REQUEST))
        .variable("object", object.clone())
        .variable("oldObject", object)
        .variable("authorizer", Type::object(AUTHORIZER))
        .variable("variables", Type::object(VARIABLES));
    if spec.param_kind.is_some() {
        environment = environment.variable("params", params.unwrap_or(Type::Dyn));
    }
    for variable in spec.variables.iter().flatten() {
        // One that is wrong is told where it is used, if it cannot be right there.
        let of = environment.check(&variable.expression);
        let of = of.map_or(Type::Dyn, |of| kept(&of));
        types
            .variables
            .borrow_mut()
            .insert(variable.name.clone(), of);
    }
    environment
}

/// What is known of a variable where it is used: the types of objects are not.
fn kept(of: &Type) -> Type {
    match of {
        Type::List(of) => Type::list(kept(of)),
        Type::Map(of) => Type::map(kept(&of.0), kept(&of.1)),
        Type::Object(_) | Type::Opaque(..) | Type::Type(_) | Type::Param(_) | Type::Error => {
            Type::Dyn
        }
        _ => of.clone(),
    }
}
