//! The watch cache as authentication, authorization and admission read it: [`Lookup`] over
//! the registry, and the task that feeds [`Observer`]s.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use codec::serde_pb::Part;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use meta::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::resource_quota::QuotaWriter;
use crate::authn::{ALL_AUTHENTICATED, MASTERS, User};
use crate::lookup::{Lookup, Observer};
use crate::registry::Registry;
use crate::registry::managed::FieldManager;
use crate::registry::store::{Store, Update, Warnings, Write, decode_part, is_same_part};
use crate::storage::cache::{At, ListQuery, Object, Selector, Start, WatchItem, WatchQuery};
use crate::storage::{Revision, keys};

/// Reads through the registry. It is made before the registry is, because plugins that
/// the registry asks hold it.
#[derive(Default)]
pub struct Reader {
    registry: OnceLock<Arc<Registry>>,
    trees: Mutex<HashMap<Place, (Revision, Arc<Value>)>>,
}

/// The address of an object's store, and its key there.
type Place = (usize, Box<str>);

/// How many trees are kept: every pod's admission looks at the same few namespaces, accounts,
/// classes and quotas. When there are more, all are forgotten.
const KEPT: usize = 1024;
/// Larger objects than this, in bytes, are read again each time.
const LARGE: usize = 32 * 1024;

impl Reader {
    /// Says where to read; once.
    pub fn connect(&self, registry: Arc<Registry>) {
        if self.registry.set(registry).is_err() {
            tracing::error!("the reader is connected already");
        }
    }

    fn store(&self, group: &str, resource: &str) -> Option<&Arc<Store>> {
        self.registry.get()?.store(group, resource)
    }

    /// The tree of an object, the same for all who ask until the object changes.
    fn tree(&self, store: &Arc<Store>, object: &Object) -> Option<Arc<Value>> {
        let place = (Arc::as_ptr(store) as usize, object.key().into());
        if let Some((revision, tree)) = self.trees.lock().get(&place)
            && *revision == object.revision()
        {
            return Some(tree.clone());
        }
        let tree = tree(store, object)?;
        if object.bytes().len() <= LARGE {
            let mut trees = self.trees.lock();
            if trees.len() >= KEPT {
                trees.clear();
            }
            trees.insert(place, (object.revision(), tree.clone()));
        }
        Some(tree)
    }
}

fn tree(store: &Store, object: &Object) -> Option<Arc<Value>> {
    match store.tree(object.bytes(), object.revision()) {
        Ok(tree) => Some(Arc::new(tree)),
        Err(e) => {
            tracing::error!(key = object.key(), error = %e, "an object cannot be read");
            None
        }
    }
}

impl Lookup for Reader {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let store = self.store(group, resource)?;
        // What is in memory is there without waiting.
        let found = store
            .cache
            .get(&keys::relative(namespace, name), At::Any)
            .now_or_never()?
            .ok()??;
        self.tree(store, &found)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let Some(store) = self.store(group, resource) else {
            return Vec::new();
        };
        let selector = Selector {
            namespace: namespace.to_owned(),
            ..Selector::default()
        };
        let query = ListQuery {
            selector: &selector,
            at: At::Any,
            limit: 0,
            start: "",
        };
        match store.cache.list(&query).now_or_never() {
            Some(Ok(list)) => list
                .objects
                .iter()
                .filter_map(|object| self.tree(store, object))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn get_fresh<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, Status>> {
        Box::pin(async move {
            let Some(store) = self.store(group, resource) else {
                return Ok(None);
            };
            match store.get_tree(namespace, name).await {
                Ok(tree) => Ok(Some(Arc::new(tree))),
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(e),
            }
        })
    }
}

impl QuotaWriter for Reader {
    fn write_status<'a>(&'a self, quota: Value) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let store = self.store("", "resourcequotas");
            let store = store.ok_or_else(Status::path_not_found)?;
            let user = User {
                name: "system:apiserver".to_owned(),
                groups: vec![ALL_AUTHENTICATED.to_owned(), MASTERS.to_owned()],
                ..User::default()
            };
            let text = |field: &str| quota["metadata"][field].as_str().unwrap_or_default();
            let write = Write {
                user: &user,
                group: "",
                namespace: text("namespace"),
                name: text("name"),
                subresource: "status",
                dry_run: false,
                warnings: &Warnings::default(),
                fields: Some(FieldManager {
                    subresource: "status",
                    ..FieldManager::server(store.resource)
                }),
            };
            let update = Update {
                change: &|_: Option<&Value>| Ok(quota.clone()),
                verb: "update",
                uid: None,
                force_create: false,
                noted: false,
                may_create: &|| Ok(()),
            };
            Ok(store.update(&write, &update).await?.object)
        })
    }
}

/// Feeds an observer with everything that is there and then with every change, for ever.
pub async fn feed(registry: Arc<Registry>, observer: Arc<dyn Observer>) {
    let mut streams = futures::stream::SelectAll::new();
    for observed in observer.observes() {
        if let Some(store) = registry.store(observed.group, observed.resource) {
            let followed = follow(store.clone(), observed.reads)
                .map(|(store, item)| (store, observed.reads, item));
            streams.push(Box::pin(followed));
        }
    }
    let mut waiting = streams.len();
    while let Some((store, reads, item)) = streams.next().await {
        let (group, resource) = (store.resource.group, store.resource.plural);
        match item {
            WatchItem::Added(object) | WatchItem::Modified(object) => {
                match decode_part(store.resource, object.bytes(), reads) {
                    Ok(part) => observer.put(group, resource, &part),
                    Err(e) => {
                        tracing::error!(key = object.key(), error = %e, "an object cannot be read");
                    }
                }
            }
            WatchItem::Deleted(object) => {
                observer.delete(group, resource, object.namespace(), object.name());
            }
            WatchItem::Bookmark {
                initial_events_end: true,
                ..
            } => {
                waiting = waiting.saturating_sub(1);
                if waiting == 0 {
                    observer.synced();
                }
            }
            WatchItem::Bookmark { .. } => {}
        }
    }
}

/// Watches what is read of a resource's objects, beginning again with the state whenever the
/// watch ends.
fn follow(store: Arc<Store>, reads: Part) -> impl futures::Stream<Item = (Arc<Store>, WatchItem)> {
    futures::stream::unfold((store, None), move |(store, mut watcher)| async move {
        loop {
            let current = match &mut watcher {
                Some(current) => current,
                None => {
                    let query = WatchQuery {
                        selector: Selector::default(),
                        start: Start::State {
                            at: At::Any,
                            marked: true,
                        },
                        bookmarks: true,
                    };
                    match store.cache.watch(query).await {
                        Ok(new) => {
                            let resource = store.resource;
                            let same = move |before: &Object, after: &Object| {
                                is_same_part(resource, before.bytes(), after.bytes(), reads)
                            };
                            watcher.insert(new.passing_over(Box::new(same)))
                        }
                        Err(e) => {
                            tracing::debug!(error = %e, "waiting for the watch cache");
                            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                            continue;
                        }
                    }
                }
            };
            match current.next().await {
                Some(Ok(item)) => {
                    let pair = (store.clone(), item);
                    return Some((pair, (store, watcher)));
                }
                Some(Err(_)) | None => watcher = None,
            }
        }
    })
}
