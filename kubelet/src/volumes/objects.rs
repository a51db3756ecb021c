//! The config maps and secrets that this node's pods refer to: each is watched by itself, for as
//! long as a pod needs it. (The node authorizer lets a node see no others.)

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::informer::Selection;
use client::{Api, Client, Informer, Kind};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cri::env::{Lookup, Missing, Sources};
use crate::pods::pod::{PodExt, PodUid, as_container};

/// How long a pod waits for an object that is being fetched for the first time.
const FIRST_FETCH: Duration = Duration::from_secs(10);

type Key = (String, String);

struct Watched<K> {
    informer: Informer<K>,
    pods: HashSet<PodUid>,
    stop: CancellationToken,
}

/// Objects of one kind.
struct Cache<K> {
    /// As messages name the kind.
    noun: &'static str,
    client: Option<Client>,
    watched: Mutex<HashMap<Key, Watched<K>>>,
    changed: Arc<dyn Fn(Vec<PodUid>) + Send + Sync>,
}

impl<K: Kind + Send + Sync + 'static> Cache<K> {
    /// Sees to it that `pod` can have exactly `names` of its namespace.
    fn set(self: &Arc<Self>, pod: &PodUid, namespace: &str, names: &HashSet<String>) {
        let Some(client) = &self.client else { return };
        let mut watched = self.watched.lock();
        for name in names {
            let key = (namespace.to_owned(), name.clone());
            let entry = watched
                .entry(key.clone())
                .or_insert_with(|| self.watch(client, key));
            entry.pods.insert(pod.clone());
        }
        watched.retain(|(of, name), entry| {
            if of != namespace || !names.contains(name) {
                entry.pods.remove(pod);
            }
            let keep = !entry.pods.is_empty();
            if !keep {
                entry.stop.cancel();
            }
            keep
        });
    }

    fn watch(self: &Arc<Self>, client: &Client, key: Key) -> Watched<K> {
        let informer = Informer::new(Api::all(client), &Selection::name(&key.0, &key.1));
        let cache = Arc::downgrade(self);
        informer.add_handler(move |_| {
            let Some(cache) = cache.upgrade() else { return };
            let pods = cache
                .watched
                .lock()
                .get(&key)
                .map(|entry| entry.pods.iter().cloned().collect());
            (cache.changed)(pods.unwrap_or_default());
        });
        let stop = CancellationToken::new();
        informer.start(&stop);
        Watched {
            informer,
            pods: HashSet::new(),
            stop,
        }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, Missing> {
        let noun = self.noun;
        let key = (namespace.to_owned(), name.to_owned());
        let informer = self
            .watched
            .lock()
            .get(&key)
            .map(|entry| entry.informer.clone());
        let Some(informer) = informer else {
            return Err(Missing::Unavailable(format!(
                "object {namespace:?}/{name:?} not registered"
            )));
        };
        if tokio::time::timeout(FIRST_FETCH, informer.wait_synced())
            .await
            .is_err()
        {
            return Err(Missing::Unavailable(format!(
                "failed to sync {noun} cache: timed out waiting for the condition"
            )));
        }
        let found = informer.store().get(namespace, name);
        found.ok_or_else(|| Missing::NotFound(format!("{noun} {name:?} not found")))
    }
}

/// All objects that pods refer to.
pub struct Objects {
    config_maps: Arc<Cache<ConfigMap>>,
    secrets: Arc<Cache<Secret>>,
}

impl Objects {
    /// `changed` is told which pods refer to an object that changed; it must be quick.
    pub fn new(
        client: Option<Client>,
        changed: impl Fn(Vec<PodUid>) + Send + Sync + 'static,
    ) -> Self {
        let changed: Arc<dyn Fn(Vec<PodUid>) + Send + Sync> = Arc::new(changed);
        Self {
            config_maps: Arc::new(Cache {
                noun: "configmap",
                client: client.clone(),
                watched: Mutex::default(),
                changed: changed.clone(),
            }),
            secrets: Arc::new(Cache {
                noun: "secret",
                client,
                watched: Mutex::default(),
                changed,
            }),
        }
    }

    /// Watches what the pod refers to.
    pub fn register(&self, pod: &Pod) {
        let references = References::of(pod);
        let uid: PodUid = pod.uid().into();
        self.config_maps
            .set(&uid, pod.namespace(), &references.config_maps);
        self.secrets.set(&uid, pod.namespace(), &references.secrets);
    }

    /// Watches nothing for the pod any more.
    pub fn unregister(&self, pod: &Pod) {
        let uid: PodUid = pod.uid().into();
        self.config_maps.set(&uid, pod.namespace(), &HashSet::new());
        self.secrets.set(&uid, pod.namespace(), &HashSet::new());
    }

    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, Missing> {
        self.config_maps.get(namespace, name).await
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, Missing> {
        self.secrets.get(namespace, name).await
    }

    /// Everything that a container's environment refers to, looked up.
    pub async fn for_environment(&self, pod: &Pod, container: &Container) -> Resolved {
        let references = References::of_environment(container);
        let mut resolved = Resolved::default();
        for name in references.config_maps {
            let found = self.config_map(pod.namespace(), &name).await;
            resolved
                .config_maps
                .insert(name, found.map(|map| map.data.clone().unwrap_or_default()));
        }
        for name in references.secrets {
            let found = self.secret(pod.namespace(), &name).await;
            resolved.secrets.insert(
                name,
                found.map(|secret| secret.data.clone().unwrap_or_default()),
            );
        }
        resolved
    }
}

/// Looked-up objects, for what is computed from them.
#[derive(Default)]
pub struct Resolved {
    config_maps: BTreeMap<String, Lookup<String>>,
    secrets: BTreeMap<String, Lookup<k8s_openapi::ByteString>>,
}

impl Sources for Resolved {
    fn config_map(&self, name: &str) -> Lookup<String> {
        let unknown = || Err(Missing::NotFound(format!("configmap {name:?} not found")));
        self.config_maps.get(name).cloned().unwrap_or_else(unknown)
    }
    fn secret(&self, name: &str) -> Lookup<k8s_openapi::ByteString> {
        let unknown = || Err(Missing::NotFound(format!("secret {name:?} not found")));
        self.secrets.get(name).cloned().unwrap_or_else(unknown)
    }
}

/// Names of the objects that a pod refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: HashSet<String>,
    pub secrets: HashSet<String>,
}

impl References {
    pub fn of(pod: &Pod) -> Self {
        let mut all = Self::default();
        let ephemeral = pod.ephemeral_containers().iter().map(as_container);
        for container in pod
            .containers()
            .iter()
            .chain(pod.init_containers())
            .cloned()
            .chain(ephemeral)
        {
            let own = Self::of_environment(&container);
            all.config_maps.extend(own.config_maps);
            all.secrets.extend(own.secrets);
        }
        let spec = pod.pod_spec();
        let pull = spec
            .image_pull_secrets
            .iter()
            .flatten()
            .map(|reference| reference.name.clone());
        all.secrets.extend(pull.filter(|name| !name.is_empty()));
        for volume in spec.volumes.iter().flatten() {
            all.config_maps
                .extend(volume.config_map.as_ref().map(|source| source.name.clone()));
            all.secrets.extend(
                volume
                    .secret
                    .as_ref()
                    .and_then(|source| source.secret_name.clone()),
            );
            for source in volume
                .projected
                .iter()
                .flat_map(|projected| projected.sources.iter().flatten())
            {
                all.config_maps
                    .extend(source.config_map.as_ref().map(|source| source.name.clone()));
                all.secrets
                    .extend(source.secret.as_ref().map(|source| source.name.clone()));
            }
        }
        all
    }

    fn of_environment(container: &Container) -> Self {
        let mut all = Self::default();
        for from in container.env_from.iter().flatten() {
            all.config_maps.extend(
                from.config_map_ref
                    .as_ref()
                    .map(|reference| reference.name.clone()),
            );
            all.secrets.extend(
                from.secret_ref
                    .as_ref()
                    .map(|reference| reference.name.clone()),
            );
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            all.config_maps.extend(
                source
                    .config_map_key_ref
                    .as_ref()
                    .map(|reference| reference.name.clone()),
            );
            all.secrets.extend(
                source
                    .secret_key_ref
                    .as_ref()
                    .map(|reference| reference.name.clone()),
            );
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reference_is_found() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "s1"}, {"name": ""}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "c1"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}}]}],
            "volumes": [
                {"name": "a", "configMap": {"name": "c3"}},
                {"name": "b", "secret": {"secretName": "s3"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]}}],
        }}))
        .unwrap();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            References::of(&pod),
            References {
                config_maps: set(&["c1", "c2", "c3", "c4"]),
                secrets: set(&["s1", "s2", "s3", "s4"])
            }
        );
    }
}
