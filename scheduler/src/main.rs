//! kube-scheduler
fn main() {}
