//! The node goes down, and its pods are ended before it does, each with the time that it may take
//! (KEP-2000, KEP-2712). `plan.rs` is pure; `manager.rs` listens to logind and applies; `record.rs`
//! writes down when it was.

mod manager;
mod plan;
mod record;

pub use manager::Manager;
pub use plan::{Periods, validate};

/// Why the node is not ready meanwhile.
pub const NOT_READY: &str = "node is shutting down";

/// Why it takes no pods meanwhile: reason and message of their failure.
pub const REJECTED: (&str, &str) = (
    "NodeShutdown",
    "Pod was rejected as the node is shutting down.",
);
