//! Which texts of field sets need not be read to be kept.
//!
//! Most of what an object's managers own is the same before a write and after it, and the same
//! in an object's siblings: to read it is most of the work of keeping the books. A text that has
//! been read once, fits today's schema and is as it would be written again can be passed on as
//! it is, as long as nothing changes that it names.
//!
//! What must not be here: what the texts say.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use parking_lot::Mutex;
use schema::Message;

/// Texts that are remembered, twice over at most, by 8 bytes each.
const MOST: usize = 8192;

static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

/// Remembers texts by a keyed hash of 64 bits: nobody outside can look for two that share one.
#[derive(Default)]
struct Known {
    keys: RandomState,
    generations: Mutex<Generations>,
}

/// Those seen lately are in the first; a full first becomes the second.
#[derive(Default)]
struct Generations([HashSet<u64>; 2]);

impl Generations {
    fn contains(&mut self, hash: u64) -> bool {
        let Generations([young, old]) = self;
        if young.contains(&hash) {
            return true;
        }
        let found = old.contains(&hash);
        if found {
            self.insert(hash);
        }
        found
    }

    fn insert(&mut self, hash: u64) {
        let Generations([young, old]) = self;
        if young.len() >= MOST {
            *old = std::mem::take(young);
        }
        young.insert(hash);
    }
}

fn hash(message: &'static Message, text: &str) -> u64 {
    KNOWN.keys.hash_one((std::ptr::from_ref(message), text))
}

/// Whether the text is known to be a set that is not empty, fits the message, and is written so.
pub(super) fn contains(message: &'static Message, text: &str) -> bool {
    let hash = hash(message, text);
    KNOWN.generations.lock().contains(hash)
}

/// Such a text was read.
pub(super) fn remember(message: &'static Message, text: &str) {
    let hash = hash(message, text);
    KNOWN.generations.lock().insert(hash);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_in_two_generations_is_forgotten() {
        let mut generations = Generations::default();
        generations.insert(0);
        generations.insert(1);
        for hash in 2..=MOST as u64 {
            generations.insert(hash);
        }
        assert!(generations.contains(0));
        for hash in 0..MOST as u64 {
            generations.insert((1 << 32) + hash);
        }
        assert!(generations.contains(0));
        assert!(!generations.contains(1));
        let [young, old] = &generations.0;
        assert!(young.len() <= MOST && old.len() <= MOST);
    }
}
