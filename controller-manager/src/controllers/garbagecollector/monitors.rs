//! The watches that feed the graph: one per deletable resource, coming and going with what
//! the server serves. Kinds that the process has caches of anyway are not watched twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::informer::{Event, Informer, Selection};
use client::{Api, Kind, Object, ResourceInfo, SlimMeta};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use meta::GroupVersionResource;
use prometheus::IntCounter;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::graph::{Change, FOREGROUND, Identity, ORPHAN, Observed, Owner};
use super::{Controller, Resources, discover};
use crate::context::Context;
use crate::controllers::nodelifecycle::Lease;
use crate::kinds::{Node, Pod};

/// An object's metadata, as far as the graph cares. The server reduces it; we drop the rest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Collected {
    metadata: CollectedMeta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CollectedMeta {
    name: Box<str>,
    namespace: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    deletion_timestamp: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    owner_references: Box<[OwnerReference]>,
    finalizers: Box<[String]>,
}

client::slim_object!(Collected);

/// Kinds whose caches are shared, with where their metadata is.
trait Shared: Kind {
    fn parts(&self) -> (&[OwnerReference], &[String], bool);
}

fn full(meta: &ObjectMeta) -> (&[OwnerReference], &[String], bool) {
    (
        meta.owner_references.as_deref().unwrap_or_default(),
        meta.finalizers.as_deref().unwrap_or_default(),
        meta.deletion_timestamp.is_some(),
    )
}

fn slim(meta: &SlimMeta) -> (&[OwnerReference], &[String], bool) {
    (
        &meta.owner_references,
        &meta.finalizers,
        meta.deletion_timestamp.is_some(),
    )
}

macro_rules! shared {
    ($($kind:ty: $parts:expr),* $(,)?) => {
        $(impl Shared for $kind {
            fn parts(&self) -> (&[OwnerReference], &[String], bool) {
                let parts: fn(&$kind) -> (&[OwnerReference], &[String], bool) = $parts;
                parts(self)
            }
        })*

        /// Feeds the graph from a shared cache; `false` if there is none of this resource.
        fn watch_shared(ctx: &Context, controller: &Arc<Controller>, resource: &ResourceInfo, waits: &mut Vec<Wait>) -> bool {
            $(if <$kind as Kind>::RESOURCE.gvr() == resource.gvr() {
                let informer = ctx.informer::<$kind>();
                feed(&informer, controller, resource);
                informer.start(&ctx.stop);
                waits.push(wait(&informer));
                return true;
            })*
            false
        }
    };
}

shared! {
    Pod: |p| slim(&p.metadata),
    Node: |n| slim(&n.metadata),
    Lease: |l| slim(&l.metadata),
    Deployment: |d| full(d.metadata()),
    ReplicaSet: |r| full(r.metadata()),
    Namespace: |n| full(n.metadata()),
    Service: |s| full(s.metadata()),
    ServiceAccount: |s| full(s.metadata()),
    Endpoints: |e| full(e.metadata()),
    EndpointSlice: |e| full(e.metadata()),
}

type Wait = futures::future::BoxFuture<'static, ()>;

fn wait<K: Object>(informer: &Informer<K>) -> Wait {
    let informer = informer.clone();
    Box::pin(async move { informer.wait_synced().await })
}

fn observed<K: Object>(
    object: &K,
    kind: &Arc<str>,
    api_version: &Arc<str>,
    parts: (&[OwnerReference], &[String], bool),
) -> Observed {
    let (owners, finalizers, deleting) = parts;
    let has = |finalizer: &str| finalizers.iter().any(|f| f == finalizer);
    Observed {
        identity: identity(object, kind, api_version),
        owners: owners.iter().map(Owner::from).collect(),
        deleting,
        foreground: has(FOREGROUND),
        orphan: has(ORPHAN),
    }
}

fn identity<K: Object>(object: &K, kind: &Arc<str>, api_version: &Arc<str>) -> Identity {
    Identity {
        kind: kind.clone(),
        api_version: api_version.clone(),
        namespace: object.namespace().into(),
        name: object.name().into(),
        uid: object.uid().into(),
    }
}

fn feed_with<K: Object>(
    informer: &Informer<K>,
    controller: &Arc<Controller>,
    resource: &ResourceInfo,
    parts: impl Fn(&K) -> (&[OwnerReference], &[String], bool) + Send + Sync + 'static,
) {
    let controller = Arc::clone(controller);
    let kind: Arc<str> = (&*resource.kind).into();
    let api_version: Arc<str> = resource.api_version().into();
    informer.add_handler(move |event| {
        let see = |object: &K| observed(object, &kind, &api_version, parts(object));
        match event {
            Event::Deleted(object) => {
                controller.apply(Change::Deleted(identity(&**object, &kind, &api_version)));
            }
            Event::Updated { old, new } if old.uid() != new.uid() => {
                // The name was taken by another object while we did not watch.
                controller.apply(Change::Deleted(identity(&**old, &kind, &api_version)));
                controller.apply(Change::Put(see(new), None));
            }
            Event::Added(new) => controller.apply(Change::Put(see(new), None)),
            Event::Updated { old, new } => {
                let (before, after) = (see(old), see(new));
                if before != after {
                    controller.apply(Change::Put(after, Some(before)));
                }
            }
        }
    });
}

fn feed<K: Shared>(informer: &Informer<K>, controller: &Arc<Controller>, resource: &ResourceInfo) {
    feed_with(informer, controller, resource, |k: &K| Shared::parts(k));
}

/// The watches that are running.
pub struct Monitors {
    ctx: Context,
    controller: Arc<Controller>,
    /// By resource; dropping the token's guard ends the watch. Shared ones are not ours to end.
    running: HashMap<GroupVersionResource, Option<CancellationToken>>,
    waits: Vec<Wait>,
    /// How often the server could not be asked.
    failures: IntCounter,
}

/// Events come and go by themselves, and are too many.
fn is_ignored(gvr: &GroupVersionResource) -> bool {
    gvr.resource == "events" && matches!(gvr.group.as_str(), "" | "events.k8s.io")
}

impl Monitors {
    pub fn new(ctx: &Context, controller: Arc<Controller>, failures: IntCounter) -> Self {
        Self {
            ctx: ctx.clone(),
            controller,
            running: HashMap::new(),
            waits: Vec::new(),
            failures,
        }
    }

    /// Watches what the server serves now. Returns `false` if it could not be asked.
    pub async fn sync(&mut self) -> bool {
        let found = match discover(&self.controller.client).await {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => {
                self.failures.inc();
                return false;
            }
            Err(err) => {
                tracing::info!(%err, "cannot discover resources");
                self.failures.inc();
                return false;
            }
        };
        if *self.controller.resources.read() == found {
            return true;
        }
        let mut wanted: HashSet<GroupVersionResource> = HashSet::new();
        let watchable = |r: &&crate::discovery::Resource| {
            ["delete", "list", "watch"].iter().all(|v| r.supports(v)) && !is_ignored(&r.gvr)
        };
        let mut new = Vec::new();
        for resource in found.preferred().filter(watchable) {
            wanted.insert(resource.gvr.clone());
            if !self.running.contains_key(&resource.gvr) {
                new.push(resource.clone());
            }
        }
        // A group that does not answer now is not gone.
        let failed: HashSet<_> = found.failed.keys().cloned().collect();
        self.running.retain(|gvr, stop| {
            let keep = wanted.contains(gvr) || failed.contains(&gvr.group_version());
            if !keep && let Some(stop) = stop {
                tracing::info!(resource = %gvr, "resource is gone");
                stop.cancel();
            }
            keep
        });
        self.set_resources(found);
        for resource in new {
            let info = ResourceInfo::dynamic(&resource.gvr, &resource.kind, resource.namespaced);
            let shared = watch_shared(&self.ctx, &self.controller, &info, &mut self.waits);
            let stop = (!shared).then(|| self.watch(info));
            self.running.insert(resource.gvr, stop);
        }
        true
    }

    fn set_resources(&self, found: Resources) {
        *self.controller.resources.write() = found;
    }

    fn watch(&mut self, resource: ResourceInfo) -> CancellationToken {
        let api: Api<Collected> = Api::metadata_as(&self.controller.client, resource.clone());
        let informer = Informer::new(api, &Selection::default());
        feed_with(&informer, &self.controller, &resource, |o: &Collected| {
            let meta = &o.metadata;
            (
                &meta.owner_references,
                &meta.finalizers,
                meta.deletion_timestamp.is_some(),
            )
        });
        let stop = self.ctx.stop.child_token();
        informer.start(&stop);
        self.waits.push(wait(&informer));
        stop
    }

    /// Waits until all that is watched has been seen once.
    pub async fn wait_synced(&mut self) {
        futures::future::join_all(self.waits.drain(..)).await;
    }
}
