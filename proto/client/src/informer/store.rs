//! [`Store`]: the objects an informer holds, with indexes. One writer, many readers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::object::{Object, ObjectKey};

/// A change of a [`Store`], which has already happened when it is told.
#[derive(Debug)]
pub enum Event<K> {
    Added(Arc<K>),
    Updated {
        old: Arc<K>,
        new: Arc<K>,
    },
    /// With the last state that is known: when the deletion itself was missed, that is the one
    /// before it.
    Deleted(Arc<K>),
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(k) => Self::Added(Arc::clone(k)),
            Self::Updated { old, new } => Self::Updated {
                old: Arc::clone(old),
                new: Arc::clone(new),
            },
            Self::Deleted(k) => Self::Deleted(Arc::clone(k)),
        }
    }
}

impl<K> Event<K> {
    /// The object in its newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(k) | Self::Updated { new: k, .. } | Self::Deleted(k) => k,
        }
    }

    /// The state before the change, if there was one.
    pub fn previous(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(_) => None,
            Self::Updated { old: k, .. } | Self::Deleted(k) => Some(k),
        }
    }

    /// The state after the change, if there is one.
    pub fn current(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(k) | Self::Updated { new: k, .. } => Some(k),
            Self::Deleted(_) => None,
        }
    }
}

impl<K: Object> Event<K> {
    pub fn key(&self) -> ObjectKey {
        self.object().key()
    }
}

type IndexFn<K> = dyn Fn(&K) -> Vec<String> + Send + Sync;

struct IndexState<K> {
    name: &'static str,
    values: Arc<IndexFn<K>>,
    keys: HashMap<String, HashSet<ObjectKey>>,
}

impl<K> IndexState<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

struct State<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    indexes: Vec<IndexState<K>>,
}

impl<K: Object> State<K> {
    fn put(&mut self, object: K) -> Option<Event<K>> {
        let key = object.key();
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), Arc::clone(&new));
        if let Some(old) = &old
            && !old.resource_version().is_empty()
            && old.resource_version() == new.resource_version()
        {
            // The same state again, as after a relist: nobody needs to know.
            self.objects.insert(key, Arc::clone(old));
            return None;
        }
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &new);
        }
        Some(match old {
            None => Event::Added(new),
            // The name was given to another object in between.
            Some(old) => Event::Updated { old, new },
        })
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indexes {
            index.remove(key, &old);
        }
        Some(old)
    }
}

/// The objects that an informer holds. Cheap to clone; every read sees one moment.
pub struct Store<K> {
    state: Arc<RwLock<State<K>>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<K: Object> Default for Store<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Object> Store<K> {
    /// An empty store. Besides informers, tests of controllers make them.
    pub fn new() -> Self {
        let state = State {
            objects: HashMap::new(),
            indexes: Vec::new(),
        };
        Self {
            state: Arc::new(RwLock::new(state)),
        }
    }

    /// For tests of what reads stores: one with these objects.
    pub fn with(objects: impl IntoIterator<Item = K>) -> Self {
        let store = Self::new();
        for object in objects {
            store.put(object);
        }
        store
    }

    /// The object of this name; the namespace is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Everything, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// What is in a namespace. Goes through everything; a controller that asks often adds an index.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.filter(|k| k.namespace() == namespace)
    }

    /// What a function picks. The function must be quick: writers wait.
    pub fn filter(&self, mut pick: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        self.state
            .read()
            .objects
            .values()
            .filter(|k| pick(k))
            .cloned()
            .collect()
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.state.read().objects.keys().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index: objects are found under each of the values that the function gives.
    /// If there is one of this name already, that one is returned.
    pub fn add_index(
        &self,
        name: &'static str,
        values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Index<K> {
        let mut state = self.state.write();
        let at = state
            .indexes
            .iter()
            .position(|i| i.name == name)
            .unwrap_or_else(|| {
                let mut index = IndexState {
                    name,
                    values: Arc::new(values),
                    keys: HashMap::new(),
                };
                for (key, object) in &state.objects {
                    index.insert(key, object);
                }
                state.indexes.push(index);
                state.indexes.len() - 1
            });
        Index {
            store: self.clone(),
            at,
        }
    }

    /// Adds or replaces an object; `None` if it is the same state as before. For writers:
    /// informers, caches that are told of their own writes, and tests.
    pub fn put(&self, object: K) -> Option<Event<K>> {
        self.state.write().put(object)
    }

    /// Removes an object.
    pub fn remove(&self, key: &ObjectKey) -> Option<Event<K>> {
        self.state.write().take(key).map(Event::Deleted)
    }

    /// Removes an object, telling of it in its final state.
    pub(crate) fn remove_final(&self, object: K) -> Option<Event<K>> {
        self.state.write().take(&object.key())?;
        Some(Event::Deleted(Arc::new(object)))
    }

    /// Makes the store hold exactly these objects, in one step, and returns what changed.
    pub(crate) fn replace(&self, objects: Vec<K>) -> Vec<Event<K>> {
        let mut state = self.state.write();
        let keep: HashSet<ObjectKey> = objects.iter().map(Object::key).collect();
        let gone: Vec<ObjectKey> = state
            .objects
            .keys()
            .filter(|k| !keep.contains(*k))
            .cloned()
            .collect();
        let mut events: Vec<Event<K>> = gone
            .iter()
            .filter_map(|key| state.take(key))
            .map(Event::Deleted)
            .collect();
        events.extend(objects.into_iter().filter_map(|object| state.put(object)));
        events
    }
}

/// A secondary index of a [`Store`], made by [`Store::add_index`].
pub struct Index<K> {
    store: Store<K>,
    at: usize,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            at: self.at,
        }
    }
}

impl<K: Object> Index<K> {
    /// The objects under `value`, in no particular order.
    pub fn get(&self, value: &str) -> Vec<Arc<K>> {
        let state = self.store.state.read();
        let keys = state.indexes[self.at].keys.get(value);
        keys.into_iter()
            .flatten()
            .filter_map(|key| state.objects.get(key))
            .cloned()
            .collect()
    }

    /// How many objects are under `value`.
    pub fn count(&self, value: &str) -> usize {
        self.store.state.read().indexes[self.at]
            .keys
            .get(value)
            .map_or(0, HashSet::len)
    }

    /// All values that have objects.
    pub fn values(&self) -> Vec<String> {
        self.store.state.read().indexes[self.at]
            .keys
            .keys()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn pod(name: &str, rv: &str, app: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                resource_version: Some(rv.into()),
                labels: Some([("app".to_owned(), app.to_owned())].into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn app(p: &Pod) -> Vec<String> {
        p.metadata
            .labels
            .iter()
            .flatten()
            .map(|(_, v)| v.clone())
            .collect()
    }

    fn texts(events: &[Event<Pod>]) -> Vec<String> {
        let mut out: Vec<String> = events
            .iter()
            .map(|e| match e {
                Event::Added(p) => format!("+{}", p.name()),
                Event::Updated { old, new } => {
                    format!(
                        "{}:{}>{}",
                        new.name(),
                        old.resource_version(),
                        new.resource_version()
                    )
                }
                Event::Deleted(p) => format!("-{}", p.name()),
            })
            .collect();
        out.sort();
        out
    }

    #[test]
    fn a_relist_tells_the_differences() {
        let store = Store::with([pod("a", "1", "x"), pod("b", "2", "x"), pod("c", "3", "y")]);
        let by_app = store.add_index("app", app);
        let events = store.replace(vec![
            pod("b", "2", "x"),
            pod("c", "4", "x"),
            pod("d", "5", "y"),
        ]);
        assert_eq!(texts(&events), ["+d", "-a", "c:3>4"]);
        assert_eq!(by_app.count("x"), 2);
        assert_eq!(by_app.get("y")[0].name(), "d");
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn indexes_follow_writes() {
        let store = Store::new();
        let by_app = store.add_index("app", app);
        store.put(pod("a", "1", "x"));
        store.put(pod("a", "2", "y"));
        assert_eq!((by_app.count("x"), by_app.count("y")), (0, 1));
        assert_eq!(by_app.values(), ["y"]);
        store.remove(&ObjectKey::new("ns", "a"));
        assert!(by_app.values().is_empty() && store.is_empty());
        // A second index of the name is the first one.
        assert_eq!(
            store.add_index("app", |_| vec!["other".into()]).at,
            by_app.at
        );
    }

    #[test]
    fn the_same_state_is_no_event() {
        let store = Store::with([pod("a", "1", "x")]);
        assert!(store.put(pod("a", "1", "x")).is_none());
        assert!(store.put(pod("a", "2", "x")).is_some());
        assert!(store.remove_final(pod("zz", "9", "x")).is_none());
        let Some(Event::Deleted(last)) = store.remove_final(pod("a", "3", "x")) else {
            panic!()
        };
        assert_eq!(last.resource_version(), "3");
    }
}
