//! SchedulingGates: a pod with gates is not looked at (KEP-3521).

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Hint, Plugin, Rejection, Verdict};
use crate::model::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn admit(&self, pod: &PodInfo, _cluster: &Cache) -> Verdict {
        if pod.gates.is_empty() {
            return Ok(());
        }
        let gates = pod.gates.join(" ");
        Err(Rejection::unresolvable(format!(
            "waiting for scheduling gates: [{gates}]"
        )))
    }

    fn hint(&self, _pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        Hint::queue_if(matches!(event, ClusterEvent::PodChanged { .. }))
    }
}
