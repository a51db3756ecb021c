//! kube-scheduler
mod cache;
mod cycle;
mod framework;
mod model;
mod plugins;
mod queue;
fn main() {}
