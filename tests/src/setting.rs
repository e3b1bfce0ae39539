//! Settings of the kernel for a while.
//!
//! In: names and values of sysctl(8). Out: a guard that puts back what was before.

use std::fs;

use anyhow::{Context, Result};

/// A setting of the kernel that is put back.
#[derive(Debug)]
pub struct Setting {
    path: String,
    before: String,
}

impl Setting {
    /// Changes it, such as `kernel.bpf_stats_enabled` to `1`.
    ///
    /// # Errors
    /// When this kernel has no such setting, or refuses the value.
    pub fn set(name: &str, value: &str) -> Result<Self> {
        let (path, before) = (path(name), read(name)?);
        fs::write(&path, value).with_context(|| format!("{path} to {value}"))?;
        Ok(Self { path, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("{} cannot be put back to {}: {error}", self.path, self.before);
        }
    }
}

/// Its value, without the line break.
///
/// # Errors
/// When this kernel has no such setting.
pub fn read(name: &str) -> Result<String> {
    let path = path(name);
    Ok(fs::read_to_string(&path).context(path)?.trim_end().to_owned())
}

fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}
