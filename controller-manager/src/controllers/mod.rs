//! One folder per controller: its plan (pure), what it remembers, and the wiring that observes
//! and applies.

pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod replicaset;
