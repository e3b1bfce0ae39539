//! Giving up privilege before the first network connection.
//!
//! In: the user to become. Out: a process that holds no capability and, unless that was asked for by name, is not root; it
//! cannot become it again, and its memory does not get out.

use nix::unistd::{Gid, Uid, User, getuid, setgroups, setresgid, setresuid};

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name, for the log.
    pub name: String,
    uid: Uid,
    gid: Gid,
}

/// Why privilege could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Neither of the users is there.
    #[error(
        "there is neither a user spantap nor a user nobody to become, and Spantap does not forward as root unless told: \
         create one (useradd --system spantap), or name one by spantap.user"
    )]
    NoUser,
    /// The configured user is not there.
    #[error("there is no user {0} to become (spantap.user); create it: useradd --system {0}")]
    NotFound(String),
    /// Only root can become somebody.
    #[error(
        "user {own} cannot become user {wanted} (spantap.user); start Spantap as root or as {wanted}, or leave the key out"
    )]
    NotRoot {
        /// Numeric id of the present user.
        own: Uid,
        /// The configured one.
        wanted: String,
    },
    /// The system refuses.
    #[error("cannot become user {name}: {error}")]
    Refused {
        /// User to become.
        name: String,
        /// What the system says.
        error: nix::Error,
    },
    /// The system refuses to take something away.
    #[error("cannot give up privilege: {0}")]
    Kept(#[from] std::io::Error),
}

impl Target {
    /// Numeric user id.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The user to become: `wanted` (name or numeric id), or if root starts this without one, `spantap` if it exists,
    /// else `nobody`. `None`: nobody else than now.
    ///
    /// # Errors
    /// If there is no such user, or this one cannot become it.
    pub fn find(wanted: Option<&str>) -> Result<Option<Self>, PrivilegeError> {
        let own = getuid();
        let Some(wanted) = wanted else {
            if !own.is_root() {
                return Ok(None);
            }
            return ["spantap", "nobody"]
                .iter()
                .find_map(|name| Self::named(name))
                .map(Some)
                .ok_or(PrivilegeError::NoUser);
        };
        let target = Self::named(wanted).ok_or_else(|| PrivilegeError::NotFound(wanted.to_owned()))?;
        match (target.uid == own, own.is_root()) {
            (true, false) => Ok(None),
            (_, true) => Ok(Some(target)),
            (false, false) => Err(PrivilegeError::NotRoot { own, wanted: wanted.to_owned() }),
        }
    }

    /// A number need not be a known user: its group has the same number then, as in images without a list of users.
    fn named(wanted: &str) -> Option<Self> {
        let known = match wanted.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)).ok().flatten(),
            Err(_) => User::from_name(wanted).ok().flatten(),
        };
        match (known, wanted.parse()) {
            (Some(User { name, uid, gid, .. }), _) => Some(Self { name, uid, gid }),
            (None, Ok(id)) => Some(Self { name: wanted.to_owned(), uid: Uid::from_raw(id), gid: Gid::from_raw(id) }),
            (None, Err(_)) => None,
        }
    }

    /// Becomes this user, for all threads and for good.
    fn become_it(&self) -> Result<(), PrivilegeError> {
        let refused = |error| PrivilegeError::Refused { name: self.name.clone(), error };
        setgroups(&[self.gid]).map_err(refused)?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused)?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused)
    }
}

/// Becomes the target if there is one, and keeps no capability in any case. Call while there is one thread.
///
/// # Errors
/// If the system refuses.
pub fn give_up(target: Option<&Target>) -> Result<(), PrivilegeError> {
    spantap_confinement::empty_bounding_set();
    if let Some(target) = target {
        target.become_it()?;
    }
    let held = spantap_confinement::give_up_capabilities()?;
    spantap_confinement::seal()?;
    match target {
        Some(target) if target.uid.is_root() => {
            tracing::warn!("forwarding as root, as spantap.user says; without capabilities");
        }
        Some(target) => tracing::info!(user = target.name, "gave up all privilege"),
        None if held => tracing::warn!("was started with capabilities, which forwarding does not need; gave them up"),
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_name_or_number() {
        let root = Target::named("root").map(|target| (target.uid(), target.gid.as_raw()));
        assert_eq!(root, Some((0, 0)));
        assert_eq!(Target::named("0").map(|target| target.name), Some("root".to_owned()));
        let unknown = Target::named("4111222333").map(|target| (target.uid(), target.gid.as_raw()));
        assert_eq!(unknown, Some((4_111_222_333, 4_111_222_333)));
        assert_eq!(Target::named("no-such-user-here"), None);
        assert!(matches!(Target::find(Some("no-such-user-here")), Err(PrivilegeError::NotFound(_))));
    }
}
