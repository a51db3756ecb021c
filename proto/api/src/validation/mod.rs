//! Validation: the rules of each kind on create and on update, with upstream's field
//! paths, reasons and messages.
//!
//! One file per group or large kind; `RULES` lists the kinds. A kind that is not in
//! it is held to its metadata's rules and its schema (types, enums) only.
//!
//! What must not be here: rules that need other objects (admission).

mod app_armor;
mod apps;
mod at;
mod autoscaling;
mod batch;
mod certificates;
mod classes;
mod conditions;
mod container;
mod coordination;
mod cron;
mod device_selector;
mod discovery;
mod env;
mod event;
mod flowcontrol;
mod go_url;
mod job;
mod job_status;
mod metadata;
mod mounts;
mod networking;
mod node;
mod objects;
pub(crate) mod pem;
mod pod;
mod pod_certificates;
mod pod_parts;
mod pod_status;
mod pod_update;
mod policies;
mod quota;
mod ratchet;
mod raw;
mod rbac;
mod registrations;
mod requirements;
mod resource;
mod resource_slice;
mod same;
mod semver;
mod service;
mod storage;
mod sysctls;
mod volume;
mod volume_source;
mod webhooks;
mod windows;
mod workload;

pub use service::addresses as service_addresses;

use meta::field::ErrorList;
use meta::validation as format;
use serde_json::Value;

use at::At;
pub use metadata::field_manager;

/// How an object's `metadata.name` must look.
type NameRule = fn(&str) -> Vec<String>;

/// What one kind asks of its objects beyond metadata.
struct Rules {
    group: &'static str,
    kind: &'static str,
    name: NameRule,
    /// The whole object, on create and on update.
    object: fn(&At<'_>, &mut ErrorList),
    /// What an update may not do.
    update: fn(new: &At<'_>, old: &At<'_>, &mut ErrorList),
    /// What an update of the `status` subresource may not do or say.
    status: fn(new: &At<'_>, old: &At<'_>, &mut ErrorList),
}

impl Rules {
    fn broken_by(&self, object: &At<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        (self.object)(object, &mut errors);
        errors
    }
}

fn anything(_: &At<'_>, _: &mut ErrorList) {}
fn any_update(_: &At<'_>, _: &At<'_>, _: &mut ErrorList) {}

const RULES: &[&[Rules]] = &[
    apps::RULES,
    autoscaling::RULES,
    batch::RULES,
    certificates::RULES,
    classes::RULES,
    coordination::RULES,
    discovery::RULES,
    event::RULES,
    flowcontrol::RULES,
    networking::RULES,
    node::RULES,
    objects::RULES,
    pod::RULES,
    workload::RULES,
    policies::RULES,
    quota::RULES,
    rbac::RULES,
    registrations::RULES,
    resource::RULES,
    resource_slice::RULES,
    service::RULES,
    storage::RULES,
    webhooks::RULES,
];

/// What holds for new objects only: those that are there may go on breaking it, or it
/// cannot change any more.
fn created(group: &str, kind: &str) -> fn(&At<'_>, &mut ErrorList) {
    match (group, kind) {
        ("", "Pod") => pod::created,
        ("", "Service") => service::created,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::request_created,
        ("certificates.k8s.io", "ClusterTrustBundle") => certificates::trust_bundle_created,
        ("certificates.k8s.io", "PodCertificateRequest") => pod_certificates::created,
        ("resource.k8s.io", "ResourceClaim") => resource::claim_created,
        ("resource.k8s.io", "ResourcePoolStatusRequest") => {
            resource_slice::pool_status_request_created
        }
        ("apps", "ControllerRevision") => apps::controller_revision_created,
        ("apps", "StatefulSet") => apps::stateful_set_created,
        ("networking.k8s.io", "Ingress") => networking::ingress_created,
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler_created,
        ("batch", "Job") => job::created,
        ("batch", "CronJob") => cron::created,
        ("events.k8s.io", "Event") => event::created,
        ("", "Namespace") => objects::namespace_finalizers,
        ("", "PersistentVolumeClaim") => {
            |claim, errors| storage::claim_created(&claim.get("spec"), errors)
        }
        ("scheduling.k8s.io", "PodGroup") => workload::group_created,
        ("scheduling.k8s.io", "PriorityClass") => objects::priority_class_created,
        ("scheduling.k8s.io", "Workload") => workload::created,
        ("networking.k8s.io", "ServiceCIDR") => networking::service_cidr_created,
        ("storage.k8s.io", "CSIDriver") => classes::driver_created,
        _ => anything,
    }
}

/// Rules of group, kind and object that came late: an object that broke one already may go on
/// breaking it.
const TOLERATED: [fn(&str, &str, &At<'_>, &mut ErrorList); 5] = [
    sysctls::of_host,
    pod::node_affinity_values,
    webhooks::without_side_effects,
    webhooks::recognized_reviews,
    webhooks::unique_names,
];

/// Complains of a field that is absent or empty; says whether it is there.
fn required(field: &At<'_>, errors: &mut ErrorList) -> bool {
    let given = field.is_given();
    if !given {
        field.required(errors, "");
    }
    given
}

fn rules(group: &str, kind: &str) -> Option<&'static Rules> {
    RULES
        .iter()
        .flat_map(|group| group.iter())
        .find(|r| r.group == group && r.kind == kind)
}

fn name_rule(rules: Option<&Rules>) -> NameRule {
    rules.map_or(format::path_segment_name, |rules| rules.name)
}

/// Checks an object that is about to be created. `metadata.name` is set by now.
pub fn create(group: &str, kind: &str, namespaced: bool, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = At::root(object);
    let rules = rules(group, kind);
    let name = name_rule(rules);
    let of = (group, kind);
    let metadata = |errors: &mut ErrorList| {
        metadata::create(of, &at.get("metadata"), namespaced, name, errors);
    };
    // Kinds that upstream looks at before it looks at their metadata.
    let metadata_last = matches!(of, ("", "Event") | ("policy", "PodDisruptionBudget"));
    if !metadata_last {
        metadata(&mut errors);
    }
    if let Some(rules) = rules {
        (rules.object)(&at, &mut errors);
    }
    created(group, kind)(&at, &mut errors);
    for rule in TOLERATED {
        rule(group, kind, &at, &mut errors);
    }
    if metadata_last && errors.is_empty() {
        metadata(&mut errors);
    }
    errors
}

/// Checks an update of the object itself (no subresource).
pub fn update(group: &str, kind: &str, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (new, old) = (At::root(new), At::root(old));
    let metas = [&new, &old].map(|at| at.get("metadata"));
    let rules = rules(group, kind);
    let name = name_rule(rules);
    metadata::update((group, kind), &metas[0], &metas[1], name, &mut errors);
    if let Some(rules) = rules {
        (rules.object)(&new, &mut errors);
        ratchet::tolerate((group, kind), &new, &old, &mut errors, || {
            rules.broken_by(&old)
        });
        (rules.update)(&new, &old, &mut errors);
    }
    for rule in TOLERATED {
        let mut before = ErrorList::new();
        rule(group, kind, &old, &mut before);
        if before.is_empty() {
            rule(group, kind, &new, &mut errors);
        }
    }
    errors
}

/// Checks an update of the `status` subresource.
pub fn update_status(group: &str, kind: &str, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (new, old) = (At::root(new), At::root(old));
    let metas = [&new, &old].map(|at| at.get("metadata"));
    metadata::persistent((group, kind), &metas[0], &metas[1], &mut errors);
    let rules = rules(group, kind);
    // Alone among them it is checked as a whole.
    if (group, kind) == ("storage.k8s.io", "VolumeAttachment") {
        metadata::prefix((group, kind), &metas[0], name_rule(rules), &mut errors);
    }
    if let Some(rules) = rules {
        (rules.status)(&new, &old, &mut errors);
    }
    errors
}

/// Checks an update of a subresource other than `status` that shows the object itself.
pub fn update_part(
    group: &str,
    kind: &str,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let (new, old) = (At::root(new), At::root(old));
    let metas = [&new, &old].map(|at| at.get("metadata"));
    metadata::persistent((group, kind), &metas[0], &metas[1], &mut errors);
    if let Some(rules) = rules(group, kind) {
        (rules.object)(&new, &mut errors);
        ratchet::tolerate((group, kind), &new, &old, &mut errors, || {
            rules.broken_by(&old)
        });
    }
    match (group, kind, subresource) {
        ("", "Pod", "ephemeralcontainers") => {
            pod_parts::ephemeral_containers(&new, &old, &mut errors);
        }
        ("", "Namespace", "finalize") => {
            metadata::namespace_finalizers(&new.get("spec").get("finalizers"), &mut errors);
        }
        ("", "Pod", "resize") => pod_parts::resize(&new, &old, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest", "approval") => {
            certificates::request_update(&new, &old, subresource, &mut errors);
        }
        _ => {}
    }
    errors
}

#[cfg(test)]
mod tests;
