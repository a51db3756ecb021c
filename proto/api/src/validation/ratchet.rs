//! What an object that is there may go on doing wrong: rules that came late, and which objects of
//! earlier releases break. Were they held to them, they could not change any more, nor be deleted
//! where they have finalizers.
//!
//! What must not be here: the rules.

use std::collections::HashSet;

use meta::field::{BadValue, ErrorList, ErrorType, FieldError};
use meta::validation as format;

use super::at::At;
use super::networking;

/// A rule that came late. Who breaks it somewhere may break it anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Late {
    SelectorValue,
    SpreadSelector,
    WildcardRule,
    HugePages,
    SecretName,
    DeletionCost,
    ScaledToZero,
    TokenPath,
}

impl Late {
    /// The rule that an error of an object is about.
    fn of((group, kind): (&str, &str), object: &At<'_>, error: &FieldError) -> Option<Late> {
        let field = error.field.as_str();
        if let Some(rule) = Late::of_selector((group, kind), field) {
            return Some(rule);
        }
        if kind == "Ingress" && is_in_wildcard_rule(object, field) {
            return Some(Late::WildcardRule);
        }
        if error.ty != ErrorType::Invalid {
            return None;
        }
        if field.starts_with("spec.tls[") && field.ends_with("].secretName") {
            return Some(Late::SecretName);
        }
        if field == "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]" {
            return Some(Late::DeletionCost);
        }
        if field.ends_with(".projected.path") {
            return Some(Late::TokenPath);
        }
        if kind == "HorizontalPodAutoscaler" && field == "spec.minReplicas" {
            let zero = matches!(&error.bad_value, BadValue::Raw(text) if text == "0");
            return zero.then_some(Late::ScaledToZero);
        }
        let pages = field.contains("[hugepages-") || field.contains(".hugepages-");
        let whole = error.detail.contains("is not positive integer multiple of");
        (pages && whole).then_some(Late::HugePages)
    }

    /// Label selectors that were not looked at once. Others are younger than the rule, or always
    /// had to be readable.
    fn of_selector((group, kind): (&str, &str), field: &str) -> Option<Late> {
        let any = field.contains("Selector.");
        if any && field.contains(".topologySpreadConstraints[") {
            return Some(Late::SpreadSelector);
        }
        let affinity = field.contains(".podAffinity.") || field.contains(".podAntiAffinity.");
        let own = match (group, kind) {
            ("apps", "DaemonSet")
            | ("batch", "Job")
            | ("policy", "PodDisruptionBudget")
            | ("", "PersistentVolumeClaim") => field.starts_with("spec.selector."),
            ("networking.k8s.io", "NetworkPolicy")
            | (
                "admissionregistration.k8s.io",
                "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
            ) => any,
            ("rbac.authorization.k8s.io", "ClusterRole") => field.starts_with("aggregationRule."),
            ("storage.k8s.io", "CSIStorageCapacity") => field.starts_with("nodeTopology."),
            _ => false,
        };
        (own || (any && affinity)).then_some(Late::SelectorValue)
    }

    /// Whether an object with this error breaks the rule.
    fn is_broken_by(self, (_, kind): (&str, &str), error: &FieldError) -> bool {
        // The selectors of peers are not asked.
        self != Late::SelectorValue
            || kind != "NetworkPolicy"
            || error.field.starts_with("spec.podSelector.")
    }

    /// Whether this error may stay where the rule was broken before.
    fn excuses(self, error: &FieldError) -> bool {
        let field = error.field.as_str();
        self != Late::SelectorValue
            || (error.ty == ErrorType::Invalid
                && field.contains(".matchExpressions[")
                && field.contains("].values["))
    }
}

/// What a rule of an ingress for hosts `*.…` says. It was not looked at once.
fn is_in_wildcard_rule(ingress: &At<'_>, field: &str) -> bool {
    let place = field
        .strip_prefix("spec.rules[")
        .and_then(|rest| rest.split_once("].http"));
    let Some(index) = place.and_then(|(index, _)| index.parse().ok()) else {
        return false;
    };
    let rule = ingress.get("spec").get("rules").items().nth(index);
    rule.is_some_and(|rule| rule.get("host").text().contains('*'))
}

/// An address or network in a field where it may stay, if not in the form it should have. In other
/// fields (those of pods, of nodes, annotations) it may not. A policy's may stay even when it
/// cannot be read.
fn address<'e>((_, kind): (&str, &str), error: &'e FieldError) -> Option<&'e str> {
    let BadValue::String(text) = &error.bad_value else {
        return None;
    };
    let readable = || {
        format::ip::parse_ip_sloppy(text).is_some() || format::ip::parse_cidr_sloppy(text).is_some()
    };
    let may_stay = error.ty == ErrorType::Invalid
        && match kind {
            "Service" => !error.field.starts_with("metadata.") && readable(),
            "NetworkPolicy" => {
                error.field.contains(".ipBlock.") && error.detail != networking::NO_SUBSET
            }
            _ => false,
        };
    may_stay.then_some(text)
}

/// All networks of a policy: the exceptions of one that cannot be read are not looked at.
fn networks<'a>((_, kind): (&str, &str), policy: &At<'a>) -> impl Iterator<Item = &'a str> {
    let rules = [("ingress", "from"), ("egress", "to")];
    let spec = (kind == "NetworkPolicy").then(|| policy.get("spec"));
    spec.into_iter().flat_map(move |spec| {
        rules.into_iter().flat_map(move |(rules, peers)| {
            let peers = (spec.get(rules).items()).flat_map(move |rule| rule.get(peers).items());
            peers.flat_map(|peer| {
                let block = peer.get("ipBlock");
                let excepted = block.get("except");
                std::iter::once(block.get("cidr").text()).chain(excepted.items().map(|e| e.text()))
            })
        })
    })
}

/// A part that is not looked at where it does not change.
fn kept_part(of: (&str, &str)) -> Option<&'static str> {
    match of {
        ("", "Endpoints") => Some("subsets"),
        ("discovery.k8s.io", "EndpointSlice") => Some("endpoints"),
        _ => None,
    }
}

/// Takes from the errors of an object `of` a group and kind what may stay as it is, where `before` says what
/// was wrong with the object that is there. Addresses that were written in a form that has since
/// been forbidden (KEP-4858) may move to other places of their list, but be no others.
pub(super) fn tolerate(
    of: (&str, &str),
    new: &At<'_>,
    old: &At<'_>,
    errors: &mut ErrorList,
    before: impl FnOnce() -> ErrorList,
) {
    if let Some(part) = kept_part(of)
        && new.raw(part) == old.raw(part)
    {
        errors.0.retain(|e| !e.field.starts_with(part));
    }
    let late = |error: &FieldError| Late::of(of, new, error).filter(|rule| rule.excuses(error));
    if !errors
        .iter()
        .any(|e| late(e).is_some() || address(of, e).is_some())
    {
        return;
    }
    let before = before();
    let broken: HashSet<Late> = before
        .iter()
        .filter_map(|e| Late::of(of, old, e).filter(|rule| rule.is_broken_by(of, e)))
        .collect();
    let networks: HashSet<&str> = networks(of, old).collect();
    let addresses: HashSet<(&str, &str)> = before
        .iter()
        .filter_map(|e| Some((address(of, e)?, e.detail.as_str())))
        .collect();
    let may_stay = |address: &str, e: &FieldError| {
        networks.contains(address) || addresses.contains(&(address, &e.detail))
    };
    let stays = |e: &FieldError| {
        late(e).is_some_and(|rule| broken.contains(&rule))
            || address(of, e).is_some_and(|address| may_stay(address, e))
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

    /// What changing a label of an object that is there is told.
    fn relabelled(group: &str, kind: &str, mut object: Value) -> Vec<String> {
        object["metadata"] = json!({"name": "a", "namespace": "b", "uid": "u",
            "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let namespaced = !matches!(kind, "Node" | "Namespace");
        if !namespaced {
            object["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("namespace");
        }
        if let Some(kind) = schema::kind(group, "v1", kind) {
            crate::defaults::apply(kind, &mut object);
        }
        let errors = update(group, kind, &labelled(&object), &object);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_in_old_forms_may_stay_where_they_may() {
        let block = json!({"from": [{"ipBlock": {"cidr": "010.0.0.0/8"}}]});
        let policy = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [block]}});
        assert_eq!(
            relabelled("networking.k8s.io", "NetworkPolicy", policy),
            [""; 0]
        );
        let block = json!({"from": [{"ipBlock": {"cidr": "no network"}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "none"]}}]});
        let policy = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [block]}});
        assert_eq!(
            relabelled("networking.k8s.io", "NetworkPolicy", policy),
            [
                "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"
            ]
        );
        let with = |cidr: &str| {
            let block = json!({"cidr": cidr, "except": ["none"]});
            let metadata = json!({"name": "a", "namespace": "b", "uid": "u",
                "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"});
            json!({"metadata": metadata, "spec": {"podSelector": {},
                "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": block}]}]}})
        };
        let (mended, broken) = (with("10.0.0.0/8"), with("no network"));
        let errors = update("networking.k8s.io", "NetworkPolicy", &mended, &broken);
        assert_eq!(fields(&errors), [""; 0]);
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "010.0.0.1"}]}]});
        assert_eq!(relabelled("", "Endpoints", endpoints.clone()), [""; 0]);
        let mut more = endpoints.clone();
        more["subsets"][0]["notReadyAddresses"] = json!([{"ip": "10.0.0.1"}]);
        let errors = update("", "Endpoints", &labelled(&more), &endpoints);
        assert!(fields(&errors).contains(&"subsets[0].addresses[0].ip"));

        let containers = json!([{"name": "c", "image": "i"}]);
        let pod = json!({"spec": {"containers": containers,
            "dnsConfig": {"nameservers": ["010.1.2.3"]}, "hostAliases": [{"ip": "010.1.2.3"}]}});
        assert_eq!(
            relabelled("", "Pod", pod),
            [
                "spec.dnsConfig.nameservers[0]: Invalid value: \"010.1.2.3\": must not have leading 0s",
                "spec.hostAliases[0].ip: Invalid value: \"010.1.2.3\": must not have leading 0s",
            ]
        );
        let node = json!({"spec": {"podCIDRs": ["010.0.0.0/24"]}});
        assert_eq!(
            relabelled("", "Node", node),
            [
                "spec.podCIDRs[0]: Invalid value: \"010.0.0.0/24\": must not have leading 0s in IP or prefix length"
            ]
        );
    }

    #[test]
    fn a_token_may_stay_where_it_is_and_an_autoscaler_at_zero() {
        let token = json!({"serviceAccountToken": {"path": "../../x", "expirationSeconds": 3600}});
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}],
            "serviceAccountName": "a",
            "volumes": [{"name": "v", "projected": {"sources": [token]}}]}});
        assert_eq!(relabelled("", "Pod", pod.clone()), [""; 0]);
        pod["spec"]["serviceAccountName"] = json!("");
        assert_eq!(
            relabelled("", "Pod", pod),
            [
                "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"
            ]
        );
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let autoscaler =
            json!({"spec": {"scaleTargetRef": target, "minReplicas": 0, "maxReplicas": 1}});
        assert_eq!(
            relabelled("autoscaling", "HorizontalPodAutoscaler", autoscaler),
            [
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas"
            ]
        );
    }

    #[test]
    fn selectors_excuse_those_that_are_looked_at_with_them() {
        let bad = json!({"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["bad value!"]}]});
        let hook = json!({"webhooks": [{"name": "a.b.c", "sideEffects": "None",
            "clientConfig": {"url": "https://a.b/"}, "admissionReviewVersions": ["v1"],
            "namespaceSelector": bad}]});
        for kind in [
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration",
        ] {
            let group = "admissionregistration.k8s.io";
            assert_eq!(relabelled(group, kind, hook.clone()), [""; 0], "{kind}");
        }
        let peer = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": bad}]}]}});
        let of_peer = "spec.ingress[0].from[0].podSelector.matchExpressions[0].values[0]: ";
        let told = relabelled("networking.k8s.io", "NetworkPolicy", peer.clone());
        assert!(told.len() == 1 && told[0].starts_with(of_peer), "{told:?}");
        let mut both = peer;
        both["spec"]["podSelector"] = bad.clone();
        assert_eq!(
            relabelled("networking.k8s.io", "NetworkPolicy", both),
            [""; 0]
        );

        let term = json!({"topologyKey": "t", "labelSelector": bad});
        let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "selector": bad,
            "resources": {"requests": {"storage": "1Gi"}}}});
        let spread = json!({"maxSkew": 1, "topologyKey": "t", "labelSelector": bad,
            "whenUnsatisfiable": "DoNotSchedule"});
        let metadata = json!({"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z"});
        let old = json!({"metadata": metadata, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "affinity": {"podAffinity":
                    {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
                "containers": [{"name": "c", "image": "i"}]}}}});
        for kind in ["Deployment", "StatefulSet"] {
            let mut old = old.clone();
            let model = schema::kind("apps", "v1", kind).unwrap();
            crate::defaults::apply(model, &mut old);
            let mut new = old.clone();
            let pod = &mut new["spec"]["template"]["spec"];
            pod["topologySpreadConstraints"] = json!([spread]);
            pod["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": claim}}]);
            let affinity = &mut pod["affinity"];
            affinity["podAntiAffinity"] = affinity["podAffinity"].clone();
            let pod = "spec.template.spec";
            let expression = "matchExpressions[0].values[0]";
            let errors = update("apps", kind, &new, &old);
            assert_eq!(
                fields(&errors),
                [
                    format!(
                        "{pod}.volumes[0].ephemeral.volumeClaimTemplate.spec.selector.{expression}"
                    ),
                    format!("{pod}.topologySpreadConstraints[0].labelSelector.{expression}"),
                ]
            );
            let mut later = new.clone();
            later["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"]
                [0]["operator"] = json!("Near");
            let errors = update("apps", kind, &later, &new);
            // Of a StatefulSet that is wrong already the template is not looked at.
            assert_eq!(errors.len(), usize::from(kind == "Deployment"));
        }
    }

    #[test]
    fn rules_of_wildcard_hosts_may_stay_wrong() {
        let ingress = |host: &str| {
            let service = json!({"name": "s", "port": {"number": 80}});
            let path = json!({"path": "/a//b", "pathType": "Prefix",
                "backend": {"service": service}});
            json!({"spec": {"rules": [{"host": host, "http": {"paths": [path]}}]}})
        };
        let told = |host| relabelled("networking.k8s.io", "Ingress", ingress(host));
        assert_eq!(told("*.good.host"), [""; 0]);
        let wrong = told("*.bad_host.com");
        assert!(
            wrong.len() == 1 && wrong[0].starts_with("spec.rules[0].host: "),
            "{wrong:?}"
        );
        let wrong = told("good.host");
        assert!(
            wrong.len() == 1 && wrong[0].starts_with("spec.rules[0].http.paths[0].path: "),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_namespaces_finalizers_are_looked_at_again() {
        let namespace = json!({"spec": {"finalizers": ["foo", "kubernetes"]}});
        assert_eq!(
            relabelled("", "Namespace", namespace),
            [
                "spec.finalizers: Invalid value: \"foo\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
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
