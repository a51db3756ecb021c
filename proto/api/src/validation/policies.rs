//! Admission policies and their bindings. CEL expressions are only looked at for being there.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::conditions::conditions;
use super::webhooks::{match_conditions, one_of_if_set, rule};
use super::{Rules, any_update, pod, required};

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "ValidatingAdmissionPolicy",
        name: format::dns1123_subdomain,
        object: validating_policy,
        update: any_update,
        status: |new, _, errors| status(&new.get("status"), errors),
    },
    Rules {
        group: GROUP,
        kind: "ValidatingAdmissionPolicyBinding",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            let spec = at.get("spec");
            binding(&spec, errors);
            actions(&spec.get("validationActions"), errors);
        },
        update: any_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "MutatingAdmissionPolicy",
        name: format::dns1123_subdomain,
        object: |at, errors| mutating_policy(&at.get("spec"), errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "MutatingAdmissionPolicyBinding",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            let spec = at.get("spec");
            binding(&spec, errors);
            mutating_operations(&spec.get("matchResources"), errors);
        },
        update: any_update,
        status: any_update,
    },
];

/// The most annotations that one policy may add to the audit log.
const MAX_AUDIT_ANNOTATIONS: usize = 20;
/// The longest expression of one, in bytes.
const AUDIT_EXPRESSION_LIMIT: usize = 5 * 1024;

fn is_blank(field: &At<'_>) -> bool {
    field.text().trim().is_empty()
}

/// What both kinds of policies say of what they apply to.
fn common(spec: &At<'_>, errors: &mut ErrorList) {
    let failure = spec.get("failurePolicy");
    if failure.is_set() {
        failure.one_of(errors, &["Fail", "Ignore"]);
    } else {
        failure.required(errors, "");
    }
    if spec.get("paramKind").is_set() {
        param_kind(&spec.get("paramKind"), errors);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_set() {
        match_resources(&constraints, errors);
        if constraints.get("resourceRules").len() == 0 {
            constraints.get("resourceRules").required(errors, "");
        }
    } else {
        constraints.required(errors, "");
    }
    match_conditions(&spec.get("matchConditions"), errors);
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if is_blank(&name) {
            name.required(errors, "name is not specified");
        } else if !cel::is_identifier(name.text()) {
            name.invalid(errors, "must be a valid CEL identifier");
        }
        if is_blank(&expression) {
            expression.required(errors, "expression is not specified");
        }
    }
}

fn param_kind(kind: &At<'_>, errors: &mut ErrorList) {
    let version = kind.get("apiVersion");
    let parts: Vec<&str> = version.text().split('/').collect();
    match parts.as_slice() {
        [""] => version.required(errors, ""),
        [group @ .., number] if group.len() < 2 => {
            let mut part = |value: &str, messages: Vec<String>| {
                if !messages.is_empty() {
                    errors.push(FieldError::invalid(
                        &version.path,
                        value,
                        messages.join(","),
                    ));
                }
            };
            if let Some(group) = group.first().filter(|g| !g.is_empty()) {
                part(group, format::dns1123_subdomain(group));
            }
            if number.is_empty() {
                version.invalid(errors, "version must be specified");
            } else {
                part(number, format::dns1035_label(number));
            }
        }
        _ => version.invalid(
            errors,
            format!("unexpected GroupVersion string: {}", version.text()),
        ),
    }
    let name = kind.get("kind");
    if required(&name, errors) {
        let messages = format::dns1035_label(&name.text().to_lowercase());
        if !messages.is_empty() {
            name.invalid(
                errors,
                format!(
                    "may have mixed case, but should otherwise match: {}",
                    messages.join(",")
                ),
            );
        }
    }
}

fn match_resources(resources: &At<'_>, errors: &mut ErrorList) {
    if !resources.is_set() {
        return;
    }
    let policy = resources.get("matchPolicy");
    if policy.is_set() {
        policy.one_of(errors, &["Equivalent", "Exact"]);
    } else {
        policy.required(errors, "");
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = resources.get(field);
        if selector.is_set() {
            pod::label_selector(&selector, errors);
        } else {
            selector.required(errors, "");
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for named in resources.get(field).items() {
            let mut seen = HashSet::new();
            for name in named.get("resourceNames").items() {
                name.check(errors, format::path_segment_name(name.text()));
                if !seen.insert(name.text()) {
                    name.duplicate(errors);
                }
            }
            rule(&named, errors);
        }
    }
}

/// Nothing is left to mutate in what is deleted.
fn mutating_operations(resources: &At<'_>, errors: &mut ErrorList) {
    const KNOWN: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    let path = resources.path.child("resourceRules").child("operations");
    for rule in resources.get("resourceRules").items() {
        for operation in rule.get("operations").items() {
            if !KNOWN.contains(&operation.text()) {
                errors.push(FieldError::not_supported(&path, operation.text(), &KNOWN));
            }
        }
    }
}

fn validating_policy(at: &At<'_>, errors: &mut ErrorList) {
    const NEITHER: &str = "validations or auditAnnotations must contain at least one item";
    let spec = at.get("spec");
    common(&spec, errors);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.len() == 0 && annotations.len() == 0 {
        validations.required(errors, NEITHER);
        annotations.required(errors, NEITHER);
        return;
    }
    for validation in validations.items() {
        self::validation(&validation, errors);
    }
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        annotations.invalid(errors, detail);
    }
    let policy = at.get("metadata").get("name").text();
    let mut keys = HashSet::new();
    for annotation in annotations.items() {
        let (key, expression) = (annotation.get("key"), annotation.get("valueExpression"));
        let full = format!("{policy}/{}", key.text());
        for message in format::qualified_name(&full) {
            errors.push(FieldError::invalid(&key.path, full.as_str(), message));
        }
        if is_blank(&expression) {
            expression.required(errors, "valueExpression is not specified");
        } else if expression.text().trim().len() > AUDIT_EXPRESSION_LIMIT {
            expression.required(errors, "must not exceed 5120 bytes in length");
        }
        if !keys.insert(key.text()) {
            key.duplicate(errors);
        }
    }
}

fn validation(validation: &At<'_>, errors: &mut ErrorList) {
    if is_blank(&validation.get("expression")) {
        validation
            .get("expression")
            .required(errors, "expression is not specified");
    }
    let message = validation.get("message");
    for field in [validation.get("messageExpression"), message.clone()] {
        if field.is_given() && is_blank(&field) {
            field.invalid(errors, "must be non-empty if specified");
        }
    }
    if message.text().trim().contains(['\n', '\r']) {
        message.invalid(errors, "must not contain line breaks");
    }
    one_of_if_set(
        &validation.get("reason"),
        &[
            "Forbidden",
            "Invalid",
            "RequestEntityTooLarge",
            "Unauthorized",
        ],
        errors,
    );
}

fn status(status: &At<'_>, errors: &mut ErrorList) {
    let warnings = status.get("typeChecking").get("expressionWarnings");
    for warning in warnings.items() {
        required(&warning.get("warning"), errors);
        if is_blank(&warning.get("fieldRef")) {
            warning.get("fieldRef").required(errors, "");
        }
    }
    conditions(&status.get("conditions"), errors);
}

fn mutating_policy(spec: &At<'_>, errors: &mut ErrorList) {
    common(spec, errors);
    mutating_operations(&spec.get("matchConstraints"), errors);
    let mutations = spec.get("mutations");
    if mutations.len() == 0 {
        mutations.required(errors, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        self::mutation(&mutation, errors);
    }
    let again = spec.get("reinvocationPolicy");
    if required(&again, errors) {
        again.one_of(errors, &["IfNeeded", "Never"]);
    }
}

fn mutation(mutation: &At<'_>, errors: &mut ErrorList) {
    let kind = mutation.get("patchType");
    if !required(&kind, errors) {
        return;
    }
    let (own, other, missing, extra) = match kind.text() {
        "JSONPatch" => (
            "jsonPatch",
            "applyConfiguration",
            "must be specified when patchType is JSONPatch",
            "must not be specified when patchType is JSONPatch",
        ),
        "ApplyConfiguration" => (
            "applyConfiguration",
            "jsonPatch",
            "must be specified when patchType is ApplyConfiguration",
            "must not be specified when patchType is ApplyConfiguration",
        ),
        _ => {
            kind.one_of(errors, &["ApplyConfiguration", "JSONPatch"]);
            return;
        }
    };
    let patch = mutation.get(own);
    if !patch.is_set() {
        patch.required(errors, missing);
    } else if is_blank(&patch.get("expression")) {
        patch.get("expression").required(errors, "");
    }
    if mutation.get(other).is_set() {
        mutation.get(other).invalid(errors, extra);
    }
}

fn binding(spec: &At<'_>, errors: &mut ErrorList) {
    let policy = spec.get("policyName");
    if required(&policy, errors) {
        policy.check(errors, format::dns1123_subdomain(policy.text()));
    }
    if spec.get("paramRef").is_set() {
        param_ref(&spec.get("paramRef"), errors);
    }
    match_resources(&spec.get("matchResources"), errors);
}

fn param_ref(reference: &At<'_>, errors: &mut ErrorList) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    let both = name.is_given() && selector.is_set();
    if name.is_given() {
        name.check(errors, format::path_segment_name(name.text()));
    }
    if both {
        name.forbidden(errors, BOTH);
    }
    pod::label_selector(&selector, errors);
    if both {
        selector.forbidden(errors, BOTH);
    }
    if !name.is_given() && !selector.is_set() {
        reference.required(errors, "one of name or selector must be specified");
    }
    let missing = reference.get("parameterNotFoundAction");
    if required(&missing, errors) {
        missing.one_of(errors, &["Deny", "Allow"]);
    }
}

fn actions(actions: &At<'_>, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for action in actions.items() {
        action.one_of(errors, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.text()) {
            action.duplicate(errors);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        actions.invalid(errors, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if seen.is_empty() {
        actions.required(errors, "at least one validation action is required");
    }
}
