//! What the workload controllers share: pod templates and
//! their hashes, claims of ownership, scaled values.
//!
//! Pure. What must not be here: requests, or the rules of a single controller.

pub mod claim;
pub mod int_or_percent;
pub mod template;
