//! Stubs of the gRPC interfaces that Kubernetes' daemons speak, each compiled from the
//! `.proto` files under `proto/`, which hold the interface's facts (names, numbers, types).
//!
//! What must not be here: retries, timeouts, or anything else that is a daemon's policy.

pub mod cri;
pub mod etcd;
pub mod plugins;
pub mod pod_resources;
mod unix;

pub use unix::{Ended, EndpointError, connect_unix, dial_unix};
