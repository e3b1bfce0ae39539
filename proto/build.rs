//! Generates the Rust types from `ingest.proto`, without `protoc`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ingest.proto");
    let descriptors = protox::compile(["ingest.proto"], ["."])?;
    let mut config = prost_build::Config::new();
    // Heads stay slices of the buffer they arrived in.
    config.bytes([
        ".spantap.v1.AgentMessage.hello",
        ".spantap.v1.AgentMessage.batch",
        ".spantap.v1.SocketEvent.head",
        ".spantap.v1.SocketEvent.tail",
    ]);
    #[cfg(feature = "service")]
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    #[cfg(not(feature = "service"))]
    config.compile_fds(descriptors)?;
    Ok(())
}
