//! The strategy of every kind that is not special: which kinds count generations, which
//! may be created by PUT and so on is a table; validation is `proto/api`'s.
//!
//! What must not be here: rules that need code for one kind.

use std::time::Duration;

use api::validation;
use meta::field::ErrorList;
use schema::Resource;
use serde_json::{Value, json};

use super::deletion::GarbageCollection;
use super::object_meta::{child_mut, keep, meta, semantically_equal, set_generation};
use super::strategy::{Context, Strategy};

/// What distinguishes kinds that need no code of their own.
#[derive(Debug, Clone, Copy)]
struct Traits {
    group: &'static str,
    plural: &'static str,
    /// `metadata.generation` is 1 at first and grows when anything but status and
    /// metadata changes.
    generation: bool,
    create_on_update: bool,
    unconditional_update: bool,
    returns_deleted: bool,
    gc: GarbageCollection,
    on_create: OnCreate,
    also: Also,
}

/// What becomes of the status that a client sends on create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnCreate {
    Reset,
    /// A node's status is its own to say.
    Keep,
    /// Everything begins as this.
    Phase(&'static str),
}

/// What else counts or is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Also {
    Nothing,
    /// Annotations are copied to replica sets: they count as spec.
    Annotations,
    /// An annotation counts changes of the template.
    TemplateGeneration,
}

const PLAIN: Traits = Traits {
    group: "",
    plural: "",
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    returns_deleted: false,
    gc: GarbageCollection::Dependents,
    on_create: OnCreate::Reset,
    also: Also::Nothing,
};

const fn of(group: &'static str, plural: &'static str) -> Traits {
    Traits {
        group,
        plural,
        ..PLAIN
    }
}

impl Traits {
    const fn generation(self) -> Traits {
        Traits {
            generation: true,
            ..self
        }
    }
    const fn create_on_update(self) -> Traits {
        Traits {
            create_on_update: true,
            ..self
        }
    }
    const fn conditional_update(self) -> Traits {
        Traits {
            unconditional_update: false,
            ..self
        }
    }
    const fn returns_deleted(self) -> Traits {
        Traits {
            returns_deleted: true,
            ..self
        }
    }
    const fn on_create(self, on_create: OnCreate) -> Traits {
        Traits { on_create, ..self }
    }
    const fn also(self, also: Also) -> Traits {
        Traits { also, ..self }
    }
    const fn orphans(self) -> Traits {
        Traits {
            gc: GarbageCollection::Orphan,
            ..self
        }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// Kinds that differ from [`PLAIN`].
const TRAITS: &[Traits] = &[
    of("", "endpoints").create_on_update(),
    of("", "limitranges").create_on_update(),
    of("", "nodes").on_create(OnCreate::Keep),
    of("", "persistentvolumes")
        .returns_deleted()
        .on_create(OnCreate::Phase("Pending")),
    of("", "persistentvolumeclaims")
        .returns_deleted()
        .on_create(OnCreate::Phase("Pending")),
    of("", "podtemplates").generation().returns_deleted(),
    of("", "replicationcontrollers").generation().orphans(),
    of("", "resourcequotas").returns_deleted(),
    of("", "serviceaccounts").returns_deleted(),
    of(ADMISSION, "mutatingadmissionpolicies")
        .generation()
        .conditional_update(),
    of(ADMISSION, "mutatingadmissionpolicybindings")
        .generation()
        .conditional_update(),
    of(ADMISSION, "mutatingwebhookconfigurations")
        .generation()
        .conditional_update(),
    of(ADMISSION, "validatingadmissionpolicies")
        .generation()
        .conditional_update(),
    of(ADMISSION, "validatingadmissionpolicybindings")
        .generation()
        .conditional_update(),
    of(ADMISSION, "validatingwebhookconfigurations")
        .generation()
        .conditional_update(),
    of("apiextensions.k8s.io", "customresourcedefinitions")
        .generation()
        .conditional_update(),
    of("apiregistration.k8s.io", "apiservices").conditional_update(),
    of("apps", "daemonsets")
        .generation()
        .also(Also::TemplateGeneration),
    of("apps", "deployments")
        .generation()
        .also(Also::Annotations),
    of("apps", "replicasets").generation(),
    of("apps", "statefulsets").generation(),
    of("batch", "cronjobs").generation(),
    of("batch", "jobs").generation().orphans(),
    of("certificates.k8s.io", "clustertrustbundles").conditional_update(),
    of("certificates.k8s.io", "podcertificaterequests").conditional_update(),
    of("coordination.k8s.io", "leasecandidates")
        .create_on_update()
        .conditional_update(),
    of("coordination.k8s.io", "leases")
        .create_on_update()
        .conditional_update(),
    of("discovery.k8s.io", "endpointslices").generation(),
    of("flowcontrol.apiserver.k8s.io", "flowschemas").generation(),
    of(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
    )
    .generation(),
    of("internal.apiserver.k8s.io", "storageversions").conditional_update(),
    of("networking.k8s.io", "ingressclasses").generation(),
    of("networking.k8s.io", "ingresses").generation(),
    of("networking.k8s.io", "networkpolicies").generation(),
    of("node.k8s.io", "runtimeclasses")
        .create_on_update()
        .conditional_update(),
    of("policy", "poddisruptionbudgets")
        .generation()
        .conditional_update(),
    of(RBAC, "clusterrolebindings").create_on_update(),
    of(RBAC, "clusterroles").create_on_update(),
    of(RBAC, "rolebindings").create_on_update(),
    of(RBAC, "roles").create_on_update(),
    of("resource.k8s.io", "deviceclasses")
        .generation()
        .returns_deleted(),
    of("resource.k8s.io", "devicetaintrules")
        .generation()
        .returns_deleted(),
    of("resource.k8s.io", "resourceclaims").returns_deleted(),
    of("resource.k8s.io", "resourceclaimtemplates").returns_deleted(),
    of("resource.k8s.io", "resourceslices")
        .generation()
        .returns_deleted(),
    of("scheduling.k8s.io", "priorityclasses").generation(),
    of("storage.k8s.io", "csidrivers")
        .generation()
        .conditional_update()
        .returns_deleted(),
    of("storage.k8s.io", "csinodes")
        .conditional_update()
        .returns_deleted(),
    of("storage.k8s.io", "csistoragecapacities").conditional_update(),
    of("storage.k8s.io", "storageclasses").returns_deleted(),
    of("storage.k8s.io", "volumeattachments")
        .conditional_update()
        .returns_deleted(),
    of("storage.k8s.io", "volumeattributesclasses").returns_deleted(),
    of("storagemigration.k8s.io", "storageversionmigrations").conditional_update(),
];

/// Where `apps/v1` keeps what was once `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Value) -> i64 {
    meta(object)
        .annotation(TEMPLATE_GENERATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    let annotations = child_mut(&mut object["metadata"], "annotations");
    annotations.insert(TEMPLATE_GENERATION.into(), json!(generation.to_string()));
}

/// Serves any resource by its schema and the table above.
#[derive(Debug)]
pub struct Generic {
    resource: &'static Resource,
    traits: Traits,
    has_status: bool,
}

impl Generic {
    pub fn new(resource: &'static Resource) -> Generic {
        Generic {
            resource,
            traits: *TRAITS
                .iter()
                .find(|t| t.group == resource.group && t.plural == resource.plural)
                .unwrap_or(&PLAIN),
            has_status: resource.subresources.iter().any(|s| s.name == "status"),
        }
    }
}

/// Whether anything but metadata and status differs.
pub fn spec_changed(object: &Value, old: &Value) -> bool {
    let relevant =
        |key: &&String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .map(|m| m.keys().filter(relevant).cloned().collect())
            .unwrap_or_default()
    };
    keys(object)
        .into_iter()
        .chain(keys(old))
        .any(|key| !semantically_equal(object.get(&key), old.get(&key)))
}

/// For an update of `status`: everything else stays as it was.
pub fn keep_all_but_status(object: &mut Value, old: &Value) {
    let keys: Vec<String> = object
        .as_object()
        .into_iter()
        .chain(old.as_object())
        .flat_map(|m| m.keys().cloned())
        .filter(|k| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
        .collect();
    for key in keys {
        keep(object, old, &key);
    }
}

impl Strategy for Generic {
    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        if self.has_status
            && let Some(members) = object.as_object_mut()
        {
            match self.traits.on_create {
                OnCreate::Keep => {}
                OnCreate::Reset => {
                    members.remove("status");
                }
                OnCreate::Phase(phase) => {
                    members.insert("status".into(), json!({"phase": phase}));
                }
            }
        }
        if self.traits.also == Also::TemplateGeneration {
            let generation = template_generation(object).max(1);
            set_template_generation(object, generation);
        }
        set_generation(object, i64::from(self.traits.generation));
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> ErrorList {
        let r = self.resource;
        validation::create(r.group, r.kind, r.namespaced, object)
    }

    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value) {
        if !cx.subresource.is_empty() {
            keep_all_but_status(object, old);
            return;
        }
        if self.has_status {
            keep(object, old, "status");
        }
        if self.traits.also == Also::TemplateGeneration {
            let same =
                semantically_equal(old["spec"].get("template"), object["spec"].get("template"));
            set_template_generation(object, template_generation(old) + i64::from(!same));
        }
        let annotated = self.traits.also == Also::Annotations
            && !semantically_equal(
                meta(object).get("annotations"),
                meta(old).get("annotations"),
            );
        if self.traits.generation && (annotated || spec_changed(object, old)) {
            set_generation(object, meta(old).generation() + 1);
        }
    }

    fn validate_update(&self, cx: &Context<'_>, object: &Value, old: &Value) -> ErrorList {
        let r = self.resource;
        if cx.subresource.is_empty() {
            validation::update(r.group, r.kind, object, old)
        } else {
            validation::update_status(r.group, r.kind, object, old)
        }
    }

    fn allow_create_on_update(&self) -> bool {
        self.traits.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.traits.unconditional_update
    }

    fn garbage_collection(&self) -> GarbageCollection {
        self.traits.gc
    }

    fn returns_deleted(&self) -> bool {
        self.traits.returns_deleted
    }

    fn ttl(&self, _object: &Value) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_trait_is_of_a_resource_that_exists() {
        for t in TRAITS {
            assert!(
                schema::resources()
                    .iter()
                    .any(|r| r.group == t.group && r.plural == t.plural),
                "{}/{}",
                t.group,
                t.plural
            );
        }
    }

    fn deployments() -> Generic {
        let resource = schema::resources()
            .iter()
            .find(|r| r.group == "apps" && r.plural == "deployments")
            .unwrap();
        Generic::new(resource)
    }

    fn user() -> crate::authn::User {
        crate::authn::User::default()
    }

    fn context<'a>(user: &'a crate::authn::User, subresource: &'a str) -> Context<'a> {
        Context {
            user,
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
            subresource,
        }
    }

    #[test]
    fn generations_count_changes_of_the_spec_only() {
        let (generic, user) = (deployments(), user());
        let mut object =
            json!({"metadata": {}, "spec": {"replicas": 1}, "status": {"replicas": 9}});
        generic.prepare_create(&context(&user, ""), &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"generation": 1}, "spec": {"replicas": 1}})
        );

        let old = json!({"metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let mut relabelled = json!({"metadata": {"generation": 1, "labels": {"a": "b"}},
                                    "spec": {"replicas": 1}, "status": {"replicas": 7}});
        generic.prepare_update(&context(&user, ""), &mut relabelled, &old);
        assert_eq!(relabelled["status"]["replicas"], 1);
        assert_eq!(relabelled["metadata"]["generation"], 1);

        let mut scaled = json!({"metadata": {"generation": 1}, "spec": {"replicas": 2}});
        generic.prepare_update(&context(&user, ""), &mut scaled, &old);
        assert_eq!(scaled["metadata"]["generation"], 2);

        let mut status = json!({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
        generic.prepare_update(&context(&user, "status"), &mut status, &old);
        assert_eq!(status["spec"]["replicas"], 1);
        assert_eq!(status["status"]["replicas"], 2);
    }
}
