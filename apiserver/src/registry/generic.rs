//! The strategy of every kind that is not special: which kinds count generations, which
//! may be created by PUT and so on is a table; validation is `proto/api`'s.
//!
//! What must not be here: rules that need code for one kind.

use std::time::Duration;

use api::same::{By, differing, same};
use api::validation;
use jiff::Timestamp;
use meta::field::ErrorList;
use schema::{Message, Resource};
use serde_json::{Value, json};

use super::claims;
use super::conditions;
use super::deletion::GarbageCollection;
use super::object_meta::{
    child_mut, keep, meta, meta_mut, semantically_equal, set, set_generation, time,
};
use super::strategy::{Context, Strategy};

/// What distinguishes kinds that need no code of their own.
#[derive(Debug, Clone, Copy)]
struct Traits {
    group: &'static str,
    plural: &'static str,
    generation: Generation,
    /// Metadata that an update of the status leaves alone.
    kept_meta: &'static [&'static str],
    create_on_update: bool,
    unconditional_update: bool,
    returns_deleted: bool,
    gc: GarbageCollection,
    on_create: OnCreate,
    also: Also,
}

/// Whether `metadata.generation` grows when anything but status and metadata changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    No,
    /// Beginning with 1.
    Counted,
    /// The same, where an empty list is not an absent one.
    CountedStrictly,
    /// Beginning with what the client says.
    Continued,
    /// Always 1.
    First,
}

/// What becomes of the status that a client sends on create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnCreate {
    Reset,
    /// A node's status is its own to say.
    Keep,
    /// Everything begins as this.
    Phase(&'static str),
    /// An API that this server serves by itself is there.
    AvailableIfLocal,
}

/// What else counts or is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Also {
    Nothing,
    /// Annotations are copied to replica sets: they count as spec.
    Annotations,
    /// An annotation counts changes of the template.
    TemplateGeneration,
    /// Labels count as spec.
    Labels,
    /// The status says when its phase changed.
    PhaseTime,
    /// Two fields say where the content comes from.
    DataSource,
    /// What has no name is named by its uid.
    NamedByUid,
}

const PLAIN: Traits = Traits {
    group: "",
    plural: "",
    generation: Generation::No,
    kept_meta: &[],
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
            generation: Generation::Counted,
            ..self
        }
    }
    const fn strict_generation(self) -> Traits {
        Traits {
            generation: Generation::CountedStrictly,
            ..self
        }
    }
    const fn first_generation(self) -> Traits {
        Traits {
            generation: Generation::First,
            ..self
        }
    }
    const fn continued_generation(self) -> Traits {
        Traits {
            generation: Generation::Continued,
            ..self
        }
    }
    const fn available_if_local(self) -> Traits {
        Traits {
            on_create: OnCreate::AvailableIfLocal,
            ..self
        }
    }
    const fn keeps_meta(self) -> Traits {
        Traits {
            kept_meta: META_BUT_FOR_STATUS,
            ..self
        }
    }
    const fn keeps_labels(self) -> Traits {
        Traits {
            kept_meta: &["labels"],
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
    of("", "limitranges")
        .create_on_update()
        .also(Also::NamedByUid),
    of("", "nodes").on_create(OnCreate::Keep),
    of("", "persistentvolumes")
        .returns_deleted()
        .on_create(OnCreate::Phase("Pending"))
        .also(Also::PhaseTime),
    of("", "persistentvolumeclaims")
        .returns_deleted()
        .also(Also::DataSource),
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
        .strict_generation()
        .conditional_update(),
    of(ADMISSION, "validatingadmissionpolicies")
        .generation()
        .keeps_meta()
        .conditional_update(),
    of(ADMISSION, "validatingadmissionpolicybindings")
        .generation()
        .conditional_update(),
    of(ADMISSION, "validatingwebhookconfigurations")
        .strict_generation()
        .conditional_update(),
    of("apiextensions.k8s.io", "customresourcedefinitions")
        .generation()
        .conditional_update(),
    of("apiregistration.k8s.io", "apiservices")
        .conditional_update()
        .available_if_local(),
    of("apps", "daemonsets")
        .generation()
        .also(Also::TemplateGeneration),
    of("apps", "deployments")
        .generation()
        .keeps_labels()
        .also(Also::Annotations),
    of("apps", "replicasets").generation(),
    of("apps", "statefulsets").generation(),
    of("batch", "cronjobs").generation(),
    of("batch", "jobs").generation().orphans(),
    of("certificates.k8s.io", "clustertrustbundles").conditional_update(),
    of("certificates.k8s.io", "podcertificaterequests")
        .conditional_update()
        .keeps_meta(),
    of("coordination.k8s.io", "leasecandidates")
        .create_on_update()
        .conditional_update(),
    of("coordination.k8s.io", "leases")
        .create_on_update()
        .conditional_update(),
    of("discovery.k8s.io", "endpointslices")
        .generation()
        .also(Also::Labels),
    of("flowcontrol.apiserver.k8s.io", "flowschemas")
        .generation()
        .keeps_meta(),
    of(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
    )
    .generation()
    .keeps_meta(),
    of("internal.apiserver.k8s.io", "storageversions")
        .conditional_update()
        .keeps_meta(),
    of("networking.k8s.io", "ingressclasses").generation(),
    of("networking.k8s.io", "ingresses").generation(),
    of("networking.k8s.io", "networkpolicies").strict_generation(),
    of("networking.k8s.io", "servicecidrs").keeps_meta(),
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
        .returns_deleted()
        .keeps_meta(),
    of("resource.k8s.io", "resourceclaims")
        .returns_deleted()
        .keeps_meta(),
    of("resource.k8s.io", "resourceclaimtemplates").returns_deleted(),
    of("resource.k8s.io", "resourcepoolstatusrequests")
        .conditional_update()
        .returns_deleted()
        .keeps_meta(),
    of("resource.k8s.io", "resourceslices")
        .generation()
        .returns_deleted(),
    of("scheduling.k8s.io", "podgroups").keeps_meta(),
    of("scheduling.k8s.io", "priorityclasses").first_generation(),
    of("storage.k8s.io", "csidrivers")
        .continued_generation()
        .conditional_update()
        .returns_deleted(),
    of("storage.k8s.io", "csinodes")
        .conditional_update()
        .returns_deleted(),
    of("storage.k8s.io", "csistoragecapacities").conditional_update(),
    of("storage.k8s.io", "storageclasses").returns_deleted(),
    of("storage.k8s.io", "volumeattachments")
        .conditional_update()
        .returns_deleted()
        .keeps_meta(),
    of("storage.k8s.io", "volumeattributesclasses").returns_deleted(),
    of("storagemigration.k8s.io", "storageversionmigrations")
        .conditional_update()
        .keeps_meta(),
];

/// Where `apps/v1` keeps what was once `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Value) -> i64 {
    meta(object)
        .annotation(TEMPLATE_GENERATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn same_template(object: &Value, old: &Value) -> bool {
    let template = schema::message("io.k8s.api.core.v1.PodTemplateSpec");
    let (now, before) = (object["spec"].get("template"), old["spec"].get("template"));
    template.is_some_and(|message| same(message, now, before, By::Meaning))
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
pub fn spec_changed(message: &Message, object: &Value, old: &Value, by: By) -> bool {
    let changed = differing(message, Some(object), Some(old), by);
    changed
        .iter()
        .any(|field| !matches!(*field, "metadata" | "status" | "apiVersion" | "kind" | ""))
}

/// For an update of `status`: everything else stays as it was.
pub fn keep_all_but_status(object: &mut Value, old: &Value) {
    let own = |key: &str| matches!(key, "metadata" | "status" | "apiVersion" | "kind");
    if let Some(members) = object.as_object_mut() {
        members.retain(|key, _| own(key) || old.get(key).is_some());
    }
    for key in old.as_object().into_iter().flat_map(|old| old.keys()) {
        if !own(key) {
            keep(object, old, key);
        }
    }
}

/// What updates that are no way to change metadata leave as it was
/// (`ResetObjectMetaForStatus`).
pub const META_BUT_FOR_STATUS: &[&str] =
    &["labels", "annotations", "finalizers", "ownerReferences"];

/// For an update of a status that is no way to change metadata.
pub fn keep_meta(object: &mut Value, old: &Value, kept: &[&str]) {
    let before = old.get("metadata").cloned().unwrap_or_default();
    let mut meta = Value::Object(std::mem::take(meta_mut(object)));
    for key in kept {
        keep(&mut meta, &before, key);
    }
    object["metadata"] = meta;
}

const PHASE_TIME: &str = "lastPhaseTransitionTime";

/// Notes when the phase changed, unless the client says it.
fn note_phase_time(object: &mut Value, old: &Value, now: jiff::Timestamp) {
    let before = old.get("status").cloned().unwrap_or_default();
    let status = child_mut(object, "status");
    let said = status.get(PHASE_TIME).filter(|t| !t.is_null());
    let same_phase = semantically_equal(status.get("phase"), before.get("phase"));
    if same_phase && said.is_none() {
        set(status, PHASE_TIME, before.get(PHASE_TIME).cloned());
    } else if !same_phase && (said.is_none() || said == before.get(PHASE_TIME)) {
        status.insert(PHASE_TIME.into(), time(now));
    }
}

/// Says of an APIService without a service that it is served.
fn available(object: &mut Value, now: Timestamp) {
    let message = "Local APIServices are always available";
    conditions::set(object, "Available", "True", "Local", message, now);
}

impl Strategy for Generic {
    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value) {
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
                OnCreate::AvailableIfLocal => {
                    members.remove("status");
                    if object["spec"]["service"].is_null() {
                        available(object, cx.now);
                    }
                }
            }
        }
        if self.traits.also == Also::PhaseTime {
            object["status"][PHASE_TIME] = time(cx.now);
        }
        if self.traits.also == Also::DataSource {
            claims::settle_source(object, None);
        }
        if self.traits.also == Also::NamedByUid && meta(object).name().is_empty() {
            let uid = meta(object).uid().to_owned();
            meta_mut(object).insert("name".into(), uid.into());
        }
        if self.traits.also == Also::TemplateGeneration {
            let generation = template_generation(object).max(1);
            set_template_generation(object, generation);
        }
        if matches!(
            self.traits.generation,
            Generation::Counted | Generation::CountedStrictly | Generation::First
        ) {
            set_generation(object, 1);
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> ErrorList {
        let r = self.resource;
        validation::create(r.group, r.kind, r.namespaced, object)
    }

    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value) {
        if !cx.subresource.is_empty() {
            keep_all_but_status(object, old);
            keep_meta(object, old, self.traits.kept_meta);
            if self.traits.also == Also::TemplateGeneration {
                set_template_generation(object, template_generation(old));
            }
            if self.traits.also == Also::PhaseTime {
                note_phase_time(object, old, cx.now);
            }
            return;
        }
        if self.has_status {
            keep(object, old, "status");
        }
        // Upstream's controller notices that it has become local; nobody else has to be asked.
        if self.traits.on_create == OnCreate::AvailableIfLocal
            && object["spec"]["service"].is_null()
            && !old["spec"]["service"].is_null()
        {
            available(object, cx.now);
        }
        if self.traits.also == Also::DataSource {
            claims::settle_source(object, Some(old));
        }
        if self.traits.also == Also::TemplateGeneration {
            let same = same_template(object, old);
            set_template_generation(object, template_generation(old) + i64::from(!same));
        }
        let annotated = self.traits.also == Also::Annotations
            && !semantically_equal(
                meta(object).get("annotations"),
                meta(old).get("annotations"),
            );
        let labelled = self.traits.also == Also::Labels
            && !semantically_equal(meta(object).get("labels"), meta(old).get("labels"));
        let by = if self.traits.generation == Generation::CountedStrictly {
            By::Value
        } else {
            By::Meaning
        };
        let changed = || spec_changed(self.resource.message, object, old, by);
        if !matches!(self.traits.generation, Generation::No | Generation::First)
            && (annotated || labelled || changed())
        {
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

    fn undeletable(&self, name: &str) -> Option<&'static str> {
        let classes = ("scheduling.k8s.io", "PriorityClass");
        let system = matches!(name, "system-node-critical" | "system-cluster-critical");
        let is_system = (self.resource.group, self.resource.kind) == classes && system;
        is_system.then_some("this is a system priority class and cannot be deleted")
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
            group: "",
            verb: "update",
            user,
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
            subresource,
            warnings: None,
        }
    }

    fn generic(group: &str, plural: &str) -> Generic {
        let resource = schema::resources()
            .iter()
            .find(|r| r.group == group && r.plural == plural)
            .unwrap();
        Generic::new(resource)
    }

    #[test]
    fn a_volumes_phase_has_a_time() {
        let (volumes, user) = (generic("", "persistentvolumes"), user());
        let mut cx = context(&user, "");
        let mut volume = json!({"metadata": {}});
        volumes.prepare_create(&cx, &mut volume);
        assert_eq!(volume["status"][PHASE_TIME], "1970-01-01T00:00:00Z");

        cx.subresource = "status";
        cx.now = "2024-01-01T00:00:00Z".parse().unwrap();
        let mut same = json!({"metadata": {}, "status": {"phase": "Pending"}});
        volumes.prepare_update(&cx, &mut same, &volume);
        assert_eq!(same["status"][PHASE_TIME], "1970-01-01T00:00:00Z");
        let mut bound = volume.clone();
        bound["status"]["phase"] = json!("Bound");
        volumes.prepare_update(&cx, &mut bound, &volume);
        assert_eq!(bound["status"][PHASE_TIME], "2024-01-01T00:00:00Z");
    }

    #[test]
    fn a_status_that_keeps_metadata_does() {
        let user = user();
        for (group, plural) in [
            ("resource.k8s.io", "resourcepoolstatusrequests"),
            ("scheduling.k8s.io", "podgroups"),
            ("storage.k8s.io", "volumeattachments"),
        ] {
            let old = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["example.com/a"],
                                          "resourceVersion": "1"}});
            let mut new = json!({"metadata": {"annotations": {"c": "d"}, "resourceVersion": "2"},
                                 "status": {"conditions": []}});
            let mut kept = old.clone();
            kept["metadata"]["resourceVersion"] = json!("2");
            kept["status"] = new["status"].clone();
            generic(group, plural).prepare_update(&context(&user, "status"), &mut new, &old);
            assert_eq!(new, kept, "{plural}");
        }
    }

    #[test]
    fn an_api_that_becomes_local_is_available() {
        let (services, user) = (generic("apiregistration.k8s.io", "apiservices"), user());
        let old = json!({"metadata": {}, "spec": {"service": {"name": "a"}}});
        let mut new = json!({"metadata": {}, "spec": {}});
        services.prepare_update(&context(&user, ""), &mut new, &old);
        assert_eq!(conditions::status(&new, "Available"), "True");
        let mut same = old.clone();
        services.prepare_update(&context(&user, ""), &mut same, &old);
        assert_eq!(same, old);
    }

    #[test]
    fn labels_of_endpoint_slices_count() {
        let (slices, user) = (generic("discovery.k8s.io", "endpointslices"), user());
        let old = json!({"metadata": {"generation": 1}});
        let mut new = json!({"metadata": {"generation": 1, "labels": {"a": "b"}}});
        slices.prepare_update(&context(&user, ""), &mut new, &old);
        assert_eq!(new["metadata"]["generation"], 2);
        let mut annotated = json!({"metadata": {"generation": 1, "annotations": {"a": "b"}}});
        slices.prepare_update(&context(&user, ""), &mut annotated, &old);
        assert_eq!(annotated["metadata"]["generation"], 1);
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
