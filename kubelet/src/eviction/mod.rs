//! Eviction: before the node runs out of something, pods end for the sake of the others.
//!
//! Only [`measure`] and [`manager`] do I/O: the one observes, the other applies. What is configured
//! is in [`thresholds`]; whether the node is under pressure, and for which threshold something
//! must be done, [`plan`] decides; what can be given up before a pod is, [`disks`]; which pod goes
//! first, [`ranking`]; and which pods use more of the disk than they may, [`limits`].

mod disks;
mod limits;
pub mod manager;
mod measure;
mod message;
pub mod plan;
mod ranking;
pub mod thresholds;

/// Reason of an evicted pod's status and event, and of one that is turned away under pressure.
pub const REASON: &str = "Evicted";

pub use manager::Manager;
pub use plan::Pressure;
pub use thresholds::Policy;
