//! Objects in key order, with snapshots that cost one reference.
//!
//! A vector of chunks, both shared until they are written to: a write copies at most the
//! vector of chunks and one chunk, and only while a snapshot holds them. A LIST of any size
//! therefore holds no lock while it is answered.
//!
//! What must not be here: revisions, history, selectors.

use std::sync::Arc;

use super::object::Object;

/// Objects per chunk at most: a write moves or copies about as many pointers.
const CHUNK: usize = 128;

type Chunk = Arc<Vec<Arc<Object>>>;

/// Sorted by [`Object::key`]. A clone is a snapshot.
#[derive(Clone, Default)]
pub(super) struct Tree {
    /// None of them is empty.
    chunks: Arc<Vec<Chunk>>,
    len: usize,
}

/// A place between objects: a chunk and an index into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(usize, usize);

impl Tree {
    /// From objects in key order without repetitions.
    pub(super) fn from_sorted(objects: impl IntoIterator<Item = Arc<Object>>) -> Self {
        let mut chunks: Vec<Vec<Arc<Object>>> = Vec::new();
        let mut len = 0;
        for object in objects {
            len += 1;
            match chunks.last_mut() {
                // Leave room: most chunks will be written to.
                Some(chunk) if chunk.len() < CHUNK * 3 / 4 => chunk.push(object),
                _ => chunks.push(vec![object]),
            }
        }
        Self {
            chunks: Arc::new(chunks.into_iter().map(Arc::new).collect()),
            len,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Before the first object whose key is not less than `key`.
    pub(super) fn place(&self, key: &str) -> Place {
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.key() < key));
        let index = self.chunks.get(chunk).map_or(0, |objects| {
            objects.partition_point(|object| object.key() < key)
        });
        Place(chunk, index)
    }

    pub(super) fn at(&self, place: Place) -> Option<&Arc<Object>> {
        self.chunks.get(place.0)?.get(place.1)
    }

    /// One object on.
    pub(super) fn after(&self, Place(chunk, index): Place) -> Place {
        if self.chunks.get(chunk).is_some_and(|c| index + 1 < c.len()) {
            Place(chunk, index + 1)
        } else {
            Place(chunk + 1, 0)
        }
    }

    /// How many objects there are before a place.
    pub(super) fn rank(&self, Place(chunk, index): Place) -> usize {
        let whole = &self.chunks[..chunk.min(self.chunks.len())];
        whole.iter().map(|chunk| chunk.len()).sum::<usize>() + index
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.at(self.place(key)).filter(|o| o.key() == key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Puts an object under its key; what was there.
    pub(super) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let Place(mut chunk, mut index) = self.place(object.key());
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunk == chunks.len() {
            // Behind everything: the last chunk takes it.
            let Some(last) = chunks.last() else {
                chunks.push(Arc::new(vec![object]));
                self.len = 1;
                return None;
            };
            chunk -= 1;
            index = last.len();
        }
        let objects = Arc::make_mut(&mut chunks[chunk]);
        if let Some(there) = objects.get_mut(index)
            && there.key() == object.key()
        {
            return Some(std::mem::replace(there, object));
        }
        objects.insert(index, object);
        self.len += 1;
        if objects.len() > CHUNK {
            // Keys that only grow (names with a time in them) leave full chunks behind.
            let at = if index == CHUNK { CHUNK } else { CHUNK / 2 };
            let right = objects.split_off(at);
            chunks.insert(chunk + 1, Arc::new(right));
        }
        None
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<Object>> {
        let place = self.place(key);
        self.at(place).filter(|o| o.key() == key)?;
        let Place(chunk, index) = place;
        let chunks = Arc::make_mut(&mut self.chunks);
        let objects = Arc::make_mut(&mut chunks[chunk]);
        let removed = objects.remove(index);
        self.len -= 1;
        let left = objects.len();
        if left == 0 {
            chunks.remove(chunk);
        } else if left < CHUNK / 8
            && let Some(next) = chunks.get(chunk + 1)
            && left + next.len() <= CHUNK / 2
        {
            let next = chunks.remove(chunk + 1);
            Arc::make_mut(&mut chunks[chunk]).extend(next.iter().cloned());
        }
        Some(removed)
    }
}

/// Walks a snapshot from a key on, up to an end.
pub(super) struct Cursor {
    tree: Tree,
    at: Place,
    end: Place,
}

impl Cursor {
    /// The objects whose keys are in `start..end`; an empty `end` is the end of all.
    pub(super) fn new(tree: Tree, start: &str, end: &str) -> Self {
        let at = tree.place(start);
        let end = if end.is_empty() {
            Place(usize::MAX, 0)
        } else {
            tree.place(end)
        };
        Self { tree, at, end }
    }

    /// How many objects are left.
    pub(super) fn left(&self) -> usize {
        let end = match self.end {
            Place(usize::MAX, _) => self.tree.len(),
            end => self.tree.rank(end),
        };
        end.saturating_sub(self.tree.rank(self.at))
    }
}

impl Iterator for Cursor {
    type Item = Arc<Object>;

    fn next(&mut self) -> Option<Arc<Object>> {
        if self.at >= self.end {
            return None;
        }
        let object = self.tree.at(self.at)?.clone();
        self.at = self.tree.after(self.at);
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::cache::testing::object;

    fn keys(tree: &Tree) -> Vec<String> {
        tree.iter().map(|o| o.key().to_owned()).collect()
    }

    proptest! {
        /// Against the standard library's map, with snapshots that must not change.
        #[test]
        fn is_an_ordered_map(ops in prop::collection::vec((any::<bool>(), 0u32..600), 1..1500)) {
            let mut tree = Tree::default();
            let mut model = BTreeMap::new();
            let mut snapshot = (tree.clone(), keys(&tree));
            for (i, (insert, n)) in ops.into_iter().enumerate() {
                let key = format!("ns/{n:04}");
                if insert {
                    let old = tree.insert(object(&key, i as u64 + 1));
                    let was = model.insert(key, i as u64 + 1);
                    prop_assert_eq!(old.map(|o| o.revision()), was);
                } else {
                    let old = tree.remove(&key);
                    prop_assert_eq!(old.map(|o| o.revision()), model.remove(&key));
                }
                if i % 97 == 0 {
                    prop_assert_eq!(keys(&snapshot.0), snapshot.1);
                    snapshot = (tree.clone(), keys(&tree));
                }
            }
            prop_assert_eq!(tree.len(), model.len());
            let all: Vec<_> = model.keys().cloned().collect();
            prop_assert_eq!(keys(&tree), all.clone());
            for (rank, key) in all.iter().enumerate() {
                prop_assert_eq!(tree.get(key).map(|o| o.revision()), model.get(key).copied());
                prop_assert_eq!(tree.rank(tree.place(key)), rank);
            }
            let cursor = Cursor::new(tree, "ns/0100", "ns/0300");
            let left = cursor.left();
            let walked: Vec<_> = cursor.map(|o| o.key().to_owned()).collect();
            prop_assert_eq!(left, walked.len());
            let expected: Vec<_> =
                model.range("ns/0100".to_owned().."ns/0300".to_owned()).map(|(k, _)| k.clone()).collect();
            prop_assert_eq!(walked, expected);
        }
    }

    #[test]
    fn is_built_of_what_is_sorted() {
        let tree = Tree::from_sorted((0..1000).map(|n| object(&format!("{n:04}"), 1)));
        assert_eq!(tree.len(), 1000);
        assert_eq!(tree.get("0999").unwrap().name(), "0999");
        assert_eq!(Cursor::new(tree, "0500", "").left(), 500);
    }
}
