//! kube-proxy: services' addresses, on every node.
mod backend;
mod state;
fn main() {}
