//! A DaemonSet's history: the revision of its template, made when there is none, and the end
//! of revisions that nobody needs.

use std::collections::HashSet;
use std::sync::Arc;

use client::{DeleteOptions, Error, Object as _, Patch, PatchOptions, optional};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::labels::Selector;
use meta::owner::controller_of;
use serde_json::{Value, json};

use super::{Controller, own_reference};
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all};
use crate::workload::revisions::{self, HASH_LABEL, hash_label, keeps};
use crate::workload::{index, template};

/// The current revision's hash, and the revisions of earlier templates.
pub struct History {
    pub hash: String,
    pub old: Vec<Arc<ControllerRevision>>,
}

/// What the revisions say: pure.
struct Sorted {
    /// Those of the current template, oldest first; more than one only after a race.
    current: Vec<Arc<ControllerRevision>>,
    old: Vec<Arc<ControllerRevision>>,
    /// The number that the current one must have.
    number: i64,
}

fn sort(mut all: Vec<Arc<ControllerRevision>>, patch: &Value) -> Sorted {
    revisions::sort(&mut all);
    let (current, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| keeps(r, patch));
    Sorted {
        number: revisions::max(&old) + 1,
        current,
        old,
    }
}

/// Which of the old revisions to delete: pure. `old` are oldest first.
fn excess(old: &[Arc<ControllerRevision>], live: &HashSet<&str>, limit: usize) -> Vec<String> {
    let unused = old
        .iter()
        .filter(|r| !live.contains(hash_label(r.metadata.labels.as_ref())));
    let names = unused.filter_map(|r| r.metadata.name.clone());
    names.take(old.len().saturating_sub(limit)).collect()
}

impl Controller {
    pub(super) async fn history(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        selector: &Selector,
    ) -> Result<History, Error> {
        let mut all = self.revisions.get(set.uid());
        all.extend(self.revisions.get(&index::orphans(set.namespace())));
        let own = own_reference(set);
        let claimant = Claimant {
            reference: &own,
            deleting: set.metadata.deletion_timestamp.is_some(),
            finalizer: None,
        };
        let all = claim_all(
            &self.revision_api,
            &claimant,
            all,
            |r| Claimed {
                controller: controller_of(&r.metadata),
                deleting: r.metadata.deletion_timestamp.is_some(),
                matches: selector.matches_labels(r.metadata.labels.as_ref()),
            },
            || self.recheck(set),
        )
        .await?;
        let patch = revisions::template_patch(&spec.template);
        let sorted = sort(all, &patch);
        let hash = match sorted.current.split_last() {
            None => {
                let created = self.snapshot(set, spec, &patch, sorted.number).await?;
                hash_label(created.metadata.labels.as_ref()).to_owned()
            }
            Some((keep, duplicates)) => {
                let hash = hash_label(keep.metadata.labels.as_ref()).to_owned();
                self.drop_duplicates(set, &hash, duplicates).await?;
                if keep.revision < sorted.number {
                    revisions::renumber(&self.revision_api, keep, sorted.number).await?;
                }
                hash
            }
        };
        Ok(History {
            hash,
            old: sorted.old,
        })
    }

    async fn drop_duplicates(
        &self,
        set: &DaemonSet,
        hash: &str,
        duplicates: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        if duplicates.is_empty() {
            return Ok(());
        }
        for pod in self.pods_by_owner.get(set.uid()) {
            if hash_label(Some(&pod.metadata.labels)) != hash {
                let patch = Patch::Merge(json!({"metadata": {"labels": {HASH_LABEL: hash}}}));
                let api = self.pods.api.within(pod.namespace());
                optional(
                    api.patch(pod.name(), &patch, &PatchOptions::default())
                        .await,
                )?;
            }
        }
        for revision in duplicates {
            let api = self.revision_api.within(set.namespace());
            optional(api.delete(revision.name(), &DeleteOptions::new()).await)?;
        }
        Ok(())
    }

    async fn snapshot(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        patch: &Value,
        number: i64,
    ) -> Result<ControllerRevision, Error> {
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let hash = template::hash(&spec.template, collisions);
        let mut labels = spec
            .template
            .metadata
            .clone()
            .and_then(|m| m.labels)
            .unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let name = format!("{}-{hash}", set.name());
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![own_reference(set)]),
            ..ObjectMeta::default()
        };
        match revisions::create(&self.client, &metadata, patch, number).await {
            Err(e) if e.is_already_exists() => {
                let live = self.revision_api.within(set.namespace()).get(&name).await?;
                if keeps(&live, patch) {
                    // We made it earlier; the cache will show it.
                    return Ok(live);
                }
                let mut changed = set.clone();
                changed.status.get_or_insert_default().collision_count =
                    Some(collisions.unwrap_or(0) + 1);
                self.written.note(&self.api.replace_status(&changed).await?);
                Err(e)
            }
            other => other,
        }
    }

    pub(super) async fn clean_up(
        &self,
        spec: &DaemonSetSpec,
        pods: &[Arc<Pod>],
        old: Vec<Arc<ControllerRevision>>,
    ) -> Result<(), Error> {
        let live = pods
            .iter()
            .map(|p| hash_label(Some(&p.metadata.labels)))
            .collect();
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        for name in excess(&old, &live, limit) {
            let namespace = old.first().map_or("", |r| r.namespace());
            optional(
                self.revision_api
                    .within(namespace)
                    .delete(&name, &DeleteOptions::new())
                    .await,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64, data: &Value) -> Arc<ControllerRevision> {
        let value = json!({"metadata": {"name": name, "labels": {HASH_LABEL: name}}, "data": data, "revision": number});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn the_current_revision_gets_the_highest_number() {
        let (a, b) = (
            json!({"spec": {"template": 1}}),
            json!({"spec": {"template": 2}}),
        );
        let all = vec![
            revision("b", 2, &b),
            revision("a", 1, &a),
            revision("a2", 3, &a),
        ];
        let sorted = sort(all, &a);
        let names: Vec<_> = sorted.current.iter().map(|r| r.name()).collect();
        assert_eq!((names, sorted.number), (vec!["a", "a2"], 3));
    }

    #[test]
    fn revisions_of_running_pods_stay() {
        let data = json!({});
        let old = [
            revision("a", 1, &data),
            revision("b", 2, &data),
            revision("c", 3, &data),
        ];
        assert_eq!(excess(&old, &["a"].into(), 1), ["b", "c"]);
        assert_eq!(excess(&old, &HashSet::new(), 2), ["a"]);
    }
}
