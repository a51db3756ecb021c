//! podgroup-protection-controller: keeps a PodGroup that is being deleted until its last pod
//! has ended (KEP-4671).

use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;

use crate::context::{Context, Run, retry_conflicts};
use crate::kinds::Pod;
use crate::workload::protection::{self, Protection};

const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

struct Controller {
    groups: Store<PodGroup>,
    /// Pods that have not ended.
    pods_by_group: Index<Pod>,
    api: Api<PodGroup>,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("podgroup-protection-controller")?;
    let groups = ctx.informer::<PodGroup>();
    let pods = ctx.pods();
    let controller = Arc::new(Controller {
        groups: groups.store().clone(),
        pods_by_group: pods.add_index("pod-group", |pod| {
            let keeps = (!pod.is_terminal()).then(|| group_key(pod)).flatten();
            keeps.map(|key| key.to_string()).into_iter().collect()
        }),
        api: Api::all(&client),
        queue: ctx.queue("podgroupprotection"),
    });
    let queue = controller.queue.clone();
    groups.add_handler(move |change| {
        if change.current().is_some_and(|group| is_ending(group)) {
            queue.add(change.key());
        }
    });
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        groups.wait_synced().await;
        pods.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

fn group_key(pod: &Pod) -> Option<ObjectKey> {
    let group = pod.spec.scheduling_group.as_ref()?;
    Some(ObjectKey::new(pod.namespace(), &group.pod_group_name))
}

/// Whether the group is to go and has been kept. Unlike a claim, one that has no finalizer
/// gets none: it is given when the group is made.
fn is_ending(group: &PodGroup) -> bool {
    protection::state(&group.metadata, FINALIZER) == Protection::Ending
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let enqueue = |pod: &Pod| {
            group_key(pod)
                .into_iter()
                .for_each(|key| self.queue.add(key))
        };
        match change {
            Change::Deleted(pod) => enqueue(pod),
            Change::Added(pod) if pod.is_terminal() => enqueue(pod),
            Change::Added(_) => {}
            Change::Updated { old, new } => {
                if new.is_terminal() {
                    enqueue(new);
                }
                if old.uid() != new.uid() {
                    enqueue(old);
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(group) = self.groups.get_key(key).filter(|group| is_ending(group)) else {
            return Ok(Requeue::No);
        };
        if !self.pods_by_group.get(key.as_str()).is_empty() {
            tracing::debug!(group = %key, "Keeping PodGroup because it still has pods");
            return Ok(Requeue::No);
        }
        let mut changed = PodGroup::clone(&group);
        protection::release(&mut changed.metadata, FINALIZER);
        optional(self.api.replace(&changed).await)?;
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_group_is_let_go_once_it_is_to_go() {
        let group = |deleted: Option<&str>, finalizers: &[&str]| -> PodGroup {
            serde_json::from_value(json!({
                "metadata": {"name": "g", "namespace": "n", "deletionTimestamp": deleted,
                    "finalizers": finalizers},
                "spec": {"schedulingPolicy": {"basic": {}}},
            }))
            .unwrap()
        };
        let then = Some("2024-01-01T00:00:00Z");
        assert!(is_ending(&group(then, &[FINALIZER])));
        assert!(!is_ending(&group(None, &[FINALIZER])));
        assert!(!is_ending(&group(None, &[])));
        assert!(!is_ending(&group(then, &["other/one"])));
    }

    #[test]
    fn a_pod_names_its_group() {
        let pod = |spec| -> Pod {
            let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
            serde_json::from_value(pod).unwrap()
        };
        let member = pod(json!({"schedulingGroup": {"podGroupName": "g"}}));
        assert_eq!(group_key(&member), Some(ObjectKey::from("n/g")));
        assert_eq!(group_key(&pod(json!({}))), None);
    }
}
