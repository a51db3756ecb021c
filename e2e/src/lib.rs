//! The harness of the scenario tests: find the running cluster, run `kubectl`
//! against it, wait for values, reach into its processes.
//!
//! Nothing here knows how a daemon is made. A cluster is a state directory of
//! `deploy/up`, whatever programs it runs.

pub mod bench;
pub mod cluster;
pub mod controllers;
pub mod history;
pub mod kubectl;
pub mod kubelets;
pub mod net;
pub mod scheduling;
pub mod stand;
pub mod wait;

pub use cluster::{Cluster, Namespace};
pub use wait::until;
