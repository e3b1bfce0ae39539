//! Files that may change while a program runs.
//!
//! In: a path, asked about once a second. Out: whether what stands there is another file, or another content, than before.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of content, or of who may read it.
    changed: (i64, i64),
}

impl FileState {
    /// The state of the regular file at `path`; `None` if there is none, or it may not be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        // A link is followed: what a ConfigMap replaces is the link.
        let data = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// Tells when files have changed and were left alone since.
#[derive(Debug, Default)]
pub struct Watch {
    paths: Vec<PathBuf>,
    /// The states that were read last.
    read: Vec<Option<FileState>>,
    /// States that may still be in the making.
    coming: Option<Vec<Option<FileState>>>,
}

impl Watch {
    /// Looks at `paths` from now on; what stands there now counts as read.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watch = Self { paths: paths.into_iter().collect(), read: Vec::new(), coming: None };
        watch.is_read();
        watch
    }

    fn states(&self) -> Vec<Option<FileState>> {
        self.paths.iter().map(|path| FileState::of(path)).collect()
    }

    /// Looks at `paths` from now on. What was read of those that it looked at already stays read.
    pub fn look_at(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut next = Self::new(paths);
        for (path, read) in next.paths.iter().zip(&mut next.read) {
            if let Some((_, known)) = self.paths.iter().zip(&self.read).find(|(known, _)| *known == path) {
                *read = *known;
            }
        }
        *self = next;
    }

    /// Whether any of the files has changed, and all were left alone since the last call. A file that is not there is no
    /// change: it is about to be written, or what was read of it goes on. To be asked about once a second.
    pub fn has_changed(&mut self) -> bool {
        let now = self.states();
        let changed = now.iter().zip(&self.read).any(|(now, read)| now.is_some() && now != read);
        if !changed {
            self.coming = None;
            return false;
        }
        let settled = self.coming.as_ref() == Some(&now);
        self.coming = Some(now);
        settled
    }

    /// The files are about to be read: what changes from now on is another change.
    pub fn is_read(&mut self) {
        self.read = self.states();
        self.coming = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn a_change_counts_once_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yml");
        fs::write(&path, "open_port: 80\n").unwrap();
        let mut watch = Watch::new([path.clone()]);
        assert!(!watch.has_changed() && !watch.has_changed());
        fs::write(&path, "open_port: 8080\n").unwrap();
        assert!(!watch.has_changed(), "it may still be written");
        fs::write(&path, "open_port: 808080\n").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        watch.is_read();
        assert!(!watch.has_changed());
        // Another file in its place, as editors and ConfigMaps do; and none at all.
        let other = folder.path().join("other");
        fs::write(&other, "open_port: 909090\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed() && !watch.has_changed(), "the old one goes on");
    }

    #[test]
    fn any_of_several_files_counts() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&one, "1").unwrap();
        let mut watch = Watch::new([one, two.clone()]);
        assert!(!watch.has_changed(), "the second is not there yet");
        fs::write(&two, "2").unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
    }
}
