//! The scheduling cycle alone, over objects at hand: what decisions cost without an API server,
//! a queue or bindings.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Kind, ObjectKey};
use component::features::FeatureGates;
use serde::Deserialize as _;
use serde_json::Value;

use crate::cache::Cache;
use crate::config::{DEFAULT_SCHEDULER, ProfileConfiguration};
use crate::cycle::{Decision, Nomination};
use crate::evaluation::Evaluations;
use crate::model::{Node, Pod, PodInfo, Templates};
use crate::plugins;
use crate::profile::Profile;
use crate::scheduler::draw;

/// A cluster without an API server, and the default profile.
pub struct Cluster {
    profile: Profile,
    cache: Cache,
    evaluations: Evaluations,
    templates: Templates,
    start: usize,
}

/// A pod that has no node yet.
pub struct Waiting(Arc<PodInfo>);

/// What came of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Placed,
    /// After others have gone for it.
    Preempted,
    Refused,
}

impl Cluster {
    /// # Errors
    ///
    /// When the default profile cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let gates = FeatureGates::default();
        let config = ProfileConfiguration::default();
        let profile =
            plugins::profile(DEFAULT_SCHEDULER, &config, &[], &|gate| gates.enabled(gate))?;
        Ok(Self {
            profile,
            cache: Cache::default(),
            evaluations: Evaluations::default(),
            templates: Templates::default(),
            start: 0,
        })
    }

    /// Takes in a node, what its drivers can do, a volume, a claim, or a pod that is on a node;
    /// gives back a pod that is not.
    ///
    /// # Errors
    ///
    /// When it is none of these, or cannot be read.
    pub fn add(&mut self, object: &Value) -> anyhow::Result<Option<Waiting>> {
        match object["kind"].as_str() {
            Some("Node") => self.cache.put_node(&Node::deserialize(object)?),
            Some("Pod") => {
                let pod = self.templates.pod(&Pod::deserialize(object)?);
                if pod.node_name.is_empty() {
                    return Ok(Some(Waiting(pod)));
                }
                self.cache.put_pod(pod);
            }
            Some("CSINode") => keep(&mut self.cache.storage.csi_nodes, object)?,
            Some("PersistentVolume") => keep(&mut self.cache.storage.volumes, object)?,
            Some("PersistentVolumeClaim") => keep(&mut self.cache.storage.claims, object)?,
            kind => anyhow::bail!("{kind:?} is of no use here"),
        }
        Ok(None)
    }

    /// Decides, and carries the decision out: who has to go is gone at once.
    pub fn place(&mut self, Waiting(pod): &Waiting) -> Outcome {
        match self.decide(pod) {
            Decision::Node(node) => {
                self.cache.assume(Arc::clone(pod), &node);
                Outcome::Placed
            }
            Decision::Unschedulable(verdict) => {
                let Nomination::Node(node) = verdict.nomination else {
                    return Outcome::Refused;
                };
                for victim in &verdict.victims {
                    self.cache.remove_pod(&victim.key);
                }
                self.cache.nominate(pod, &node);
                match self.decide(pod) {
                    Decision::Node(node) => {
                        self.cache.assume(Arc::clone(pod), &node);
                        Outcome::Preempted
                    }
                    Decision::Unschedulable(_) => Outcome::Refused,
                }
            }
        }
    }

    fn decide(&mut self, pod: &Arc<PodInfo>) -> Decision {
        let (evaluations, start) = (&mut self.evaluations, &mut self.start);
        let mut draw = draw;
        self.profile
            .schedule(pod, &self.cache, evaluations, start, &mut draw)
    }
}

fn keep<K: Kind>(table: &mut HashMap<ObjectKey, Arc<K>>, object: &Value) -> anyhow::Result<()> {
    let object = K::deserialize(object)?;
    table.insert(object.key(), Arc::new(object));
    Ok(())
}
