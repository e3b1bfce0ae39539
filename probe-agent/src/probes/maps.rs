//! Maps of the kernel side, as this side uses them.
//!
//! In: the loaded object. Out: its arrays in this process's memory (they are written and read after bpf(2) is given up), ring buffers.

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use zerocopy::IntoBytes as _;

use super::{ProbeError, error::other};
use crate::{mapped::MappedWords, record::Control};

/// Words of a `Control`.
const CONTROL_WORDS: usize = size_of::<Control>() / size_of::<u64>();

/// What the kernel side is told to do.
pub(super) struct ControlMap {
    map: MappedWords,
    pub(super) now: Control,
}

impl ControlMap {
    /// With this in it.
    pub(super) fn new(programs: &Ebpf, now: Control) -> Result<Self, ProbeError> {
        let control = Self { map: mapped(programs, "control", CONTROL_WORDS)?, now };
        control.write();
        Ok(control)
    }

    /// Tells what stands in `now`.
    pub(super) fn write(&self) {
        let words = self.now.as_bytes().chunks_exact(size_of::<u64>());
        self.map.write(words.filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)));
    }
}

/// The array of this name.
pub(super) fn array<'a>(programs: &'a Ebpf, name: &'static str) -> Result<&'a MapData, ProbeError> {
    match programs.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(ProbeError::Other(format!("the object has no array {name}"))),
    }
}

/// An array of the kernel side, mapped.
pub(super) fn mapped(programs: &Ebpf, name: &'static str, words: usize) -> Result<MappedWords, ProbeError> {
    MappedWords::map(&array(programs, name)?.fd(), words).map_err(other)
}

/// Another map, which is then no more in the object.
pub(super) fn take<M>(programs: &mut Ebpf, name: &'static str) -> Result<M, ProbeError>
where
    M: TryFrom<Map>,
    M::Error: std::fmt::Display,
{
    let map = programs.take_map(name).ok_or_else(|| ProbeError::Other(format!("the object has no map {name}")))?;
    M::try_from(map).map_err(other)
}
