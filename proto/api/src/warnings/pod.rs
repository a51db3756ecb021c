//! Pods and templates for them, in upstream's order.

use std::collections::HashSet;

use meta::field::Path;
use meta::gofmt::quote;
use serde_json::Value;

use super::containers::{self, BYTES, whole_bytes};
use super::node_labels::{self, Values};
use super::{
    Warnings, addresses, annotations, annotations_path, keys, list, network, text, volumes,
};

pub(super) const USE_SECCOMP_FIELD: &str =
    "non-functional in v1.27+; use the \"seccompProfile\" field instead";

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// A pod, or a template for one.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a Value,
    pub(super) annotations: &'a Value,
    pub(super) path: Path,
    pub(super) spec_path: Path,
    pub(super) is_template: bool,
}

impl<'a> Pod<'a> {
    pub(super) fn itself(pod: &'a Value) -> Self {
        Self::at(pod, Path::root(), false)
    }

    pub(super) fn template(template: &'a Value, path: Path) -> Self {
        Self::at(template, path, true)
    }

    fn at(pod: &'a Value, path: Path, is_template: bool) -> Self {
        Self {
            spec: &pod["spec"],
            annotations: annotations(pod),
            spec_path: path.child("spec"),
            path,
            is_template,
        }
    }

    pub(super) fn warn(&self, warnings: &mut Warnings) {
        let (spec, path) = (self.spec, &self.spec_path);
        self.nodes(warnings);
        self.spread(warnings);
        self.old_annotations(warnings);
        volumes::warn(warnings, spec, path);
        duplicates(warnings, spec, path, "hostAliases", "ip");
        duplicates(warnings, spec, path, "imagePullSecrets", "name");
        for (secret, at) in list(spec, path, "imagePullSecrets") {
            if text(secret, "name").is_empty() {
                warnings.add(&at.child("name"), "invalid empty name \"\"");
            }
        }
        whole_bytes(warnings, &spec["overhead"], &path.child("overhead"), &BYTES);
        self.seccomp(warnings);
        containers::warn(warnings, self);
        let grace = "terminationGracePeriodSeconds";
        if spec[grace].as_i64().is_some_and(|seconds| seconds < 0) {
            warnings.add(
                &path.child(grace),
                "must be >= 0; negative values are invalid and will be treated as 1",
            );
        }
        self.affinity(warnings);
        let dns = path.child("dnsConfig");
        network::ips(warnings, &spec["dnsConfig"], &dns, "nameservers");
        for (alias, at) in list(spec, path, "hostAliases") {
            addresses::ip(warnings, &at.child("ip"), text(alias, "ip"));
        }
    }

    /// How its nodes are selected.
    fn nodes(&self, warnings: &mut Warnings) {
        let path = self.spec_path.child("nodeSelector");
        for label in keys(&self.spec["nodeSelector"]) {
            if let Some(what) = node_labels::deprecated(label) {
                warnings.add(&path.key(label.as_str()), what);
            }
        }
        let affinity = &self.spec["affinity"]["nodeAffinity"];
        let path = self.spec_path.child("affinity").child("nodeAffinity");
        let at = path.child(REQUIRED);
        for (term, at) in list(&affinity[REQUIRED], &at, "nodeSelectorTerms") {
            node_labels::term(warnings, term, &at, Values::Taken);
        }
        for (weighed, at) in list(affinity, &path, PREFERRED) {
            let (term, at) = (&weighed["preference"], at.child("preference"));
            node_labels::term(warnings, term, &at, Values::Checked);
        }
    }

    fn spread(&self, warnings: &mut Warnings) {
        for (constraint, at) in list(self.spec, &self.spec_path, "topologySpreadConstraints") {
            let label = text(constraint, "topologyKey");
            node_labels::key(warnings, &at.child("topologyKey"), label);
            selector(warnings, constraint, &at);
        }
    }

    fn old_annotations(&self, warnings: &mut Warnings) {
        const USE_SYSCTLS: &str = "non-functional in v1.11+; use the \"sysctls\" field instead";
        for (key, what) in [
            (
                "scheduler.alpha.kubernetes.io/critical-pod",
                "non-functional in v1.16+; use the \"priorityClassName\" field instead",
            ),
            ("security.alpha.kubernetes.io/sysctls", USE_SYSCTLS),
            ("security.alpha.kubernetes.io/unsafe-sysctls", USE_SYSCTLS),
        ] {
            self.annotation(warnings, key, what);
        }
    }

    fn seccomp(&self, warnings: &mut Warnings) {
        if self.spec["securityContext"]["seccompProfile"].is_null() {
            let key = "seccomp.security.alpha.kubernetes.io/pod";
            self.annotation(warnings, key, USE_SECCOMP_FIELD);
        }
    }

    fn annotation(&self, warnings: &mut Warnings, key: &str, what: &str) {
        if self.annotations.get(key).is_some() {
            warnings.add(&annotations_path(&self.path).key(key), what);
        }
    }

    /// Other pods that it would be near to, or far from.
    fn affinity(&self, warnings: &mut Warnings) {
        let path = self.spec_path.child("affinity");
        for kind in ["podAffinity", "podAntiAffinity"] {
            let (affinity, at) = (&self.spec["affinity"][kind], path.child(kind));
            for (term, at) in list(affinity, &at, REQUIRED) {
                selector(warnings, term, &at);
            }
            for (weighed, at) in list(affinity, &at, PREFERRED) {
                let term = "podAffinityTerm";
                selector(warnings, &weighed[term], &at.child(term));
            }
        }
    }
}

fn selector(warnings: &mut Warnings, of: &Value, path: &Path) {
    if of["labelSelector"].is_null() {
        warnings.add(
            &path.child("labelSelector"),
            "a null labelSelector results in matching no pod",
        );
    }
}

/// Items of which an earlier one has the same key.
fn duplicates(
    warnings: &mut Warnings,
    of: &Value,
    path: &Path,
    name: &'static str,
    key: &'static str,
) {
    let mut seen = HashSet::new();
    for (item, at) in list(of, path, name) {
        let value = text(item, key);
        if !seen.insert(value) {
            let value = quote(value);
            warnings.add(&at.child(key), format_args!("duplicate {key} {value}"));
        }
    }
}
