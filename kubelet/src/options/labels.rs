//! `--node-labels`: which labels a kubelet may give its node (KEP-279).

use std::collections::BTreeMap;

use meta::validation::{label_value, qualified_name};

/// Labels in Kubernetes' namespaces that it may give.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// # Errors
/// For a label that is not the kubelet's to give, and for what is no label.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let within = |namespace: &str, of: &str| {
        let rest = namespace.strip_suffix(of);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_foreign = |key: &&str| {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|of| within(namespace, of))
            && !OWN_LABELS.contains(key)
            && !OWN_NAMESPACES.iter().any(|of| within(namespace, of))
    };
    let unknown: Vec<&str> = labels
        .keys()
        .map(String::as_str)
        .filter(is_foreign)
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]\n--node-labels in the \
             'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
            unknown.join(" "),
            OWN_NAMESPACES.join(", "),
            OWN_LABELS.join(", ")
        ));
    }
    let judged = labels
        .iter()
        .flat_map(|(key, value)| [(key, qualified_name(key)), (value, label_value(value))]);
    let invalid: Vec<String> = judged
        .filter(|(_, problems)| !problems.is_empty())
        .map(|(text, problems)| format!("'{text}' - {}", problems.join(", ")))
        .collect();
    match invalid[..] {
        [] => Ok(()),
        _ => Err(format!("invalid node labels: {}", invalid.join("; "))),
    }
}
