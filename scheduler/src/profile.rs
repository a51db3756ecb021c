//! A set of plugins under a scheduler's name (`KubeSchedulerProfile`).

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Hint, Plugin};
use crate::model::PodInfo;
use crate::plugins::default_preemption::DefaultPreemption;
use crate::plugins::dynamic_resources::DynamicResources;

pub struct Profile {
    pub scheduler_name: String,
    /// PreEnqueue.
    pub admits: Vec<Arc<dyn Plugin>>,
    /// PreFilter and Filter, in order: the first that rejects a node gives the reason.
    pub filters: Vec<Arc<dyn Plugin>>,
    /// PreScore and Score, with their weights.
    pub scores: Vec<(Arc<dyn Plugin>, i64)>,
    /// Permit.
    pub permits: Vec<Arc<dyn Plugin>>,
    /// What is done for whole groups.
    pub groups: GroupPlugins,
    /// PostFilter.
    pub preemption: Option<DefaultPreemption>,
    /// PostFilter of DynamicResources comes before, and has its word in the message.
    pub deallocates: bool,
    /// Reserve and PreBind of DynamicResources.
    pub devices: Option<Arc<DynamicResources>>,
    /// Reserve and PreBind of VolumeBinding: how long volumes may take to be bound.
    pub volumes: Option<Duration>,
    /// How many of the nodes to look for before scoring. All when it is not given: looking
    /// at a node costs nothing as long as nothing has changed on it.
    pub percentage_of_nodes_to_score: Option<usize>,
}

/// What is done for groups as a whole.
#[derive(Default)]
pub struct GroupPlugins {
    /// Whether groups are tried in placements (the feature TopologyAwareWorkloadScheduling).
    pub placements: bool,
    /// PlacementGenerate.
    pub generator: Option<Arc<dyn Plugin>>,
    /// PlacementScore, with their weights.
    pub scores: Vec<(Arc<dyn Plugin>, i64)>,
    /// Whether pods leave for a group rather than for one of its pods (the feature
    /// WorkloadAwarePreemption).
    pub preempts: bool,
}

/// Plugins of one profile, by their places among its filters and, after those, among its
/// admitting plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rejectors(u64);

/// The place of extenders, which say nothing of what would change their minds.
pub const EXTENDER: usize = 63;

impl Rejectors {
    pub fn insert(&mut self, place: usize) {
        self.0 |= 1 << place.min(63);
    }

    /// Whether the attempt failed without any plugin's verdict.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, place: usize) -> bool {
        self.0 & (1 << place.min(63)) != 0
    }

    /// Whether some are among both.
    pub fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Those who are among either.
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those of all places, alone, of whom this holds.
    pub fn of(mut holds: impl FnMut(Self) -> bool) -> Self {
        let alone = (0..=EXTENDER).map(|place| Self(1 << place));
        Self(
            alone
                .filter(|one| holds(*one))
                .fold(0, |all, one| all | one.0),
        )
    }
}

impl Profile {
    /// Whether the pod may be looked at at all; if not, who says so.
    pub fn admit(&self, pod: &PodInfo, cluster: &Cache) -> Result<(), &'static str> {
        match self.admits.iter().find(|p| p.admit(pod, cluster).is_err()) {
            None => Ok(()),
            Some(plugin) => Err(plugin.name()),
        }
    }

    /// Does one of the plugins that rejected the pod call the event helpful?
    pub fn helps(
        &self,
        pod: &PodInfo,
        rejectors: Rejectors,
        event: &ClusterEvent<'_>,
        cluster: &Cache,
    ) -> bool {
        if rejectors.contains(EXTENDER) {
            return true;
        }
        let mut asked = self
            .filters
            .iter()
            .enumerate()
            .filter(|(place, _)| rejectors.contains(*place));
        asked.any(|(_, plugin)| plugin.hint(pod, event, cluster) == Hint::Queue)
    }

    /// Names of plugins, for metrics.
    pub fn names(&self, rejectors: Rejectors) -> impl Iterator<Item = &'static str> {
        let places = self.filters.iter().enumerate();
        places
            .filter(move |(place, _)| rejectors.contains(*place))
            .map(|(_, plugin)| plugin.name())
    }
}
