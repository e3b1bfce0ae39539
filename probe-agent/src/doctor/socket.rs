//! Whether the agent could connect to the ingest socket.
//!
//! In: path, modes, capabilities. Out: one check. Nothing is connected; the same rules as in `privilege::reach` are
//! applied to what is there.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use caps::{Capability, CapsHashSet};
use rustix::process::{Gid, getegid, geteuid, getgroups};
use spantap_doctor::{Check, Group, Lack};

use crate::privilege::{WayIn, way_in};

/// What is known of the socket.
#[derive(Debug, Clone, Copy)]
struct Found {
    owner: u32,
    mode: u32,
    way: WayIn,
    /// Whether its owner may be the forwarder.
    known: bool,
}

/// Looks.
pub(super) fn look(path: &Path, forwarder_uids: &[u32], effective: &CapsHashSet) -> Check {
    let found = fs::metadata(path).and_then(|found| {
        if !found.file_type().is_socket() {
            return Err(io::Error::other("it is no socket"));
        }
        let own = geteuid().as_raw();
        let group = Gid::from_raw(found.gid());
        let member = group == getegid() || getgroups().is_ok_and(|groups| groups.contains(&group));
        let listed = forwarder_uids.is_empty() || forwarder_uids.contains(&found.uid());
        Ok(Found {
            owner: found.uid(),
            mode: found.mode() & 0o777,
            way: way_in(found.mode(), found.uid() == own, member),
            known: found.uid() == 0 || found.uid() == own || listed,
        })
    });
    judge(path, found, effective)
}

fn judge(path: &Path, found: io::Result<Found>, effective: &CapsHashSet) -> Check {
    let id = "socket.agent";
    let path = path.display();
    let may = |capability| effective.contains(&capability);
    let found = match found {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(Group::Socket, id, "not there yet, the forwarder makes it; the agent waits for it");
        }
        Err(error) => {
            return Check::unknown(
                Group::Socket,
                id,
                format!("{path} cannot be looked at: {error}"),
                "run doctor as the agent's user; the folders above must let it through",
            );
        }
    };
    if !found.known {
        return Check::failed(
            Group::Socket,
            id,
            Lack::Configuration,
            format!("it belongs to user {}, who is not in spantap.forwarder_uids", found.owner),
            "add that user to spantap.forwarder_uids, or run the forwarder as a user that is listed",
        );
    }
    let shut_out = || {
        Check::failed(
            Group::Socket,
            id,
            Lack::Privilege,
            format!("its mode {:o} and owner {} shut the agent out", found.mode, found.owner),
            "put the agent's user into the socket's group, or give it CAP_SETGID to join that group",
        )
    };
    match found.way {
        WayIn::Open => Check::ok(Group::Socket, id, "the agent may connect by the socket's mode"),
        WayIn::Join if may(Capability::CAP_SETGID) => {
            Check::ok(Group::Socket, id, "the agent may connect by joining the socket's group")
        }
        _ if may(Capability::CAP_DAC_OVERRIDE) => {
            Check::ok(Group::Socket, id, "the agent may connect, and keeps CAP_DAC_OVERRIDE for it")
        }
        WayIn::Join | WayIn::Closed => shut_out(),
    }
}

#[cfg(test)]
mod tests {
    use spantap_doctor::State;

    use super::*;

    fn state(way: WayIn, held: &[Capability]) -> Check {
        let found = Found { owner: 65534, mode: 0o660, way, known: true };
        judge(Path::new("/run/x.sock"), Ok(found), &held.iter().copied().collect())
    }

    #[test]
    fn the_mode_or_a_capability_lets_the_agent_in() {
        assert_eq!(state(WayIn::Open, &[]).state, State::Ok);
        assert_eq!(state(WayIn::Join, &[Capability::CAP_SETGID]).state, State::Ok);
        assert_eq!(state(WayIn::Join, &[Capability::CAP_DAC_OVERRIDE]).state, State::Ok);
        assert_eq!(state(WayIn::Join, &[]).exit_code, Some(Lack::Privilege));
        assert_eq!(state(WayIn::Closed, &[Capability::CAP_SETGID]).exit_code, Some(Lack::Privilege));
    }

    #[test]
    fn a_foreign_forwarder_is_refused_and_an_absent_one_awaited() {
        let found = Found { owner: 1000, mode: 0o666, way: WayIn::Open, known: false };
        let check = judge(Path::new("/x"), Ok(found), &CapsHashSet::default());
        assert_eq!(check.exit_code, Some(Lack::Configuration));
        assert!(check.finding.contains("1000"), "{check:?}");
        let absent = judge(Path::new("/x"), Err(io::ErrorKind::NotFound.into()), &CapsHashSet::default());
        assert_eq!(absent.state, State::Ok);
        let hidden = judge(Path::new("/x"), Err(io::ErrorKind::PermissionDenied.into()), &CapsHashSet::default());
        assert_eq!(hidden.state, State::Unknown);
    }
}
