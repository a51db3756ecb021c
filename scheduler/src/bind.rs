//! The effects of decisions: bindings, conditions, nominations, evictions, events. The only
//! I/O of a cycle.

use client::events::EventType;
use client::events::series::SeriesRecorder;
use client::{Api, Client, DeleteOptions, Kind as _, ObjectKey, PatchOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, ObjectMeta};
use serde::Serialize;
use serde_json::json;

use crate::cache::storage::{Claim, SELECTED_NODE, Volume};
use crate::groups::PodGroup;
use crate::model::PodInfo;
use crate::plugins::default_preemption::PREEMPTED;

/// The longest note that an event may have.
const NOTE_LIMIT: usize = 1024;

/// Writes what was decided. Cheap to clone.
#[derive(Clone)]
pub struct Binder {
    pods: Api<Pod>,
    volumes: Api<Volume>,
    claims: Api<Claim>,
    pub(crate) devices: Api<ResourceClaim>,
    groups: Api<PodGroup>,
    recorder: SeriesRecorder,
}

/// What a waiting pod's status is to say.
pub struct Patch<'a> {
    pub reason: &'a str,
    pub message: &'a str,
    /// `status.nominatedNodeName`, if it is to change.
    pub nominated: Option<&'a str>,
}

/// A group's condition that is to be written.
pub struct GroupCondition {
    pub group: ObjectKey,
    /// Another group of this name must not get it.
    pub uid: Box<str>,
    pub condition: MetaCondition,
}

/// For whom others have to leave.
pub struct Preemptor {
    kind: &'static str,
    uid: Box<str>,
    /// Upstream's events about pods do not refer to other pods, those about groups do.
    related: Option<ObjectReference>,
    scheduler: Box<str>,
    /// Where the victims are.
    node: Box<str>,
}

impl Preemptor {
    pub fn pod(pod: &PodInfo, node: &str) -> Self {
        Self {
            kind: "pod",
            uid: pod.uid.clone(),
            related: None,
            scheduler: pod.scheduler_name.clone(),
            node: node.into(),
        }
    }

    /// A group, whose victims may be anywhere.
    pub fn group(group: &PodGroup, scheduler: &str) -> Self {
        Self {
            kind: "podgroup",
            uid: group.metadata.uid.clone(),
            related: Some(ObjectReference {
                api_version: Some(PodGroup::RESOURCE.api_version()),
                kind: Some(PodGroup::RESOURCE.kind.to_string()),
                name: Some(group.metadata.name.to_string()),
                namespace: Some(group.metadata.namespace.to_string()),
                uid: Some(group.metadata.uid.to_string()),
                resource_version: Some(group.metadata.resource_version.to_string()),
                ..ObjectReference::default()
            }),
            scheduler: scheduler.into(),
            node: "cluster".into(),
        }
    }
}

impl Binder {
    pub fn new(client: &Client, recorder: SeriesRecorder) -> Self {
        Self {
            pods: Api::all(client),
            volumes: Api::all(client),
            claims: Api::all(client),
            devices: Api::all(client),
            groups: Api::all(client),
            recorder,
        }
    }

    /// For what else has to be read of the API server.
    pub fn client(&self) -> &Client {
        self.pods.client()
    }

    /// Tells the API server where the pod goes (the DefaultBinder plugin).
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> client::Result<()> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.key.name().to_owned()),
                namespace: Some(pod.key.namespace().to_owned()),
                // Another pod of this name must not get our node.
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let pods = self.pods.within(pod.key.namespace());
        pods.post_subresource(pod.key.name(), "binding", &binding)
            .await
    }

    pub fn scheduled(&self, pod: &PodInfo, node: &str) {
        let note = format!("Successfully assigned {} to {node}", pod.key);
        let recorder = self.recorder.controller(&pod.scheduler_name);
        recorder.event(
            &reference(pod),
            None,
            EventType::Normal,
            "Scheduled",
            "Binding",
            &note,
        );
    }

    /// Tells the pod's owner why it waits: an event each time, and the condition
    /// `PodScheduled` when it says something new.
    pub async fn failed(&self, pod: &PodInfo, patch: &Patch<'_>) {
        let recorder = self.recorder.controller(&pod.scheduler_name);
        recorder.event(
            &reference(pod),
            None,
            EventType::Warning,
            "FailedScheduling",
            "Scheduling",
            &truncated(patch.message),
        );
        let told = condition(pod, "PodScheduled", "False", patch.reason, patch.message);
        // An empty name is no name.
        let nominated = patch.nominated;
        let nominated = nominated.map(|node| Some(node).filter(|n| !n.is_empty()));
        let status = Status::new(pod, told, nominated);
        if (status.conditions.is_some() || status.nominated.is_some())
            && let Err(error) = self.patch(pod, &status).await
            && !error.is_not_found()
        {
            tracing::warn!("cannot write the condition of pod {}: {error}", pod.key);
        }
    }

    /// Tells which node a pod is to go to; `None` takes that back.
    pub async fn nominate(&self, pod: &PodInfo, node: Option<&str>) {
        let status = Status::new(pod, None, Some(node));
        if let Err(error) = self.patch(pod, &status).await
            && !error.is_not_found()
        {
            tracing::warn!("cannot write the nomination of pod {}: {error}", pod.key);
        }
    }

    /// Writes the condition of a group.
    pub async fn group_condition(&self, told: &GroupCondition) -> client::Result<()> {
        let patch = client::Patch::Strategic(json!({
            "metadata": {"uid": told.uid},
            "status": {"conditions": [told.condition]},
        }));
        let groups = self.groups.within(told.group.namespace());
        let options = PatchOptions::default();
        groups
            .patch_unread(told.group.name(), "status", &patch, &options)
            .await
    }

    /// Deletes a pod to make room for others, and says so in its status before.
    pub async fn evict(&self, victim: &PodInfo, preemptor: &Preemptor) -> client::Result<()> {
        let Preemptor {
            kind, scheduler, ..
        } = preemptor;
        let message = format!("{scheduler}: preempting to accommodate a higher priority {kind}");
        let told = condition(victim, "DisruptionTarget", "True", PREEMPTED, &message);
        let outcome = async {
            if told.is_some() {
                let status = Status::new(victim, told, None);
                self.patch(victim, &status).await?;
            }
            let pods = self.pods.within(victim.key.namespace());
            let options = DeleteOptions::with_uid(&*victim.uid);
            pods.delete(victim.key.name(), &options).await
        };
        match outcome.await {
            Ok(()) => {}
            // It has gone by itself.
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            Err(error) => return Err(error),
        }
        self.preempted(victim, preemptor, "");
        Ok(())
    }

    /// Tells that a pod that was to be bound gives its node to others; it stays, and waits.
    pub fn called_off(&self, victim: &PodInfo, preemptor: &Preemptor) {
        self.preempted(victim, preemptor, " (in kube-scheduler memory).");
    }

    fn preempted(&self, victim: &PodInfo, preemptor: &Preemptor, how: &str) {
        let Preemptor {
            kind,
            uid,
            related,
            scheduler,
            node,
        } = preemptor;
        let note = format!("Preempted by {kind} {uid} on node {node}{how}");
        let recorder = self.recorder.controller(scheduler);
        recorder.event(
            &reference(victim),
            related.as_ref(),
            EventType::Normal,
            "Preempted",
            "Preempting",
            &note,
        );
    }

    /// Sets a volume aside for a claim; the volume controller does the rest.
    pub async fn bind_volume(&self, volume: &Volume, claim: &Claim) -> client::Result<Volume> {
        let mut metadata = json!({"resourceVersion": volume.metadata.resource_version});
        if volume.spec.claim_ref.is_none() {
            metadata["annotations"] = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
        }
        let patch = json!({
            "metadata": metadata,
            "spec": {"claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace,
                "name": claim.metadata.name,
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            }},
        });
        let patch = client::Patch::Merge(patch);
        let options = PatchOptions::default();
        self.volumes
            .patch(&volume.metadata.name, &patch, &options)
            .await
    }

    /// Asks for a claim's volume to be made where a node can reach it.
    pub async fn select_node(&self, claim: &Claim, node: &str) -> client::Result<Claim> {
        let patch = client::Patch::Merge(json!({"metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {SELECTED_NODE: node},
        }}));
        let claims = self.claims.within(&claim.metadata.namespace);
        let options = PatchOptions::default();
        claims.patch(&claim.metadata.name, &patch, &options).await
    }

    /// Tells that a pod waits for its devices.
    pub fn waits_for_devices(&self, pod: &PodInfo, node: &str) {
        let note = format!("waiting for binding conditions for device on node {node}");
        let recorder = self.recorder.controller(&pod.scheduler_name);
        recorder.event(
            &reference(pod),
            None,
            EventType::Normal,
            "BindingConditionsPending",
            "Scheduling",
            &note,
        );
    }

    /// Changes the pod's status, if it is still the same pod.
    pub(crate) async fn patch(&self, pod: &PodInfo, status: impl Serialize) -> client::Result<()> {
        #[derive(Serialize)]
        struct Identity<'a> {
            uid: &'a str,
        }
        #[derive(Serialize)]
        struct PodPatch<'a, S> {
            metadata: Identity<'a>,
            status: S,
        }
        let patch = client::Patch::Strategic(PodPatch {
            metadata: Identity { uid: &pod.uid },
            status,
        });
        let pods = self.pods.within(pod.key.namespace());
        let options = PatchOptions::default();
        pods.patch_unread(pod.key.name(), "status", &patch, &options)
            .await
    }
}

/// What is to change of a pod's status.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<[Condition<'a>; 1]>,
    /// Without it what is new would come first.
    #[serde(
        rename = "$setElementOrder/conditions",
        skip_serializing_if = "Vec::is_empty"
    )]
    order: Vec<ByType<'a>>,
    /// `null` takes it away.
    #[serde(rename = "nominatedNodeName", skip_serializing_if = "Option::is_none")]
    nominated: Option<Option<&'a str>>,
}

#[derive(Serialize)]
struct ByType<'a> {
    r#type: &'a str,
}

impl<'a> Status<'a> {
    fn new(
        pod: &'a PodInfo,
        condition: Option<Condition<'a>>,
        nominated: Option<Option<&'a str>>,
    ) -> Self {
        let known = pod.conditions.iter().map(|c| c.type_.as_str());
        let mut order: Vec<&str> = known.collect();
        match &condition {
            Some(new) if !order.is_empty() && !order.contains(&new.r#type) => {
                order.push(new.r#type);
            }
            _ => order.clear(),
        }
        let order = order.into_iter().map(|r#type| ByType { r#type }).collect();
        Self {
            conditions: condition.map(|condition| [condition]),
            order,
            nominated,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    r#type: &'a str,
    status: &'a str,
    reason: &'a str,
    message: &'a str,
    observed_generation: Option<i64>,
    last_probe_time: (),
    last_transition_time: String,
}

/// A condition to write; `None` when the pod has it already.
fn condition<'a>(
    pod: &PodInfo,
    ty: &'a str,
    status: &'a str,
    reason: &'a str,
    message: &'a str,
) -> Option<Condition<'a>> {
    let known = pod.conditions.iter().find(|c| c.type_ == ty);
    let told = known.is_some_and(|c| {
        c.status == status
            && c.reason.as_deref() == Some(reason)
            && c.message.as_deref() == Some(message)
    });
    if told {
        return None;
    }
    let since = known
        .filter(|c| c.status == status)
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or_else(Timestamp::now, |t| t.0);
    Some(Condition {
        r#type: ty,
        status,
        reason,
        message,
        observed_generation: (pod.generation > 0).then_some(pod.generation),
        last_probe_time: (),
        last_transition_time: since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

fn truncated(message: &str) -> String {
    if message.len() <= NOTE_LIMIT {
        return message.to_owned();
    }
    let suffix = " ...";
    let mut end = NOTE_LIMIT - suffix.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &message[..end])
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.key.name().to_owned()),
        namespace: Some(pod.key.namespace().to_owned()),
        uid: Some(pod.uid.to_string()),
        // What is said of another version of it is another event.
        resource_version: (pod.version > 0).then(|| pod.version.to_string()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::pod;

    #[test]
    fn events_are_about_a_version() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "resourceVersion": "12"}});
        let pod = PodInfo::new(&serde_json::from_value(pod).unwrap());
        assert_eq!(reference(&pod).resource_version.as_deref(), Some("12"));
    }

    #[test]
    fn only_what_changes_is_written() {
        let pod = pod(json!({}));
        let written = |nominated, condition: Option<_>| {
            serde_json::to_value(Status::new(&pod, condition, nominated)).unwrap()
        };
        assert_eq!(written(None, None), json!({}));
        assert_eq!(
            written(Some(None), None),
            json!({"nominatedNodeName": null})
        );
        assert_eq!(
            written(Some(Some("n")), None),
            json!({"nominatedNodeName": "n"})
        );
        let told = condition(&pod, "PodScheduled", "False", "Unschedulable", "no room");
        let mut told = written(None, told);
        let since = told["conditions"][0]["lastTransitionTime"].take();
        assert!(since.as_str().unwrap().ends_with('Z'), "{since}");
        assert_eq!(
            told,
            json!({"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "no room", "observedGeneration": null, "lastProbeTime": null,
                "lastTransitionTime": null,
            }]})
        );
    }
    #[test]
    fn what_is_new_comes_last() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"},
            "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}});
        let pod = PodInfo::new(&serde_json::from_value(pod).unwrap());
        let order = |ty| {
            let told = condition(&pod, ty, "False", "because", "");
            let status = serde_json::to_value(Status::new(&pod, told, None)).unwrap();
            status.get("$setElementOrder/conditions").cloned()
        };
        let both = json!([{"type": "PodScheduled"}, {"type": "DisruptionTarget"}]);
        assert_eq!(order("DisruptionTarget"), Some(both));
        assert_eq!(order("PodScheduled"), None);
    }
}
