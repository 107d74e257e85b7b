//! Compiles the wire's messages. `protox` reads them, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(["eagleray/v1/worker.proto"], [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
