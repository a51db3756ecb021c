//! Remembers for a few seconds who a token stands for (`--authentication-token-…` of
//! upstream: 10 s for success, failures not at all).
//!
//! Tokens themselves are not kept: the key is a salted hash.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::User;

/// Twice what upstream supports at most in nodes and namespaces; beyond it, what has
/// expired is thrown out, and everything when nothing has.
const CAPACITY: usize = 32 * 1024;

type Key = [u8; 32];
type Entry = (Arc<User>, Arc<[String]>, Timestamp);

pub struct TokenCache {
    salt: [u8; 32],
    ttl: SignedDuration,
    entries: Mutex<HashMap<Key, Entry>>,
}

impl TokenCache {
    pub fn new(salt: [u8; 32], ttl: SignedDuration) -> Self {
        Self {
            salt,
            ttl,
            entries: Mutex::default(),
        }
    }

    pub fn key(&self, token: &str, audiences: &[String]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        // Lengths keep "a","bc" apart from "ab","c".
        for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    pub fn get(&self, key: &Key, now: Timestamp) -> Option<(Arc<User>, Arc<[String]>)> {
        let entries = self.entries.lock();
        let (user, audiences, until) = entries.get(key)?;
        (now < *until).then(|| (user.clone(), audiences.clone()))
    }

    pub fn put(&self, key: Key, user: Arc<User>, audiences: Arc<[String]>, now: Timestamp) {
        let mut entries = self.entries.lock();
        if entries.len() >= CAPACITY {
            entries.retain(|_, (_, _, until)| now < *until);
            if entries.len() >= CAPACITY {
                entries.clear();
            }
        }
        entries.insert(key, (user, audiences, now + self.ttl));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_its_time_and_per_audience() {
        let cache = TokenCache::new([7; 32], SignedDuration::from_secs(10));
        let start = Timestamp::from_second(1000).unwrap();
        let key = cache.key("t", &[]);
        cache.put(key, Arc::new(User::default()), Arc::from([]), start);
        assert!(
            cache
                .get(&key, start + SignedDuration::from_secs(9))
                .is_some()
        );
        assert!(
            cache
                .get(&key, start + SignedDuration::from_secs(10))
                .is_none()
        );
        assert_ne!(key, cache.key("t", &["a".into()]));
        assert_ne!(
            cache.key("t", &["ab".into(), "c".into()]),
            cache.key("t", &["a".into(), "bc".into()])
        );
    }
}
