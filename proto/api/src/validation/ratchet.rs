//! What an object that is there may go on doing wrong: rules that came late, and which objects of
//! earlier releases break. Were they held to them, they could not change any more, nor be deleted
//! where they have finalizers.
//!
//! What must not be here: the rules.

use std::collections::HashSet;

use meta::field::{BadValue, ErrorList, ErrorType, FieldError};
use meta::validation as format;

/// A rule that came late. Who breaks it somewhere may break it anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Late {
    SelectorValue,
    HugePages,
    SecretName,
    DeletionCost,
}

impl Late {
    fn broken_by((group, kind): (&str, &str), error: &FieldError) -> Option<Late> {
        let field = error.field.as_str();
        if error.ty != ErrorType::Invalid {
            return None;
        }
        if field.contains(".matchExpressions[") && field.contains("].values[") {
            // These selectors are younger than the rule, or always had to be readable.
            let is_strict = group == "admissionregistration.k8s.io"
                || field.contains(".clusterTrustBundle.")
                || (group == "apps" && kind != "DaemonSet" && field.starts_with("spec.selector."));
            return (!is_strict).then_some(Late::SelectorValue);
        }
        if field.starts_with("spec.tls[") && field.ends_with("].secretName") {
            return Some(Late::SecretName);
        }
        if field == "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]" {
            return Some(Late::DeletionCost);
        }
        let pages = field.contains("[hugepages-") || field.contains(".hugepages-");
        let whole = error.detail.contains("is not positive integer multiple of");
        (pages && whole).then_some(Late::HugePages)
    }
}

/// An address or network that can be read, if not in the form it should have.
fn address(error: &FieldError) -> Option<&str> {
    match &error.bad_value {
        BadValue::String(text) if error.ty == ErrorType::Invalid => {
            let read = format::ip::parse_ip_sloppy(text).is_some()
                || format::ip::parse_cidr_sloppy(text).is_some();
            read.then_some(text)
        }
        _ => None,
    }
}

/// Takes from the errors of an object `of` a group and kind what may stay as it is, where `before` says what
/// was wrong with the object that is there. Addresses that were written in a form that has since
/// been forbidden (KEP-4858) may move to other places of their list, but be no others.
pub(super) fn tolerate(
    of: (&str, &str),
    errors: &mut ErrorList,
    before: impl FnOnce() -> ErrorList,
) {
    let late = |error: &FieldError| Late::broken_by(of, error);
    if !errors
        .iter()
        .any(|e| late(e).is_some() || address(e).is_some())
    {
        return;
    }
    let before = before();
    let broken: HashSet<Late> = before.iter().filter_map(late).collect();
    let addresses: HashSet<(&str, &str)> = before
        .iter()
        .filter_map(|e| Some((address(e)?, e.detail.as_str())))
        .collect();
    let stays = |e: &FieldError| {
        late(e).is_some_and(|rule| broken.contains(&rule))
            || address(e).is_some_and(|address| addresses.contains(&(address, &e.detail)))
    };
    errors.0.retain(|e| !stays(e));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{create, update};

    fn labelled(object: &Value) -> Value {
        let mut new = object.clone();
        new["metadata"]["labels"] = json!({"changed": "yes"});
        new
    }

    fn fields(errors: &meta::field::ErrorList) -> Vec<&str> {
        errors.iter().map(|e| e.field.as_str()).collect()
    }

    #[test]
    fn objects_of_earlier_releases_can_change() {
        let metadata = json!({"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z"});
        let selector = json!({"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["good", "bad value!"]}]});
        let budget =
            json!({"metadata": metadata, "spec": {"minAvailable": 1, "selector": selector}});
        let policy = json!({"metadata": metadata, "spec": {"podSelector": selector,
            "policyTypes": ["Ingress"]}});
        let ingress = json!({"metadata": metadata, "spec": {"tls": [{"secretName": "A_b"}],
            "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
        for (group, kind, object) in [
            ("policy", "PodDisruptionBudget", &budget),
            ("networking.k8s.io", "NetworkPolicy", &policy),
            ("networking.k8s.io", "Ingress", &ingress),
        ] {
            assert_eq!(create(group, kind, true, object).len(), 1, "{kind}");
            let errors = update(group, kind, &labelled(object), object);
            assert_eq!(fields(&errors), Vec::<&str>::new(), "{kind}");
        }
    }

    #[test]
    fn what_was_right_may_not_become_wrong() {
        let metadata = json!({"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z"});
        let with = |value: &str| {
            json!({"metadata": metadata, "spec": {"policyTypes": ["Ingress"],
                "podSelector": {"matchExpressions": [
                    {"key": "a", "operator": "In", "values": [value]}]}}})
        };
        let errors = update(
            "networking.k8s.io",
            "NetworkPolicy",
            &with("bad!"),
            &with("good"),
        );
        assert_eq!(
            fields(&errors),
            ["spec.podSelector.matchExpressions[0].values[0]"]
        );
    }
}
