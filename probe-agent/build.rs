//! Compiles `probes/spantap.bpf.c` with clang, twice, and `probes/propagate.bpf.c`; the objects are embedded in the agent,
//! without what nothing reads there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

fn main() -> anyhow::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let probes = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../probes");
    let clang = env::var("SPANTAP_CLANG").unwrap_or_else(|_| "clang".to_owned());
    println!("cargo:rerun-if-env-changed=SPANTAP_CLANG");

    let architecture = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        other => bail!("the probes do not support the processor {other} yet"),
    };
    let target = format!("-D__TARGET_ARCH_{architecture}");
    compile(&clang, &probes, "spantap.bpf.c", &out.join("spantap.bpf"), &[&target])?;
    compile(&clang, &probes, "propagate.bpf.c", &out.join("propagate.bpf"), &[&target])?;
    // The same sources for kernels and kinds of programs that keep no state with a socket: see access.h.
    compile(&clang, &probes, "spantap.bpf.c", &out.join("spantap-table.bpf"), &[&target, "-DSPANTAP_TABLE"])
}

/// Compiles `source` of the kernel side to `out`.o with these definitions, and has it compiled again when a header changes.
fn compile(clang: &str, probes: &Path, source: &str, out: &Path, definitions: &[&str]) -> anyhow::Result<()> {
    let (object, dependencies) = (out.with_extension("bpf.o"), out.with_extension("bpf.d"));
    let status = Command::new(clang)
        .args(["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-fno-addrsig"])
        // No path of this machine in the object, which is embedded: the same sources give the same agent anywhere.
        .arg("-ffile-compilation-dir=.")
        .arg(format!("-ffile-prefix-map={}=probes", probes.display()))
        .args(definitions)
        .arg("-MD")
        .arg("-MF")
        .arg(&dependencies)
        .arg("-c")
        .arg(probes.join(source))
        .arg("-o")
        .arg(&object)
        .status()
        .with_context(|| {
            format!("cannot run {clang}: the probes are compiled by clang 14 or later (Debian: apt-get install clang libbpf-dev)")
        })?;
    if !status.success() {
        bail!("{clang} could not compile the probes (Debian: apt-get install clang libbpf-dev)");
    }
    let embedded = out.with_extension("embedded.bpf.o");
    fs::write(
        &embedded,
        slim(&fs::read(&object)?).with_context(|| format!("{} cannot be made smaller", object.display()))?,
    )?;
    // Rebuild when any header changes; the first word is the target.
    let listed = fs::read_to_string(&dependencies)?;
    for file in listed.split_whitespace().skip(1).filter(|word| *word != "\\") {
        println!("cargo:rerun-if-changed={file}");
    }
    Ok(())
}

/// `object` without what neither the loader nor a kernel reads, half of its bytes: DWARF, relocations of it and of BTF's
/// line table, names of basic blocks. A release does without BTF's line table too: a verifier's complaint then names
/// instructions, which `llvm-objdump -S` on the whole object (it stays in the build folder) turns into lines.
fn slim(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete =
            [".debug_", ".rel.debug_", ".rel.BTF"].iter().any(|unread| name.starts_with(unread.as_bytes()));
        if let SectionData::Data(data) = &mut section.data
            && name == b".BTF.ext"
            && env::var("PROFILE")? == "release"
        {
            *data =
                without_lines(data.as_slice()).context(".BTF.ext is not as the kernel's documentation has it")?.into();
        }
    }
    for symbol in &mut builder.symbols {
        symbol.delete = symbol.name.as_slice().starts_with(b"LBB");
    }
    // clang keeps the sections' names in the table of the symbols' names; the builder wants one for each.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut slim = Vec::new();
    builder.write(&mut slim)?;
    Ok(slim)
}

/// `.BTF.ext` with an empty line table (Documentation/bpf/btf.rst, section 4.2: the header's fields are 32 bits each from
/// byte 4 on: its length, then offset behind the header and length of functions, lines and CO-RE relocations).
fn without_lines(btf_ext: &[u8]) -> Option<Vec<u8>> {
    let field = |index: usize| {
        let bytes = btf_ext.get(4 + 4 * index..8 + 4 * index)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let header = field(0)?;
    let part = |index: usize| btf_ext.get(header.checked_add(field(index)?)?..)?.get(..field(index + 1)?);
    let (functions, relocations) = (part(1)?, part(5)?);
    // A table is the size of its records, then its records.
    let lines = part(3)?.get(..4)?;
    let mut out = btf_ext.get(..header)?.to_vec();
    let mut offset = 0;
    for (index, part) in [(1, functions), (3, lines), (5, relocations)] {
        for (index, value) in [(index, offset), (index + 1, part.len())] {
            out.get_mut(4 + 4 * index..8 + 4 * index)?.copy_from_slice(&u32::try_from(value).ok()?.to_le_bytes());
        }
        out.extend_from_slice(part);
        offset += part.len();
    }
    Some(out)
}
