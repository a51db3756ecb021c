//! GangScheduling: pods of a gang are looked at once enough of them are there, and go to
//! their nodes once enough of them have one (KEP-4671).

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Hint, Permit, Plugin, Rejection, Verdict};
use crate::model::PodInfo;

pub const NAME: &str = "GangScheduling";

pub struct GangScheduling;

impl Plugin for GangScheduling {
    fn name(&self) -> &'static str {
        NAME
    }

    fn admit(&self, pod: &PodInfo, cluster: &Cache) -> Verdict {
        let Some(group) = &pod.group else {
            return Ok(());
        };
        if cluster.groups.object(group).is_none() {
            return Err(Rejection::unresolvable(format!(
                "waiting for pods's pod group {:?} to appear in scheduling queue",
                group.name()
            )));
        }
        if !cluster.groups.is_ready(group) {
            let reason = "waiting for minCount pods from a gang to appear in scheduling queue";
            return Err(Rejection::unresolvable(reason));
        }
        Ok(())
    }

    fn permit(&self, pod: &PodInfo, cluster: &Cache) -> Permit {
        let Some(group) = &pod.group else {
            return Permit::Allow;
        };
        let Some(object) = cluster.groups.object(group) else {
            let name = group.name();
            return Permit::Fail(format!(
                "failed to get podGroup {group}: podgroup.scheduling.k8s.io {name:?} not found"
            ));
        };
        let enough = object.min_count().unwrap_or(0);
        if cluster.groups.placed_count(group) < enough {
            return Permit::Wait("waiting for minCount pods from a gang to be scheduled");
        }
        Permit::Allow
    }

    /// Another pod, or the group itself, lets in those that [`Plugin::admit`] holds back; and
    /// whoever is in has been rejected by others.
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        let ClusterEvent::PodAdded(added) = event else {
            return Hint::Skip;
        };
        Hint::queue_if(added.group.is_some() && added.group == pod.group)
    }
}
