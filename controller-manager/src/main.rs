//! kube-controller-manager
mod controllers;
mod kinds;
mod workload;
fn main() {}
