//! Defaults of admissionregistration.k8s.io.

use serde_json::json;

use super::{Defaulter, Fields, set_empty, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    (
        "io.k8s.api.admissionregistration.v1.MatchResources",
        match_resources,
    ),
    (
        "io.k8s.api.admissionregistration.v1alpha1.MatchResources",
        match_resources,
    ),
    (
        "io.k8s.api.admissionregistration.v1beta1.MatchResources",
        match_resources,
    ),
    (
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicySpec",
        policy_spec,
    ),
    (
        "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicySpec",
        policy_spec,
    ),
    (
        "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicySpec",
        policy_spec,
    ),
    (
        "io.k8s.api.admissionregistration.v1alpha1.ParamRef",
        parameters,
    ),
    (
        "io.k8s.api.admissionregistration.v1.MutatingWebhook",
        mutating_webhook,
    ),
    ("io.k8s.api.admissionregistration.v1.Rule", rule),
    (
        "io.k8s.api.admissionregistration.v1.RuleWithOperations",
        rule,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ServiceReference",
        service_reference,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        policy_spec,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingWebhook",
        webhook,
    ),
    (
        "io.k8s.api.admissionregistration.v1beta1.MutatingWebhook",
        lenient_webhook,
    ),
    (
        "io.k8s.api.admissionregistration.v1beta1.ValidatingWebhook",
        lenient_webhook,
    ),
];

/// Before `v1`, what it defaults otherwise.
fn lenient_webhook(webhook: &mut Fields) {
    set_unset(webhook, "failurePolicy", "Ignore");
    set_unset(webhook, "matchPolicy", "Exact");
    set_unset(webhook, "sideEffects", "Unknown");
    set_unset(webhook, "timeoutSeconds", 30);
    set_empty(webhook, "admissionReviewVersions", json!(["v1beta1"]));
}

fn match_resources(resources: &mut Fields) {
    set_unset(resources, "matchPolicy", "Equivalent");
    set_unset(resources, "namespaceSelector", json!({}));
    set_unset(resources, "objectSelector", json!({}));
}

fn parameters(reference: &mut Fields) {
    set_unset(reference, "parameterNotFoundAction", "Deny");
}

fn policy_spec(spec: &mut Fields) {
    set_unset(spec, "failurePolicy", "Fail");
}

fn mutating_webhook(hook: &mut Fields) {
    webhook(hook);
    set_unset(hook, "reinvocationPolicy", "Never");
}

fn webhook(webhook: &mut Fields) {
    set_unset(webhook, "failurePolicy", "Fail");
    set_unset(webhook, "matchPolicy", "Equivalent");
    set_unset(webhook, "namespaceSelector", json!({}));
    set_unset(webhook, "objectSelector", json!({}));
    set_unset(webhook, "timeoutSeconds", 10);
}

fn rule(rule: &mut Fields) {
    set_unset(rule, "scope", "*");
}

fn service_reference(reference: &mut Fields) {
    set_unset(reference, "port", 443);
}
