//! Fields that are there only for a feature: what a client says in them is dropped while the
//! gate is off, unless the object has it already (KEP-3136's rule for alpha fields); and fields
//! that nobody may write any more.
//!
//! What must not be here: which gates there are (`component::features`).

use std::time::Duration;

use component::features::FeatureGates;
use meta::field::ErrorList;
use serde_json::{Map, Value};

use super::deletion::GarbageCollection;
use super::options::DeleteOptions;
use super::strategy::{Context, Strategy};

/// A field of a resource. In the path `[]` stands for every item of a list.
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

/// A kind's strategy that never sees what is dropped.
pub struct Dropping {
    inner: Box<dyn Strategy>,
    fields: Vec<Field>,
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
    if fields.is_empty() {
        strategy
    } else {
        Box::new(Dropping {
            inner: strategy,
            fields,
        })
    }
}

/// Whether any field of that path is set.
fn is_set(object: &Value, path: &str) -> bool {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let below = |value: &Value| rest.is_empty() || is_set(value, rest);
    match step {
        "[]" => object.as_array().into_iter().flatten().any(below),
        name => object.get(name).is_some_and(below),
    }
}

fn remove(object: &mut Value, path: &str) {
    match path.split_once('.') {
        None => {
            if let Some(members) = object.as_object_mut() {
                members.remove(path);
            }
        }
        Some(("[]", rest)) => {
            let items = object.as_array_mut().into_iter().flatten();
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
            if !there && is_set(object, &field.because) {
                remove(object, &field.path);
            }
        }
    }
}

impl Strategy for Dropping {
    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value) {
        self.drop_from(object, None);
        self.inner.prepare_create(cx, object);
    }

    fn validate_create(&self, cx: &Context<'_>, object: &Value) -> ErrorList {
        self.inner.validate_create(cx, object)
    }

    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value) {
        self.drop_from(object, Some(old));
        self.inner.prepare_update(cx, object, old);
    }

    fn validate_update(&self, cx: &Context<'_>, object: &Value, old: &Value) -> ErrorList {
        self.inner.validate_update(cx, object, old)
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
        for gate in gates.chain(POD_FIELDS.iter().map(|(_, gate)| *gate)) {
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
}
