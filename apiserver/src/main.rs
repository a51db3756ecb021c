//! kube-apiserver
mod admission;
mod authn;
mod authz;
mod discovery;
mod http;
mod lookup;
mod registry;
mod storage;

fn main() {}
