//! Which files of TLS libraries a process has mapped.
//!
//! In: `/proc/PID/maps`, of which the paths are the process's own words. Out: files by device and inode.

/// A file that is mapped executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Device and inode, as the map says: the same for every process that maps the file.
    pub(super) key: (Vec<u8>, u64),
    /// Path as the process sees it.
    pub(super) path: Vec<u8>,
    /// It was deleted or replaced since.
    pub(super) deleted: bool,
}

/// Beginnings of names of libraries with OpenSSL's interface.
const OPENSSL: [&[u8]; 1] = [b"libssl.so"];
/// The same of the part of it that may be a file of its own.
const CRYPTO: [&[u8]; 2] = [b"libcrypto.so", b"libssl.so"];
/// Beginnings of names of modules that move the bytes of sockets themselves, with the TLS library working in memory.
const MOVERS: [&[u8]; 4] = [b"_asyncio.", b"libuv.so", b"libnode.so", b"libnetty_tcnative"];
const DELETED: &[u8] = b" (deleted)";

/// Files with OpenSSL's interface by their names, each once, at most `limit`.
pub(super) fn openssl(maps: &[u8], limit: usize) -> Vec<Mapped> {
    named(maps, &OPENSSL, limit)
}

/// Files that ciphertext may go through, likewise.
pub(super) fn crypto(maps: &[u8], limit: usize) -> Vec<Mapped> {
    named(maps, &CRYPTO, limit)
}

/// Whether the process has a module that moves the bytes of its sockets itself.
pub(super) fn moves_bytes_itself(maps: &[u8]) -> bool {
    let names = maps.split(|&byte| byte == b'\n').filter_map(|line| line.rsplit(|&byte| byte == b'/').next());
    names.into_iter().any(|name| MOVERS.iter().any(|begin| name.starts_with(begin)))
}

fn named(maps: &[u8], names: &[&[u8]], limit: usize) -> Vec<Mapped> {
    let mut found: Vec<Mapped> = Vec::new();
    for mapped in maps.split(|&byte| byte == b'\n').filter_map(parse) {
        let name = mapped.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let known = names.iter().any(|begin| name.strip_prefix(*begin).is_some_and(ends_or_version));
        if known && found.len() < limit && found.iter().all(|other| other.key != mapped.key) {
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
    let (_, rights, _, device, inode) = (field()?, field()?, field()?, field()?, field()?);
    let inode = std::str::from_utf8(inode).ok()?.parse().ok().filter(|&inode| inode != 0)?;
    let start = rest.iter().position(|&byte| byte != b' ')?;
    let path = rest.get(start..).filter(|path| path.first() == Some(&b'/'))?;
    let (path, deleted) = path.strip_suffix(DELETED).map_or((path, false), |path| (path, true));
    (rights.get(2) == Some(&b'x')).then(|| Mapped { key: (device.to_vec(), inode), path: path.to_vec(), deleted })
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
        let found = openssl(maps, 8);
        assert_eq!(
            found,
            [
                Mapped {
                    key: (b"fe:00".to_vec(), 13),
                    path: b"/usr/lib/x86_64-linux-gnu/libssl.so.3".to_vec(),
                    deleted: false
                },
                Mapped { key: (b"fe:00".to_vec(), 16), path: b"/srv/a b/libssl.so.1.1".to_vec(), deleted: true },
            ]
        );
        assert_eq!(openssl(maps, 1).len(), 1);
        assert!(openssl(b"", 8).is_empty());
    }
}
