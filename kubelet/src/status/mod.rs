//! Pods' status: computed from what was observed, kept as the truth of this node, and sent to the
//! API server.

pub mod conditions;
pub mod containers;
mod evicted;
pub mod generate;
mod manager;
pub mod merge;
pub mod phase;
pub mod resources;
pub mod restart_all;

pub use evicted::Eviction;
pub use manager::StatusManager;
