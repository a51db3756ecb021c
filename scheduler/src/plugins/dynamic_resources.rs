//! DynamicResources, as far as it goes: this scheduler allocates no devices, and a pod that
//! claims some would fail on any node. It waits, and is told why.

use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::PodInfo;

pub struct DynamicResources;

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn filter(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        if !pod.claims_devices {
            return Filter::Skip;
        }
        Filter::Reject(Rejection::unresolvable(
            "this scheduler cannot allocate resource claims",
        ))
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        Hint::Skip
    }
}
