//! Giving up privilege, as a start does before its first network connection.
//!
//! In: the user of this process. Out: another one, and a check that tells whether that can be done; nothing for a process
//! that has no privilege to give up.

use nix::unistd::{Uid, User};
use spantap_doctor::{Check, Group, Lack};

use crate::privilege::{self, PrivilegeError, Target};

const ID: &str = "privilege.forwarder_user";

/// Becomes the user that forwards; `wanted`: the configured one.
pub(super) fn become_forwarder(wanted: Option<&str>) -> Option<Check> {
    let outcome = match Target::find(wanted) {
        Ok(None) => return None,
        Ok(Some(target)) => privilege::give_up(Some(&target)).map(|()| target.uid()),
        Err(error) => Err(error),
    };
    Some(judge(outcome))
}

fn judge(outcome: Result<u32, PrivilegeError>) -> Check {
    match outcome {
        Ok(uid) => {
            let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or(uid.to_string(), |user| user.name);
            Check::ok(
                Group::Privilege,
                ID,
                format!("spantap becomes user {name}; destinations were asked as that user"),
            )
        }
        Err(error @ PrivilegeError::NoUser) => {
            Check::failed(Group::Privilege, ID, Lack::Thing, error.to_string(), "useradd --system spantap")
        }
        Err(error @ PrivilegeError::NotFound(_)) => {
            Check::failed(Group::Privilege, ID, Lack::Thing, error.to_string(), "create it, or correct spantap.user")
        }
        Err(error @ PrivilegeError::NotRoot { .. }) => Check::failed(
            Group::Privilege,
            ID,
            Lack::Privilege,
            error.to_string(),
            "start as root or as that user, or leave spantap.user out",
        ),
        Err(error @ (PrivilegeError::Refused { .. } | PrivilegeError::Kept(_))) => Check::failed(
            Group::Privilege,
            ID,
            Lack::Privilege,
            error.to_string(),
            "root was left without CAP_SETUID or CAP_SETGID: give them to spantap, which gives them up at once; or run \
             `spantap forward` as another user and `spantap-agent` as root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_tells_the_exit_code() {
        assert_eq!(judge(Ok(0)).exit_code, None);
        assert_eq!(judge(Err(PrivilegeError::NoUser)).exit_code, Some(Lack::Thing));
        let refused =
            PrivilegeError::Refused { name: "nobody".to_owned(), capability: "CAP_SETUID", error: nix::Error::EPERM };
        assert_eq!(judge(Err(refused)).exit_code, Some(Lack::Privilege));
    }
}
