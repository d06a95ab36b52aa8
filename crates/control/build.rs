//! Generates the two services that are served here; their messages are `mesh`'s.

use std::error::Error;

const PROTOS: [&str; 2] = ["discovery.proto", "ca.proto"];
const FOLDER: &str = "../mesh/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let descriptors = protox::compile(PROTOS, [FOLDER])?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".envoy.service.discovery.v3", "::mesh::proto::envoy::service::discovery::v3")
        .extern_path(".envoy.config.core.v3", "::mesh::proto::envoy::config::core::v3")
        .extern_path(".google.rpc", "::mesh::proto::google::rpc")
        .extern_path(".istio.v1.auth", "::mesh::proto::ca")
        .compile_fds(descriptors)?;
    Ok(())
}
