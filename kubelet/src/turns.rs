//! Turns: work on one thing is done one piece after the other, work on others goes on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Whose turn it is, by thing.
#[derive(Debug)]
pub struct Turns<K>(Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>);

/// A turn; over when it is dropped.
pub type Turn = OwnedMutexGuard<()>;

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Ord> Turns<K> {
    /// Waits for a turn at one thing.
    pub async fn take(&self, key: K) -> Turn {
        let turn = {
            let mut all = self.0.lock();
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
            all.entry(key).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Waits for turns at several things: in one order for all, so that nobody waits for ever.
    pub async fn take_all(&self, keys: impl IntoIterator<Item = K>) -> Vec<Turn> {
        let mut keys: Vec<K> = keys.into_iter().collect();
        keys.sort();
        keys.dedup();
        let mut turns = Vec::with_capacity(keys.len());
        for key in keys {
            turns.push(self.take(key).await);
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_after_the_other() {
        let turns = Turns::default();
        let both = turns.take_all(["b", "a", "a"]).await;
        assert!(turns.take("a").now_or_never().is_none());
        assert!(turns.take("c").now_or_never().is_some());
        drop(both);
        assert!(turns.take("a").now_or_never().is_some());
    }
}
