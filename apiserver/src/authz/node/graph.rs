//! Who uses what: for each object the nodes whose business it is, by the sources that say so.
//!
//! What must not be here: how objects name one another (`references.rs`).

use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    ResourceClaim,
    Volume,
    VolumeAttachment,
    ResourceSlice,
    PodCertificate,
}

/// An object, by kind, namespace and name.
pub type Object = (Kind, Box<str>, Box<str>);

/// Who uses what.
#[derive(Default)]
pub struct Graph {
    /// What each source (a pod, a volume attachment…) makes its node's business.
    sources: HashMap<Object, (Arc<str>, Box<[Object]>)>,
    /// For each object its nodes, with the number of sources that say so.
    nodes: HashMap<Object, Vec<(Arc<str>, u32)>>,
    /// For each persistent volume its claim and the secrets that mounting it needs.
    volumes: HashMap<Box<str>, (Object, Box<[Object]>)>,
    /// For each such secret the volumes.
    secret_volumes: HashMap<Object, Vec<Box<str>>>,
}

impl Graph {
    pub fn put(&mut self, source: Object, node: &str, mut uses: Vec<Object>) {
        uses.push(source.clone());
        uses.sort_unstable_by(|a, b| (a.0 as u8, &a.1, &a.2).cmp(&(b.0 as u8, &b.1, &b.2)));
        uses.dedup();
        // Pods change all the time, and seldom what they use.
        if let Some((old_node, old_uses)) = self.sources.get(&source)
            && **old_node == *node
            && **old_uses == *uses
        {
            return;
        }
        self.remove(&source);
        let node: Arc<str> = node.into();
        for object in &uses {
            let nodes = self.nodes.entry(object.clone()).or_default();
            match nodes.iter_mut().find(|(n, _)| *n == node) {
                Some((_, count)) => *count += 1,
                None => nodes.push((node.clone(), 1)),
            }
        }
        self.sources.insert(source, (node, uses.into()));
    }

    pub fn remove(&mut self, source: &Object) {
        let Some((node, uses)) = self.sources.remove(source) else {
            return;
        };
        for object in uses {
            let Some(nodes) = self.nodes.get_mut(&object) else {
                continue;
            };
            if let Some(i) = nodes.iter().position(|(n, _)| *n == node) {
                nodes[i].1 -= 1;
                if nodes[i].1 == 0 {
                    nodes.swap_remove(i);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&object);
            }
        }
    }

    pub fn put_volume(&mut self, name: &str, claim: Object, secrets: Vec<Object>) {
        self.remove_volume(name);
        for secret in &secrets {
            let volumes = self.secret_volumes.entry(secret.clone()).or_default();
            volumes.push(name.into());
        }
        self.volumes.insert(name.into(), (claim, secrets.into()));
    }

    pub fn remove_volume(&mut self, name: &str) {
        let Some((_, secrets)) = self.volumes.remove(name) else {
            return;
        };
        for secret in secrets {
            if let Some(volumes) = self.secret_volumes.get_mut(&secret) {
                volumes.retain(|v| **v != *name);
                if volumes.is_empty() {
                    self.secret_volumes.remove(&secret);
                }
            }
        }
    }

    pub fn used_by(&self, node: &str, object: &Object) -> bool {
        let direct = |object: &Object| {
            self.nodes
                .get(object)
                .is_some_and(|nodes| nodes.iter().any(|(n, _)| **n == *node))
        };
        let through_claim = |volume: &str| {
            self.volumes
                .get(volume)
                .is_some_and(|(claim, _)| direct(claim))
        };
        match object.0 {
            Kind::Volume => through_claim(&object.2),
            Kind::Secret => {
                direct(object)
                    || self
                        .secret_volumes
                        .get(object)
                        .is_some_and(|volumes| volumes.iter().any(|v| through_claim(v)))
            }
            _ => direct(object),
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
