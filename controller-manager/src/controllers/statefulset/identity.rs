//! What makes a pod that very one of a StatefulSet: its name, labels and volumes. Pure.

use client::Object as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimVolumeSource, Pod as FullPod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::GroupVersionKind;
use meta::owner::new_controller_ref;

use super::claims;
use crate::kinds::Pod;
use crate::workload::pods::from_template;

/// On pods: the name of their revision.
pub const REVISION_LABEL: &str = "controller-revision-hash";
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// A pod of the set, there or to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Empty if it is still to be made.
    pub uid: String,
    pub ordinal: i64,
    /// Its ordinal is one that the set wants.
    pub stays: bool,
}

pub fn own_reference(set: &StatefulSet) -> OwnerReference {
    new_controller_ref(
        &set.metadata,
        &GroupVersionKind::new("apps", "v1", "StatefulSet"),
    )
}

/// The ordinal of a pod of the set of this name; `None`: it is none of its pods.
pub fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let ordinal = digits.parse::<i32>().ok().filter(|_| plain)?;
    Some(ordinal.into())
}

/// The set's ordinals: the first, and how many.
pub fn ordinals(set: &StatefulSet) -> (i64, usize) {
    let Some(spec) = &set.spec else {
        return (0, 0);
    };
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let count = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    (start.into(), count)
}

/// The place of an ordinal among those that the set wants.
pub fn slot(set: &StatefulSet, ordinal: i64) -> Option<usize> {
    let (start, count) = ordinals(set);
    usize::try_from(ordinal - start).ok().filter(|i| *i < count)
}

pub fn name(set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.name())
}

pub fn revision(pod: &Pod) -> &str {
    let label = pod.metadata.labels.get(REVISION_LABEL);
    label.map_or("", String::as_str)
}

/// Whether the pod has the labels and volumes of its ordinal.
pub fn is_whole(set: &StatefulSet, pod: &Pod, ordinal: i64) -> bool {
    let labelled = pod
        .metadata
        .labels
        .get(POD_NAME_LABEL)
        .is_some_and(|l| l == pod.name());
    labelled
        && *pod.metadata.name == *name(set, ordinal)
        && claims::names(set, ordinal).all(|(volume, claim)| {
            let mut volumes = pod.spec.volumes.iter();
            volumes.any(|v| {
                let source = v.persistent_volume_claim.as_ref();
                *v.name == *volume && source.is_some_and(|s| *s.claim_name == *claim)
            })
        })
}

/// Gives the pod the labels and volumes of its ordinal.
pub fn make_whole(set: &StatefulSet, pod: &mut FullPod, ordinal: i64) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name(set, ordinal));
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    let claimed = claims::names(set, ordinal).map(|(volume, claim_name)| Volume {
        name: volume.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name,
            read_only: None,
        }),
        ..Volume::default()
    });
    let mut volumes: Vec<Volume> = claimed.collect();
    let spec = pod.spec.get_or_insert_default();
    let others = spec.volumes.take().unwrap_or_default().into_iter();
    let own = volumes.len();
    for volume in others {
        if !volumes[..own].iter().any(|v| v.name == volume.name) {
            volumes.push(volume);
        }
    }
    spec.volumes = Some(volumes).filter(|v| !v.is_empty());
}

/// The pod of an ordinal, of a revision's template.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i64) -> FullPod {
    let mut pod = from_template(
        set.namespace(),
        set.name(),
        Some(template),
        own_reference(set),
    );
    let own = name(set, ordinal);
    pod.metadata.name = Some(own.clone());
    make_whole(set, &mut pod, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(own);
    let service = set.spec.as_ref().and_then(|s| s.service_name.clone());
    spec.subdomain = service.filter(|s| !s.is_empty());
    pod
}
