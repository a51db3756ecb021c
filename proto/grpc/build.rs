//! Compiles the `.proto` files under `proto/` with protox, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let cri = protox::compile(["cri/runtime.proto", "cri/image.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .btree_map(".runtime.v1")
        .skip_debug([".runtime.v1.AuthConfig"])
        .compile_fds(cri)?;

    let etcd = protox::compile(["etcd/rpc.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .skip_debug([".mvccpb.KeyValue", ".etcdserverpb.PutRequest"])
        .compile_fds(etcd)?;
    Ok(())
}
