//! The limit on locked memory, by which Linux before 5.11 counts maps and programs of BPF.
//!
//! In: the kernel's release, the limit of this process. Out: no limit, for it and what it starts; or what is in the way.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::doctor::kernel_version;

/// Linux 5.11 was the first to count them by control group instead.
const COUNTED_UNTIL: (u32, u32) = (5, 11);

/// Takes the limit away where it counts, if this process may: that takes CAP_SYS_RESOURCE. What it starts inherits it.
pub fn raise() {
    if limit().is_none() {
        return;
    }
    if let Err(error) = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }) {
        // As far as it goes without that capability.
        let maximum = getrlimit(Resource::Memlock).maximum;
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
        tracing::debug!(%error, ?maximum, "the limit on locked memory stays");
    }
}

/// The limit, bytes, if this kernel counts by it and there is one.
pub fn limit() -> Option<u64> {
    let system = rustix::system::uname();
    if !counts(&system.release().to_string_lossy()) {
        return None;
    }
    getrlimit(Resource::Memlock).current
}

/// Whether a kernel of this release counts what BPF takes as locked memory. One that cannot be told does not.
fn counts(release: &str) -> bool {
    kernel_version(release).is_some_and(|version| version < COUNTED_UNTIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_11_count() {
        for release in ["5.10.0-46-cloud-amd64", "5.8.18", "4.18.0-553.el8_10.x86_64"] {
            assert!(counts(release), "{release}");
        }
        for release in ["5.11.0", "5.14.0-570.el9.x86_64", "6.1.0-56-cloud-amd64", "7.2.13+deb14", "", "strange"] {
            assert!(!counts(release), "{release}");
        }
    }
}
