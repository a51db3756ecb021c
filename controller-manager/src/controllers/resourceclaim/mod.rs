//! resourceclaim-controller: makes the claims of pods from templates, notes pods that use a
//! claim without the scheduler's doing, and gives devices back (KEP-4381).

mod metrics;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{
    Api, DeleteOptions, Error, Object as _, ObjectKey, Patch, PatchOptions, WriteOptions, optional,
};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use meta::owner::controller_of;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde_json::{Value, json};

use self::plan::{Named, POD_CLAIM_NAME};
use crate::context::{Context, Run, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::Pod;
use crate::kinds::pod::PodResourceClaim;

/// Whose part of a pod's status it is.
const MANAGER: &str = "ResourceClaimController";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

struct Controller {
    pods: Store<Pod>,
    pods_by_claim: Index<Pod>,
    claims: Store<ResourceClaim>,
    claims_by_owner: Index<ResourceClaim>,
    templates: Store<ResourceClaimTemplate>,
    pod_api: Api<Pod>,
    claim_api: Api<ResourceClaim>,
    /// Claims that were made and may not be in the cache yet, by the pod's UID and its claim.
    made: Mutex<HashMap<(String, String), String>>,
    events: Recorder,
    queue: Queue<Key>,
    /// Claims that were made, by status and whether for administrators.
    creates: IntCounterVec,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("resource-claim-controller")?;
    let pods = ctx.pods();
    let claims = ctx.informer::<ResourceClaim>();
    let templates = ctx.informer::<ResourceClaimTemplate>();
    let pods_by_template = pods.add_index("resourceClaimTemplate", |pod| {
        let claims = pod.spec.resource_claims.iter();
        let names = claims.filter_map(|c| c.resource_claim_template_name.as_deref());
        names.map(|n| key_of(pod, n).to_string()).collect()
    });
    let controller = Arc::new(Controller {
        pods: pods.store().clone(),
        pods_by_claim: pods.add_index("resourceClaim", |pod| {
            let keys = claim_keys(pod);
            keys.map(|key| key.to_string()).collect()
        }),
        claims: claims.store().clone(),
        claims_by_owner: claims.add_index("owningPod", |claim| {
            let owner = controller_of(&claim.metadata).filter(|o| o.kind == "Pod");
            owner.map(|o| o.uid.clone()).into_iter().collect()
        }),
        templates: templates.store().clone(),
        pod_api: Api::all(&client),
        claim_api: Api::all(&client),
        made: Mutex::default(),
        events: ctx.recorder("resource_claim"),
        queue: ctx.queue("resource_claim"),
        creates: ctx.meter.counters(
            "resourceclaim_controller_creates_total",
            "Claims that were to be made of templates.",
            &["status", "admin_access"],
        )?,
    });
    metrics::count_claims(&ctx.meter, claims.store())?;
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| {
        let deleted = matches!(change, Change::Deleted(_));
        c.pod_changed(change.object(), deleted);
    });
    let c = Arc::clone(&controller);
    claims.add_handler(move |change| {
        if change.current().is_some() {
            c.queue.add(Key::Claim(change.key()));
        }
        for pod in c.pods_by_claim.get(change.key().as_str()) {
            c.pod_changed(&pod, false);
        }
    });
    let c = Arc::clone(&controller);
    templates.add_handler(move |change| {
        if let Change::Added(template) = change {
            for pod in pods_by_template.get(template.key().as_str()) {
                c.pod_changed(&pod, false);
            }
        }
    });
    let workers = ctx
        .options
        .resource_claim
        .concurrent_resourceclaim_syncs
        .get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        pods.wait_synced().await;
        claims.wait_synced().await;
        templates.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

fn key_of(pod: &Pod, name: &str) -> ObjectKey {
    ObjectKey::new(pod.namespace(), name)
}

/// The claims that a pod is known to use, those that the scheduler made for its extended
/// resources among them.
pub fn claim_keys(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    let claims = pod.spec.resource_claims.iter();
    let names = claims.filter_map(|claim| match plan::named(pod, claim) {
        Named::ByUser(name) | Named::Made(name) => Some(name),
        _ => None,
    });
    let extended = pod.status.extended_resource_claim_status.as_ref();
    let extended = extended.map(|s| &*s.resource_claim_name);
    names.chain(extended).map(|name| key_of(pod, name))
}

/// Whether the claim is noted as used by the pod, and not somebody else's of the same name.
pub fn may_use(pod: &Pod, claim: &ResourceClaim) -> bool {
    let users = claim
        .status
        .iter()
        .flat_map(|s| s.reserved_for.iter().flatten());
    let by_user = |name: &str| {
        let mut claims = pod.spec.resource_claims.iter();
        claims.any(|c| plan::named(pod, c) == Named::ByUser(name))
    };
    let mut uids = users.map(|user| user.uid.as_str());
    uids.any(|uid| uid == pod.uid()) && (plan::is_for(pod, claim) || by_user(claim.name()))
}

impl Controller {
    fn pod_changed(&self, pod: &Pod, deleted: bool) {
        let extended = pod.status.extended_resource_claim_status.is_some();
        if pod.spec.resource_claims.is_empty() && !extended {
            return;
        }
        if deleted {
            self.made.lock().retain(|(uid, _), _| uid != pod.uid());
        }
        if deleted || plan::is_done(pod) {
            claim_keys(pod).for_each(|key| self.queue.add(Key::Claim(key)));
        }
        if !deleted && self.needs_work(pod) {
            self.queue.add(Key::Pod(pod.key()));
        }
    }

    fn needs_work(&self, pod: &Pod) -> bool {
        let claim = |name: &str| self.claims.get_key(&key_of(pod, name));
        let needs = |of: &PodResourceClaim| match plan::named(pod, of) {
            Named::NotNeeded => false,
            Named::Missing(_) | Named::Unknown => true,
            Named::ByUser(name) => claim(name).is_some_and(|c| self.reserves(pod, &c)),
            Named::Made(name) => match claim(name) {
                None => true,
                Some(claim) => plan::is_for(pod, &claim) && self.reserves(pod, &claim),
            },
        };
        // What one that is done has used is not made anew.
        let runs = !pod.is_deleting() && !plan::is_done(pod);
        runs && pod.spec.resource_claims.iter().any(needs)
    }

    fn reserves(&self, pod: &Pod, claim: &ResourceClaim) -> bool {
        !pod.spec.node_name.is_empty() && plan::to_reserve(pod, claim)
    }

    async fn sync(&self, key: &Key) -> Result<Requeue, Error> {
        match key {
            Key::Pod(key) => self.sync_pod(key).await,
            Key::Claim(key) => self.sync_claim(key).await,
        }
    }

    async fn sync_pod(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key).filter(|p| self.needs_work(p)) else {
            return Ok(Requeue::No);
        };
        let mut new = Vec::new();
        for claim in &pod.spec.resource_claims {
            match self.make(&pod, claim).await {
                Ok(made) => new.extend(made.map(|name| (&claim.name, name))),
                Err(e) => {
                    let why = match &e {
                        Error::Request(why) => why.clone(),
                        e => e.to_string(),
                    };
                    let message = format!("PodResourceClaim {}: {why}", claim.name);
                    self.events.event(
                        &reference(&*pod),
                        true,
                        "FailedResourceClaimCreation",
                        message,
                    );
                    return Err(e);
                }
            }
        }
        if !new.is_empty() {
            let statuses = new.iter();
            let statuses: Value = statuses
                .map(|(name, claim)| json!({"name": name, "resourceClaimName": claim}))
                .collect();
            let apply = Patch::Apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod.name(), "namespace": pod.namespace()},
                "status": {"resourceClaimStatuses": statuses},
            }));
            let options = PatchOptions {
                write: WriteOptions {
                    field_manager: Some(MANAGER.to_owned()),
                    ..WriteOptions::default()
                },
                force: true,
            };
            let api = self.pod_api.within(pod.namespace());
            api.patch_status(pod.name(), &apply, &options).await?;
        }
        if pod.spec.node_name.is_empty() {
            // The scheduler will note who uses what.
            return Ok(Requeue::No);
        }
        for of in &pod.spec.resource_claims {
            let (name, made) = match plan::named(&pod, of) {
                Named::ByUser(name) => (name, false),
                Named::Made(name) => (name, true),
                _ => continue,
            };
            let Some(claim) = self.claims.get_key(&key_of(&pod, name)) else {
                return Ok(Requeue::No);
            };
            if made && !plan::is_for(&pod, &claim) {
                return Err(not_for(&pod, &claim));
            }
            if plan::to_reserve(&pod, &claim) {
                let mut reserved = ResourceClaim::clone(&claim);
                let status = reserved.status.get_or_insert_default();
                let users = status.reserved_for.get_or_insert_default();
                users.push(plan::consumer(&pod));
                self.claim_api.replace_status(&reserved).await?;
            }
        }
        Ok(Requeue::No)
    }

    /// Makes a claim from its template when there is none; the name that the pod's status is
    /// to say, if it does not yet.
    async fn make(&self, pod: &Pod, of: &PodResourceClaim) -> Result<Option<String>, Error> {
        let template = match plan::named(pod, of) {
            Named::ByUser(_) | Named::NotNeeded => return Ok(None),
            Named::Missing(template) => template,
            Named::Made(name) => {
                let claim = self.claims.get_key(&key_of(pod, name));
                if claim.is_some_and(|c| plan::is_for(pod, &c)) {
                    return Ok(None);
                }
                // It was deleted, or is somebody else's: the pod needs another.
                of.resource_claim_template_name
                    .as_deref()
                    .unwrap_or_default()
            }
            Named::Unknown => {
                let what = "checking for claim before creating it: unknown claim source";
                return Err(Error::Request(what.to_owned()));
            }
        };
        let owned = self.claims_by_owner.get(pod.uid());
        let found = owned.iter().find(|claim| {
            let annotations = claim.metadata.annotations.as_ref();
            annotations.and_then(|a| a.get(POD_CLAIM_NAME)) == Some(&of.name.to_string())
        });
        if let Some(found) = found {
            return Ok(Some(found.name().to_owned()));
        }
        let key = (pod.uid().to_owned(), of.name.to_string());
        let made = self.made.lock().get(&key).cloned();
        if let Some(name) = made {
            let api = self.claim_api.within(pod.namespace());
            if optional(api.get(&name).await)?.is_some() {
                return Ok(Some(name));
            }
        }
        let Some(from) = self.templates.get_key(&key_of(pod, template)) else {
            return Err(Error::Request(format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
            )));
        };
        let claim = plan::from_template(pod, &of.name, &from);
        let created = self.claim_api.create(&claim).await;
        let status = if created.is_ok() {
            "success"
        } else {
            "failure"
        };
        let labels = [status, metrics::admin_access(&claim)];
        self.creates.with_label_values(&labels).inc();
        let claim = created?;
        self.made.lock().insert(key, claim.name().to_owned());
        Ok(Some(claim.name().to_owned()))
    }

    /// Whether a consumer of a claim may still use it.
    async fn is_there(&self, namespace: &str, name: &str, uid: &str) -> Result<bool, Error> {
        match self.pods.get(namespace, name) {
            Some(pod) => Ok(pod.uid() == uid && !plan::is_done(&pod)),
            None => {
                // The cache may not have seen a pod that the scheduler has.
                let api = self.pod_api.within(namespace);
                let live = optional(api.get(name).await)?;
                Ok(live.is_some_and(|pod| pod.uid() == uid))
            }
        }
    }

    async fn sync_claim(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(claim) = self.claims.get_key(key) else {
            return Ok(Requeue::No);
        };
        let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref());
        let mut remaining = Vec::new();
        for user in users.into_iter().flatten() {
            // Of other users nothing is known.
            let pod = user.api_group.as_deref().unwrap_or("").is_empty() && user.resource == "pods";
            if !pod
                || self
                    .is_there(key.namespace(), &user.name, &user.uid)
                    .await?
            {
                remaining.push(user.clone());
            }
        }
        let unused = remaining.is_empty();
        let release = plan::release(&claim, remaining);
        let mut now = ResourceClaim::clone(&claim);
        if let Some(status) = &release.status {
            now = self.claim_api.replace_status(status).await?;
        }
        if release.unprotect {
            let finalizers = now.metadata.finalizers.as_mut();
            finalizers
                .into_iter()
                .for_each(|all| all.retain(|f| f != plan::FINALIZER));
            optional(self.claim_api.replace(&now).await)?;
        }
        if unused {
            self.delete_unneeded(&claim).await?;
        }
        Ok(Requeue::No)
    }

    /// A claim that was made for a pod that will not run is not kept until the pod goes.
    async fn delete_unneeded(&self, claim: &ResourceClaim) -> Result<(), Error> {
        let owner = controller_of(&claim.metadata).filter(|o| o.kind == "Pod");
        let Some(owner) = owner else {
            return Ok(());
        };
        // One that is not in the cache is left to the garbage collector.
        let Some(pod) = self.pods.get(claim.namespace(), &owner.name) else {
            return Ok(());
        };
        if pod.uid() == owner.uid && !plan::is_done(&pod) {
            return Ok(());
        }
        let api = self.claim_api.within(claim.namespace());
        optional(api.delete(claim.name(), &DeleteOptions::new()).await).map(drop)
    }
}

fn not_for(pod: &Pod, claim: &ResourceClaim) -> Error {
    Error::Request(format!(
        "ResourceClaim {} was not created for Pod {} (Pod is not owner)",
        claim.key(),
        pod.key()
    ))
}
