//! A `/proc` on disk, with as many or few files in it as a test needs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::discovery::ProcFs;

pub(super) struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub(super) fn procfs(&self) -> ProcFs {
        ProcFs::new(self.root.path())
    }

    pub(super) fn path(&self) -> &Path {
        self.root.path()
    }

    fn of(&self, pid: u32) -> PathBuf {
        self.root.path().join(pid.to_string())
    }

    fn stat(&self, pid: u32, parent: u32, start: u64, flags: u64, image: u64) {
        let text = format!(
            "{pid} (name) S {parent} 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0 0 {image} 0 {image} 0 0 0 0 0 0"
        );
        fs::write(self.of(pid).join("stat"), text).unwrap();
    }

    /// A process that runs `executable`, all of whose other files are there.
    pub(super) fn run(&self, pid: u32, parent: u32, start: u64, executable: &str) -> &Self {
        let path = self.of(pid);
        let _ = fs::remove_dir_all(&path);
        for folder in ["ns", "net", "fd"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        self.stat(pid, parent, start, 0, start + 1);
        symlink(executable, path.join("exe")).unwrap();
        symlink("net:[1]", path.join("ns/net")).unwrap();
        symlink("mnt:[1]", path.join("ns/mnt")).unwrap();
        fs::write(path.join("cmdline"), format!("{executable}\0--of\0{pid}\0")).unwrap();
        fs::write(path.join("environ"), format!("A=1\0OTEL_SERVICE_NAME=service-{pid}\0")).unwrap();
        fs::write(path.join("cgroup"), "0::/\n").unwrap();
        fs::write(path.join("net/tcp"), "").unwrap();
        self
    }

    /// The same process runs another program.
    pub(super) fn exec(&self, pid: u32, parent: u32, start: u64, executable: &str) -> &Self {
        self.run(pid, parent, start, executable);
        self.stat(pid, parent, start, 0, start + 1_000_000);
        self
    }

    /// Changes the number that tells programs apart; 0 as if it may not be known.
    pub(super) fn image(&self, pid: u32, start: u64, image: u64) -> &Self {
        self.stat(pid, 1, start, 0, image);
        self
    }

    pub(super) fn kernel_thread(&self, pid: u32) -> &Self {
        fs::create_dir_all(self.of(pid)).unwrap();
        self.stat(pid, 2, 1, 0x0020_0000, 0);
        self
    }

    pub(super) fn reparent(&self, pid: u32, parent: u32, start: u64) -> &Self {
        self.stat(pid, parent, start, 0, start + 1);
        self
    }

    pub(super) fn container(&self, pid: u32, id: &str) -> &Self {
        fs::write(self.of(pid).join("cgroup"), format!("0::/docker/{id}\n")).unwrap();
        self
    }

    /// A listening socket of the namespace that all processes share.
    pub(super) fn socket(&self, inode: u64, port: u16) -> &Self {
        let line = format!("0: 00000000:{port:04X} 00000000:0000 0A 0:0 0:0 0 0 0 {inode}\n");
        for entry in fs::read_dir(self.root.path()).unwrap() {
            let table = entry.unwrap().path().join("net/tcp");
            if let Ok(text) = fs::read_to_string(&table) {
                fs::write(table, text + &line).unwrap();
            }
        }
        self
    }

    pub(super) fn hold(&self, pid: u32, inode: u64) -> &Self {
        symlink(format!("socket:[{inode}]"), self.of(pid).join("fd").join(inode.to_string())).unwrap();
        self
    }

    pub(super) fn remove(&self, pid: u32, file: &str) -> &Self {
        fs::remove_file(self.of(pid).join(file)).unwrap();
        self
    }

    pub(super) fn end(&self, pid: u32) -> &Self {
        fs::remove_dir_all(self.of(pid)).unwrap();
        self
    }
}
