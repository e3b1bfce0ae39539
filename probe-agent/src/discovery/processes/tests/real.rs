//! The table on this host's `/proc`, with processes of our own.

use std::{
    net::TcpListener,
    process::{Child, Command},
};

use super::*;

struct Sleeper(Child);

impl Sleeper {
    fn new(name: &str) -> Self {
        let child = Command::new("sleep").arg("600").env("OTEL_SERVICE_NAME", name).spawn().unwrap();
        // spawn returns when exec can no longer fail, which is before the new arguments are in place.
        while std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_of(pid: u32) -> u64 {
    Reader::new(ProcFs::default()).stat(pid).unwrap().start.nanoseconds()
}

#[test]
fn finds_a_program_that_runs_already_and_notices_its_end() {
    let sleeper = Sleeper::new("real");
    let pid = sleeper.0.id();
    let path = std::fs::canonicalize("/bin/sleep").unwrap();
    let discovery = only([executable(path.to_str().unwrap())]);
    let limits = Limits { grace: Duration::ZERO, ..Limits::default() };
    let mut table = Processes::new(ProcFs::default(), &discovery, limits);
    table.scan(Walk::Periodic).unwrap();
    let found = process(&table, pid);
    assert_eq!(found.program.environment, [("OTEL_SERVICE_NAME".to_owned(), "real".to_owned())]);
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().abs_diff(found.start_realtime_ns.into());
    assert!(age < 60_000_000_000, "{age}");
    let id = found.id;
    assert_eq!(table.lookup(pid, start_of(pid)), Some(id));
    drop(sleeper);
    let changes = table.scan(Walk::Periodic).unwrap();
    assert!(changes.iter().any(|change| matches!(change, Change::Deselected { id: over, .. } if *over == id)));
}

#[test]
fn finds_who_listens_and_is_not_the_caller() {
    // The socket is inherited by the child, as a service manager hands one over.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let sleeper = Sleeper::new("holder");
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC).unwrap();
    let discovery = only([port(listener.local_addr().unwrap().port())]);
    let mut table = Processes::new(ProcFs::default(), &discovery, Limits::default());
    table.scan(Walk::Periodic).unwrap();
    assert!(table.iter().any(|process| process.pid == sleeper.0.id()));
    assert!(table.iter().all(|process| process.pid != std::process::id()), "never the agent itself");
}

#[test]
fn all_that_runs_here_is_selected_or_a_kernel_thread() {
    let sleeper = Sleeper::new("one of many");
    let mut table = Processes::new(ProcFs::default(), &everything(), Limits::default());
    table.scan(Walk::Periodic).unwrap();
    assert!(table.iter().any(|process| process.pid == sleeper.0.id()));
    assert!(table.iter().all(|process| !process.program.executable.is_empty() || table.counts().denied > 0));
    let again = table.scan(Walk::Periodic).unwrap();
    assert!(again.iter().all(|change| change_pid(change) != sleeper.0.id()), "{again:?}");
}

fn change_pid(change: &Change) -> u32 {
    match change {
        Change::Selected(process) | Change::Updated(process) => process.pid,
        Change::Deselected { pid, .. } | Change::Ended { pid, .. } => *pid,
    }
}
