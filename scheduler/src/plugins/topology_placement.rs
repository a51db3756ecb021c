//! TopologyPlacementGenerator: which nodes a group with a topology constraint may be tried
//! on together, one set for each domain (KEP-5732).

use std::collections::BTreeMap;

use client::ObjectKey;

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Hint, Plugin};
use crate::groups::placement::Placement;
use crate::model::PodInfo;

pub const NAME: &str = "TopologyPlacementGenerator";

pub struct TopologyPlacement;

impl Plugin for TopologyPlacement {
    fn name(&self) -> &'static str {
        NAME
    }

    fn placements(
        &self,
        group: &ObjectKey,
        cluster: &Cache,
    ) -> Result<Option<Vec<Placement>>, String> {
        let Some(object) = cluster.groups.object(group) else {
            let name = group.name();
            return Err(format!("podgroup.scheduling.k8s.io {name:?} not found"));
        };
        let Some(key) = object.topology_key() else {
            return Ok(None);
        };
        let taken = domain_of_placed(group, key, cluster)
            .map_err(|why| format!("cannot determine domain for already scheduled pods: {why}"))?;
        let mut placements: BTreeMap<&str, Placement> = BTreeMap::new();
        for node in cluster.nodes() {
            let Some(domain) = node.labels.get(key) else {
                continue;
            };
            if taken.is_none_or(|taken| taken == domain) {
                placements.entry(domain).or_default().add(node.slot);
            }
        }
        Ok(Some(placements.into_values().collect()))
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        Hint::Skip
    }
}

/// Where those are that have a node: the others have to follow.
fn domain_of_placed<'a>(
    group: &ObjectKey,
    key: &str,
    cluster: &'a Cache,
) -> Result<Option<&'a str>, String> {
    let mut taken: Option<&str> = None;
    for pod in cluster.groups.placed(group) {
        let name = cluster.node_of(pod).unwrap_or_default();
        let Some(node) = cluster.node_named(name) else {
            return Err(format!(
                "getting node for pod {pod}: nodeinfo not found for node name {name:?}"
            ));
        };
        let Some(domain) = node.labels.get(key) else {
            return Err(format!("no topology domain found for pod {pod}"));
        };
        if let Some(taken) = taken.filter(|taken| taken != domain) {
            return Err(format!(
                "more than 1 domain found for pod group: {taken}, {domain}"
            ));
        }
        taken = Some(domain);
    }
    Ok(taken)
}
