//! Owners that are known not to exist, so that each of many dependents need not ask again.

use std::collections::{HashSet, VecDeque};

use super::graph::Identity;

/// As many as upstream remembers. When full, the oldest is forgotten; then it is asked again.
const CAPACITY: usize = 500;

/// A bounded set.
#[derive(Debug, Default)]
pub struct AbsentOwners {
    set: HashSet<Identity>,
    order: VecDeque<Identity>,
}

impl AbsentOwners {
    pub fn insert(&mut self, identity: Identity) {
        if !self.set.insert(identity.clone()) {
            return;
        }
        self.order.push_back(identity);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    pub fn contains(&self, identity: &Identity) -> bool {
        self.set.contains(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let identity = |n: usize| Identity {
            kind: "K".into(),
            api_version: "v1".into(),
            namespace: "".into(),
            name: n.to_string().into(),
            uid: n.to_string().into(),
        };
        let mut absent = AbsentOwners::default();
        (0..=CAPACITY).for_each(|n| absent.insert(identity(n)));
        assert!(!absent.contains(&identity(0)) && absent.contains(&identity(CAPACITY)));
    }
}
