//! The container runtime. What is observed of it (`observe.rs`), what is planned for a pod
//! (`plan.rs`), how that is applied (`runtime.rs` and its helpers `start.rs`, `kill.rs`,
//! `resize.rs`), and the pure files that make the runtime's configuration out of a pod. Only `client.rs` knows gRPC.

pub mod backoff;
pub mod client;
pub mod container;
pub mod dns;
pub mod env;
pub mod expansion;
pub mod gc;
pub mod hash;
mod hooks;
pub mod hosts;
mod kill;
pub mod labels;
pub mod limits;
pub mod log_rotation;
pub mod logs;
mod measured;
pub mod observe;
pub mod observed;
pub mod plan;
mod resize;
mod resize_plan;
pub mod runtime;
pub mod sandbox;
pub mod security;
mod start;
