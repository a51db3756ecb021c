//! What a kubelet itself costs, and how soon it tells what its runtime has done: over a runtime
//! that runs nothing, in a network and among mounts of their own. And what pods notice of its
//! death, and its runtime's: on a cluster.
//!
//! Nothing here knows whose kubelet it is.

pub mod bench;
mod groups;
mod kubelet;
pub mod pressure;
pub mod racer;
pub mod restarts;
mod runtime;
mod service;
mod world;

pub use world::enter;

/// The container runtime interface (CRI v1).
#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
mod cri {
    tonic::include_proto!("runtime.v1");
}
