//! kube-scheduler: finds a node for every pod that has none.

mod bind;
mod cache;
mod claims;
mod config;
mod cycle;
mod evaluation;
mod extended;
mod extender;
mod follow;
mod framework;
mod metrics;
mod model;
mod options;
mod plugins;
mod profile;
mod queue;
mod scheduler;
mod server;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    component::run(
        component::Daemon {
            name: "kube-scheduler",
            worker_threads: 2,
        },
        server::serve,
    )
}
