//! The types of the running kernel (BTF).
//!
//! In: what the kernel tells, or the file of `spantap.btf`. Out: [`KernelTypes`], or why there are none. A file is looked through
//! before it is used: it may be anything.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aya::{Btf, Endianness};

use super::error::ProbeError;

/// Where a kernel with CONFIG_DEBUG_INFO_BTF tells its types.
pub(crate) const OWN: &str = "/sys/kernel/btf/vmlinux";
/// Largest file that is read, bytes; those of distributions' kernels have 3 to 8 MiB.
const MAX_FILE: u64 = 64 << 20;
/// A type that every kernel has: a file without it is not of a kernel, but of one of its modules or of a program.
const MARK: &[u8] = b"task_struct";
/// A type that came with "bpf: Fix fexit trampoline" (e21aa341785c, Linux 5.12 and 5.10.28): before it the kernel may free the
/// trampoline of a function's return while a thread sleeps in that function, and crashes when the thread comes back.
const KEPT_TRAMPOLINES: &[u8] = b"bpf_tramp_image";

/// The types, and where they come from.
pub(crate) struct KernelTypes {
    /// For the loader.
    pub(crate) btf: Btf,
    /// The file, where the kernel does not tell them itself.
    pub(crate) file: Option<PathBuf>,
    /// Whether returns of functions that sleep can be hooked without harm.
    pub(crate) safe_returns: bool,
}

/// What was seen in BTF.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    safe_returns: bool,
}

/// The types that the kernel tells; where it tells none those of the file `given`, or of the file `RELEASE.btf` in the folder `given`.
///
/// # Errors
/// There are none, or the file will not do.
pub(crate) fn kernel_types(given: Option<&Path>) -> Result<KernelTypes, ProbeError> {
    let own = match read(Path::new(OWN)) {
        Ok(bytes) => {
            let btf = Btf::parse(&bytes, Endianness::default())
                .map_err(|error| ProbeError::NoBtf(format!("{OWN}: {}", with_cause(&error))))?;
            // A kernel that is too new to be understood has what 5.12 has.
            let safe_returns = look_through(&bytes).map_or(true, |seen| seen.safe_returns);
            return Ok(KernelTypes { btf, file: None, safe_returns });
        }
        Err(reason) => format!("{OWN}: {reason}"),
    };
    let Some(given) = given else { return Err(ProbeError::NoBtf(own)) };
    let file = if given.is_dir() { given.join(release()) } else { given.to_owned() };
    let refused = |reason: String| ProbeError::BadBtf { file: file.clone(), reason };
    let bytes = read(&file).map_err(refused)?;
    let Seen { safe_returns } = look_through(&bytes).map_err(refused)?;
    let btf = Btf::parse(&bytes, Endianness::default()).map_err(|error| refused(with_cause(&error)))?;
    Ok(KernelTypes { btf, file: Some(file), safe_returns })
}

fn with_cause(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn release() -> String {
    format!("{}.btf", rustix::system::uname().release().to_string_lossy())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let said = |error: io::Error| error.to_string();
    // One that is no file must not make the agent wait.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file).map_err(said)?;
    let found = opened.metadata().map_err(said)?;
    if !found.is_file() {
        return Err("it is no plain file".to_owned());
    }
    let mut bytes = Vec::new();
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {} MiB", MAX_FILE >> 20));
    }
    Ok(bytes)
}

/// Whether this is BTF of a kernel: that each length and name in it lies within it (Linux, Documentation/bpf/btf.rst).
fn look_through(bytes: &[u8]) -> Result<Seen, String> {
    let refused = |reason: &str| Err(reason.to_owned());
    match bytes.get(..4) {
        Some([0x9f, 0xeb, 1, _]) => {}
        Some([0xeb, 0x9f, ..]) => return refused("it is of a processor with another byte order"),
        Some(b"\x7fELF") => {
            return refused(
                "it is an ELF file: take the BTF out of it, by objcopy --dump-section .BTF=kernel.btf FILE",
            );
        }
        Some([0xfd, b'7', b'z', _] | [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) => {
            return refused("it is compressed: unpack it");
        }
        _ => return refused("it is no BTF"),
    }
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize);
    let part = |offset: usize, length: usize| {
        let start = word(4).filter(|header| *header >= 24)?.checked_add(word(offset)?)?;
        bytes.get(start..start.checked_add(word(length)?)?)
    };
    let (Some(mut types), Some(names)) = (part(8, 12), part(16, 20)) else { return refused("it is cut off") };
    let (mut of_a_kernel, mut safe_returns) = (false, false);
    while !types.is_empty() {
        let Some((head, rest)) = types.split_first_chunk::<12>() else { return refused("a type in it is cut off") };
        let [n0, n1, n2, n3, i0, i1, _, i3, ..] = *head;
        let Some(name) = names.get(u32::from_le_bytes([n0, n1, n2, n3]) as usize..) else {
            return refused(
                "a type in it has its name elsewhere: it may be of a module, take that of the kernel itself",
            );
        };
        let (kind, members) = (i3 & 0x1f, usize::from(u16::from_le_bytes([i0, i1])));
        let more = match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * members,
            6 | 13 => 8 * members,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return Err(format!("it has types of kind {kind}, which this agent does not know")),
        };
        let is = |known: &[u8]| kind == 4 && name.strip_prefix(known).is_some_and(|rest| rest.first() == Some(&0));
        of_a_kernel |= is(MARK);
        safe_returns |= is(KEPT_TRAMPOLINES);
        let Some(next) = rest.get(more..) else { return refused("a type in it is cut off") };
        types = next;
    }
    if of_a_kernel {
        Ok(Seen { safe_returns })
    } else {
        refused("it has no struct task_struct: it is not that of a kernel")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// One struct with this name, no members.
    fn btf(name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for number in [24u32, 0, 12, 12, u32::try_from(name.len()).unwrap() + 2, 1, 4 << 24, 8] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.push(0);
        bytes.extend(name);
        bytes.push(0);
        bytes
    }

    fn says(bytes: &[u8], text: &str) {
        let said = look_through(bytes).unwrap_err();
        assert!(said.contains(text), "{said:?} has no {text:?}");
    }

    #[test]
    fn what_is_not_btf_of_a_kernel_is_refused_with_the_way_out() {
        assert_eq!(look_through(&btf(MARK)), Ok(Seen { safe_returns: false }));
        says(&btf(b"task_struct_ops"), "not that of a kernel");
        says(b"", "no BTF");
        says(b"# a configuration\n", "no BTF");
        says(b"\x7fELF\x02\x01", "objcopy --dump-section .BTF=");
        says(b"\xfd7zXZ\0", "unpack it");
        says(b"\xeb\x9f\0\x01", "byte order");
    }

    #[test]
    fn no_length_in_it_is_believed() {
        let whole = btf(MARK);
        for length in 0..whole.len() {
            assert!(look_through(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        // Each byte of the header and of the type in turn: refused or taken, never a panic, and aya reads what was taken.
        for place in 0..36 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut spoilt = whole.clone();
                spoilt[place] = value;
                if look_through(&spoilt).is_ok() {
                    let _ = Btf::parse(&spoilt, Endianness::default());
                }
            }
        }
    }

    #[test]
    fn that_of_this_kernel_is_taken() {
        let Ok(bytes) = std::fs::read(OWN) else {
            eprintln!("SKIP: {OWN} cannot be read");
            return;
        };
        assert_eq!(look_through(&bytes), Ok(Seen { safe_returns: true }));
    }

    #[test]
    fn no_plain_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().contains("no plain file"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("no plain file"));
        assert!(read(&folder.path().join("none")).unwrap_err().contains("No such file"));
    }
}
