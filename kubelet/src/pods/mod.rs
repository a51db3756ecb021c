//! Pods on this node: where they come from, what they are to become, and the work on each.

pub mod active;
pub mod admission;
pub mod dirs;
pub mod ending;
pub mod index;
pub mod mirror;
pub mod node_fit;
pub mod pod;
mod preemption;
pub mod source_file;
pub mod source_http;
pub mod static_pod;
pub mod sync;
pub mod worker;
