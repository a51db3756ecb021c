//! Compiles the `.proto` files under `proto/` with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

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

    // A node's plugins. Their side as well: tests play it.
    let plugins = protox::compile(
        [
            "plugins/registration.proto",
            "dra/v1.proto",
            "dra/v1beta1.proto",
            "dra/health.proto",
            "csi/csi.proto",
            "devices/v1beta1.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug([
            ".csi.v1.NodeStageVolumeRequest",
            ".csi.v1.NodePublishVolumeRequest",
            ".csi.v1.NodeExpandVolumeRequest",
        ])
        .compile_fds(plugins)?;

    // Apart: a package of the plugins' has the same name.
    let dir = Path::new(&env::var("OUT_DIR")?).join("podresources");
    fs::create_dir_all(&dir)?;
    let files = ["podresources/v1.proto", "podresources/v1alpha1.proto"];
    let pod_resources = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .out_dir(dir)
        .compile_fds(pod_resources)?;
    Ok(())
}
