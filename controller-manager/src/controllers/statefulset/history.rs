//! A StatefulSet's history: the revision of its template, made when there is none, the one
//! before it, and the end of revisions that nobody needs.

use std::collections::HashSet;
use std::sync::Arc;

use client::{DeleteOptions, Error, Object as _, optional};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::labels::Selector;
use meta::owner::controller_of;
use serde_json::Value;

use super::Controller;
use super::identity::{self, own_reference};
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all};
use crate::workload::index;
use crate::workload::revisions::{self, keeps};

/// On revisions.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Names leave room for the hash.
const MAX_PREFIX: usize = 223;

/// A set's revisions.
pub struct History {
    /// The one that pods had before the update; the same if there is none going on.
    pub current: Arc<ControllerRevision>,
    pub update: Arc<ControllerRevision>,
    /// Names that were taken by other templates, so far.
    pub collisions: i32,
    /// Oldest first.
    all: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// The template that a revision keeps.
    pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
        let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
        template.as_object_mut()?.remove("$patch");
        serde_json::from_value(template).ok()
    }
}

/// What the revisions say of a template: pure.
#[derive(Debug, PartialEq)]
enum Found {
    /// The newest is of this template.
    Newest(Arc<ControllerRevision>),
    /// An older one is: it gets the next number.
    Older(Arc<ControllerRevision>),
    None,
}

/// `all` are oldest first.
fn find(all: &[Arc<ControllerRevision>], patch: &Value) -> Found {
    match all.iter().rposition(|r| keeps(r, patch)) {
        Some(i) if i + 1 == all.len() => Found::Newest(Arc::clone(&all[i])),
        Some(i) => Found::Older(Arc::clone(&all[i])),
        None => Found::None,
    }
}

/// Which revisions to delete: pure. Those that are `live` are not counted.
fn excess(all: &[Arc<ControllerRevision>], live: &HashSet<&str>, limit: usize) -> Vec<String> {
    let unused: Vec<&str> = all
        .iter()
        .map(|r| r.name())
        .filter(|n| !live.contains(n))
        .collect();
    let count = unused.len().saturating_sub(limit);
    unused[..count].iter().map(|n| (*n).to_owned()).collect()
}

impl Controller {
    pub(super) async fn history(
        &self,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<History, Error> {
        let mut all = self.revisions.get(set.uid());
        all.extend(self.revisions.get(&index::orphans(set.namespace())));
        all.retain(|r| selector.matches_labels(r.metadata.labels.as_ref()));
        let own = own_reference(set);
        let claimant = Claimant {
            reference: &own,
            deleting: set.metadata.deletion_timestamp.is_some(),
            finalizer: None,
        };
        let mut all = claim_all(
            &self.revision_api,
            &claimant,
            all,
            |r| Claimed {
                controller: controller_of(&r.metadata),
                deleting: r.metadata.deletion_timestamp.is_some(),
                matches: true,
            },
            || self.recheck(set),
        )
        .await?;
        revisions::sort(&mut all);
        let spec = set.spec.clone().unwrap_or_default();
        let patch = revisions::template_patch(&spec.template);
        let number = revisions::max(&all) + 1;
        let status = set.status.as_ref();
        let mut collisions = status.and_then(|s| s.collision_count).unwrap_or(0);
        let update = match find(&all, &patch) {
            Found::Newest(revision) => revision,
            Found::Older(revision) => {
                Arc::new(revisions::renumber(&self.revision_api, &revision, number).await?)
            }
            Found::None => Arc::new(
                self.snapshot(set, &spec.template, &patch, number, &mut collisions)
                    .await?,
            ),
        };
        let current = status.and_then(|s| s.current_revision.as_deref());
        let current = all.iter().find(|r| Some(r.name()) == current);
        Ok(History {
            current: Arc::clone(current.unwrap_or(&update)),
            update,
            collisions,
            all,
        })
    }

    async fn snapshot(
        &self,
        set: &StatefulSet,
        template: &PodTemplateSpec,
        patch: &Value,
        number: i64,
        collisions: &mut i32,
    ) -> Result<ControllerRevision, Error> {
        loop {
            let hash = revisions::hash(patch, *collisions);
            let mut labels = template
                .metadata
                .clone()
                .and_then(|m| m.labels)
                .unwrap_or_default();
            labels.insert(HASH_LABEL.to_owned(), hash.clone());
            let mut name = set.name().to_owned();
            name.truncate(MAX_PREFIX);
            let name = format!("{name}-{hash}");
            let metadata = ObjectMeta {
                name: Some(name.clone()),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: set.metadata.annotations.clone(),
                owner_references: Some(vec![own_reference(set)]),
                ..ObjectMeta::default()
            };
            match revisions::create(&self.client, &metadata, patch, number).await {
                Err(e) if e.is_already_exists() => {}
                other => return other,
            }
            let live = self.revision_api.within(set.namespace()).get(&name).await?;
            if keeps(&live, patch) {
                // We made it earlier; the cache will show it.
                return Ok(live);
            }
            *collisions += 1;
        }
    }

    pub(super) async fn clean_up(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        history: &History,
    ) -> Result<(), Error> {
        let mut live: HashSet<&str> = pods.iter().map(|p| identity::revision(p)).collect();
        live.extend([history.current.name(), history.update.name()]);
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        let Ok(limit) = usize::try_from(limit.unwrap_or(10)) else {
            return Ok(());
        };
        for name in excess(&history.all, &live, limit) {
            let api = self.revision_api.within(set.namespace());
            optional(api.delete(&name, &DeleteOptions::new()).await)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revision(name: &str, data: &Value) -> Arc<ControllerRevision> {
        let value = json!({"metadata": {"name": name}, "data": data, "revision": 1});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn templates_come_back() {
        let (a, b) = (
            json!({"spec": {"template": {"metadata": {"labels": {"v": "1"}}}}}),
            json!({"v": 2}),
        );
        let all = [revision("a", &a), revision("b", &b)];
        assert_eq!(find(&all, &b), Found::Newest(Arc::clone(&all[1])));
        assert_eq!(find(&all, &a), Found::Older(Arc::clone(&all[0])));
        assert_eq!(find(&all, &json!({"v": 3})), Found::None);
        let template = History::template(&all[0]).unwrap();
        assert_eq!(template.metadata.unwrap().labels.unwrap()["v"], "1");
    }

    #[test]
    fn revisions_in_use_stay() {
        let all = ["a", "b", "c", "d"].map(|n| revision(n, &json!({})));
        assert_eq!(excess(&all, &["a", "d"].into(), 1), ["b"]);
        assert!(excess(&all, &HashSet::new(), 4).is_empty());
    }
}
