//! Turns our protocol definitions into Rust, without a `protoc` binary.

use std::error::Error;

const PROTOS: [&str; 4] = ["workload.proto", "authorization.proto", "discovery.proto", "ca.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
