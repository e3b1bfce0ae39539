//! The language of a program.
//!
//! In: the path of its executable, and where that does not tell, the executable's content.
//! Out: a value of `telemetry.sdk.language`, or nothing.

use std::{
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustc_hash::FxHashMap;

use super::{Counts, ProcFs, elf};

/// Bytes of `/proc/PID/maps` that are read for the identity of the executable, whose mappings are the first.
const MAX_MAPS_BYTES: usize = 1024;
/// Executables whose language is remembered. When they are more, all are forgotten and read again.
const MAX_REMEMBERED: usize = 1024;
/// How long one executable's content may take. It can lie on a file system that a watched process
/// serves itself (FUSE), which could hold the reader for ever.
const PATIENCE: Duration = Duration::from_millis(200);
/// Readers that may hang at once; then content is not looked at until one of them comes back.
const MAX_HANGING: usize = 4;
const READER_STACK_BYTES: usize = 128 * 1024;

/// Languages that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// Go, by the linker's build information.
    Go,
    /// A Java virtual machine.
    Java,
    /// Node.js.
    NodeJs,
    /// CPython or PyPy.
    Python,
    /// Ruby.
    Ruby,
    /// Rust, by the compiler's mark.
    Rust,
    /// PHP, on the command line or FPM.
    Php,
    /// The .NET host.
    DotNet,
}

impl Language {
    /// Value of `telemetry.sdk.language` (semantic conventions, telemetry SDK), which is also how discovery entries name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Java => "java",
            Self::NodeJs => "nodejs",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Rust => "rust",
            Self::Php => "php",
            Self::DotNet => "dotnet",
        }
    }

    /// By the file name of an interpreter, with or without a version behind it.
    pub(crate) fn from_executable(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let name = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-'));
        Some(match name {
            "java" => Self::Java,
            "node" | "nodejs" => Self::NodeJs,
            "python" | "pypy" => Self::Python,
            "ruby" => Self::Ruby,
            "php" | "php-fpm" | "php-cgi" => Self::Php,
            "dotnet" => Self::DotNet,
            _ => return None,
        })
    }
}

/// Finds languages, and remembers those that were found by content, by device, inode and path.
#[derive(Debug, Default)]
pub(crate) struct Languages {
    remembered: FxHashMap<Vec<u8>, Option<Language>>,
    hanging: Arc<AtomicUsize>,
}

impl Languages {
    /// Language of the program that `pid` runs, whose executable the kernel calls `link`.
    pub(crate) fn find(&mut self, procfs: &ProcFs, pid: u32, link: &[u8], counts: &mut Counts) -> Option<Language> {
        let path = String::from_utf8_lossy(super::facts::without_deleted(link));
        if let Some(language) = Language::from_executable(&path) {
            return Some(language);
        }
        let maps = procfs.read_start(pid, "maps", MAX_MAPS_BYTES).ok()?;
        let identity = executable_mapping(&maps, link)?;
        if let Some(language) = self.remembered.get(&identity) {
            return *language;
        }
        let language = self.by_content(procfs.path(pid, "exe"), counts)?;
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(identity, language);
        language
    }

    /// Reads the file in a thread of its own, so that a file that never answers costs no more than [`PATIENCE`].
    /// `None` if it gave no answer.
    fn by_content(&self, path: PathBuf, counts: &mut Counts) -> Option<Option<Language>> {
        if self.hanging.load(Ordering::Acquire) >= MAX_HANGING {
            counts.executables_slow += 1;
            return None;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let hanging = Arc::clone(&self.hanging);
        hanging.fetch_add(1, Ordering::AcqRel);
        let reader =
            thread::Builder::new().name("executable".to_owned()).stack_size(READER_STACK_BYTES).spawn(move || {
                let language = File::open(path).map(|file| elf::language_of(&file));
                hanging.fetch_sub(1, Ordering::AcqRel);
                // Nobody listens any more if it took too long.
                let _ = answer.send(language);
            });
        if reader.is_err() {
            self.hanging.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        match answered.recv_timeout(PATIENCE) {
            Ok(language) => language.ok(),
            Err(_) => {
                counts.executables_slow += 1;
                None
            }
        }
    }
}

/// Device, inode and path of the executable as the memory map names them: the kernel's own knowledge, which
/// no file system is asked for. Lines are `start-end permissions offset device inode path` (proc_pid_maps(5)).
pub(super) fn executable_mapping(maps: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |&byte| byte == b' ').skip(3);
        let (device, inode, path) = (fields.next()?, fields.next()?, fields.next()?);
        (path.trim_ascii_start() == link).then(|| [device, inode, link].join(&b' '))
    })
}

#[cfg(test)]
mod tests;
