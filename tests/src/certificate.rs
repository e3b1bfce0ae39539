//! A certificate for `localhost` that nobody trusts.
//!
//! In: `openssl`. Out: a file with it and one with its key, gone with the value.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::host;

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
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-keyout"])
            .arg(own.key())
            .arg("-out")
            .arg(own.file())
            .output()?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        Ok(own)
    }

    /// The certificate, PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Its key, PEM.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}
