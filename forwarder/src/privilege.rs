//! Giving up privilege before the first network connection.
//!
//! In: the user to become. Out: a process that is no longer root, and cannot become it again.

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
    #[error("there is neither a user spantap nor a user nobody to become; create one: useradd --system spantap")]
    NoUser,
    /// The system refuses.
    #[error("cannot become user {name}: {error}")]
    Refused {
        /// User to become.
        name: String,
        /// What the system says.
        error: nix::Error,
    },
}

impl Target {
    /// Numeric user id.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The user to become when started as root: `spantap` if there is one, else `nobody`. `None` if this is not root.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn find() -> Result<Option<Self>, PrivilegeError> {
        if !getuid().is_root() {
            return Ok(None);
        }
        for name in ["spantap", "nobody"] {
            if let Ok(Some(User { name, uid, gid, .. })) = User::from_name(name) {
                return Ok(Some(Self { name, uid, gid }));
            }
        }
        Err(PrivilegeError::NoUser)
    }

    /// Becomes this user, for all threads and for good. The kernel takes all capabilities away with it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn become_it(&self) -> Result<(), PrivilegeError> {
        let refused = |error| PrivilegeError::Refused { name: self.name.clone(), error };
        setgroups(&[self.gid]).map_err(refused)?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused)?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused)?;
        // So that no program that this one could ever execute gets more (setuid bits, file capabilities).
        nix::sys::prctl::set_no_new_privs().map_err(refused)
    }
}
