//! Where objects are stored: `--etcd-servers`, and the servers that some resources have for
//! themselves (`--etcd-servers-overrides`). Each set of servers has a cache of its own.
//!
//! What must not be here: what is stored (`registry/`), how (`storage/`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use component::metrics::Registry as Metrics;
use futures::future::{BoxFuture, join_all};

use crate::options::EtcdOptions;
use crate::proxy;
use crate::registry::store::StorageMedia;
use crate::storage::Storage;
use crate::storage::cache::{Cache, Options as CacheOptions};
use crate::storage::etcd::{Compactor, Etcd, Probe, Transport};
use crate::storage::keys::Keys;
use crate::storage::metrics::Metrics as StorageMetrics;

/// One set of etcd servers.
pub struct Backend {
    pub storage: Arc<dyn Storage>,
    pub cache: Arc<Cache>,
}

/// A backend of its own, and what it is for.
pub struct Other {
    /// Group and plural; `*` stands for all of a group.
    pub resources: Vec<(String, String)>,
    pub backend: Backend,
}

/// What is known of a set of servers' health.
pub struct Probes {
    pub health: Arc<Probe>,
    pub readiness: Arc<Probe>,
}

/// What comes of the etcd flags.
pub struct Backends {
    pub main: Backend,
    pub others: Vec<Other>,
    pub keys: Keys,
    pub media: StorageMedia,
    /// Every member by itself.
    pub members: Vec<proxy::Health>,
    /// The main servers', then the others'.
    pub probes: Vec<Probes>,
    /// What goes on beside requests: compaction, probes, metrics.
    pub tasks: Vec<BoxFuture<'static, ()>>,
}

/// Every cache there is. Cheap to clone.
#[derive(Clone)]
pub struct Caches(Arc<[Arc<Cache>]>);

impl FromIterator<Arc<Cache>> for Caches {
    fn from_iter<T: IntoIterator<Item = Arc<Cache>>>(caches: T) -> Self {
        Self(caches.into_iter().collect())
    }
}

impl Caches {
    /// Fills them, and has them follow etcd from then on.
    pub fn run(&self) {
        for cache in self.0.iter() {
            tokio::spawn(cache.clone().run());
        }
    }

    pub fn are_filled(&self) -> bool {
        self.0.iter().all(|cache| cache.revision() != 0)
    }

    /// Waits until all are filled.
    pub async fn synced(&self) {
        join_all(self.0.iter().map(|cache| cache.synced())).await;
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--etcd-servers-overrides invalid, must be of format: group/resource#servers, where servers \
     are URLs, semicolon separated"
)]
struct BadOverride;

type Resources = Vec<(String, String)>;

/// Without those that a comma too many makes, as etcd's client has it.
fn named(servers: &[String]) -> Vec<String> {
    let named = servers.iter().filter(|server| !server.is_empty());
    named.cloned().collect()
}

/// The resources by their servers, the sets of servers in the order in which they are named.
/// Servers in another order are the same set.
fn overrides(texts: &[String]) -> Result<Vec<(Vec<String>, Resources)>, BadOverride> {
    let mut sets: Vec<(Vec<String>, Resources)> = Vec::new();
    let mut known: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for text in texts {
        let (resource, servers) = text.split_once('#').ok_or(BadOverride)?;
        let (group, plural) = resource.split_once('/').ok_or(BadOverride)?;
        let servers: Vec<String> = servers.split(';').map(str::to_owned).collect();
        let is_bad = |server: &String| server.is_empty() || server.contains('#');
        if plural.contains('/') || servers.iter().any(is_bad) {
            return Err(BadOverride);
        }
        let mut set = servers.clone();
        set.sort();
        let at = *known.entry(set).or_insert_with(|| {
            sets.push((servers, Vec::new()));
            sets.len() - 1
        });
        sets[at].1.push((group.to_owned(), plural.to_owned()));
    }
    Ok(sets)
}

fn media(text: &str) -> anyhow::Result<StorageMedia> {
    match text {
        "" | "application/vnd.kubernetes.protobuf" => Ok(StorageMedia::Protobuf),
        "application/json" => Ok(StorageMedia::Json),
        "application/yaml" => bail!(
            "--storage-media-type: objects are not written as YAML; application/json is closest"
        ),
        other => bail!(
            "--storage-media-type {other:?} invalid, allowed values: application/json, \
             application/vnd.kubernetes.protobuf"
        ),
    }
}

impl Backends {
    /// # Errors
    /// The flags make no sense.
    pub fn new(options: &EtcdOptions, metrics: &Metrics) -> anyhow::Result<Backends> {
        let counts = !options.etcd_count_metric_poll_period.get().is_zero();
        let metrics = StorageMetrics::new(metrics.inner(), &options.etcd_prefix, counts)?;
        let transport = Transport {
            servers: named(&options.etcd_servers.0),
            ca_file: options.etcd_cafile.clone(),
            cert_file: options.etcd_certfile.clone(),
            key_file: options.etcd_keyfile.clone(),
        };
        let mut making = Making {
            options,
            metrics,
            keys: Keys::new(&options.etcd_prefix),
            members: Vec::new(),
            probes: Vec::new(),
            tasks: Vec::new(),
        };
        let main = making.backend(&transport)?;
        let mut others = Vec::new();
        for (servers, resources) in overrides(&options.etcd_servers_overrides.0)? {
            let transport = Transport {
                servers,
                ..transport.clone()
            };
            let backend = making
                .backend(&transport)
                .context("--etcd-servers-overrides")?;
            others.push(Other { resources, backend });
        }
        let Making {
            keys,
            members,
            probes,
            tasks,
            ..
        } = making;
        Ok(Backends {
            main,
            others,
            keys,
            media: media(&options.storage_media_type)?,
            members,
            probes,
            tasks,
        })
    }
}

/// Backends while they are made, one after the other.
struct Making<'a> {
    options: &'a EtcdOptions,
    metrics: Arc<StorageMetrics>,
    keys: Keys,
    members: Vec<proxy::Health>,
    probes: Vec<Probes>,
    tasks: Vec<BoxFuture<'static, ()>>,
}

impl Making<'_> {
    fn etcd(&self, transport: &Transport) -> anyhow::Result<Arc<Etcd>> {
        let etcd = Etcd::new(transport, &self.options.etcd_prefix, self.metrics.clone())?;
        Ok(Arc::new(etcd))
    }

    fn backend(&mut self, transport: &Transport) -> anyhow::Result<Backend> {
        let etcd = self.etcd(transport)?;
        let cache = Cache::new(
            etcd.clone(),
            CacheOptions {
                prefix: self.keys.root().to_owned(),
                ..CacheOptions::default()
            },
            self.metrics.clone(),
        );
        let patience = self.options.etcd_healthcheck_timeout.get();
        let first = self.members.len();
        for server in &transport.servers {
            let member = self.etcd(&Transport {
                servers: vec![server.clone()],
                ..transport.clone()
            })?;
            self.members.push(Arc::new(move || {
                let member = member.clone();
                Box::pin(async move { member.check(patience).await.map_err(|e| e.to_string()) })
            }));
        }
        let probe = self.probe(&etcd, patience);
        self.probes.push(probe);
        let interval = self.options.etcd_compaction_interval.get();
        if !interval.is_zero() {
            let forgetful = cache.clone();
            let compacted = move |revision| forgetful.compacted(revision);
            self.tasks.push(Box::pin(
                Compactor::new(etcd.clone()).run(interval, compacted),
            ));
        }
        let interval = self.options.etcd_db_metric_poll_interval.get();
        if !interval.is_zero() {
            let measured = etcd.clone();
            self.tasks.push(Box::pin(
                async move { measured.monitor(first, interval).await },
            ));
        }
        Ok(Backend {
            storage: etcd,
            cache,
        })
    }

    fn probe(&mut self, etcd: &Arc<Etcd>, patience: Duration) -> Probes {
        let health = Probe::new(etcd.clone(), patience);
        self.tasks.push(Box::pin(health.clone().run()));
        let longer = self.options.etcd_readycheck_timeout.get();
        let mut readiness = health.clone();
        if longer != patience {
            readiness = Probe::new(etcd.clone(), longer);
            self.tasks.push(Box::pin(readiness.clone().run()));
        }
        Probes { health, readiness }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_gathered_by_their_servers() {
        let parse = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            overrides(&texts)
        };
        let sets = parse(&[
            "/events#http://e1:2379",
            "apps/deployments#http://a;http://b",
            "apps/replicasets#http://b;http://a",
        ])
        .unwrap();
        assert_eq!(sets.len(), 2);
        assert_eq!(sets[0].1, [(String::new(), "events".to_owned())]);
        assert_eq!(sets[1].0, ["http://a", "http://b"]);
        assert_eq!(sets[1].1.len(), 2);
        for bad in [
            "events#http://a",
            "/events",
            "/events#",
            "/events#http://a;",
            "a/b/c#http://a",
        ] {
            assert_eq!(parse(&[bad]), Err(BadOverride), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        assert_eq!(media("application/json").unwrap(), StorageMedia::Json);
        assert!(media("application/yaml").is_err());
        assert!(media("application/cbor").is_err());
    }
}
