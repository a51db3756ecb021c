//! Fields that are there only for a feature: what a client says in them is dropped while the
//! gate is off, unless the object has it already (KEP-3136's rule for alpha fields); fields
//! that nobody may write any more; and values of fields that are refused while a gate is off.
//!
//! What must not be here: which gates there are (`component::features`).

use std::time::Duration;

use component::features::FeatureGates;
use meta::field::{ErrorList, FieldError, Path};
use serde_json::{Map, Value};

use super::deletion::GarbageCollection;
use super::options::DeleteOptions;
use super::strategy::{Context, Strategy};

/// A field of a resource. In the path `[]` stands for every item of a list or map, and a last
/// step `a|b` for fields of one feature, all of which stay where any of them is.
struct Gated {
    group: &'static str,
    plural: &'static str,
    path: &'static str,
    /// `""`: dropped whatever is on.
    gate: &'static str,
    /// What makes it depend on the gate; the field itself where nothing else does.
    because: &'static str,
}

const fn of(
    group: &'static str,
    plural: &'static str,
    path: &'static str,
    gate: &'static str,
) -> Gated {
    Gated {
        group,
        plural,
        path,
        gate,
        because: path,
    }
}

impl Gated {
    const fn because(self, because: &'static str) -> Gated {
        Gated { because, ..self }
    }
}

const LEASES: &str = "CoordinatedLeaderElection";
const TOPOLOGIES: &str = "TopologyAwareWorkloadScheduling";
const GROUP_CLAIMS: &str = "DRAWorkloadResourceClaims";
const GROUP_PREEMPTION: &str = "WorkloadAwarePreemption";
const SIGNALS: &str = "ContainerStopSignals";

const FIELDS: &[Gated] = &[
    of("", "nodes", "spec.configSource", ""),
    of("", "nodes", "status.config", ""),
    of(
        "",
        "persistentvolumeclaims",
        "spec.dataSourceRef",
        "CrossNamespaceVolumeDataSource",
    )
    .because("spec.dataSourceRef.namespace"),
    of(
        "",
        "pods",
        "status.nodeAllocatableResourceClaimStatuses",
        "DRANodeAllocatableResources",
    ),
    of("", "serviceaccounts", "secrets.[].apiVersion", ""),
    of("", "serviceaccounts", "secrets.[].fieldPath", ""),
    of("", "serviceaccounts", "secrets.[].kind", ""),
    of("", "serviceaccounts", "secrets.[].namespace", ""),
    of("", "serviceaccounts", "secrets.[].resourceVersion", ""),
    of("", "serviceaccounts", "secrets.[].uid", ""),
    of(
        "apps",
        "statefulsets",
        "spec.updateStrategy.rollingUpdate.maxUnavailable",
        "MaxUnavailableStatefulSet",
    ),
    of("coordination.k8s.io", "leases", "spec.strategy", LEASES),
    of(
        "coordination.k8s.io",
        "leases",
        "spec.preferredHolder",
        LEASES,
    ),
    of(
        "discovery.k8s.io",
        "endpointslices",
        "endpoints.[].deprecatedTopology",
        "",
    ),
    of(
        "resource.k8s.io",
        "resourceslices",
        "spec.devices.[].attributes.[].bools|ints|strings|versions",
        "DRAListTypeAttributes",
    ),
    of(
        "resource.k8s.io",
        "resourceslices",
        "spec.devices.[].nodeAllocatableResourceMappings",
        "DRANodeAllocatableResources",
    ),
    of(
        "scheduling.k8s.io",
        "podgroups",
        "spec.schedulingConstraints",
        TOPOLOGIES,
    ),
    of(
        "scheduling.k8s.io",
        "podgroups",
        "spec.resourceClaims",
        GROUP_CLAIMS,
    ),
    of(
        "scheduling.k8s.io",
        "podgroups",
        "spec.disruptionMode",
        GROUP_PREEMPTION,
    ),
    of(
        "scheduling.k8s.io",
        "podgroups",
        "spec.priority",
        GROUP_PREEMPTION,
    ),
    of(
        "scheduling.k8s.io",
        "podgroups",
        "spec.priorityClassName",
        GROUP_PREEMPTION,
    ),
    of(
        "scheduling.k8s.io",
        "podgroups",
        "status.resourceClaimStatuses",
        GROUP_CLAIMS,
    ),
    of(
        "scheduling.k8s.io",
        "workloads",
        "spec.podGroupTemplates.[].schedulingConstraints",
        TOPOLOGIES,
    ),
    of(
        "scheduling.k8s.io",
        "workloads",
        "spec.podGroupTemplates.[].resourceClaims",
        GROUP_CLAIMS,
    ),
    of(
        "scheduling.k8s.io",
        "workloads",
        "spec.podGroupTemplates.[].disruptionMode",
        GROUP_PREEMPTION,
    ),
    of(
        "scheduling.k8s.io",
        "workloads",
        "spec.podGroupTemplates.[].priority",
        GROUP_PREEMPTION,
    ),
    of(
        "scheduling.k8s.io",
        "workloads",
        "spec.podGroupTemplates.[].priorityClassName",
        GROUP_PREEMPTION,
    ),
    of(
        "storage.k8s.io",
        "csidrivers",
        "spec.preventPodSchedulingIfMissing",
        "VolumeLimitScaling",
    ),
];

/// Fields of a pod's spec and their gates, wherever a pod's spec is.
const POD_FIELDS: &[(&str, &str)] = &[
    ("containers.[].lifecycle.stopSignal", SIGNALS),
    ("initContainers.[].lifecycle.stopSignal", SIGNALS),
    ("schedulingGroup", "GenericWorkload"),
    (
        "volumes.[].projected.sources.[].clusterTrustBundle",
        "ClusterTrustBundleProjection",
    ),
    (
        "volumes.[].projected.sources.[].podCertificate",
        "PodCertificateRequest",
    ),
];

/// A value of a field of a pod's spec that only a gate allows; without it, what stays is
/// `others`. Objects that say anything in the field already may say this.
struct GatedValue {
    field: &'static str,
    value: &'static str,
    others: &'static [&'static str],
    gate: &'static str,
}

const POD_VALUES: &[GatedValue] = &[GatedValue {
    field: "securityContext.seLinuxChangePolicy",
    value: "MountOption",
    others: &["Recursive"],
    gate: "SELinuxMount",
}];

/// Where a resource has a pod's spec.
const POD_SPECS: &[(&str, &str, &str)] = &[
    ("", "pods", "spec"),
    ("", "podtemplates", "template.spec"),
    ("", "replicationcontrollers", "spec.template.spec"),
    ("apps", "daemonsets", "spec.template.spec"),
    ("apps", "deployments", "spec.template.spec"),
    ("apps", "replicasets", "spec.template.spec"),
    ("apps", "statefulsets", "spec.template.spec"),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
    ("batch", "jobs", "spec.template.spec"),
];

/// A field whose gate is off.
struct Field {
    path: String,
    because: String,
}

/// A kind's strategy that never sees what is dropped.
pub struct Dropping {
    inner: Box<dyn Strategy>,
    fields: Vec<Field>,
    /// With the paths of their fields.
    values: Vec<(String, &'static GatedValue)>,
}

/// `strategy`, with the fields of `group`'s `plural` dropped whose gates are off.
pub fn dropping(
    strategy: Box<dyn Strategy>,
    (group, plural): (&str, &str),
    gates: &FeatureGates,
) -> Box<dyn Strategy> {
    let off = |gate: &str| gate.is_empty() || !gates.enabled(gate);
    let own = FIELDS
        .iter()
        .filter(|field| (field.group, field.plural) == (group, plural) && off(field.gate))
        .map(|field| Field {
            path: field.path.to_owned(),
            because: field.because.to_owned(),
        });
    let of_pods = POD_SPECS
        .iter()
        .filter(|(g, p, _)| (*g, *p) == (group, plural))
        .flat_map(|(_, _, spec)| {
            POD_FIELDS
                .iter()
                .map(move |(field, gate)| (spec, field, gate))
        })
        .filter(|(_, _, gate)| off(gate))
        .map(|(spec, field, _)| {
            let path = format!("{spec}.{field}");
            let because = path.clone();
            Field { path, because }
        });
    let fields: Vec<Field> = own.chain(of_pods).collect();
    let values: Vec<_> = POD_SPECS
        .iter()
        .filter(|(g, p, _)| (*g, *p) == (group, plural))
        .flat_map(|(_, _, spec)| POD_VALUES.iter().map(move |value| (spec, value)))
        .filter(|(_, value)| off(value.gate))
        .map(|(spec, value)| (format!("{spec}.{}", value.field), value))
        .collect();
    if fields.is_empty() && values.is_empty() {
        strategy
    } else {
        Box::new(Dropping {
            inner: strategy,
            fields,
            values,
        })
    }
}

/// The items of a list, or the values of a map.
fn items(object: &Value) -> Vec<&Value> {
    match object {
        Value::Array(items) => items.iter().collect(),
        Value::Object(entries) => entries.values().collect(),
        _ => Vec::new(),
    }
}

fn items_mut(object: &mut Value) -> Vec<&mut Value> {
    match object {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(entries) => entries.values_mut().collect(),
        _ => Vec::new(),
    }
}

/// Whether any field of that path is set.
fn is_set(object: &Value, path: &str) -> bool {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let below = |value: &Value| rest.is_empty() || is_set(value, rest);
    match step {
        "[]" => items(object).into_iter().any(below),
        names => names
            .split('|')
            .filter_map(|name| object.get(name))
            .any(below),
    }
}

/// [`is_set`], and not to an empty text: a namespace that is empty is nobody's.
fn is_said(object: &Value, path: &str) -> bool {
    let pointer = format!("/{}", path.replace('.', "/"));
    is_set(object, path) && object.pointer(&pointer).is_none_or(|value| value != "")
}

fn remove(object: &mut Value, path: &str) {
    match path.split_once('.') {
        None => {
            if let Some(members) = object.as_object_mut() {
                members.retain(|name, _| !path.split('|').any(|gone| gone == name));
            }
        }
        Some(("[]", rest)) => {
            let items = items_mut(object).into_iter();
            items.for_each(|item| remove(item, rest));
        }
        Some((name, rest)) => {
            if let Some(child) = object.get_mut(name) {
                remove(child, rest);
            }
            // Nothing is left to hook on to.
            let empty = object.get(name).and_then(Value::as_object);
            if name == "lifecycle" && empty.is_some_and(Map::is_empty) {
                remove(object, name);
            }
        }
    }
}

impl Dropping {
    fn drop_from(&self, object: &mut Value, old: Option<&Value>) {
        for field in &self.fields {
            let there = old.is_some_and(|old| is_set(old, &field.path));
            if !there && is_said(object, &field.because) {
                remove(object, &field.path);
            }
        }
    }
}

impl Dropping {
    /// Complains of values that the gates do not allow.
    fn refused(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = ErrorList::default();
        for (path, gated) in &self.values {
            if old.is_some_and(|old| is_set(old, path)) {
                continue;
            }
            let pointer = format!("/{}", path.replace('.', "/"));
            if object.pointer(&pointer).is_some_and(|v| v == gated.value) {
                let path = path
                    .split('.')
                    .fold(Path::root(), |path, step| path.child(step.to_owned()));
                errors.push(FieldError::not_supported(&path, gated.value, gated.others));
            }
        }
        errors
    }
}

impl Strategy for Dropping {
    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value) {
        self.drop_from(object, None);
        self.inner.prepare_create(cx, object);
    }

    fn validate_create(&self, cx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = self.inner.validate_create(cx, object);
        errors.extend(self.refused(object, None).0);
        errors
    }

    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value) {
        self.drop_from(object, Some(old));
        self.inner.prepare_update(cx, object, old);
    }

    fn validate_update(&self, cx: &Context<'_>, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.inner.validate_update(cx, object, old);
        errors.extend(self.refused(object, Some(old)).0);
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        self.inner.allow_create_on_update()
    }

    fn allow_unconditional_update(&self) -> bool {
        self.inner.allow_unconditional_update()
    }

    fn is_graceful(&self) -> bool {
        self.inner.is_graceful()
    }

    fn grace_period(&self, object: &Value, options: &DeleteOptions) -> Option<Duration> {
        self.inner.grace_period(object, options)
    }

    fn is_held(&self, object: &Value) -> bool {
        self.inner.is_held(object)
    }

    fn mark_deleting(&self, object: &mut Value) {
        self.inner.mark_deleting(object);
    }

    fn undeletable(&self, name: &str) -> Option<&'static str> {
        self.inner.undeletable(name)
    }

    fn garbage_collection(&self) -> GarbageCollection {
        self.inner.garbage_collection()
    }

    fn returns_deleted(&self) -> bool {
        self.inner.returns_deleted()
    }

    fn ttl(&self, object: &Value) -> Option<Duration> {
        self.inner.ttl(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_of_a_resource_and_a_gate_that_exist() {
        let own = FIELDS.iter().map(|field| (field.group, field.plural));
        for resource in own.chain(POD_SPECS.iter().map(|(group, plural, _)| (*group, *plural))) {
            let found = schema::resources()
                .iter()
                .any(|r| (r.group, r.plural) == resource);
            assert!(found, "{resource:?}");
        }
        let gates = FIELDS.iter().map(|field| field.gate);
        let values = POD_VALUES.iter().map(|value| value.gate);
        for gate in gates
            .chain(POD_FIELDS.iter().map(|(_, gate)| *gate))
            .chain(values)
        {
            let known = FeatureGates::parse(&format!("{gate}=true"));
            assert!(gate.is_empty() || known.is_ok(), "{gate}");
        }
    }

    #[test]
    fn a_field_goes_unless_it_was_there() {
        let path = "spec.containers.[].lifecycle.stopSignal";
        let pod =
            json!({"spec": {"containers": [{"name": "a"}, {"lifecycle": {"stopSignal": "S"}}]}});
        assert!(is_set(&pod, path));
        let mut dropped = pod.clone();
        remove(&mut dropped, path);
        assert_eq!(
            dropped,
            json!({"spec": {"containers": [{"name": "a"}, {}]}})
        );
        assert!(!is_set(&dropped, path));
    }

    #[test]
    fn an_empty_text_asks_for_no_feature() {
        let claim = |namespace| json!({"spec": {"dataSourceRef": {"namespace": namespace}}});
        let path = "spec.dataSourceRef.namespace";
        assert!(is_said(&claim("other"), path));
        assert!(!is_said(&claim(""), path));
        assert!(!is_said(&json!({"spec": {"dataSourceRef": {}}}), path));
    }

    #[test]
    fn fields_of_one_feature_go_or_stay_together() {
        let path = "spec.devices.[].attributes.[].bools|ints";
        let mut slice =
            json!({"spec": {"devices": [{"attributes": {"a": {"int": 1, "ints": [1]}}}]}});
        assert!(is_set(&slice, path));
        remove(&mut slice, path);
        assert_eq!(
            slice["spec"]["devices"][0]["attributes"],
            json!({"a": {"int": 1}})
        );
    }

    #[test]
    fn a_value_without_its_gate_is_refused_unless_the_field_was_there() {
        let gates = FeatureGates::parse("").unwrap();
        let gated = POD_VALUES.iter().map(|v| (format!("spec.{}", v.field), v));
        let pods = Dropping {
            inner: Box::new(super::super::pods::Pods),
            fields: Vec::new(),
            values: gated.filter(|(_, v)| !gates.enabled(v.gate)).collect(),
        };
        let pod = |policy| json!({"spec": {"securityContext": {"seLinuxChangePolicy": policy}}});
        let refused = pods.refused(&pod("MountOption"), None);
        assert_eq!(
            refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\""
            ]
        );
        assert!(pods.refused(&pod("Recursive"), None).is_empty());
        assert!(
            pods.refused(&pod("MountOption"), Some(&pod("Recursive")))
                .is_empty()
        );
    }
}
