//! The pods that this node should have, as everyone may read them: by uid, by name, and static
//! pods with their mirrors. Only the sync loop writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use super::pod::{PodExt, PodUid};

#[derive(Default)]
struct Inner {
    pods: HashMap<PodUid, Arc<Pod>>,
    /// Mirror pods by full name.
    mirrors: HashMap<String, Arc<Pod>>,
    /// Pods that may have containers running, as their workers know.
    may_run: HashSet<PodUid>,
    /// When each pod was first heard of.
    seen: HashMap<PodUid, Instant>,
    /// Every source has told all that it had.
    complete: bool,
}

#[derive(Default)]
pub struct PodIndex(RwLock<Inner>);

impl PodIndex {
    /// Adds or replaces a pod; a mirror goes with the mirrors.
    pub fn set(&self, pod: Arc<Pod>) {
        let mut inner = self.0.write();
        if pod.is_mirror() {
            inner.mirrors.insert(pod.full_name(), pod);
        } else {
            let uid: PodUid = pod.uid().into();
            inner.seen.entry(uid.clone()).or_insert_with(Instant::now);
            inner.pods.insert(uid, pod);
        }
    }

    /// Removes exactly this pod: a mirror only if no later one took its name.
    pub fn remove(&self, pod: &Pod) {
        let mut inner = self.0.write();
        if !pod.is_mirror() {
            inner.pods.remove(pod.uid());
            inner.seen.remove(pod.uid());
        } else if inner
            .mirrors
            .get(&pod.full_name())
            .is_some_and(|mirror| mirror.uid() == pod.uid())
        {
            inner.mirrors.remove(&pod.full_name());
        }
    }

    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.0.read().pods.get(uid).cloned()
    }

    /// When this kubelet first heard of a pod.
    pub fn seen(&self, uid: &str) -> Option<Instant> {
        self.0.read().seen.get(uid).copied()
    }

    /// The pod of this name; of a static pod the pod itself, not its mirror.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.0
            .read()
            .pods
            .values()
            .find(|pod| pod.name() == name && pod.namespace() == namespace)
            .cloned()
    }

    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.0.read().pods.values().cloned().collect()
    }

    pub fn mirrors(&self) -> Vec<Arc<Pod>> {
        self.0.read().mirrors.values().cloned().collect()
    }

    /// The mirror of a static pod.
    pub fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        if !pod.is_static() {
            return None;
        }
        self.0.read().mirrors.get(&pod.full_name()).cloned()
    }

    /// The static pod that a mirror shows.
    pub fn static_of(&self, mirror: &Pod) -> Option<Arc<Pod>> {
        self.by_name(mirror.namespace(), mirror.name())
            .filter(|pod| pod.is_static())
    }

    pub fn set_may_run(&self, uid: &PodUid, may_run: bool) {
        let mut inner = self.0.write();
        if may_run {
            inner.may_run.insert(uid.clone());
        } else {
            inner.may_run.remove(uid);
        }
    }

    /// Every source has told all that it had when the kubelet started.
    pub fn set_complete(&self) {
        self.0.write().complete = true;
    }

    pub fn is_complete(&self) -> bool {
        self.0.read().complete
    }

    /// Pods that may have containers running, also those that nobody asks for any more.
    pub fn running(&self) -> Vec<PodUid> {
        self.0.read().may_run.iter().cloned().collect()
    }

    /// Whether containers of the pod may be running: then it has not ended, whatever its status.
    pub fn may_run(&self, uid: &str) -> bool {
        self.0.read().may_run.contains(uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mirrors_are_told_from_what_they_show() {
        let index = PodIndex::default();
        let pod = |uid: &str, annotation: &str, value: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": uid, "annotations": {annotation: value}}}))
                    .unwrap(),
            )
        };
        let own = pod("hash", "kubernetes.io/config.source", "file");
        let mirror = pod("api", "kubernetes.io/config.mirror", "hash");
        index.set(own.clone());
        index.set(mirror.clone());
        assert_eq!(index.mirror_of(&own).unwrap().uid(), "api");
        assert_eq!(index.static_of(&mirror).unwrap().uid(), "hash");
        assert_eq!(index.by_name("n", "p").unwrap().uid(), "hash");
        index.remove(&pod("older", "kubernetes.io/config.mirror", "hash"));
        assert!(
            index.mirror_of(&own).is_some(),
            "another mirror of the same name"
        );
        index.remove(&mirror);
        assert!(index.mirror_of(&own).is_none());
    }
}
