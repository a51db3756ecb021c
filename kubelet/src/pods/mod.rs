//! Pods on this node: where they come from, and what becomes of them.

pub mod pod;
