//! Compiles the wire's messages. `protox` reads them, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(["eagleray/v1/worker.proto"], [root])?;
    // Far larger than all else a worker says.
    let boxed = ".eagleray.v1.FromWorker.body.submit";
    prost_build::Config::new().bytes(["."]).boxed(boxed).compile_fds(files)?;
    Ok(())
}
