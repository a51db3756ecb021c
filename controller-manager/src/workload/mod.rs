//! What the workload controllers share: pod templates and
//! their hashes, claims of ownership, scaled values.
//!
//! What must not be here: the rules of a single controller.

pub mod adopt;
pub mod claim;
pub mod index;
pub mod int_or_percent;
pub mod node_fit;
pub mod pod_control;
pub mod pods;
pub mod protection;
pub mod revisions;
pub mod scales;
pub mod selectors;
pub mod template;
pub mod volumes;
pub mod written;
