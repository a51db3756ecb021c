//! garbage-collector-controller: deletes what has lost its owners, and carries out foreground
//! deletion and orphaning.
//!
//! Watches feed the [`graph`]; it says what to look at. Every decision is made on what the API
//! server says at that moment, never on the graph alone.

mod absent;
mod decide;
mod graph;
mod monitors;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::workqueue::{Queue, Requeue};
use client::{
    Api, Client, DeleteOptions, Error, PartialObject, Patch, PatchOptions, Propagation, optional,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use self::decide::{Decision, OwnerState, decide};
use self::graph::{Change, Effects, FOREGROUND, Graph, Identity, ORPHAN, Owner, Uid, View};
use crate::context::{Context, Run};
use crate::discovery::{Resource, Resources, discover};
use crate::events::Recorder;

/// How often discovery is asked for resources that came or went.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

struct Controller {
    client: Client,
    resources: RwLock<Resources>,
    graph: Mutex<Graph>,
    events: Recorder,
    delete: Queue<Uid>,
    orphan: Queue<Uid>,
}

/// Why an object could not be dealt with.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("{0}")]
    Api(#[from] Error),
    #[error("unable to get REST mapping for {1}/{0}.")]
    UnknownKind(String, String),
}

/// How an attempt ended, when it did not fail.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It does not exist; the graph knows by now.
    Absent,
    /// A cluster-scoped object that names a namespaced owner: nothing can be said.
    Impossible,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let options = &ctx.options.garbagecollector;
    if !options.enable_garbage_collector {
        return Ok(None);
    }
    let client = ctx.client("generic-garbage-collector")?;
    let (qps, burst) = ctx.options.rate_limit();
    let client = client.with_rate_limit(qps * 20.0, burst * 100);
    let controller = Arc::new(Controller {
        client,
        resources: RwLock::default(),
        graph: Mutex::default(),
        events: ctx.recorder("garbage-collector-controller"),
        delete: ctx.queue("garbage_collector_attempt_to_delete"),
        orphan: ctx.queue("garbage_collector_attempt_to_orphan"),
    });
    let failures = ctx.meter.counter(
        "garbagecollector_controller_resources_sync_error_total",
        "How often it could not be learned what there is to collect.",
    )?;
    let workers = options.concurrent_gc_syncs.get();
    let ctx = ctx.clone();
    Ok(Some(Box::pin(async move {
        let mut monitors = monitors::Monitors::new(&ctx, Arc::clone(&controller), failures);
        // Resources that cannot be watched must not keep the others waiting for ever.
        let first = tokio::time::timeout(DISCOVERY_PERIOD, async {
            while !monitors.sync().await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            monitors.wait_synced().await;
        });
        match ctx.stop.run_until_cancelled(first).await {
            None => return,
            Some(Err(_)) => {
                tracing::info!("not all resources are synced, collecting garbage anyway")
            }
            Some(Ok(())) => {}
        }
        let (for_delete, for_orphan) = (Arc::clone(&controller), Arc::clone(&controller));
        tokio::join!(
            controller.delete.run(workers, &ctx.stop, move |uid| {
                let controller = Arc::clone(&for_delete);
                async move { controller.sync(&uid).await }
            }),
            controller.orphan.run(workers, &ctx.stop, move |uid| {
                let controller = Arc::clone(&for_orphan);
                async move { controller.orphan_dependents(&uid).await }
            }),
            async {
                let mut ticks = tokio::time::interval(DISCOVERY_PERIOD);
                ticks.tick().await;
                while ctx.stop.run_until_cancelled(ticks.tick()).await.is_some() {
                    monitors.sync().await;
                }
            },
        );
    })))
}

impl Controller {
    /// Takes in a change.
    fn apply(&self, change: Change) {
        let effects = self.graph.lock().apply(change);
        let Effects {
            delete,
            delete_later,
            orphan,
            wrong_namespace,
        } = effects;
        delete.into_iter().for_each(|uid| self.delete.add(uid));
        delete_later
            .into_iter()
            .for_each(|uid| self.delete.add_rate_limited(uid));
        orphan.into_iter().for_each(|uid| self.orphan.add(uid));
        for (dependent, says) in wrong_namespace {
            let about = k8s_openapi::api::core::v1::ObjectReference {
                api_version: Some(dependent.api_version.to_string()),
                kind: Some(dependent.kind.to_string()),
                namespace: Some(dependent.namespace.to_string()),
                name: Some(dependent.name.to_string()),
                uid: Some(dependent.uid.to_string()),
                ..Default::default()
            };
            let message = format!(
                "ownerRef {says} does not exist in namespace {:?}",
                &*dependent.namespace
            );
            self.events
                .event(&about, true, "OwnerRefInvalidNamespace", message);
        }
    }

    fn resource(&self, api_version: &str, kind: &str) -> Result<Resource, SyncError> {
        let resources = self.resources.read();
        let found = resources.by_kind(api_version, kind).cloned();
        found.ok_or_else(|| SyncError::UnknownKind(kind.to_owned(), api_version.to_owned()))
    }

    fn api(&self, resource: &Resource, namespace: &str) -> Api<PartialObject> {
        Api::metadata(&self.client, &resource.gvr, resource.namespaced).within(namespace)
    }

    async fn sync(&self, uid: &Uid) -> Result<Requeue, SyncError> {
        let Some(view) = self.graph.lock().view(uid) else {
            return Ok(Requeue::No);
        };
        let outcome = self.attempt(&view).await?;
        let unseen = outcome == Outcome::Done && view.r#virtual;
        // It exists, but no watch has told of it yet.
        Ok(if unseen {
            Requeue::Backoff
        } else {
            Requeue::No
        })
    }

    async fn attempt(&self, view: &View) -> Result<Outcome, SyncError> {
        if view.deleting && !view.deleting_dependents {
            return Ok(Outcome::Done);
        }
        let identity = &view.identity;
        let resource = self.resource(&identity.api_version, &identity.kind)?;
        if resource.namespaced && identity.namespace.is_empty() {
            return Ok(Outcome::Impossible);
        }
        let api = self.api(&resource, &identity.namespace);
        let latest = optional(api.get(&identity.name).await)?;
        let Some(latest) = latest.filter(|l| l.metadata.uid.as_deref() == Some(&*identity.uid))
        else {
            self.apply(Change::Absent(identity.clone()));
            return Ok(Outcome::Absent);
        };
        if view.deleting_dependents {
            self.continue_foreground(&api, view).await?;
            return Ok(Outcome::Done);
        }
        let references = latest.metadata.owner_references.clone().unwrap_or_default();
        let mut owners = Vec::with_capacity(references.len());
        for reference in &references {
            let owner = Owner::from(reference);
            match self.owner_state(&owner, identity).await? {
                Some(state) => owners.push((owner, state)),
                None => return Ok(Outcome::Impossible),
            }
        }
        let finalizers = latest.metadata.finalizers.clone().unwrap_or_default();
        match decide(view, &owners, &finalizers) {
            Decision::Keep => {}
            Decision::DropReferences(uids) => {
                drop_references(&api, identity, &uids).await?;
            }
            Decision::Delete {
                propagation,
                unblock,
            } => {
                if unblock {
                    unblock_owners(&api, view).await?;
                }
                tracing::info!(item = %identity, ?propagation, "Deleting item");
                if !delete(&api, identity, &latest, propagation).await? {
                    self.apply(Change::Absent(identity.clone()));
                    return Ok(Outcome::Absent);
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// What has become of an owner; `None` if the reference cannot mean anything.
    async fn owner_state(
        &self,
        owner: &Owner,
        dependent: &Identity,
    ) -> Result<Option<OwnerState>, SyncError> {
        let cluster = owner.identity(&"".into());
        let local = owner.identity(&dependent.namespace);
        {
            let graph = self.graph.lock();
            if graph.absent.contains(&cluster) || graph.absent.contains(&local) {
                return Ok(Some(OwnerState::Dangling));
            }
        }
        let resource = self.resource(&owner.api_version, &owner.kind)?;
        if resource.namespaced && dependent.namespace.is_empty() {
            tracing::info!(item = %dependent, owner = %cluster, "item is cluster-scoped, but refers to a namespaced owner");
            return Ok(None);
        }
        let live = optional(
            self.api(&resource, &dependent.namespace)
                .get(&owner.name)
                .await,
        )?;
        let Some(live) = live.filter(|l| l.metadata.uid.as_deref() == Some(&*owner.uid)) else {
            let identity = if resource.namespaced { local } else { cluster };
            self.graph.lock().absent.insert(identity);
            return Ok(Some(OwnerState::Dangling));
        };
        let finalizers = live.metadata.finalizers.iter().flatten();
        let foreground = finalizers.into_iter().any(|f| f == FOREGROUND);
        let waiting = live.metadata.deletion_timestamp.is_some() && foreground;
        Ok(Some(if waiting {
            OwnerState::Waiting
        } else {
            OwnerState::Solid
        }))
    }

    /// The object waits for its dependents: look at those, or let it go if none blocks it.
    async fn continue_foreground(
        &self,
        api: &Api<PartialObject>,
        view: &View,
    ) -> Result<(), Error> {
        if view.blocking.is_empty() {
            return remove_finalizer(api, &view.identity, FOREGROUND).await;
        }
        for (uid, waits) in &view.blocking {
            if !waits {
                self.delete.add(uid.clone());
            }
        }
        Ok(())
    }

    async fn orphan_dependents(&self, uid: &Uid) -> Result<Requeue, SyncError> {
        let (view, dependents) = {
            let graph = self.graph.lock();
            let Some(view) = graph.view(uid) else {
                return Ok(Requeue::No);
            };
            (view, graph.dependents(uid))
        };
        for dependent in dependents {
            let resource = self.resource(&dependent.api_version, &dependent.kind)?;
            let api = self.api(&resource, &dependent.namespace);
            drop_references(&api, &dependent, std::slice::from_ref(uid)).await?;
        }
        let resource = self.resource(&view.identity.api_version, &view.identity.kind)?;
        let api = self.api(&resource, &view.identity.namespace);
        remove_finalizer(&api, &view.identity, ORPHAN).await?;
        Ok(Requeue::No)
    }
}

/// Takes references away. Strategic merge does it in one request; custom resources know only
/// merge patches, which need the object as it is.
async fn drop_references(
    api: &Api<PartialObject>,
    object: &Identity,
    owners: &[Uid],
) -> Result<(), Error> {
    let gone: Vec<Value> = owners
        .iter()
        .map(|uid| json!({"$patch": "delete", "uid": &**uid}))
        .collect();
    let strategic = json!({"metadata": {"ownerReferences": gone, "uid": &*object.uid}});
    patch_references(api, object, strategic, |references| {
        references.retain(|r| !owners.iter().any(|uid| **uid == *r.uid));
    })
    .await
}

/// Makes an object's references not block its owners' deletion.
async fn unblock_owners(api: &Api<PartialObject>, view: &View) -> Result<(), Error> {
    let blocking = view.owners.iter().filter(|o| o.blocks_deletion);
    let references: Vec<Value> = blocking
        .map(|o| {
            json!({"apiVersion": &*o.api_version, "kind": &*o.kind, "name": &*o.name, "uid": &*o.uid,
                   "controller": o.controller, "blockOwnerDeletion": false})
        })
        .collect();
    let strategic =
        json!({"metadata": {"ownerReferences": references, "uid": &*view.identity.uid}});
    patch_references(api, &view.identity, strategic, |references| {
        references
            .iter_mut()
            .for_each(|r| r.block_owner_deletion = Some(false));
    })
    .await
}

async fn patch_references(
    api: &Api<PartialObject>,
    object: &Identity,
    strategic: Value,
    change: impl FnOnce(&mut Vec<OwnerReference>),
) -> Result<(), Error> {
    let options = PatchOptions::default();
    let result = api
        .patch(&object.name, &Patch::Strategic(strategic), &options)
        .await;
    let unsupported = |e: &Error| e.status().is_some_and(|s| s.code == 415);
    match result {
        Err(e) if unsupported(&e) => {}
        other => return optional(other).map(drop),
    }
    let Some(live) = optional(api.get(&object.name).await)? else {
        return Ok(());
    };
    let mut references = live.metadata.owner_references.unwrap_or_default();
    change(&mut references);
    let merge = json!({"metadata": {
        "resourceVersion": live.metadata.resource_version, "uid": &*object.uid,
        "ownerReferences": references,
    }});
    optional(
        api.patch(&object.name, &Patch::Merge(merge), &options)
            .await,
    )
    .map(drop)
}

/// Deletes the object if nobody has changed it; if only other things than its owners have
/// changed, deletes it all the same. Returns `false` if it is gone already.
async fn delete(
    api: &Api<PartialObject>,
    object: &Identity,
    latest: &PartialObject,
    propagation: Propagation,
) -> Result<bool, Error> {
    let unconditional = DeleteOptions::with_uid(&*object.uid).propagation(propagation);
    let options = DeleteOptions {
        resource_version: latest.metadata.resource_version.clone(),
        ..unconditional.clone()
    };
    match api.delete(&object.name, &options).await {
        Err(e) if e.is_conflict() => {
            let Some(live) = optional(api.get(&object.name).await)? else {
                return Ok(false);
            };
            let same = live.metadata.uid == latest.metadata.uid
                && live.metadata.resource_version != latest.metadata.resource_version
                && live.metadata.owner_references == latest.metadata.owner_references;
            if !same {
                return Err(e);
            }
            let result = api.delete(&object.name, &unconditional).await;
            optional(result).map(|deleted| deleted.is_some())
        }
        other => optional(other).map(|deleted| deleted.is_some()),
    }
}

async fn remove_finalizer(
    api: &Api<PartialObject>,
    object: &Identity,
    finalizer: &str,
) -> Result<(), Error> {
    const ATTEMPTS: usize = 5;
    for attempt in 1.. {
        let Some(live) = optional(api.get(&object.name).await)? else {
            return Ok(());
        };
        let mut finalizers = live.metadata.finalizers.unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|f| f != finalizer);
        if finalizers.len() == before || live.metadata.uid.as_deref() != Some(&*object.uid) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": live.metadata.resource_version, "finalizers": finalizers,
        }}));
        match api
            .patch(&object.name, &patch, &PatchOptions::default())
            .await
        {
            Err(e) if e.is_conflict() && attempt < ATTEMPTS => {}
            other => return optional(other).map(drop),
        }
    }
    Ok(())
}
