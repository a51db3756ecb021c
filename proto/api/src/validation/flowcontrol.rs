//! Flow schemas and priority levels.

use std::collections::HashSet;

use meta::field::ErrorList;
use meta::validation as format;
use serde_json::{Value, json};

use super::at::At;
use super::{Rules, any_update, required};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "FlowSchema",
        name: format::dns1123_subdomain,
        object: flow_schema,
        update: any_update,
        status: |new, _, errors| conditions(&new.get("status").get("conditions"), errors),
    },
    Rules {
        group: GROUP,
        kind: "PriorityLevelConfiguration",
        name: format::dns1123_subdomain,
        object: priority_level,
        update: any_update,
        status: |new, _, errors| conditions(&new.get("status").get("conditions"), errors),
    },
];

fn conditions(conditions: &At<'_>, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            kind.duplicate(errors);
        }
        required(&kind, errors);
    }
}

/// The schemas that the server keeps by itself, and must find as it made them.
fn mandatory_schema(name: &str) -> Option<Value> {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let everything = |subjects: Vec<Value>| {
        json!([{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": 1,
            "rules": everything(vec![group("system:masters")]),
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"},
            "matchingPrecedence": 10000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": everything(vec![group("system:unauthenticated"), group("system:authenticated")]),
        })),
        _ => None,
    }
}

/// The levels that the server keeps by itself.
fn mandatory_level(name: &str) -> Option<Value> {
    match name {
        "exempt" => Some(json!({"type": "Exempt"})),
        "catch-all" => Some(json!({
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 5,
                "lendablePercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        })),
        _ => None,
    }
}

fn flow_schema(at: &At<'_>, errors: &mut ErrorList) {
    let name = at.get("metadata").get("name").text();
    let spec = at.get("spec");
    let precedence = spec.get("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        ..=0 => precedence.invalid(errors, "must be a positive value"),
        10001.. => precedence.invalid(errors, "must not be greater than 10000"),
        1 if name != "exempt" => precedence.invalid(
            errors,
            "only the schema named 'exempt' may have matchingPrecedence 1",
        ),
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() {
        method
            .get("type")
            .one_of(errors, &["ByNamespace", "ByUser"]);
    }
    let level = spec.get("priorityLevelConfiguration").get("name");
    if level.is_given() {
        level.check(errors, format::dns1123_subdomain(level.text()));
    } else {
        level.required(errors, "must reference a priority level");
    }
    for rule in spec.get("rules").items() {
        rule_with_subjects(&rule, errors);
    }
    if mandatory_schema(name).is_some_and(|fixed| spec.value() != Some(&fixed)) {
        spec.invalid(
            errors,
            format!("spec of '{name}' must equal the fixed value"),
        );
    }
    conditions(&at.get("status").get("conditions"), errors);
}

fn rule_with_subjects(rule: &At<'_>, errors: &mut ErrorList) {
    let subjects = rule.get("subjects");
    if subjects.len() == 0 {
        subjects.required(errors, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        self::subject(&subject, errors);
    }
    let (resources, others) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.len() == 0 && others.len() == 0 {
        rule.required(
            errors,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for rule in resources.items() {
        resource_rule(&rule, errors);
    }
    for rule in others.items() {
        non_resource_rule(&rule, errors);
    }
}

fn subject(subject: &At<'_>, errors: &mut ErrorList) {
    const FIELDS: [(&str, &str); 3] = [
        ("User", "user"),
        ("ServiceAccount", "serviceAccount"),
        ("Group", "group"),
    ];
    let kind = subject.get("kind");
    let Some((_, own)) = FIELDS.iter().find(|(k, _)| *k == kind.text()) else {
        kind.one_of(errors, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let who = subject.get(own);
    if !who.is_set() {
        who.required(
            errors,
            match *own {
                "user" => "user is required when subject kind is 'User'",
                "group" => "group is required when subject kind is 'Group'",
                _ => "serviceAccount is required when subject kind is 'ServiceAccount'",
            },
        );
    } else if *own == "serviceAccount" {
        service_account(&who, errors);
    } else {
        required(&who.get("name"), errors);
    }
    for (kind, other) in FIELDS.iter().filter(|(_, field)| field != own) {
        if subject.get(other).is_set() {
            let detail = format!("{other} is forbidden when subject kind is not '{kind}'");
            subject.get(other).forbidden(errors, detail);
        }
    }
}

fn service_account(account: &At<'_>, errors: &mut ErrorList) {
    let (name, namespace) = (account.get("name"), account.get("namespace"));
    if required(&name, errors) && name.text() != "*" {
        name.check(errors, format::dns1123_subdomain(name.text()));
    }
    if namespace.is_given() {
        namespace.check(errors, format::dns1123_label(namespace.text()));
    } else {
        namespace.required(errors, "must specify namespace for service account");
    }
}

const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

fn has_wildcard(list: &At<'_>) -> bool {
    list.items().any(|item| item.text() == "*")
}

fn verbs(verbs: &At<'_>, errors: &mut ErrorList) {
    if verbs.len() == 0 {
        verbs.required(errors, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        if verbs.len() > 1 {
            verbs.invalid(errors, "if '*' is present, must not specify other verbs");
        }
    } else if verbs.items().any(|verb| !VERBS.contains(&verb.text())) {
        verbs.one_of(errors, &VERBS);
    }
}

fn resource_rule(rule: &At<'_>, errors: &mut ErrorList) {
    verbs(&rule.get("verbs"), errors);
    for (field, missing, many) in [
        (
            "apiGroups",
            "resource rules must supply at least one api group",
            "if '*' is present, must not specify other api groups",
        ),
        (
            "resources",
            "resource rules must supply at least one resource",
            "if '*' is present, must not specify other resources",
        ),
    ] {
        let list = rule.get(field);
        match list.len() {
            0 => list.required(errors, missing),
            1 => {}
            _ if has_wildcard(&list) => list.invalid(errors, many),
            _ => {}
        }
    }
    let namespaces = rule.get("namespaces");
    if namespaces.len() == 0 && !rule.get("clusterScope").is_true() {
        namespaces.required(
            errors,
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if has_wildcard(&namespaces) {
        if namespaces.len() > 1 {
            namespaces.invalid(
                errors,
                "if '*' is present, must not specify other namespaces",
            );
        }
    } else {
        for namespace in namespaces.items() {
            for message in format::dns1123_label(namespace.text()) {
                namespace.invalid(
                    errors,
                    format!("each member of this list must be '*' or a DNS-1123 label; {message}"),
                );
            }
        }
    }
}

fn non_resource_rule(rule: &At<'_>, errors: &mut ErrorList) {
    verbs(&rule.get("verbs"), errors);
    let urls = rule.get("nonResourceURLs");
    if urls.len() == 0 {
        urls.required(errors, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(&urls) {
        if urls.len() > 1 {
            urls.invalid(
                errors,
                "if '*' is present, must not specify other non-resource URLs",
            );
        }
    } else {
        for url in urls.items() {
            let path = url.text();
            let stars = path.matches('*').count();
            let fault = match path {
                "/" => continue,
                "" => "must not be empty",
                p if !p.starts_with('/') => "must start with slash",
                p if p.contains(' ') => "must not contain white-space",
                p if p.contains("//") => "must not contain double slash",
                p if stars > 1 || (stars == 1 && !p.ends_with("/*")) => {
                    "wildcard can only do suffix matching"
                }
                _ => continue,
            };
            url.invalid(errors, fault);
        }
    }
}

fn priority_level(at: &At<'_>, errors: &mut ErrorList) {
    let name = at.get("metadata").get("name").text();
    let spec = at.get("spec");
    let kind = spec.get("type");
    if (name == "exempt") != (kind.text() == "Exempt") {
        kind.invalid(errors, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    let (exempt, limited) = (spec.get("exempt"), spec.get("limited"));
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
            lendable(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                self::limited(&limited, errors);
            } else {
                limited.required(errors, "must not be empty when type is Limited");
            }
        }
        _ => kind.one_of(errors, &["Exempt", "Limited"]),
    }
    if let Some(fixed) = mandatory_level(name) {
        let mut own = spec.value().cloned().unwrap_or_default();
        let but = if name == "exempt" {
            if let Some(fields) = own.as_object_mut() {
                fields.remove("exempt");
            }
            " except the 'spec.exempt' field"
        } else {
            ""
        };
        if own != fixed {
            spec.invalid(
                errors,
                format!("spec of '{name}'{but} must equal the fixed value"),
            );
        }
    }
    conditions(&at.get("status").get("conditions"), errors);
}

fn shares(of: &At<'_>, errors: &mut ErrorList) {
    let shares = of.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|n| n < 0) {
        shares.invalid(errors, "must be a non-negative integer");
    }
}

fn lendable(of: &At<'_>, errors: &mut ErrorList) {
    let percent = of.get("lendablePercent");
    if let Some(n) = percent.int() {
        percent.check(errors, format::in_range(n, 0, 100));
    }
}

fn limited(limited: &At<'_>, errors: &mut ErrorList) {
    shares(limited, errors);
    let response = limited.get("limitResponse");
    let queuing = response.get("queuing");
    match response.get("type").text() {
        "Reject" if queuing.is_set() => queuing.forbidden(
            errors,
            "must be nil if limited.limitResponse.type is not Limited",
        ),
        "Reject" => {}
        "Queue" if !queuing.is_set() => queuing.required(
            errors,
            "must not be empty if limited.limitResponse.type is Limited",
        ),
        "Queue" => self::queuing(&queuing, errors),
        _ => response.get("type").one_of(errors, &["Queue", "Reject"]),
    }
    lendable(limited, errors);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int().is_some_and(|n| n < 0) {
        borrowing.invalid(errors, "if specified, must be a non-negative integer");
    }
}

/// More queues than anybody has a use for.
const MAX_QUEUES: i64 = 10_000_000;
/// A request's hash has so many bits to deal a hand from.
const HASH_BITS: f64 = 60.0;

fn queuing(queuing: &At<'_>, errors: &mut ErrorList) {
    let number = |field: &'static str| queuing.get(field).int().unwrap_or(0);
    if number("queueLengthLimit") <= 0 {
        queuing
            .get("queueLengthLimit")
            .invalid(errors, "must be positive");
    }
    let (queues, hand) = (number("queues"), number("handSize"));
    if queues <= 0 {
        queuing.get("queues").invalid(errors, "must be positive");
    } else if queues > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        queuing.get("queues").invalid(errors, detail);
    }
    let size = queuing.get("handSize");
    if hand <= 0 {
        size.invalid(errors, "must be positive");
    } else if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        size.invalid(errors, detail);
    } else {
        // The bits that it takes to tell all hands apart, card by card.
        let bits = (0..hand)
            .map(|dealt| ((queues - dealt) as f64).log2())
            .sum::<f64>()
            .ceil();
        if bits > HASH_BITS {
            size.invalid(
                errors,
                format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60"),
            );
        }
    }
}
