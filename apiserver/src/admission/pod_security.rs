//! PodSecurity: pods are held to the policy that their namespace's labels ask for, templates
//! of pods are warned about, and so is who makes a namespace stricter than its pods are.
//!
//! The policies themselves are `api::pod_security`'s.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::pod_security::{Level, LevelVersion, Policy, Version, evaluate};
use component::metrics::Registry;
use meta::field::{ErrorList, FieldError, Path};
use meta::{GroupKind, validation as format};
use prometheus::{IntCounterVec, Opts};
use serde::Deserialize;

use super::chain::Deps;
use super::config::ConfigError;
use super::*;
use crate::authz::node::items;
use crate::lookup::Lookup;

/// Of a namespace that gets stricter only so many pods are looked at, and only so long.
const MAX_PODS: usize = 3000;
const MAX_TIME: Duration = Duration::from_secs(1);

const KINDS: &[(&str, &str)] = &[
    (
        "pod-security.admission.config.k8s.io/v1",
        "PodSecurityConfiguration",
    ),
    (
        "pod-security.admission.config.k8s.io/v1beta1",
        "PodSecurityConfiguration",
    ),
    (
        "pod-security.admission.config.k8s.io/v1alpha1",
        "PodSecurityConfiguration",
    ),
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    #[serde(default, rename = "apiVersion")]
    _api_version: String,
    #[serde(default, rename = "kind")]
    _kind: String,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

/// Who is not held to any policy.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Exemptions {
    fn validate(&self, errors: &mut ErrorList) {
        type Rule = fn(&str) -> Vec<String>;
        let not_empty: Rule = |name| match name {
            "" => vec!["username must not be empty".to_owned()],
            _ => Vec::new(),
        };
        let lists: [(&str, &Vec<String>, Rule); 3] = [
            ("namespaces", &self.namespaces, format::dns1123_label),
            (
                "runtimeClasses",
                &self.runtime_classes,
                format::dns1123_subdomain,
            ),
            ("usernames", &self.usernames, not_empty),
        ];
        for (field, names, rule) in lists {
            let path = Path::new("exemptions").child(field.to_owned());
            let mut seen = HashSet::new();
            for (i, name) in names.iter().enumerate() {
                let wrong = rule(name);
                if !wrong.is_empty() {
                    errors.push(FieldError::invalid(&path.index(i), name, wrong.join(", ")));
                } else if !seen.insert(name) {
                    errors.push(FieldError::duplicate(&path.index(i), name));
                }
            }
        }
    }
}

pub struct PodSecurity {
    lookup: Arc<dyn Lookup>,
    defaults: Policy,
    exemptions: Exemptions,
    metrics: Metrics,
}

impl PodSecurity {
    pub fn new(deps: &Deps) -> Result<Self, ConfigError> {
        let configuration: Option<Configuration> = deps.configuration.of("PodSecurity", KINDS)?;
        let Configuration {
            defaults,
            exemptions,
            ..
        } = configuration.unwrap_or_default();
        let unknown = defaults.keys().find(|key| {
            let mode = key.strip_suffix("-version").unwrap_or(key);
            !api::pod_security::MODES.contains(&mode)
        });
        if let Some(unknown) = unknown {
            let why = format!("unknown field \"defaults.{unknown}\"");
            return Err(ConfigError::Invalid(why));
        }
        let (defaults, mut errors) = Policy::of_defaults(&defaults);
        exemptions.validate(&mut errors);
        if !errors.is_empty() {
            return Err(ConfigError::Invalid(errors.to_string()));
        }
        Ok(Self {
            lookup: deps.lookup.clone(),
            defaults,
            exemptions,
            metrics: Metrics::new(&deps.metrics),
        })
    }

    fn is_exempt_namespace(&self, namespace: &str) -> bool {
        self.exemptions.namespaces.iter().any(|n| n == namespace)
    }

    fn is_exempt_class(&self, spec: &Value) -> bool {
        let class = text(spec, "/runtimeClassName");
        self.exemptions.runtime_classes.iter().any(|c| c == class)
    }

    async fn namespace(&self, name: &str) -> Option<Arc<Value>> {
        if let Some(found) = self.lookup.get("", "namespaces", "", name) {
            return Some(found);
        }
        let fresh = self.lookup.get_fresh("", "namespaces", "", name).await;
        fresh.ok().flatten()
    }

    fn policy(&self, namespace: &Value) -> (Policy, ErrorList) {
        Policy::of_labels(&namespace["metadata"]["labels"], &self.defaults)
    }

    /// A namespace's labels are right, and its pods may live under them.
    fn check_namespace(&self, a: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
        let labels = &namespace["metadata"]["labels"];
        let name = text(namespace, "/metadata/name");
        let (policy, errors) = self.policy(namespace);
        let invalid = || Status::invalid(&GroupKind::new("", "Namespace"), a.name, &errors);
        let warn_exempt = || {
            let same = policy.is_privileged() || policy.is_equivalent(&self.defaults);
            if !same {
                let said = policy.said_by_labels(labels);
                a.warnings.add(format!(
                    "namespace {name:?} is exempt from Pod Security, and the policy ({said}) will be ignored"
                ));
            }
        };
        let exempt = self.is_exempt_namespace(a.namespace);
        let Some(old) = a.old.filter(|_| a.operation == Operation::Update) else {
            if !errors.is_empty() {
                return Err(invalid());
            }
            if exempt {
                warn_exempt();
            }
            return Ok(());
        };
        let (before, old_errors) = self.policy(old);
        // What was wrong already does not hinder other changes.
        if !errors.is_empty() && errors.to_string() != old_errors.to_string() {
            return Err(invalid());
        }
        let (new, old) = (policy.enforce, before.enforce);
        let relaxed = new.version == old.version && new.level <= old.level;
        if new == old || new.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if exempt {
            warn_exempt();
            return Ok(());
        }
        for warning in self.existing_pods(name, new) {
            a.warnings.add(warning);
        }
        Ok(())
    }

    /// What is to be said of pods that are there already.
    fn existing_pods(&self, namespace: &str, enforce: LevelVersion) -> Vec<String> {
        let deadline = Instant::now() + MAX_TIME;
        let pods = self.prioritized(namespace);
        let mut checked = 0;
        // Pods of one fault together: the first name, and how many.
        let mut faults = BTreeMap::<String, (String, usize)>::new();
        for pod in pods.iter().take(MAX_PODS) {
            checked += 1;
            let violations = evaluate(enforce, &pod["metadata"], &pod["spec"]);
            if !violations.is_empty() {
                let name = text(pod, "/metadata/name").to_owned();
                let fault = faults.entry(violations.reasons());
                let (first, n) = fault.or_insert_with(|| (name.clone(), 0));
                if name < *first {
                    *first = name;
                }
                *n += 1;
            }
            if Instant::now() > deadline {
                break;
            }
        }
        let mut warnings = Vec::new();
        if checked < pods.len() {
            let all = pods.len();
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"
            ));
        }
        if !faults.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let said = faults.into_iter().map(|(fault, (name, n))| match n {
            1 => format!("{name}: {fault}"),
            2 => format!("{name} (and 1 other pod): {fault}"),
            n => format!("{name} (and {} other pods): {fault}", n - 1),
        });
        let mut said: Vec<String> = said.collect();
        said.sort();
        warnings.extend(said);
        warnings
    }

    /// One pod of each controller first: its others are most likely alike.
    fn prioritized(&self, namespace: &str) -> Vec<Arc<Value>> {
        let mut seen = HashSet::new();
        let pods = self.lookup.list("", "pods", namespace);
        let held = pods
            .into_iter()
            .filter(|pod| !self.is_exempt_class(&pod["spec"]));
        let (mut first, others): (Vec<_>, Vec<_>) = held.partition(|pod| {
            let mut owners = items(&pod["metadata"]["ownerReferences"]);
            let controller = owners.find(|o| o["controller"] == true);
            controller.is_none_or(|owner| seen.insert(text(owner, "/uid").to_owned()))
        });
        first.extend(others);
        first
    }

    /// A pod or an object that makes pods.
    async fn check_pods(&self, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let is_pod = a.resource.plural == "pods";
        let exempt = self.is_exempt_namespace(a.namespace)
            || self.exemptions.usernames.contains(&a.user.name);
        if exempt {
            self.metrics.exempted(a);
            return Ok(());
        }
        let Some(namespace) = self.namespace(a.namespace).await else {
            self.metrics.failed(a, true);
            let why = format!("failed to lookup namespace {:?}", a.namespace);
            return match is_pod {
                true => Err(Status::internal(why)),
                false => Ok(()),
            };
        };
        let (policy, errors) = self.policy(&namespace);
        let warned =
            policy.warn.level != Level::Privileged || policy.audit.level != Level::Privileged;
        if errors.is_empty() && !warned && (!is_pod || policy.is_privileged()) {
            if is_pod {
                self.metrics.evaluated(a, policy.enforce, "enforce", true);
            }
            return Ok(());
        }
        if let Some(old) = a.old.filter(|_| is_pod && a.operation == Operation::Update)
            && !is_significant(object, old)
        {
            return Ok(());
        }
        let Some((metadata, spec)) = template(a, object) else {
            return Ok(());
        };
        if self.is_exempt_class(spec) {
            self.metrics.exempted(a);
            return Ok(());
        }
        if !errors.is_empty() {
            self.metrics.failed(a, false);
        }
        let mut denied = None;
        if is_pod {
            let violations = evaluate(policy.enforce, metadata, spec);
            self.metrics
                .evaluated(a, policy.enforce, "enforce", violations.is_empty());
            if !violations.is_empty() {
                denied = Some(format!(
                    "violates PodSecurity \"{}\": {}",
                    policy.enforce,
                    violations.details()
                ));
            }
        }
        if !evaluate(policy.audit, metadata, spec).is_empty() {
            self.metrics.evaluated(a, policy.audit, "audit", false);
        }
        if let Some(why) = denied {
            return Err(a.forbidden(Some(object), why));
        }
        let violations = evaluate(policy.warn, metadata, spec);
        if !violations.is_empty() {
            self.metrics.evaluated(a, policy.warn, "warn", false);
            a.warnings.add(format!(
                "would violate PodSecurity \"{}\": {}",
                policy.warn,
                violations.details()
            ));
        }
        Ok(())
    }
}

/// Metadata and spec of the pod that an object is or makes.
fn template<'a>(a: &Attributes<'_>, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let template = match a.resource.plural {
        "pods" => object,
        "podtemplates" => &object["template"],
        "cronjobs" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => object["spec"].get("template")?,
    };
    Some((&template["metadata"], &template["spec"]))
}

/// Of what can be changed in a pod only images, and containers that come, matter.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<String> {
        let containers = items(&pod["spec"][list]);
        containers.map(|c| text(c, "/image").to_owned()).collect()
    };
    if ["containers", "initContainers"]
        .into_iter()
        .any(|list| images(pod, list) != images(old, list))
    {
        return true;
    }
    let ephemeral = |pod: &'_ Value| -> HashSet<(String, String)> {
        let containers = items(&pod["spec"]["ephemeralContainers"]);
        containers
            .map(|c| (text(c, "/name").to_owned(), text(c, "/image").to_owned()))
            .collect()
    };
    !ephemeral(pod).is_subset(&ephemeral(old))
}

/// Whether pods come of objects of a resource.
fn has_pods(resource: &Resource) -> bool {
    let (group, plural) = (resource.group, resource.plural);
    match group {
        "" => matches!(plural, "pods" | "replicationcontrollers" | "podtemplates"),
        "apps" => matches!(
            plural,
            "replicasets" | "deployments" | "statefulsets" | "daemonsets"
        ),
        "batch" => matches!(plural, "jobs" | "cronjobs"),
        _ => false,
    }
}

/// Subresources that do not change what a pod is.
const IGNORED: [&str; 8] = [
    "exec",
    "attach",
    "binding",
    "eviction",
    "log",
    "portforward",
    "proxy",
    "status",
];

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(object) = object else {
            return ready(Ok(()));
        };
        if a.is("", "namespaces") {
            return ready(self.check_namespace(a, object));
        }
        let concerned = match a.resource.group.is_empty() && a.resource.plural == "pods" {
            true => !IGNORED.contains(&a.subresource),
            false => a.subresource.is_empty() && has_pods(a.resource),
        };
        match concerned {
            true => Box::pin(self.check_pods(a, object)),
            false => ready(Ok(())),
        }
    }
}

/// `pod_security_*`
struct Metrics {
    evaluations: IntCounterVec,
    exemptions: IntCounterVec,
    errors: IntCounterVec,
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("name and labels are constants")
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let metrics = Self {
            evaluations: counter(
                "pod_security_evaluations_total",
                "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
                &[
                    "decision",
                    "policy_level",
                    "policy_version",
                    "mode",
                    "request_operation",
                    "resource",
                    "subresource",
                ],
            ),
            exemptions: counter(
                "pod_security_exemptions_total",
                "Number of exempt requests, not counting ignored or out of scope requests.",
                &["request_operation", "resource", "subresource"],
            ),
            errors: counter(
                "pod_security_errors_total",
                "Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.",
                &["fatal", "request_operation", "resource", "subresource"],
            ),
        };
        registry.register(metrics.evaluations.clone());
        registry.register(metrics.exemptions.clone());
        registry.register(metrics.errors.clone());
        // As upstream, the commonest are there from the start.
        for operation in ["create", "update"] {
            let privileged = [
                "allow",
                "privileged",
                "latest",
                "enforce",
                operation,
                "pod",
                "",
            ];
            metrics.evaluations.with_label_values(&privileged);
            for resource in ["pod", "controller"] {
                metrics
                    .exemptions
                    .with_label_values(&[operation, resource, ""]);
            }
        }
        metrics
    }

    fn labels<'a>(a: &Attributes<'a>) -> [&'a str; 3] {
        let operation = match a.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Connect => "connect",
        };
        let resource = match a.resource.plural {
            "pods" => "pod",
            "namespaces" => "namespace",
            _ => "controller",
        };
        [operation, resource, a.subresource]
    }

    fn evaluated(&self, a: &Attributes<'_>, policy: LevelVersion, mode: &str, allowed: bool) {
        let own = component::version::INFO.minor.parse().unwrap_or(u32::MAX);
        let version = match policy.version {
            _ if policy.level == Level::Privileged => "latest".to_owned(),
            Version::Minor(minor) if minor > own => "future".to_owned(),
            version => version.to_string(),
        };
        let decision = if allowed { "allow" } else { "deny" };
        let [operation, resource, subresource] = Self::labels(a);
        let labels = [
            decision,
            policy.level.as_str(),
            &version,
            mode,
            operation,
            resource,
            subresource,
        ];
        self.evaluations.with_label_values(&labels).inc();
    }

    fn exempted(&self, a: &Attributes<'_>) {
        self.exemptions.with_label_values(&Self::labels(a)).inc();
    }

    fn failed(&self, a: &Attributes<'_>, fatal: bool) {
        let [operation, resource, subresource] = Self::labels(a);
        let fatal = if fatal { "true" } else { "false" };
        let labels = [fatal, operation, resource, subresource];
        self.errors.with_label_values(&labels).inc();
    }
}
