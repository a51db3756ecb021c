//! kube-apiserver
mod storage;

fn main() {}
