//! kube-apiserver
fn main() {}
