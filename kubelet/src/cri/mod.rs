//! The container runtime: what is observed of it, what is planned for a pod, and (in `runtime.rs`
//! and `client.rs`, the only files here that talk to it) how that is applied.

pub mod backoff;
pub mod container;
pub mod dns;
pub mod env;
pub mod expansion;
pub mod hash;
pub mod hosts;
pub mod labels;
pub mod limits;
pub mod logs;
pub mod observed;
pub mod plan;
pub mod sandbox;
pub mod security;
