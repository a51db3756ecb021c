//! The registry: what the API's verbs do to objects. One generic [`store`] serves every
//! resource; what is special about a kind is a strategy or a hook in a file of its own.
//!
//! [`Registry`] knows every resource that is served. What must not be here: HTTP.

pub mod as_read;
pub mod certificate_requests;
mod claims;
pub mod columns;
pub mod conditions;
pub mod convert;
pub mod deletion;
mod device_claims;
pub mod events;
pub mod gated;
pub mod generic;
pub mod ingest;
pub mod jobs;
pub mod managed;
pub mod namespaces;
pub mod object_meta;
pub mod options;
mod pod_certificates;
pub mod pods;
pub mod rest;
pub mod reviews;
pub mod scale;
pub mod service_account_tokens;
pub mod services;
pub mod special;
pub mod store;
pub mod strategy;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use component::features::FeatureGates;
use schema::Resource;

use crate::storage::Storage;
use crate::storage::cache::Cache;
use store::{Env, Store};
use strategy::Strategy;

/// Every resource that is served, and where its objects are.
pub struct Registry {
    stores: Vec<Arc<Store>>,
    /// Index into `stores` by group and plural of the stored version.
    store_index: HashMap<(&'static str, &'static str), usize>,
    served: Vec<&'static Resource>,
    /// Index into `served` by group, version and plural.
    index: HashMap<(&'static str, &'static str, &'static str), usize>,
}

/// Which storage and cache have which resources.
pub struct Places {
    main: (Arc<Cache>, Arc<Env>),
    /// By group and plural of the stored version; `*` stands for all of a group.
    others: HashMap<(String, String), (Arc<Cache>, Arc<Env>)>,
}

impl Places {
    pub fn new(cache: Arc<Cache>, env: Arc<Env>) -> Places {
        Places {
            main: (cache, env),
            others: HashMap::new(),
        }
    }

    /// These resources have a storage of their own.
    pub fn elsewhere(
        &mut self,
        resources: &[(String, String)],
        cache: &Arc<Cache>,
        storage: &Arc<dyn Storage>,
    ) {
        let env = Arc::new(Env {
            storage: storage.clone(),
            ..Env::clone(&self.main.1)
        });
        for resource in resources {
            let place = (cache.clone(), env.clone());
            self.others.insert(resource.clone(), place);
        }
    }

    fn of(&self, stored: &Resource) -> &(Arc<Cache>, Arc<Env>) {
        let find = |plural: &str| {
            let key = (stored.group.to_owned(), plural.to_owned());
            self.others.get(&key)
        };
        find(stored.plural)
            .or_else(|| find("*"))
            .unwrap_or(&self.main)
    }
}

/// The strategies of kinds that are special, by group and plural.
pub type Strategies = HashMap<(&'static str, &'static str), Box<dyn Strategy>>;

impl Registry {
    pub fn new(
        versions: &[crate::discovery::Version],
        places: &Places,
        mut strategies: Strategies,
        gates: &FeatureGates,
    ) -> Registry {
        let served: Vec<&'static Resource> = versions
            .iter()
            .flat_map(|version| version.resources.iter().copied())
            .collect();
        let index = served
            .iter()
            .enumerate()
            .map(|(i, r)| ((r.group, r.version, r.plural), i))
            .collect();
        let mut stores = Vec::new();
        let mut store_index = HashMap::new();
        for resource in &served {
            let Some(stored) = stored_version(resource) else {
                continue;
            };
            let key = (stored.group, stored.plural);
            if store_index.contains_key(&key) {
                continue;
            }
            let strategy = strategies
                .remove(&key)
                .unwrap_or_else(|| Box::new(generic::Generic::new(stored)));
            let strategy = gated::dropping(strategy, key, gates);
            let (cache, env) = places.of(stored);
            let cached = cache.register(ingest::definition(stored, env.primary_family));
            let store = Store::new(stored, cached, strategy, env.clone());
            store_index.insert(key, stores.len());
            stores.push(Arc::new(store));
        }
        Registry {
            stores,
            store_index,
            served,
            index,
        }
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        // The keys are 'static; a lookup by shorter-lived text needs no allocation.
        let index = self.index.get(&(group, version, plural))?;
        Some(self.served[*index])
    }

    /// Whether any version of this group is served.
    pub fn serves_group(&self, group: &str) -> bool {
        self.served.iter().any(|r| r.group == group)
    }

    /// Whether any resource of this group version is served.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.served
            .iter()
            .any(|r| r.group == group && r.version == version)
    }

    /// Where a served resource's objects are.
    pub fn store_of(&self, resource: &'static Resource) -> Option<&Arc<Store>> {
        let stored = stored_version(resource)?;
        self.store(stored.group, stored.plural)
    }

    /// A store by group and plural of the stored version.
    pub fn store(&self, group: &str, plural: &str) -> Option<&Arc<Store>> {
        let index = *self.store_index.get(&(group, plural))?;
        self.stores.get(index)
    }
}

/// The version in which etcd holds a resource; `None` for what is never stored. A kind whose
/// stored version is no longer served (CustomResourceDefinition) is held as it is served,
/// which upstream reads as well.
pub fn stored_version(resource: &'static Resource) -> Option<&'static Resource> {
    static STORED: LazyLock<HashMap<usize, &'static Resource>> = LazyLock::new(|| {
        let all = schema::resources().iter();
        let pairs = all.filter_map(|r| Some((std::ptr::from_ref(r) as usize, find_stored(r)?)));
        pairs.collect()
    });
    STORED
        .get(&(std::ptr::from_ref(resource) as usize))
        .copied()
}

fn find_stored(resource: &'static Resource) -> Option<&'static Resource> {
    if resource.storage_version.is_empty() {
        return None;
    }
    let (group, version) = resource
        .storage_version
        .split_once('/')
        .unwrap_or(("", resource.storage_version));
    schema::resources()
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == resource.plural)
        .or(Some(resource))
}
