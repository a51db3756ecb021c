//! cloud-controller-manager
fn main() {}
