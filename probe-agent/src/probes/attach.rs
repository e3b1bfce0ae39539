//! One program: into the kernel, to its place, and out again.
//!
//! In: a program of a hook set. Out: it runs, or why not.

use aya::{
    Btf, Ebpf,
    programs::{self, BtfTracePoint, FEntry, FExit, KProbe, ProgramError, ProgramFd, RawTracePoint},
};

use super::{
    Place, Program,
    error::{ProbeError, classify, other},
};

/// Loads a program, if it is not loaded already.
pub(crate) fn load(object: &mut Ebpf, program: &Program, btf: &Btf) -> Result<(), ProbeError> {
    let Program { name, target, .. } = *program;
    let loaded = find(object, name)?;
    if descriptor(loaded).is_some() {
        return Ok(());
    }
    let outcome = match program.place {
        Place::Tracepoint => match loaded {
            programs::Program::RawTracePoint(raw) => raw.load(),
            other => typed::<BtfTracePoint>(other)?.load(target, btf),
        },
        Place::Entry => typed::<FEntry>(loaded)?.load(target, btf),
        Place::Return => typed::<FExit>(loaded)?.load(target, btf),
        Place::Kprobe => typed::<KProbe>(loaded)?.load(),
    };
    outcome.map_err(|error| classify(name, &error))
}

/// Attaches a loaded program to its place.
pub(crate) fn attach(object: &mut Ebpf, program: &Program) -> Result<(), ProbeError> {
    let Program { name, target, .. } = *program;
    let loaded = find(object, name)?;
    let outcome = match program.place {
        Place::Tracepoint => match loaded {
            programs::Program::RawTracePoint(raw) => raw.attach(target).map(drop),
            other => typed::<BtfTracePoint>(other)?.attach().map(drop),
        },
        Place::Entry => typed::<FEntry>(loaded)?.attach().map(drop),
        Place::Return => typed::<FExit>(loaded)?.attach().map(drop),
        Place::Kprobe => typed::<KProbe>(loaded)?.attach(target, 0).map(drop),
    };
    outcome.map_err(|error| classify(name, &error))
}

/// Detaches a program from everywhere, and takes it out of the kernel.
pub(crate) fn unload(object: &mut Ebpf, program: &Program) {
    let Ok(loaded) = find(object, program.name) else { return };
    // An unload that fails leaves the program attached until this process ends; one that was never loaded has nothing to unload.
    let _ = match program.place {
        Place::Tracepoint => match loaded {
            programs::Program::RawTracePoint(raw) => RawTracePoint::unload(raw),
            other => <&mut BtfTracePoint>::try_from(other).and_then(BtfTracePoint::unload),
        },
        Place::Entry => <&mut FEntry>::try_from(loaded).and_then(FEntry::unload),
        Place::Return => <&mut FExit>::try_from(loaded).and_then(FExit::unload),
        Place::Kprobe => <&mut KProbe>::try_from(loaded).and_then(KProbe::unload),
    };
}

/// The descriptor of a loaded program.
pub(super) fn descriptor(program: &programs::Program) -> Option<&ProgramFd> {
    program.fd().ok()
}

/// Instructions that the verifier looked at (Linux 5.16 and later).
pub(crate) fn instructions(program: &programs::Program) -> Option<u32> {
    program.info().ok()?.verified_instruction_count()
}

fn find<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut programs::Program, ProbeError> {
    object.program_mut(name).ok_or_else(|| ProbeError::Other(format!("the object has no program {name}")))
}

fn typed<'a, P>(program: &'a mut programs::Program) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut programs::Program, Error = ProgramError>,
{
    program.try_into().map_err(other)
}
