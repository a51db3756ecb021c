//! Compiles the container runtime interface, whose other side `kubelets` plays.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/grpc/proto/cri");
    let files = ["cri/runtime.proto", "cri/image.proto"];
    let cri = protox::compile(files, ["../proto/grpc/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .generate_default_stubs(true)
        .compile_fds(cri)?;
    Ok(())
}
