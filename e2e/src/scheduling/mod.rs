//! Schedulers against an API server without kubelets: are two of them of one mind, and what
//! does each cost?
//!
//! - [`compare`] shows the same random clusters and pods to both and compares what comes of
//!   it: nodes, the words of events, victims;
//! - [`devices`] does so for claims of devices, [`groups`] for groups of pods;
//! - [`bench`] measures CPU time per pod and pods per second of [`workloads`];
//! - [`rollout`] measures how long Deployments take in a cluster whose kubelets are played;
//! - [`nodes`] plays many kubelets, for what needs a cluster to seem alive.
//!
//! What must not be here: knowledge of how either scheduler is made.

pub mod bench;
pub mod compare;
pub mod devices;
pub mod generate;
pub mod groups;
pub mod nodes;
pub(crate) mod objects;
mod random;
pub mod rollout;
mod scheduler;
mod watch;
pub mod workloads;
