//! What pods have been granted (KEP-1287): a pod may ask for other resources while it runs, and
//! goes on with what it was granted last until the node can give more. `record.rs` keeps both what
//! was granted and what containers were given last, `conditions.rs` what is shown of it,
//! `resize.rs` the rules.
//!
//! What must not be here: cgroups and the runtime (`cri/resize.rs`), or who decides when
//! (`sync_loop/resize.rs`).

mod conditions;
mod record;
pub mod resize;

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use tracing::error;

use crate::metrics::Metrics;
use crate::pods::pod::PodExt;

pub use conditions::{Conditions, DEFERRED, ERROR, INFEASIBLE};
pub use record::{PodResources, Record, RecordError};

/// Upstream's names of the two files below the root directory.
const GRANTED: &str = "allocated_pods_state";
const GIVEN: &str = "actuated_pods_state";

/// What was granted to each pod, and how far its resize has come.
pub struct Allocations {
    granted: Record,
    pub conditions: Conditions,
}

impl Allocations {
    /// # Errors
    /// When the record of the kubelet before is there and cannot be read.
    pub fn open(root: &Path, metrics: &Arc<Metrics>) -> Result<Self, RecordError> {
        Ok(Self {
            granted: Record::open(root.join(GRANTED))?,
            conditions: Conditions::new(metrics.clone()),
        })
    }

    /// The pod with what it was granted instead of what it asks for; itself where that is the same
    /// or nothing has been granted yet.
    pub fn granted(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let other = self.granted.look(pod.uid(), |own| resize::with(pod, own));
        match other.flatten() {
            Some(other) => Arc::new(other),
            None => pod.clone(),
        }
    }

    /// Whether the pod asks for something else than it was granted.
    pub fn asks_for_other(&self, pod: &Pod) -> bool {
        let differs = self
            .granted
            .look(pod.uid(), |own| resize::differs(pod, own));
        differs == Some(true)
    }

    /// Grants what the pod asks for.
    pub fn grant(&self, pod: &Pod) {
        let resources = PodResources::of(pod);
        if let Err(error) = self.granted.set(pod.uid(), resources) {
            // It holds as long as this kubelet runs; the next one judges the pod anew.
            error!(pod = %pod.full_name(), %error, "cannot write down what a pod was granted");
        }
    }

    /// The conditions that tell of a resize.
    pub fn shown(&self, uid: &str) -> Vec<PodCondition> {
        self.conditions.of(uid)
    }

    pub fn forget(&self, uid: &str) {
        self.granted.remove(uid);
        self.conditions.forget(uid);
    }

    /// Forgets all but these pods.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.granted.retain(keep);
    }
}

/// Opens the record of what containers were given last.
///
/// # Errors
/// When the record of the kubelet before is there and cannot be read.
pub fn given(root: &Path) -> Result<Record, RecordError> {
    Record::open(root.join(GIVEN))
}
