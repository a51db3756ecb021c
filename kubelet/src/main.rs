//! The kubelet: runs the pods that are bound to its node. Command line in `options.rs`, everything
//! put together in `server.rs`, the loop that drives it all in `sync_loop.rs`.

mod allocation;
mod certificate;
mod cgroups;
mod checkpoint;
mod config;
mod cpus;
mod cri;
mod devices;
mod dra;
mod event;
mod events;
mod eviction;
mod images;
mod memory;
mod metrics;
mod node_status;
mod options;
mod pleg;
mod plugins;
mod pod_resources;
mod pods;
mod prober;
mod resources;
mod server;
mod shutdown;
mod status;
mod sync_loop;
mod sys;
mod systemd;
mod topology;
mod turns;
mod volumes;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Work is small and waits on the runtime and the network.
const WORKER_THREADS: usize = 2;
/// File operations of volumes.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    let options = match options::Options::parse(std::env::args_os()) {
        Ok(options) => options,
        Err(exit) => return exit.print(),
    };
    component::logs::init(&options.logs);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("kubelet")
        .thread_stack_size(component::STACK)
        .enable_all()
        .build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(async {
            let stop = component::signals::stop_token()?;
            // As a task: the first thread's stack is what the system gives it.
            tokio::spawn(server::run(options, stop)).await?
        });
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("kubelet failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
