//! A file that another program goes on writing.
//!
//! In: its path. Out: its lines, each once it is whole.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context, Result};

/// A file that grows by lines.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl Lines {
    /// Those of the file at `path`, which may not be there yet.
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, offset: 0, rest: Vec::new() }
    }

    /// Those that are whole and were not given before.
    pub(super) fn new_lines(&mut self) -> Result<Vec<String>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.rest).with_context(|| self.path.display().to_string())? as u64;
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Ok(Vec::new()) };
        let later = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, later);
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }
}
