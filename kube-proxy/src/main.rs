//! kube-proxy: makes services' addresses work on one node.

mod backend;
mod config;
mod health;
mod metrics;
mod options;
mod proxier;
mod server;
mod state;
mod sysctl;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    component::run(
        component::Daemon {
            name: "kube-proxy",
            workers: component::Workers::Few(1),
        },
        server::serve,
    )
}
