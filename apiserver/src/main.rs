//! kube-apiserver
mod admission;
mod authn;
mod authz;
mod http;
mod lookup;
mod registry;
mod storage;

fn main() {}
