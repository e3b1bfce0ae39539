//! A certificate for `localhost` that nobody trusts.
//!
//! In: `openssl`. Out: a file with it and one with its key, gone with the value.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    certificates::{NEW_KEY, make_in},
    host,
};

/// The files, readable for all: servers change their user.
#[derive(Debug)]
pub struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    /// Makes one, with a key of the elliptic curve P-256.
    ///
    /// # Errors
    /// With what `openssl` said.
    pub fn make() -> Result<Self> {
        let own = Self { folder: host::folder()? };
        let script = format!("openssl req -x509 {NEW_KEY} -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem");
        make_in(own.folder.path(), &script)?;
        Ok(own)
    }

    /// The certificate, PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Both files, as the subjects' `SERVES_TLS` takes them.
    pub fn pair(&self) -> String {
        format!("{}:{}", self.file().display(), self.key().display())
    }

    /// Its key, PEM.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}
