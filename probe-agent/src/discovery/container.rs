//! Which container a process runs in.
//!
//! In: `/proc/PID/cgroup` (cgroups(7)), and where that tells nothing `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
//! Out: the runtime's id of the container, 64 hexadecimal digits.

/// Longest `cgroup` file that is read, bytes.
pub(crate) const MAX_CGROUP_BYTES: u64 = 32 * 1024;
/// Longest `mountinfo` file that is read, bytes. The mounts that tell are among the first of a container.
pub(crate) const MAX_MOUNTINFO_BYTES: u64 = 256 * 1024;

const ID_DIGITS: usize = 64;

/// Id of a container as its runtime shows it: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ContainerId(String);

impl ContainerId {
    fn parse(text: &[u8]) -> Option<Self> {
        let hexadecimal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == ID_DIGITS && text.iter().all(hexadecimal))
            .then(|| Self(String::from_utf8_lossy(text).into_owned()))
    }

    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id that either of the two files tells.
pub(crate) fn container_of(cgroup: &[u8], mountinfo: &[u8]) -> Option<String> {
    from_cgroup(cgroup).or_else(|| from_mountinfo(mountinfo)).map(|id| id.0)
}

/// Finds the id in a `cgroup` file, of either version of cgroups. In a container within a container, the inner one counts.
pub(crate) fn from_cgroup(file: &[u8]) -> Option<ContainerId> {
    file.split(|&byte| byte == b'\n').find_map(|line| {
        // hierarchy ":" controllers ":" path; the path itself may hold colons.
        let path = line.splitn(3, |&byte| byte == b':').nth(2)?;
        innermost(path)
    })
}

/// The forms in use: `/docker/ID`, `/kubepods/…/ID`, `…/docker-ID.scope`, `…/cri-containerd-ID.scope`,
/// `…/crio-ID.scope`, `…/libpod-ID.scope/container`, `…slice:cri-containerd:ID`.
fn innermost(path: &[u8]) -> Option<ContainerId> {
    for segment in path.rsplit(|&byte| byte == b'/' || byte == b':') {
        let name = segment.strip_suffix(b".scope").unwrap_or(segment);
        let (prefix, digits) = match name.iter().rposition(|&byte| byte == b'-') {
            Some(dash) => (name.get(..dash)?, name.get(dash + 1..)?),
            None => (&[] as &[u8], name),
        };
        if let Some(id) = ContainerId::parse(digits) {
            // The monitor of a container lives beside it under the same id, on the host.
            return (!prefix.ends_with(b"conmon")).then_some(id);
        }
    }
    None
}

/// Finds the id in the source of the files that a runtime mounts into each of its containers.
/// Containers that share a network may share these files: then it is the id of the one that owns the network.
pub(crate) fn from_mountinfo(file: &[u8]) -> Option<ContainerId> {
    file.split(|&byte| byte == b'\n').find_map(|line| {
        // mount id, parent id, device, root within the file system, mount point, …
        let mut fields = line.split(|&byte| byte == b' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        if !matches!(mount_point, b"/etc/hostname" | b"/etc/hosts" | b"/etc/resolv.conf" | b"/run/.containerenv") {
            return None;
        }
        let mut segments = root.split(|&byte| byte == b'/');
        segments.by_ref().find(|segment| matches!(*segment, b"containers" | b"overlay-containers"))?;
        segments.find_map(ContainerId::parse)
    })
}

#[cfg(test)]
mod tests;
