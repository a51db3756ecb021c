//! The CPU manager: which CPUs containers have, alone or with others (`cpuManagerPolicy`).
//!
//! `assign.rs` picks CPUs that go together, `policy.rs` says who gets any and `options.rs` in which
//! way; these are pure. `state.rs` is what outlives the kubelet, `manager.rs` puts them together and
//! keeps running containers on the CPUs that are theirs.
//!
//! What must not be here: where a pod as a whole is best placed (`topology/`).

mod assign;
mod manager;
mod options;
mod policy;
mod set;
mod state;

pub use manager::{Cpus, Setup};
pub use options::parse_bool;
pub use set::CpuSet;
