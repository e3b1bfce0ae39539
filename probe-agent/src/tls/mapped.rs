//! Which files of TLS libraries a process has mapped.
//!
//! In: `/proc/PID/maps`, of which the paths are the process's own words. Out: files by device and inode, and where they are mapped.

use super::names::Family;

/// Device and inode.
pub(super) type Key = (Vec<u8>, u64);

/// A file that is mapped executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Device and inode, as the map says: the same for every process that maps the file.
    pub(super) key: Key,
    /// First address of the mapping, and the one behind its last.
    pub(super) range: (u64, u64),
    /// Path as the process sees it.
    pub(super) path: Vec<u8>,
    /// It was deleted or replaced since.
    pub(super) deleted: bool,
}

/// Beginnings of names of files that OpenSSL's ciphertext may go through.
const CRYPTO: [&[u8]; 2] = [b"libcrypto.so", b"libssl.so"];
/// Beginnings of names of modules that move the bytes of sockets themselves, with the TLS library working in memory.
const MOVERS: [&[u8]; 4] = [b"_asyncio.", b"libuv.so", b"libnode.so", b"libnetty_tcnative"];
const PYTHON: [&[u8]; 4] = [b"libpython3", b"python", b"_asyncio.", b"loop."];
const DELETED: &[u8] = b" (deleted)";

impl Mapped {
    /// Name of the file.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Which library it is, by its name.
    pub(super) fn family(&self) -> Option<Family> {
        Family::of(self.name())
    }
}

/// Files of libraries that are read, each once, at most `limit`.
pub(super) fn libraries(maps: &[u8], limit: usize) -> Vec<Mapped> {
    find(maps, limit, |mapped| mapped.family().is_some())
}

/// Files that ciphertext may go through, likewise.
pub(super) fn crypto(maps: &[u8], limit: usize) -> Vec<Mapped> {
    let known = |name: &[u8]| CRYPTO.iter().any(|begin| name.strip_prefix(*begin).is_some_and(ends_or_version));
    find(maps, limit, |mapped| known(mapped.name()))
}

/// Files of CPython that links need, likewise: the interpreter, `_asyncio`, and any module `loop` (uvloop's).
pub(super) fn python(maps: &[u8], limit: usize) -> Vec<Mapped> {
    find(maps, limit, |mapped| PYTHON.iter().any(|begin| mapped.name().starts_with(begin)))
}

/// Whether the process has a module that moves the bytes of its sockets itself.
pub(super) fn moves_bytes_itself(maps: &[u8]) -> bool {
    let names = maps.split(|&byte| byte == b'\n').filter_map(|line| line.rsplit(|&byte| byte == b'/').next());
    names.into_iter().any(|name| MOVERS.iter().any(|begin| name.starts_with(begin)))
}

fn find(maps: &[u8], limit: usize, known: impl Fn(&Mapped) -> bool) -> Vec<Mapped> {
    let mut found: Vec<Mapped> = Vec::new();
    for mapped in maps.split(|&byte| byte == b'\n').filter_map(parse) {
        if known(&mapped) && found.len() < limit && found.iter().all(|other| other.key != mapped.key) {
            found.push(mapped);
        }
    }
    found
}

fn ends_or_version(rest: &[u8]) -> bool {
    rest.first().is_none_or(|&byte| byte == b'.')
}

/// One line (proc_pid_maps(5)), if it is of a file that is mapped executable.
fn parse(line: &[u8]) -> Option<Mapped> {
    let mut rest = line;
    let mut field = || {
        let start = rest.iter().position(|&byte| byte != b' ')?;
        let from = rest.get(start..)?;
        let end = from.iter().position(|&byte| byte == b' ').unwrap_or(from.len());
        let (found, after) = from.split_at(end);
        rest = after;
        Some(found)
    };
    let (range, rights, _, device, inode) = (field()?, field()?, field()?, field()?, field()?);
    let inode = std::str::from_utf8(inode).ok()?.parse().ok().filter(|&inode| inode != 0)?;
    let start = rest.iter().position(|&byte| byte != b' ')?;
    let path = rest.get(start..).filter(|path| path.first() == Some(&b'/'))?;
    let (path, deleted) = path.strip_suffix(DELETED).map_or((path, false), |path| (path, true));
    let (begin, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
    let range = (u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (rights.get(2) == Some(&b'x')).then(|| Mapped {
        key: (device.to_vec(), inode),
        range,
        path: path.to_vec(),
        deleted,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_once_by_their_names() {
        let maps = b"55d0-55d1 r-xp 00000000 fe:00 12 /usr/sbin/nginx
7f00-7f01 r--p 00000000 fe:00 13                         /usr/lib/x86_64-linux-gnu/libssl.so.3
7f01-7f02 r-xp 00001000 fe:00 13                         /usr/lib/x86_64-linux-gnu/libssl.so.3
7f01-7f02 r-xp 00009000 fe:00 13                         /usr/lib/x86_64-linux-gnu/libssl.so.3
7f02-7f03 r-xp 00000000 fe:00 14 /usr/lib/firefox/libssl3.so
7f02-7f03 r-xp 00000000 fe:00 16 /srv/a b/libssl.so.1.1 (deleted)
7f02-7f03 r-xp 00000000 fe:00 17 /srv/libssl.sock
7f06-7f07 rw-p 00000000 00:00 0 [stack]
\xff\xfe/";
        let found = libraries(maps, 8);
        assert_eq!(
            found,
            [
                Mapped {
                    key: (b"fe:00".to_vec(), 13),
                    range: (0x7f01, 0x7f02),
                    path: b"/usr/lib/x86_64-linux-gnu/libssl.so.3".to_vec(),
                    deleted: false
                },
                Mapped {
                    key: (b"fe:00".to_vec(), 16),
                    range: (0x7f02, 0x7f03),
                    path: b"/srv/a b/libssl.so.1.1".to_vec(),
                    deleted: true
                },
            ]
        );
        assert_eq!(libraries(maps, 1).len(), 1);
        assert!(libraries(b"", 8).is_empty());
    }
}
