//! Fields that are there only for a feature: what a client says in them is dropped while the
//! gate is off, unless the object has it already (KEP-3136's rule for alpha fields); fields
//! that nobody may write any more; and what is refused or filled in by a gate (`values`).
//!
//! What must not be here: which gates there are (`component::features`).

mod values;

use std::time::Duration;

use component::features::FeatureGates;
use meta::field::{ErrorList, Path};
use serde_json::{Map, Value};

use super::deletion::GarbageCollection;
use super::options::DeleteOptions;
use super::strategy::{Context, Strategy};
use values::{FILLED, Guarded, OF_AUTOSCALERS, OF_PODS};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    On,
    Off,
}

/// A kind's strategy that never sees what is dropped.
pub struct Dropping {
    inner: Box<dyn Strategy>,
    fields: Vec<Field>,
    /// Where to look for what takes a gate.
    guarded: Vec<(&'static str, Gate, &'static Guarded)>,
    filled: Vec<fn(&mut Value)>,
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
    let guarded: Vec<_> = POD_SPECS
        .iter()
        .map(|(group, plural, spec)| (*group, *plural, *spec, OF_PODS))
        .chain([(
            "autoscaling",
            "horizontalpodautoscalers",
            "spec",
            OF_AUTOSCALERS,
        )])
        .filter(|(g, p, ..)| (*g, *p) == (group, plural))
        .flat_map(|(_, _, spec, guarded)| guarded.iter().map(move |one| (spec, one)))
        .map(|(spec, one)| match off(one.gate) {
            true => (spec, Gate::Off, one),
            false => (spec, Gate::On, one),
        })
        .collect();
    let filled: Vec<_> = FILLED
        .iter()
        .filter(|one| (one.group, one.plural) == (group, plural) && !off(one.gate))
        .map(|one| one.fill)
        .collect();
    if fields.is_empty() && guarded.is_empty() && filled.is_empty() {
        strategy
    } else {
        Box::new(Dropping {
            inner: strategy,
            fields,
            guarded,
            filled,
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
    /// Fills and drops. `old`: what it was.
    fn prepare(&self, object: &mut Value, old: Option<&Value>) {
        for fill in &self.filled {
            fill(object);
        }
        for field in &self.fields {
            let there = old.is_some_and(|old| is_set(old, &field.path));
            let asked = match field.because == field.path {
                true => is_set(object, &field.path),
                false => is_said(object, &field.because),
            };
            if !there && asked {
                remove(object, &field.path);
            }
        }
    }

    /// Complains of what the gates do not allow, or of how it is said.
    fn complaints(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = ErrorList::default();
        for (place, gate, guarded) in &self.guarded {
            let pointer = format!("/{}", place.replace('.', "/"));
            let before = old.and_then(|old| old.pointer(&pointer));
            let allowed = *gate == Gate::On || before.is_some_and(guarded.already);
            let complain = match allowed {
                true => guarded.allowed,
                false => guarded.refused,
            };
            if let Some(there) = object.pointer(&pointer) {
                let path = place.split('.').fold(Path::root(), |path, s| path.child(s));
                complain(there, &path, &mut errors);
            }
        }
        errors
    }
}

impl Strategy for Dropping {
    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value) {
        self.prepare(object, None);
        self.inner.prepare_create(cx, object);
    }

    fn validate_create(&self, cx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = self.inner.validate_create(cx, object);
        errors.extend(self.complaints(object, None).0);
        errors
    }

    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value) {
        self.prepare(object, Some(old));
        self.inner.prepare_update(cx, object, old);
    }

    fn validate_update(&self, cx: &Context<'_>, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.inner.validate_update(cx, object, old);
        errors.extend(self.complaints(object, Some(old)).0);
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
        let guarded = OF_PODS.iter().chain(OF_AUTOSCALERS).map(|one| one.gate);
        let filled = FILLED.iter().map(|one| one.gate);
        for gate in gates
            .chain(POD_FIELDS.iter().map(|(_, gate)| *gate))
            .chain(guarded)
            .chain(filled)
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
    fn what_lacks_its_gate_is_refused_unless_it_was_there() {
        let pods = Dropping {
            inner: Box::new(super::super::pods::Pods),
            fields: Vec::new(),
            guarded: (OF_PODS.iter())
                .map(|one| ("spec", Gate::Off, one))
                .collect(),
            filled: Vec::new(),
        };
        let pod = |policy| json!({"spec": {"securityContext": {"seLinuxChangePolicy": policy}}});
        assert_eq!(pods.complaints(&pod("MountOption"), None).iter().count(), 1);
        assert!(pods.complaints(&pod("Recursive"), None).is_empty());
        assert!(
            pods.complaints(&pod("MountOption"), Some(&pod("Recursive")))
                .is_empty()
        );
    }
}
