//! SchedulingGates: a pod with gates is not looked at (KEP-3521).

use crate::framework::{ClusterEvent, Hint, Plugin, Rejection};
use crate::model::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn admit(&self, pod: &PodInfo) -> Result<(), Rejection> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        let gates = pod.gates.join(" ");
        Err(Rejection::unresolvable(format!(
            "waiting for scheduling gates: [{gates}]"
        )))
    }

    fn hint(&self, _pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        Hint::queue_if(matches!(event, ClusterEvent::PodChanged))
    }
}
