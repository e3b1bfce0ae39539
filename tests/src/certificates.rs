//! Certificates for a receiver of the tests and its clients, made by openssl.
//!
//! In: an address. Out: a folder that everybody may read: an authority (`ca.crt`), `server` and `client` of it with their keys,
//! an authority that signed nothing (`stranger.crt`), and `expired`, a server's certificate that is over.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::host;

/// Options of openssl for a key of the elliptic curve P-256.
pub(crate) const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Has a shell make certificates in `folder`, which ends at the first command that fails.
///
/// # Errors
/// With what openssl said.
pub(crate) fn make_in(folder: &Path, script: &str) -> Result<()> {
    let script = format!("set -e; cd \"$0\"\n{script}");
    let output = Command::new("sh").args(["-c", &script]).arg(folder).output().context("openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The folder; it goes when this is dropped.
#[derive(Debug)]
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// For a server at `address`, an IP address.
    ///
    /// # Errors
    /// When openssl is missing or refuses.
    pub fn make(address: &str) -> Result<Self> {
        let folder = host::folder()?;
        let script = format!(
            "authority() {{
    openssl req -x509 {NEW_KEY} -days 2 -keyout $1.key -out $1.crt -subj /CN=$1 \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}}
leaf() {{
    openssl req {NEW_KEY} -keyout $1.key -out $1.csr -subj /CN=$1
    printf \"$2\" >$1.ext
    openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days $3 -out $1.crt -extfile $1.ext
}}
authority ca
authority stranger
leaf server 'extendedKeyUsage=serverAuth\\nsubjectAltName=IP:{address}\\n' 2
leaf expired 'extendedKeyUsage=serverAuth\\nsubjectAltName=IP:{address}\\n' -1
leaf client 'extendedKeyUsage=clientAuth\\nsubjectAltName=DNS:client\\n' 2
chmod 644 *.key"
        );
        make_in(folder.path(), &script)?;
        // The forwarder reads them as nobody.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        Ok(Self(folder))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Path of a file in it, such as `ca.crt`.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}
