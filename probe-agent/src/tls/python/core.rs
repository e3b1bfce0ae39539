//! What has to be known of a file with CPython in it: its version, where fields lie, where contexts come and go.
//!
//! In: `libpython3.so` or a program that it is linked into, hostile as any other file. Out: [`Core`], or why requests are not
//! linked. Symbols are those that extensions need, so that stripped files have them as well.

use super::super::{elf::Elf, order::Function, symbols};
use crate::read_at::{ReadAt, u16_at, u32_at, u64_at};

const RUNTIME: &str = "_PyRuntime";
const CONTEXT_TYPE: &str = "PyContext_Type";
/// All that make contexts, beside the type itself.
const MAKERS: [&str; 3] = ["PyContext_CopyCurrent", "PyContext_Copy", "PyContext_New"];
const ENTER: &str = "PyContext_Enter";
/// A number since 3.11: its highest byte is the major version, the next one the minor.
const VERSION: &str = "Py_Version";
/// New functions of these versions.
const NEW_IN_3_10: &str = "PyGC_Enable";
const NEW_IN_3_9: &str = "PyFrame_GetBack";
/// A program that has this module in itself maps no file for it.
const ASYNCIO: &str = "PyInit__asyncio";
/// In `_asyncio`: where it has tasks go on. Not exported.
pub(super) const CALL_SOON: &str = "call_soon";
/// `PyTypeObject.tp_new`.
const NEW: u64 = 312;
/// `_Py_DebugOffsets` since 3.13: the beginning of `_PyRuntime` says where fields lie.
const COOKIE: &[u8] = b"xdebugpy";

/// Offsets of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// `_PyRuntimeState.interpreters.main`
    pub(super) main: u64,
    /// `PyInterpreterState`: its newest thread state.
    pub(super) threads: u16,
    /// `PyThreadState.thread_id`
    pub(super) thread: u16,
    /// `PyThreadState.context`
    pub(super) context: u16,
    /// `call_soon` of `_asyncio` has the module's state as its first argument, and the context as its fifth.
    pub(super) calls_with_state: bool,
}

/// A file with CPython in it. Addresses do not count where it is loaded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) minor: u8,
    pub(super) layout: Layout,
    /// Lowest address of its code.
    pub(super) code: u64,
    pub(super) runtime: u64,
    pub(super) context_type: u64,
    /// Functions that make contexts, in the file.
    pub(super) makers: Vec<u64>,
    /// Places in the file that are stopped at when they are entered.
    pub(super) places: Vec<(Function, u64)>,
    /// `_asyncio` is in it.
    pub(super) has_asyncio: bool,
    /// And so is its symbol [`CALL_SOON`].
    pub(super) has_calls: bool,
}

/// Why requests are not linked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unlinkable {
    /// Fields may lie elsewhere.
    #[error("its version of CPython is not one of 3.9 to 3.13")]
    Version,
    /// One of the symbols is missing.
    #[error("it has no symbol {0}")]
    Missing(&'static str),
    /// It is not as that version is made.
    #[error("it is not laid out as CPython 3.{0} is")]
    Layout(u8),
}

/// `None`: there is no CPython in it.
pub(super) fn find(file: &impl ReadAt) -> Option<Result<Core, Unlinkable>> {
    let names = [RUNTIME, CONTEXT_TYPE, ENTER, VERSION, NEW_IN_3_10, NEW_IN_3_9, ASYNCIO, CALL_SOON];
    let found = symbols::addresses(file, &[names.as_slice(), &MAKERS].concat())?;
    let elf = Elf::parse(file)?;
    let of = |name: &'static str| found.get(name).copied().ok_or(Unlinkable::Missing(name));
    let runtime = of(RUNTIME).ok()?;
    let core = || {
        let version = of(VERSION).ok().and_then(|at| u32_at(&elf.bytes(at, 4), 0));
        let minor = match version.map(u32::to_be_bytes) {
            Some([3, minor, _, _]) => minor,
            Some(_) => return Err(Unlinkable::Version),
            None if found.contains_key(NEW_IN_3_10) => 10,
            None if found.contains_key(NEW_IN_3_9) => 9,
            None => return Err(Unlinkable::Version),
        };
        let layout = layout(minor, &elf.bytes(runtime, 256))?;
        let context_type = of(CONTEXT_TYPE)?;
        let place = |address: u64| elf.code_offset(address).ok_or(Unlinkable::Layout(minor));
        let new = context_type.checked_add(NEW).and_then(|at| elf.word(at)).unwrap_or(0);
        let makers = MAKERS.iter().map(|name| of(name)).chain([Ok(new)]).map(|at| place(at?));
        let mut places = vec![(Function::PyEnters, place(of(ENTER)?)?)];
        let has_asyncio = found.contains_key(ASYNCIO);
        let calls = of(CALL_SOON).ok().filter(|_| has_asyncio).and_then(|at| place(at).ok());
        places.extend(calls.map(|at| (Function::PyCalls, at)));
        Ok(Core {
            minor,
            layout,
            code: elf.first_code().ok_or(Unlinkable::Layout(minor))?,
            runtime,
            context_type,
            makers: makers.collect::<Result<_, _>>()?,
            places,
            has_asyncio,
            has_calls: calls.is_some(),
        })
    };
    Some(core())
}

/// Of 3.9 to 3.12 as their headers lay it out (`Include/internal/pycore_runtime.h`, `pycore_interp.h`, `cpython/pystate.h`), read
/// from the debugging information of programs that each made; since 3.13 `runtime`, the beginning of `_PyRuntime`, tells all but
/// the context's place. What the kernel side reads by them proves itself, or is not taken (`probes/python_link.h`).
fn layout(minor: u8, runtime: &[u8]) -> Result<Layout, Unlinkable> {
    let known =
        |main, threads, thread, context| Layout { main, threads, thread, context, calls_with_state: minor >= 12 };
    match minor {
        9 | 10 => Ok(known(0x28, 0x08, 0xb0, 0xf0)),
        11 => Ok(known(0x30, 0x10, 0x98, 0xe0)),
        12 => Ok(known(0x30, 0x48, 0x88, 0xd0)),
        13 => {
            let told = || {
                let version = u64_at(runtime, 8)?;
                // Without a global lock objects are laid out otherwise.
                let is_known = runtime.starts_with(COOKIE) && version >> 16 == 0x030d && u64_at(runtime, 16)? == 0;
                // A list of interpreters is told by its head; the main one stands behind it. `next` of a thread is assumed below.
                let is_list = u64_at(runtime, 168)? == 8;
                let main = u64_at(runtime, 40)?.checked_add(8)?;
                (is_known && is_list).then_some(known(main, u16_at(runtime, 72)?, u16_at(runtime, 192)?, 0xd0))
            };
            told().ok_or(Unlinkable::Layout(minor))
        }
        _ => Err(Unlinkable::Version),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::{fs::File, path::PathBuf};

    use super::*;
    use crate::read_at::tests::Bytes;

    /// Every CPython of this host, by the version in its file's name: of these none may be refused that is known.
    fn installed() -> Vec<(u8, PathBuf)> {
        let minor = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            let rest = name.strip_prefix("libpython3.").or_else(|| name.strip_prefix("python3."))?;
            rest.strip_suffix(".so.1.0").unwrap_or(rest).parse().ok()
        };
        let folders = ["/usr/bin", "/usr/local/bin", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu"].map(PathBuf::from);
        let pyenv = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv/versions"));
        let pyenv = pyenv.and_then(|path| path.read_dir().ok()).into_iter().flatten().flatten();
        let folders = folders.into_iter().chain(pyenv.flat_map(|v| [v.path().join("lib"), v.path().join("bin")]));
        let files = folders.filter_map(|folder| folder.read_dir().ok()).flatten().flatten().map(|entry| entry.path());
        files.filter_map(|path| Some((minor(&path)?, path))).collect()
    }

    #[test]
    fn installed_versions_are_known() {
        let mut known = 0;
        for (minor, path) in installed() {
            let found = find(&File::open(&path).unwrap());
            let made = |core: &Core| super::super::made::stops(&File::open(&path).unwrap(), &core.makers);
            println!("{}: {found:x?} {:x?}", path.display(), found.as_ref().map(|found| found.as_ref().map(made)));
            match found {
                // The program's own file, where the rest is in a library.
                None => {}
                Some(Ok(core)) => {
                    assert_eq!(core.minor, minor, "{}", path.display());
                    assert!(core.code <= core.runtime && !core.places.is_empty() && core.makers.len() == 4);
                    known += 1;
                }
                Some(Err(why)) => assert!(!(9..=13).contains(&minor), "{}: {why}", path.display()),
            }
        }
        if known == 0 {
            eprintln!("SKIP: no CPython 3.9 to 3.13 is installed");
        }
    }

    #[test]
    fn fields_of_a_version_that_tells_them_are_taken_from_it() {
        let mut runtime = vec![0; 256];
        runtime[..8].copy_from_slice(COOKIE);
        let mut put = |at: usize, value: u64| runtime[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(8, 0x030d_00f0);
        put(40, 0x278);
        put(72, 0x1cb0);
        put(168, 8);
        put(192, 0x98);
        let expected = Layout { main: 0x280, threads: 0x1cb0, thread: 0x98, context: 0xd0, calls_with_state: true };
        assert_eq!(layout(13, &runtime), Ok(expected));
        // Another version, or one without a global lock.
        for (at, value) in [(8, 0x030e_00f0_u64), (16, 1), (168, 16)] {
            let mut other = runtime.clone();
            other[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert_eq!(layout(13, &other), Err(Unlinkable::Layout(13)));
        }
        assert_eq!(layout(13, b"xdebugpy"), Err(Unlinkable::Layout(13)));
        for unknown in [0, 8, 14, 255] {
            assert_eq!(layout(unknown, &runtime), Err(Unlinkable::Version));
        }
    }

    #[test]
    fn other_files_are_none() {
        assert_eq!(find(&Bytes(Vec::new())), None);
        assert_eq!(find(&Bytes(std::fs::read(std::env::current_exe().unwrap()).unwrap())), None);
    }
}
