//! cloud-controller-manager: brings what a cloud knows of machines into the cluster.

mod controllers;
mod options;
mod provider;
mod server;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let daemon = component::Daemon {
        name: "cloud-controller-manager",
        workers: component::Workers::Few(1),
    };
    component::run(daemon, server::serve)
}
