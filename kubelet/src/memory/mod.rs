//! The memory manager: of which NUMA nodes containers have their memory (`memoryManagerPolicy`).
//!
//! `policy.rs` says who gets what of which nodes, purely; `state.rs` is what outlives the kubelet,
//! `manager.rs` puts them together.
//!
//! What must not be here: where a pod as a whole is best placed (`topology/`).

mod manager;
mod policy;
mod state;

pub use manager::{Memory, Setup};
pub use state::Block;
