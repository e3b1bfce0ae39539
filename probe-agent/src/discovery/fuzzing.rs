//! The parsers of hostile files, for `crate::fuzzing`.
//!
//! In: the bytes of a file. Out: nothing but their bounds.

pub(crate) use super::elf::{MAX_READ_BYTES as ELF_BYTES, language_of};
use super::{PortSet, container, facts, language, listeners, stat};

/// Each reader of text takes the same bytes: the marks of one mean nothing to the others.
pub(crate) fn proc_files(bytes: &[u8]) {
    let _ = stat::Stat::parse(bytes);
    let _ = container::from_cgroup(bytes);
    let _ = container::from_mountinfo(bytes);
    let (first, link) = bytes.split_at(bytes.len() / 2);
    let _ = language::executable_mapping(bytes, link);
    let _ = language::executable_mapping(first, link);
    let _ = facts::path_text(facts::without_deleted(bytes));
    assert!(facts::join_arguments(bytes).len() < 64 * 1024);
    let _ = (facts::split_arguments(bytes), facts::otel_variables(bytes), listeners::socket_inode(bytes));
    let (mut interest, mut ports) = (PortSet::default(), Default::default());
    interest.insert(spantap_config::PortRange { first: 1, last: 9000 });
    listeners::read_table(bytes, &interest, &mut ports);
}
