//! Reading one process below `/proc`.
//!
//! In: a pid. Out: what the rules need to judge it (a [`Candidate`]), and what the forwarder is told about it ([`Facts`]).
//! The two are apart because most processes of most hosts are judged and never selected.

use std::io::{BufRead, BufReader, Read};

use rustc_hash::FxHashMap;

use super::{
    Counts, ProcFs, ReadError,
    container::{self, ContainerId},
    language::{Language, Languages},
    program::Facts,
    selection::Needs,
    stat::{self, Stat},
};

const MAX_ARGUMENTS: usize = 32;
const MAX_ARGUMENT_BYTES: usize = 256;
/// Bytes of the command line that rules on arguments see.
const MAX_COMMAND_LINE_BYTES: u64 = 16 * 1024;
const MAX_VARIABLES: usize = 64;
const MAX_VARIABLE_BYTES: usize = 1024;
/// Bytes of the environment that are looked through for variables of interest.
const MAX_ENVIRONMENT_BYTES: u64 = 1024 * 1024;
/// Mount namespaces whose container is remembered. When they are more, all are forgotten and read again.
const MAX_MOUNT_NAMESPACES: usize = 1024;

/// Parts of a variable's name that tell that its value is a credential.
const SECRET_NAMES: [&str; 7] = ["HEADERS", "KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "AUTH"];

/// A process as the rules see it. `None` stands for what is not known, be it that nobody asked or that it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub pid: u32,
    pub executable: Option<String>,
    /// Arguments without the program's own name, joined by single spaces.
    pub arguments: Option<String>,
    pub container: Option<Option<ContainerId>>,
    pub language: Option<Option<Language>>,
    /// TCP ports that it listens on, as far as any rule asks for them.
    pub ports: Vec<u16>,
}

/// Reads processes, and remembers what several of them share.
#[derive(Debug)]
pub(crate) struct Reader {
    pub procfs: ProcFs,
    languages: Languages,
    containers: FxHashMap<Vec<u8>, Option<ContainerId>>,
}

impl Reader {
    /// Reads below `procfs`.
    pub(crate) fn new(procfs: ProcFs) -> Self {
        Self { procfs, languages: Languages::default(), containers: FxHashMap::default() }
    }

    /// Identity and state of `pid`; [`ReadError::Gone`] also for what has ended and was not waited for yet.
    pub(crate) fn stat(&self, pid: u32) -> Result<Stat, ReadError> {
        let bytes = self.procfs.read_start(pid, "stat", stat::MAX_BYTES)?;
        Stat::parse(&bytes).filter(|stat| !stat.ended).ok_or(ReadError::Gone)
    }

    /// What the rules need to know about `pid`. [`ReadError::Gone`] if it has no program (any more).
    pub(crate) fn candidate(&mut self, pid: u32, needs: Needs, counts: &mut Counts) -> Result<Candidate, ReadError> {
        let link = self.executable_link(pid, counts)?;
        let arguments = needs.arguments.then(|| self.command_line(pid, counts)).flatten();
        Ok(Candidate {
            pid,
            executable: link.as_deref().map(path_text),
            arguments: arguments.map(|bytes| join_arguments(&bytes)),
            container: needs.container.then(|| self.container(pid, counts)).flatten(),
            language: link.filter(|_| needs.language).map(|link| self.languages.find(&self.procfs, pid, &link, counts)),
            ports: Vec::new(),
        })
    }

    /// All that is told about the program that `pid` runs.
    pub(crate) fn facts(&mut self, pid: u32, counts: &mut Counts) -> Result<Facts, ReadError> {
        let link = self.executable_link(pid, counts)?;
        let command_line = self.command_line(pid, counts).unwrap_or_default();
        let environment = match self.procfs.open(pid, "environ") {
            Ok(file) => otel_variables(BufReader::new(file.take(MAX_ENVIRONMENT_BYTES))),
            Err(error) => {
                note(&error, counts);
                Vec::new()
            }
        };
        Ok(Facts {
            executable: link.as_deref().map(path_text).unwrap_or_default(),
            command_line: split_arguments(&command_line),
            environment,
            container_id: self.container(pid, counts).flatten(),
            language: link.and_then(|link| self.languages.find(&self.procfs, pid, &link, counts)),
        })
    }

    fn executable_link(&self, pid: u32, counts: &mut Counts) -> Result<Option<Vec<u8>>, ReadError> {
        match self.procfs.link(pid, "exe") {
            Ok(link) => Ok(Some(link)),
            Err(ReadError::Gone) => Err(ReadError::Gone),
            Err(error) => {
                note(&error, counts);
                Ok(None)
            }
        }
    }

    fn command_line(&self, pid: u32, counts: &mut Counts) -> Option<Vec<u8>> {
        self.procfs.read(pid, "cmdline", MAX_COMMAND_LINE_BYTES).inspect_err(|error| note(error, counts)).ok()
    }

    fn container(&mut self, pid: u32, counts: &mut Counts) -> Option<Option<ContainerId>> {
        let cgroup = self.procfs.read(pid, "cgroup", container::MAX_CGROUP_BYTES);
        let cgroup = cgroup.inspect_err(|error| note(error, counts)).ok()?;
        if let Some(id) = container::from_cgroup(&cgroup) {
            return Some(Some(id));
        }
        // What a mount namespace holds is the same for every process in it.
        let Ok(namespace) = self.procfs.link(pid, "ns/mnt") else {
            return Some(None);
        };
        if let Some(id) = self.containers.get(&namespace) {
            return Some(id.clone());
        }
        let mounts = self.procfs.read(pid, "mountinfo", container::MAX_MOUNTINFO_BYTES).unwrap_or_default();
        let id = container::from_mountinfo(&mounts);
        if self.containers.len() >= MAX_MOUNT_NAMESPACES {
            self.containers.clear();
        }
        self.containers.insert(namespace, id.clone());
        Some(id)
    }

    /// Mount namespaces that have ended may have left their number to others.
    pub(crate) fn forget_mount_namespaces(&mut self) {
        self.containers.clear();
    }
}

/// Counts what kept a file from being read.
pub(crate) fn note(error: &ReadError, counts: &mut Counts) {
    match error {
        ReadError::Denied => counts.denied += 1,
        ReadError::Gone => counts.gone += 1,
        ReadError::Io(_) => {}
    }
}

/// The path without the mark that the kernel adds when the file was removed or replaced.
pub(crate) fn without_deleted(link: &[u8]) -> &[u8] {
    link.strip_suffix(b" (deleted)").unwrap_or(link)
}

/// The path of an executable as text.
pub(crate) fn path_text(link: &[u8]) -> String {
    String::from_utf8_lossy(without_deleted(link)).into_owned()
}

/// Arguments as the wire carries them, from a string of them with a NUL behind each.
pub(crate) fn split_arguments(command_line: &[u8]) -> Vec<String> {
    arguments(command_line).take(MAX_ARGUMENTS).map(bounded).collect()
}

/// Arguments as rules see them: without the first, which is the program's name, joined by spaces.
pub(crate) fn join_arguments(command_line: &[u8]) -> String {
    let rest: Vec<&[u8]> = arguments(command_line).skip(1).collect();
    String::from_utf8_lossy(&rest.join(&b' ')).into_owned()
}

fn arguments(command_line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let closed = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    closed.split(|&byte| byte == 0).take(if command_line.is_empty() { 0 } else { usize::MAX })
}

fn bounded(argument: &[u8]) -> String {
    // Cut before the conversion, so that a huge argument is not converted whole; and after it, because a byte
    // that is not UTF-8 becomes three.
    let mut text = String::from_utf8_lossy(argument.get(..MAX_ARGUMENT_BYTES).unwrap_or(argument)).into_owned();
    text.truncate(text.floor_char_boundary(MAX_ARGUMENT_BYTES));
    text
}

/// The variables that begin with `OTEL_`, the first of each name as `getenv` has it. Those that are too long are left
/// out as a whole: half a value would be a wrong one.
pub(super) fn otel_variables(mut environment: impl BufRead) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut variable = Vec::new();
    while found.len() < MAX_VARIABLES {
        let chunk = match environment.fill_buf() {
            Ok(chunk) if !chunk.is_empty() => chunk,
            // The process may end while its memory is read.
            _ => break,
        };
        let end = chunk.iter().position(|&byte| byte == 0);
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
        // One byte more than allowed is kept, to tell that it is too long.
        let room = (MAX_VARIABLE_BYTES + 1).saturating_sub(variable.len());
        variable.extend_from_slice(part.get(..room).unwrap_or(part));
        let consumed = part.len() + usize::from(end.is_some());
        environment.consume(consumed);
        if end.is_some() {
            if let Some((name, value)) = otel_variable(&variable)
                && !found.iter().any(|(known, _)| known == name)
            {
                found.push((name.to_owned(), value.to_owned()));
            }
            variable.clear();
        }
    }
    found
}

fn otel_variable(variable: &[u8]) -> Option<(&str, &str)> {
    if variable.len() > MAX_VARIABLE_BYTES || !variable.starts_with(b"OTEL_") {
        return None;
    }
    let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
    (!SECRET_NAMES.iter().any(|secret| name.contains(secret))).then_some((name, value))
}

#[cfg(test)]
mod tests;
