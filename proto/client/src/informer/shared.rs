//! [`Informer`]: drives a reflector against the API and tells handlers; [`Informers`]: one
//! informer per kind and selection in a process.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meta::GroupVersionResource;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::reflector::{Action, Reflector};
use super::store::{Event, Index, Store};
use crate::api::{Api, ListOptions, WatchEvent, WatchStream};
use crate::client::Client;
use crate::error::Error;
use crate::object::{Kind, Object, ObjectKey, PartialObject};

type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;
type Transform<K> = Box<dyn Fn(&mut K) + Send + Sync>;

/// Which objects of a kind an informer is about. All by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Empty for all namespaces.
    pub namespace: String,
    pub labels: String,
    /// Such as `spec.nodeName=n1`.
    pub fields: String,
}

impl Selection {
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            ..Self::default()
        }
    }

    pub fn fields(selector: impl ToString) -> Self {
        Self {
            fields: selector.to_string(),
            ..Self::default()
        }
    }

    pub fn labels(selector: impl ToString) -> Self {
        Self {
            labels: selector.to_string(),
            ..Self::default()
        }
    }

    /// One object, by name.
    pub fn name(namespace: impl Into<String>, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            fields: meta::fields::Selector::equals("metadata.name", name).to_string(),
            labels: String::new(),
        }
    }
}

/// A local copy of one kind's objects, kept up to date. Cheap to clone.
///
/// Handlers are called one after the other from the task that writes the store, each event
/// after the store shows it; they must be quick and most often only add a key to a queue.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    api: Api<K>,
    selection: ListOptions,
    store: Store<K>,
    /// Held while the store changes and handlers hear of it, so that a new handler misses
    /// nothing and hears nothing twice.
    handlers: Mutex<Vec<Handler<K>>>,
    transform: Mutex<Option<Transform<K>>>,
    synced: watch::Sender<bool>,
    started: AtomicBool,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K: Object> Informer<K> {
    /// An informer of its own; most come from [`Informers`]. Nothing happens before [`Informer::start`].
    pub fn new(api: Api<K>, selection: &Selection) -> Self {
        let options = ListOptions::new()
            .labels(&selection.labels)
            .fields(&selection.fields);
        Self {
            inner: Arc::new(Inner {
                api: api.within(&selection.namespace),
                selection: options,
                store: Store::new(),
                handlers: Mutex::new(Vec::new()),
                transform: Mutex::new(None),
                synced: watch::Sender::new(false),
                started: AtomicBool::new(false),
            }),
        }
    }

    /// What is known now. Empty until synced.
    pub fn store(&self) -> &Store<K> {
        &self.inner.store
    }

    /// See [`Store::add_index`].
    pub fn add_index(
        &self,
        name: &'static str,
        values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Index<K> {
        self.inner.store.add_index(name, values)
    }

    /// Calls `handler` for every change from now on, after calling it with [`Event::Added`]
    /// for all that exists. Handlers must not add handlers.
    pub fn add_handler(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        let mut handlers = self.inner.handlers.lock();
        for object in self.inner.store.list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Changes every object before it is kept, to drop what nobody reads. One per informer;
    /// set it before the start.
    pub fn set_transform(&self, transform: impl Fn(&mut K) + Send + Sync + 'static) {
        *self.inner.transform.lock() = Some(Box::new(transform));
    }

    /// Whether everything that existed when the informer started has been handled.
    pub fn has_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    /// Waits until [`Informer::has_synced`].
    pub async fn wait_synced(&self) {
        // The sender lives as long as `self`.
        let _ = self
            .inner
            .synced
            .subscribe()
            .wait_for(|synced| *synced)
            .await;
    }

    /// Spawns the task that keeps the store up to date until `stop`. Later calls do nothing.
    pub fn start(&self, stop: &CancellationToken) {
        if self.inner.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(inner.run()).await });
    }
}

impl<K: Object> Inner<K> {
    async fn run(&self) {
        let mut reflector = Reflector::new(self.selection.clone());
        let plural = &*self.api.resource().plural;
        loop {
            let outcome = match reflector.next(rand::random()) {
                Action::Wait(delay) => {
                    tokio::time::sleep(delay).await;
                    continue;
                }
                Action::List(options) => self.list(&mut reflector, &options).await,
                Action::Stream(options) => match self.api.watch(&options).await {
                    Ok(stream) => self.follow(&mut reflector, stream, true).await,
                    Err(e) => Err(e),
                },
                Action::Watch(options) => match self.api.watch(&options).await {
                    Ok(stream) => self.follow(&mut reflector, stream, false).await,
                    Err(e) => Err(e),
                },
            };
            if let Err(err) = outcome {
                if err.is_expired() || err.is_invalid() || err.is_bad_request() {
                    tracing::debug!(%err, resource = plural, "list and watch starts over");
                } else {
                    tracing::warn!(%err, resource = plural, "list or watch failed, trying again");
                }
                reflector.failed(&err);
            }
        }
    }

    async fn list(&self, reflector: &mut Reflector, options: &ListOptions) -> Result<(), Error> {
        // Revision 0 comes out of the server's cache, which has no pages.
        let list = if options.resource_version.as_deref() == Some("0") {
            self.api.list(options).await?
        } else {
            self.api.list_pages(options).await?
        };
        let revision = list.resource_version().to_owned();
        self.replace(list.items);
        reflector.listed(&revision);
        Ok(())
    }

    /// Takes in a watch until it ends. `initial`: it begins with what exists.
    async fn follow(
        &self,
        reflector: &mut Reflector,
        mut stream: WatchStream<K>,
        initial: bool,
    ) -> Result<(), Error> {
        let mut collecting: Option<HashMap<ObjectKey, K>> = initial.then(HashMap::new);
        while let Some(event) = stream.next().await? {
            match (event, &mut collecting) {
                (WatchEvent::Error(status), _) => return Err(status.into()),
                (WatchEvent::Added(k) | WatchEvent::Modified(k), Some(objects)) => {
                    objects.insert(k.key(), k);
                }
                (WatchEvent::Deleted(k), Some(objects)) => {
                    objects.remove(&k.key());
                }
                (
                    WatchEvent::Bookmark {
                        resource_version,
                        initial_events_end,
                    },
                    Some(objects),
                ) => {
                    if initial_events_end {
                        let objects = std::mem::take(objects);
                        collecting = None;
                        self.replace(objects.into_values().collect());
                        reflector.listed(&resource_version);
                    }
                }
                (WatchEvent::Added(k) | WatchEvent::Modified(k), None) => {
                    let revision = k.resource_version().to_owned();
                    self.put(k);
                    reflector.progressed(&revision);
                }
                (WatchEvent::Deleted(k), None) => {
                    let revision = k.resource_version().to_owned();
                    self.tell(|store| store.remove_final(k).into_iter().collect());
                    reflector.progressed(&revision);
                }
                (
                    WatchEvent::Bookmark {
                        resource_version, ..
                    },
                    None,
                ) => {
                    reflector.progressed(&resource_version);
                }
            }
        }
        reflector.closed();
        Ok(())
    }

    fn prepare(&self, object: &mut K) {
        object.trim();
        if let Some(transform) = &*self.transform.lock() {
            transform(object);
        }
    }

    fn put(&self, mut object: K) {
        self.prepare(&mut object);
        self.tell(|store| store.put(object).into_iter().collect());
    }

    fn replace(&self, mut objects: Vec<K>) {
        for object in &mut objects {
            self.prepare(object);
        }
        self.tell(|store| store.replace(objects));
        self.synced.send_replace(true);
    }

    fn tell(&self, change: impl FnOnce(&Store<K>) -> Vec<Event<K>>) {
        let handlers = self.handlers.lock();
        for event in change(&self.store) {
            for handler in handlers.iter() {
                handler(&event);
            }
        }
    }
}

/// What [`Informers`] needs to know of an informer of any kind.
trait AnyInformer: Any + Send + Sync {
    fn start(&self, stop: &CancellationToken);
    fn synced(&self) -> watch::Receiver<bool>;
    fn resource(&self) -> String;
    fn as_any(&self) -> &dyn Any;
}

impl<K: Object> AnyInformer for Informer<K> {
    fn start(&self, stop: &CancellationToken) {
        Informer::start(self, stop);
    }
    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced.subscribe()
    }
    fn resource(&self) -> String {
        self.inner.api.resource().group_resource().to_string()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

type InformerKey = (TypeId, GroupVersionResource, Selection);

/// The informers of a process: each kind and selection is watched once, however many ask.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    all: Arc<Mutex<HashMap<InformerKey, Arc<dyn AnyInformer>>>>,
}

impl Informers {
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            all: Arc::default(),
        }
    }

    /// The informer of all objects of a kind.
    pub fn get<K: Kind>(&self) -> Informer<K> {
        self.select(&Selection::default())
    }

    /// The informer of the objects that a selection picks.
    pub fn select<K: Kind>(&self, selection: &Selection) -> Informer<K> {
        self.get_or_insert(Api::all(&self.client), selection)
    }

    /// The informer of the metadata of any resource.
    pub fn metadata(
        &self,
        gvr: &GroupVersionResource,
        namespaced: bool,
    ) -> Informer<PartialObject> {
        self.get_or_insert(
            Api::metadata(&self.client, gvr, namespaced),
            &Selection::default(),
        )
    }

    fn get_or_insert<K: Object>(&self, api: Api<K>, selection: &Selection) -> Informer<K> {
        let key = (TypeId::of::<K>(), api.resource().gvr(), selection.clone());
        let mut all = self.all.lock();
        let known = all
            .get(&key)
            .and_then(|i| i.as_any().downcast_ref::<Informer<K>>());
        if let Some(informer) = known {
            return informer.clone();
        }
        let informer = Informer::new(api, selection);
        all.insert(key, Arc::new(informer.clone()));
        informer
    }

    /// Starts the informers that are not started yet. Call it again after asking for more.
    pub fn start(&self, stop: &CancellationToken) {
        for informer in self.all.lock().values() {
            informer.start(stop);
        }
    }

    /// Waits until all informers have synced.
    pub async fn wait_synced(&self) {
        let waiting: Vec<_> = self.all.lock().values().map(|i| i.synced()).collect();
        for mut synced in waiting {
            let _ = synced.wait_for(|s| *s).await;
        }
    }

    /// Resources that have not synced yet: for readiness checks and start-up logs.
    pub fn pending(&self) -> Vec<String> {
        let all = self.all.lock();
        all.values()
            .filter(|i| !*i.synced().borrow())
            .map(|i| i.resource())
            .collect()
    }
}
