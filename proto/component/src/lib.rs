//! What every daemon does alike: flags, configuration files, feature gates, logs,
//! metrics, health, serving over TLS, stopping in order.
//!
//! A daemon's `main.rs` is [`run`] with its options type and its server function.
//! What must not be here: anything that only one daemon does.

pub mod aside;
pub mod auth;
pub mod candidate;
pub mod coalesced;
pub mod config_file;
pub mod features;
pub mod files;
pub mod flags;
pub mod health;
pub mod logs;
pub mod metrics;
pub mod panics;
mod run;
pub mod secure_port;
pub mod serving;
pub mod signals;
pub mod version;
pub mod zpages;

pub use run::{Daemon, STACK, Workers, run};
