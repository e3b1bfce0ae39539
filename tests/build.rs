//! Compiles the programs of `tests/probes`, which stand for those of others, with clang; the objects are embedded in the tests.

use std::{env, error::Error, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let source = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("probes/sockmap.bpf.c");
    let clang = env::var("SPANTAP_CLANG").unwrap_or_else(|_| "clang".to_owned());
    println!("cargo:rerun-if-env-changed=SPANTAP_CLANG");
    println!("cargo:rerun-if-changed=build.rs");
    for file in ["probes/sockmap.bpf.c", "../probes/vmlinux.h", "../probes/propagate_kernel.h"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let status = Command::new(&clang)
        .args(["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-c"])
        .arg(&source)
        .arg("-o")
        .arg(PathBuf::from(env::var("OUT_DIR")?).join("sockmap.bpf.o"))
        .status()
        .map_err(|error| format!("cannot run {clang}: {error} (Debian: apt-get install clang libbpf-dev)"))?;
    if !status.success() {
        return Err(format!("{clang} could not compile {}", source.display()).into());
    }
    Ok(())
}
