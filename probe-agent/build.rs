//! Compiles `probes/spantap.bpf.c` with clang, twice; the objects are embedded in the agent.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let probes = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../probes");
    let clang = env::var("SPANTAP_CLANG").unwrap_or_else(|_| "clang".to_owned());
    println!("cargo:rerun-if-env-changed=SPANTAP_CLANG");

    let architecture = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86",
        other => bail!("the probes do not support the processor {other} yet"),
    };
    compile(&clang, &probes, &out.join("spantap.bpf"), &[&format!("-D__TARGET_ARCH_{architecture}")])?;
    // The same sources for kernels and kinds of programs that keep no state with a socket: see access.h.
    compile(
        &clang,
        &probes,
        &out.join("spantap-table.bpf"),
        &[&format!("-D__TARGET_ARCH_{architecture}"), "-DSPANTAP_TABLE"],
    )
}

/// Compiles the kernel side to `out`.o with these definitions, and has it compiled again when a header changes.
fn compile(clang: &str, probes: &Path, out: &Path, definitions: &[&str]) -> anyhow::Result<()> {
    let (object, dependencies) = (out.with_extension("bpf.o"), out.with_extension("bpf.d"));
    let status = Command::new(clang)
        .args(["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
        // No path of this machine in the object, which is embedded: the same sources give the same agent anywhere.
        .arg("-ffile-compilation-dir=.")
        .arg(format!("-ffile-prefix-map={}=probes", probes.display()))
        .args(definitions)
        .arg("-MD")
        .arg("-MF")
        .arg(&dependencies)
        .arg("-c")
        .arg(probes.join("spantap.bpf.c"))
        .arg("-o")
        .arg(&object)
        .status()
        .with_context(|| {
            format!("cannot run {clang}: the probes are compiled by clang 14 or later (Debian: apt-get install clang libbpf-dev)")
        })?;
    if !status.success() {
        bail!("{clang} could not compile the probes (Debian: apt-get install clang libbpf-dev)");
    }
    // Rebuild when any header changes; the first word is the target.
    let listed = std::fs::read_to_string(&dependencies)?;
    for file in listed.split_whitespace().skip(1).filter(|word| *word != "\\") {
        println!("cargo:rerun-if-changed={file}");
    }
    Ok(())
}
