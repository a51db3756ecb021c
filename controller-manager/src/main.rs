//! kube-controller-manager: the control loops that make the cluster what its objects say.
//!
//! [`options`] declares the flags, [`server`] wires, [`registry`] lists the controllers, each of
//! which is a folder of `controllers/`.

mod context;
mod controllers;
mod discovery;
mod events;
mod kinds;
mod metrics;
mod options;
mod pki;
mod registry;
mod server;
mod workload;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let daemon = component::Daemon {
        name: "kube-controller-manager",
        workers: component::Workers::Few(2),
    };
    component::run(daemon, server::run)
}
