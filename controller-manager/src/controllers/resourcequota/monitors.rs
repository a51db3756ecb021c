//! The watches that quotas are counted from: one for each resource that some quota counts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::quota::resource_claims::{DeviceClasses, Owner, Owners};
use api::quota::{
    Evaluator, Measured, Pod, Quota, Service, Surroundings, VolumeClaim, is_ignored, total,
};
use api::resources::{self, ResourceList};
use client::informer::{Event, Index, Informer, Selection};
use client::{Api, Client, Object, ResourceInfo};
use jiff::Timestamp;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::counted::{Counted, CountedClaim, CountedClass, One};
use crate::discovery::{Resources, discover};

/// How long a sync waits for a watch that has just begun.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// A resource that is counted, by group and plural.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Counter {
    group: String,
    resource: String,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        meta::GroupResource::new(self.group.as_str(), self.resource.as_str()).fmt(f)
    }
}

impl Counter {
    fn new(group: &str, resource: &str) -> Self {
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
        }
    }

    fn evaluator(&self) -> Evaluator {
        Evaluator::of(&self.group, &self.resource)
    }
}

/// Resources that cost more than one of themselves, or have older names.
const STATIC: [(&str, &str); 8] = [
    ("", "pods"),
    ("", "services"),
    ("", "persistentvolumeclaims"),
    ("resource.k8s.io", "resourceclaims"),
    ("", "configmaps"),
    ("", "resourcequotas"),
    ("", "replicationcontrollers"),
    ("", "secrets"),
];

/// What of a resource is counted under a name. A name may count several resources.
fn counters(name: &str, classes: &DeviceClasses) -> Vec<Counter> {
    let name = name.to_owned();
    let mut found: Vec<Counter> = STATIC
        .iter()
        .map(|(group, resource)| Counter::new(group, resource))
        .filter(|c| {
            !c.evaluator()
                .matching([&name].into_iter(), classes)
                .is_empty()
        })
        .collect();
    if found.is_empty()
        && let Some(counted) = name.strip_prefix("count/")
    {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        if !is_ignored(group, resource) {
            found.push(Counter::new(group, resource));
        }
    }
    found
}

/// Told of a namespace in which something may count differently now.
type Replenish = Arc<dyn Fn(&Counter, &str, Change) + Send + Sync>;

/// What happened to a counted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The API server has charged for it, unless the quota is younger than the object.
    Came,
    /// It went, or costs something else.
    Went,
}

/// A watch with the objects by namespace.
struct Watched<K> {
    informer: Informer<K>,
    by_namespace: Index<K>,
}

impl<K: Object> Watched<K> {
    fn new(api: Api<K>) -> Self {
        let informer = Informer::new(api, &Selection::default());
        let by_namespace = informer.add_index("namespace", |k: &K| vec![k.namespace().to_owned()]);
        Self {
            informer,
            by_namespace,
        }
    }

    fn begin(
        self,
        counter: &Counter,
        replenish: &Replenish,
        stop: &CancellationToken,
        cheaper: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (counter, replenish) = (counter.clone(), Arc::clone(replenish));
        self.informer.add_handler(move |event| {
            let change = match event {
                Event::Added(_) => Change::Came,
                Event::Updated { old, new } if !cheaper(old, new) => return,
                Event::Updated { .. } | Event::Deleted(_) => Change::Went,
            };
            replenish(&counter, event.object().namespace(), change);
        });
        self.informer.start(stop);
        self
    }
}

enum Objects {
    Pods(Watched<Counted<Pod>>),
    Services(Watched<Counted<Service>>),
    VolumeClaims(Watched<Counted<VolumeClaim>>),
    ResourceClaims(Watched<CountedClaim>),
    Others(Watched<One>),
}

struct Monitor {
    objects: Objects,
    stop: CancellationToken,
}

impl Monitor {
    fn has_synced(&self) -> bool {
        match &self.objects {
            Objects::Pods(w) => w.informer.has_synced(),
            Objects::Services(w) => w.informer.has_synced(),
            Objects::VolumeClaims(w) => w.informer.has_synced(),
            Objects::ResourceClaims(w) => w.informer.has_synced(),
            Objects::Others(w) => w.informer.has_synced(),
        }
    }

    async fn wait_synced(&self) {
        match &self.objects {
            Objects::Pods(w) => w.informer.wait_synced().await,
            Objects::Services(w) => w.informer.wait_synced().await,
            Objects::VolumeClaims(w) => w.informer.wait_synced().await,
            Objects::ResourceClaims(w) => w.informer.wait_synced().await,
            Objects::Others(w) => w.informer.wait_synced().await,
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub struct Monitors {
    client: Client,
    stop: CancellationToken,
    replenish: Replenish,
    running: RwLock<HashMap<Counter, Arc<Monitor>>>,
    /// Watched once a quota counts what a device class may stand for.
    classes: Informer<CountedClass>,
    /// What the server serves, as of the last time that somebody had to know.
    resources: RwLock<Resources>,
}

impl Monitors {
    pub fn new(client: &Client, stop: &CancellationToken, replenish: Replenish) -> Self {
        Self {
            client: client.clone(),
            stop: stop.clone(),
            replenish,
            running: RwLock::default(),
            classes: Informer::new(Api::all(client), &Selection::default()),
            resources: RwLock::default(),
        }
    }

    fn device_classes(&self) -> DeviceClasses {
        let all = self.classes.store().list();
        all.iter().map(|class| class.0.clone()).collect()
    }

    /// Whether a resource is counted under a name.
    pub fn counts(&self, counter: &Counter, name: &str) -> bool {
        counters(name, &self.device_classes()).contains(counter)
    }

    /// Whether anything that is watched or served is counted under a name.
    pub fn can_count(&self, name: &str) -> bool {
        let found = counters(name, &self.device_classes());
        found.iter().any(|c| self.resource(c).is_some())
    }

    /// How a counted resource is served.
    fn resource(&self, counter: &Counter) -> Option<ResourceInfo> {
        if STATIC.contains(&(&counter.group, &counter.resource)) {
            let gvr = meta::GroupVersionResource::new(
                counter.group.as_str(),
                "v1",
                counter.resource.as_str(),
            );
            return Some(ResourceInfo::dynamic(&gvr, "", true));
        }
        let resources = self.resources.read();
        let found = resources.preferred().find(|r| {
            r.gvr.group == counter.group
                && r.gvr.resource == counter.resource
                && r.namespaced
                && ["create", "list", "watch", "delete"]
                    .iter()
                    .all(|verb| r.supports(verb))
        })?;
        Some(ResourceInfo::dynamic(&found.gvr, &found.kind, true))
    }

    /// Asks the server what it serves, if that matters for any of these.
    async fn discover(&self, wanted: &[Counter]) {
        let is_static = |c: &Counter| STATIC.contains(&(&c.group, &c.resource));
        if wanted.iter().all(is_static) {
            return;
        }
        match discover(&self.client).await {
            Ok(mut found) if !found.is_empty() => {
                let mut known = self.resources.write();
                // A group that does not answer now is not gone.
                if found.failed.is_empty() || known.is_empty() {
                    std::mem::swap(&mut *known, &mut found);
                }
            }
            Ok(_) => {}
            Err(err) => tracing::info!(%err, "cannot discover resources"),
        }
    }

    fn wanted(&self, names: &[String]) -> Vec<Counter> {
        let classes = self.device_classes();
        let mut wanted: Vec<Counter> = names.iter().flat_map(|n| counters(n, &classes)).collect();
        // A claim may have been paid for by its pod.
        let (claims, pods) = (
            Counter::new("resource.k8s.io", "resourceclaims"),
            Counter::new("", "pods"),
        );
        if wanted.contains(&claims) {
            wanted.push(pods);
        }
        let mut unique: Vec<Counter> = Vec::new();
        for counter in wanted {
            if !unique.contains(&counter) {
                unique.push(counter);
            }
        }
        unique
    }

    /// Sees to it that all that these names count is watched. Returns what is not known yet.
    pub async fn need(&self, names: &[String]) -> Vec<Counter> {
        let extended = |name: &String| {
            let rest = name.strip_prefix("requests.");
            rest.is_some_and(|rest| rest.contains('/'))
        };
        if names.iter().any(extended) {
            self.classes.start(&self.stop);
            let _ = tokio::time::timeout(SYNC_TIMEOUT, self.classes.wait_synced()).await;
        }
        let wanted = self.wanted(names);
        if wanted.iter().any(|c| self.resource(c).is_none()) {
            self.discover(&wanted).await;
        }
        let monitors: Vec<(Counter, Arc<Monitor>)> = wanted
            .into_iter()
            .filter_map(|counter| {
                let resource = self.resource(&counter)?;
                let monitor = self.monitor(&counter, resource);
                Some((counter, monitor))
            })
            .collect();
        let all = monitors.iter().map(|(_, monitor)| monitor.wait_synced());
        let all = futures::future::join_all(all);
        let _ = tokio::time::timeout(SYNC_TIMEOUT, all).await;
        let unsynced = monitors.into_iter().filter(|(_, m)| !m.has_synced());
        unsynced.map(|(counter, _)| counter).collect()
    }

    fn monitor(&self, counter: &Counter, resource: ResourceInfo) -> Arc<Monitor> {
        let mut running = self.running.write();
        if let Some(monitor) = running.get(counter) {
            return Arc::clone(monitor);
        }
        tracing::info!(resource = %counter, "watching what a quota counts");
        let stop = self.stop.child_token();
        let replenish = &self.replenish;
        fn cheaper<T>(old: &Counted<T>, new: &Counted<T>) -> bool {
            !old.measured.counts_like(&new.measured, Timestamp::now())
        }
        let api = &self.client;
        let objects = match counter.evaluator() {
            Evaluator::Pods => {
                let watched = Watched::new(Api::all(api));
                Objects::Pods(watched.begin(counter, replenish, &stop, cheaper::<Pod>))
            }
            Evaluator::Services => {
                let watched = Watched::new(Api::all(api));
                Objects::Services(watched.begin(counter, replenish, &stop, cheaper::<Service>))
            }
            Evaluator::VolumeClaims => {
                let watched = Watched::new(Api::all(api));
                let cheaper = cheaper::<VolumeClaim>;
                Objects::VolumeClaims(watched.begin(counter, replenish, &stop, cheaper))
            }
            Evaluator::ResourceClaims => {
                let watched = Watched::new(Api::all(api));
                Objects::ResourceClaims(watched.begin(counter, replenish, &stop, |_, _| false))
            }
            Evaluator::Count { .. } => {
                let watched = Watched::new(Api::metadata_as(api, resource));
                Objects::Others(watched.begin(counter, replenish, &stop, |_, _| false))
            }
        };
        let monitor = Arc::new(Monitor { objects, stop });
        running.insert(counter.clone(), Arc::clone(&monitor));
        monitor
    }

    /// Ends what none of these names needs. Returns whether something is served now that was
    /// not before.
    pub async fn look_over(&self, names: &[String]) -> bool {
        let wanted = self.wanted(names);
        let unserved = |c: &&Counter| self.resource(c).is_none();
        let missing: Vec<Counter> = wanted.iter().filter(unserved).cloned().collect();
        self.discover(&wanted).await;
        self.running.write().retain(|counter, _| {
            let keep = wanted.contains(counter) && self.resource(counter).is_some();
            if !keep {
                tracing::info!(resource = %counter, "no quota counts this any more");
            }
            keep
        });
        missing.iter().any(|c| self.resource(c).is_some())
    }

    /// What is used of all that a quota counts and that is known.
    pub fn usage(&self, quota: &Quota, unsynced: &[Counter], now: Timestamp) -> ResourceList {
        let classes = self.device_classes();
        let scopes = quota.spec.requirements();
        let running = self.running.read();
        let pods = match running.get(&Counter::new("", "pods")).map(|m| &m.objects) {
            Some(Objects::Pods(pods)) => Some(pods),
            _ => None,
        };
        let names: Vec<String> = quota.spec.hard.keys().cloned().collect();
        let mut sum = ResourceList::new();
        for counter in self.wanted(&names) {
            let Some(monitor) = running
                .get(&counter)
                .filter(|_| !unsynced.contains(&counter))
            else {
                continue;
            };
            let evaluator = counter.evaluator();
            let own = evaluator.matching(names.iter(), &classes);
            if own.is_empty() {
                continue;
            }
            let namespace = &quota.metadata.namespace;
            let add = |objects: Vec<Measured>| {
                total(&own, &scopes, objects.into_iter().map(Cow::Owned), now)
            };
            let counted = match &monitor.objects {
                Objects::Pods(w) => measured(&w.by_namespace, namespace, &own, &scopes, now),
                Objects::Services(w) => measured(&w.by_namespace, namespace, &own, &scopes, now),
                Objects::VolumeClaims(w) => {
                    measured(&w.by_namespace, namespace, &own, &scopes, now)
                }
                Objects::ResourceClaims(claims) => {
                    let owners = Cached { pods, claims, now };
                    let around = Surroundings {
                        classes: &classes,
                        owners: &owners,
                    };
                    let all = claims.by_namespace.get(namespace);
                    add(all.iter().map(|claim| claim.0.measure(&around)).collect())
                }
                Objects::Others(w) => add(vec![evaluator.one(); w.by_namespace.count(namespace)]),
            };
            resources::add(&mut sum, &counted);
        }
        sum
    }
}

fn measured<T: super::counted::Priced>(
    index: &Index<Counted<T>>,
    namespace: &str,
    names: &[String],
    scopes: &[api::quota::scopes::Requirement],
    now: Timestamp,
) -> ResourceList {
    let all = index.get(namespace);
    let costs = all.iter().map(|object| Cow::Borrowed(&object.measured));
    total(names, scopes, costs, now)
}

/// Whose claims are whose, as the watches have it.
struct Cached<'a> {
    pods: Option<&'a Watched<Counted<Pod>>>,
    claims: &'a Watched<CountedClaim>,
    now: Timestamp,
}

impl Owners for Cached<'_> {
    fn pod(&self, namespace: &str, name: &str) -> Option<Owner> {
        let pod = self.pods?.informer.store().get(namespace, name)?;
        Some(Owner {
            uid: pod.uid().to_owned(),
            claim: pod.extended_claim.as_deref().map(str::to_owned),
            usage: pod.measured.usage(self.now).into_owned(),
        })
    }

    fn claims(&self, namespace: &str, pod_uid: &str) -> Vec<(String, String)> {
        let all = self.claims.by_namespace.get(namespace);
        let own = all.iter().map(|claim| &claim.0);
        own.filter(|c| c.pod_owner().is_some_and(|(_, uid)| uid == pod_uid))
            .map(|c| {
                (
                    c.metadata.creation_timestamp.clone(),
                    c.metadata.name.clone(),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_counted_under_them() {
        let of = |name: &str| {
            let found = counters(name, &DeviceClasses::default());
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            shown.join(" ")
        };
        assert_eq!(of("cpu"), "pods");
        assert_eq!(of("requests.example.com/gpu"), "pods");
        assert_eq!(of("services.nodeports"), "services");
        assert_eq!(
            of("gold.storageclass.storage.k8s.io/requests.storage"),
            "persistentvolumeclaims"
        );
        assert_eq!(of("secrets"), "secrets");
        assert_eq!(of("count/secrets"), "secrets");
        assert_eq!(of("count/deployments.apps"), "deployments.apps");
        assert_eq!(of("count/widgets.a.example.com"), "widgets.a.example.com");
        assert_eq!(of("count/events"), "");
        assert_eq!(of("example.com/x"), "");
        assert_eq!(
            of("gpu.deviceclass.resource.k8s.io/devices"),
            "resourceclaims.resource.k8s.io"
        );
    }
}
