//! Webhook configurations, and the rules of what is matched that they share with admission
//! policies.
//!
//! CEL expressions are only looked at for being there.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::{Rules, any_update, go_url, pod, required};

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "ValidatingWebhookConfiguration",
        name: format::dns1123_subdomain,
        object: |at, errors| webhooks(&at.get("webhooks"), false, errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "MutatingWebhookConfiguration",
        name: format::dns1123_subdomain,
        object: |at, errors| webhooks(&at.get("webhooks"), true, errors),
        update: any_update,
        status: any_update,
    },
];

pub(super) fn one_of_if_set(field: &At<'_>, known: &[&str], errors: &mut ErrorList) {
    if field.is_set() {
        field.one_of(errors, known);
    }
}

/// The webhooks of a configuration.
fn hooks_of<'a>(group: &str, kind: &str, object: &At<'a>) -> Vec<At<'a>> {
    match (group, kind) {
        (GROUP, "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            object.get("webhooks").items().collect()
        }
        _ => Vec::new(),
    }
}

/// `v1beta1` allowed webhooks that do something else than to answer, also in dry runs.
pub(super) fn without_side_effects(
    group: &str,
    kind: &str,
    object: &At<'_>,
    errors: &mut ErrorList,
) {
    for hook in hooks_of(group, kind, object) {
        let effects = hook.get("sideEffects");
        if matches!(effects.text(), "Some" | "Unknown") {
            effects.one_of(errors, &["None", "NoneOnDryRun"]);
        }
    }
}

/// `v1beta1` allowed webhooks that understand no version that this server speaks.
pub(super) fn recognized_reviews(group: &str, kind: &str, object: &At<'_>, errors: &mut ErrorList) {
    for hook in hooks_of(group, kind, object) {
        let versions = hook.get("admissionReviewVersions");
        let mut given = versions.items();
        if versions.len() > 0 && !given.any(|v| matches!(v.text(), "v1" | "v1beta1")) {
            versions.invalid(errors, "must include at least one of v1, v1beta1");
        }
    }
}

/// `v1beta1` allowed webhooks of one name.
pub(super) fn unique_names(group: &str, kind: &str, object: &At<'_>, errors: &mut ErrorList) {
    let hooks = hooks_of(group, kind, object);
    let mut names = HashSet::new();
    for hook in &hooks {
        let name = hook.get("name");
        if name.is_given() && !names.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
    }
}

fn webhooks(hooks: &At<'_>, mutating: bool, errors: &mut ErrorList) {
    for hook in hooks.items() {
        webhook(&hook, mutating, errors);
    }
}

fn webhook(hook: &At<'_>, mutating: bool, errors: &mut ErrorList) {
    fully_qualified(&hook.get("name"), errors);
    for rule in hook.get("rules").items() {
        self::rule(&rule, errors);
    }
    one_of_if_set(&hook.get("failurePolicy"), &["Fail", "Ignore"], errors);
    one_of_if_set(&hook.get("matchPolicy"), &["Equivalent", "Exact"], errors);
    let effects = hook.get("sideEffects");
    if effects.is_set() {
        effects.one_of(errors, &["None", "NoneOnDryRun", "Some", "Unknown"]);
    } else {
        effects.required(errors, "must specify one of None, NoneOnDryRun");
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.int().is_some_and(|s| !(1..=30).contains(&s)) {
        timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
    }
    pod::label_selector(&hook.get("namespaceSelector"), errors);
    pod::label_selector(&hook.get("objectSelector"), errors);
    if mutating {
        one_of_if_set(
            &hook.get("reinvocationPolicy"),
            &["IfNeeded", "Never"],
            errors,
        );
    }
    let client = hook.get("clientConfig");
    let (url, service) = (client.get("url"), client.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => webhook_service(&service, errors),
        _ => client.required(errors, "exactly one of url or service is required"),
    }
    match_conditions(&hook.get("matchConditions"), errors);
    review_versions(&hook.get("admissionReviewVersions"), errors);
}

/// A name of at least three domain labels.
fn fully_qualified(name: &At<'_>, errors: &mut ErrorList) {
    if !required(name, errors) {
        return;
    }
    let messages = format::dns1123_subdomain(name.text());
    if messages.is_empty() && name.text().split('.').count() < 3 {
        name.invalid(
            errors,
            "should be a domain with at least three segments separated by dots",
        );
    }
    name.check(errors, messages);
}

fn review_versions(versions: &At<'_>, errors: &mut ErrorList) {
    if versions.len() == 0 {
        versions.required(errors, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = HashSet::new();
    for version in versions.items() {
        if seen.insert(version.text()) {
            version.check(errors, format::dns1035_label(version.text()));
        } else {
            version.invalid(errors, "duplicate version");
        }
    }
}

/// `https://host[/path]`, nothing more.
pub(super) fn webhook_url(url: &At<'_>, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    if let Err(fault) = go_url::check(text) {
        let detail = format!("url must be a valid URL: parse {text:?}: {fault}{FORM}");
        errors.push(FieldError::required(&url.path, detail));
        return;
    }
    let invalid = |errors: &mut ErrorList, value: &str, detail: String| {
        errors.push(FieldError::invalid(&url.path, value, detail));
    };
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if !scheme.contains('/') => (scheme, rest),
        _ => ("", text),
    };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest
        .strip_prefix("//")
        .map_or("", |r| r.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !scheme.eq_ignore_ascii_case("https") {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        invalid(errors, scheme, detail);
    }
    if host.is_empty() {
        invalid(errors, host, format!("host must be specified{FORM}"));
    }
    if authority.contains('@') {
        let detail = "user information is not permitted in the URL";
        invalid(errors, user, detail.to_owned());
    }
    if !fragment.is_empty() {
        let detail = "fragments are not permitted in the URL";
        invalid(errors, fragment, detail.to_owned());
    }
    if !query.is_empty() {
        let detail = "query parameters are not permitted in the URL";
        invalid(errors, query, detail.to_owned());
    }
}

/// Upstream mixes up name and namespace when one of them is empty, and so must we.
fn webhook_service(service: &At<'_>, errors: &mut ErrorList) {
    if !service.get("namespace").is_given() {
        service.get("name").required(errors, "");
    }
    if !service.get("name").is_given() {
        service.get("namespace").required(errors, "");
    }
    service_port_and_path(service, errors);
}

pub(super) fn service_port_and_path(service: &At<'_>, errors: &mut ErrorList) {
    let port = service.get("port");
    let messages = format::port_number(port.int().unwrap_or(0));
    if !messages.is_empty() {
        port.invalid(
            errors,
            format!("port is not valid: {}", messages.join(", ")),
        );
    }
    let path = service.get("path");
    match path.text() {
        "" | "/" => return,
        "//" => {
            path.invalid(errors, "segment[0] may not be empty");
            return;
        }
        text if !text.starts_with('/') => path.invalid(errors, "must start with a '/'"),
        _ => {}
    }
    // Upstream skips the first byte whatever it is.
    let steps = path.text().get(1..).unwrap_or_default();
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (i, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            path.invalid(errors, format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in format::dns1123_subdomain(step) {
            path.invalid(errors, format!("segment[{i}]: {message}"));
        }
    }
}

fn has_wildcard(list: &At<'_>) -> bool {
    list.items().any(|item| item.text() == "*")
}

/// A rule of a webhook or of a policy: operations and what they are done to.
pub(super) fn rule(rule: &At<'_>, errors: &mut ErrorList) {
    let operations = rule.get("operations");
    if operations.len() == 0 {
        operations.required(errors, "");
    }
    if operations.len() > 1 && has_wildcard(&operations) {
        operations.invalid(
            errors,
            "if '*' is present, must not specify other operations",
        );
    }
    for operation in operations.items() {
        operation.one_of(errors, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    for (field, many) in [
        (
            "apiGroups",
            "if '*' is present, must not specify other API groups",
        ),
        (
            "apiVersions",
            "if '*' is present, must not specify other API versions",
        ),
    ] {
        let list = rule.get(field);
        if list.len() == 0 {
            list.required(errors, "");
        }
        if list.len() > 1 && has_wildcard(&list) {
            list.invalid(errors, many);
        }
    }
    for version in rule.get("apiVersions").items() {
        required(&version, errors);
    }
    resources(&rule.get("resources"), errors);
    one_of_if_set(&rule.get("scope"), &["*", "Cluster", "Namespaced"], errors);
}

fn resources(resources: &At<'_>, errors: &mut ErrorList) {
    if resources.len() == 0 {
        resources.required(errors, "");
    }
    let (mut all_of, mut each_of) = (HashSet::new(), HashSet::new());
    let (mut everything, mut single, mut plain) = (false, false, false);
    for resource in resources.items() {
        let text = resource.text();
        if !required(&resource, errors) {
            continue;
        }
        everything |= text == "*/*";
        single |= text == "*";
        let Some((name, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_of.contains(name) {
            let detail = format!("if '{name}/*' is present, must not specify {text}");
            resource.invalid(errors, detail);
        }
        if each_of.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {text}");
            resource.invalid(errors, detail);
        }
        if sub == "*" {
            all_of.insert(name);
        }
        if name == "*" {
            each_of.insert(sub);
        }
    }
    if resources.len() > 1 && everything {
        resources.invalid(
            errors,
            "if '*/*' is present, must not specify other resources",
        );
    }
    if single && plain {
        resources.invalid(
            errors,
            "if '*' is present, must not specify other resources without subresources",
        );
    }
}

/// Conditions in CEL that a request must meet.
pub(super) fn match_conditions(conditions: &At<'_>, errors: &mut ErrorList) {
    if conditions.len() > 64 {
        errors.push(FieldError::too_many(&conditions.path, conditions.len(), 64));
    }
    let mut names = HashSet::new();
    for condition in conditions.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.text().trim().is_empty() {
            expression.required(errors, "");
        }
        if !name.is_given() {
            name.required(errors, "");
            continue;
        }
        name.check(errors, format::qualified_name(name.text()));
        if !names.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}
