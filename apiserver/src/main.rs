//! kube-apiserver: the API of Kubernetes v1.36, on etcd.

mod admission;
mod authn;
mod authz;
mod backends;
mod controlplane;
mod discovery;
mod health;
mod http;
mod lookup;
mod openapi;
mod options;
mod proxy;
mod reader;
mod registry;
mod server;
mod storage;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let daemon = component::Daemon {
        name: "kube-apiserver",
        workers: component::Workers::OneForTwoCores,
    };
    component::run(daemon, server::run)
}
