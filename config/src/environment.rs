//! In: the variables and the user of a process. Out: look-ups by name and by family of names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Directory of the ingest socket where the system provides one.
const RUN_DIRECTORY: &str = "/run/spantap";

/// What a configuration depends on beside its file. Made once at start, or by a test; the default is root's without variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Effective user id.
    uid: u32,
    /// Whether this user may make a socket in `/run/spantap`.
    run_directory: bool,
    /// Whether files that the configuration refers to stay unread.
    without_files: bool,
}

impl Environment {
    /// That of this process. What is not UTF-8 in a value is replaced and not left out: a criterion that went missing
    /// would observe more than was asked for, one that is wrong is refused.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let writable = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        Self {
            variables,
            uid: rustix::process::geteuid().as_raw(),
            run_directory: Path::new(RUN_DIRECTORY).is_dir() && rustix::fs::access(RUN_DIRECTORY, writable).is_ok(),
            without_files: false,
        }
    }

    /// Variables alone, as root sees them: for tests and for tools that read somebody else's configuration.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, uid: 0, run_directory: true, without_files: false }
    }

    /// The same variables for another user.
    pub fn as_user(self, uid: u32, run_directory: bool) -> Self {
        Self { uid, run_directory, ..self }
    }

    /// The same for a program that has no use for secrets: `${file:…}` and `headers_file` are not read, a placeholder stands in
    /// their place.
    pub fn without_files(self) -> Self {
        Self { without_files: true, ..self }
    }

    /// Whether files that the configuration refers to are read.
    pub(crate) fn reads_files(&self) -> bool {
        !self.without_files
    }

    /// Value of a variable; a variable that is set to nothing counts as unset, as the OpenTelemetry specification says.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// First variable that is set among those that `name` stands for, with the name that was found. A name that
    /// starts with `OTEL_EBPF_` or `BEYLA_` stands for its whole family: `SPANTAP_` before `OTEL_EBPF_` before `BEYLA_`,
    /// each also with the `OTEL_` in between that Beyla drops.
    pub(crate) fn find(&self, name: &str) -> Option<(String, &str)> {
        family(name).into_iter().find_map(|candidate| {
            let value = self.get(&candidate)?;
            Some((candidate, value))
        })
    }

    /// Names of all variables that are set to something.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str())
    }

    /// Where the ingest socket is unless somebody says otherwise: in `/run/spantap`, or with the user's own runtime
    /// files for a user who cannot write there.
    pub(crate) fn default_socket(&self) -> PathBuf {
        let own = self.get("XDG_RUNTIME_DIR").map(Path::new).filter(|path| path.is_absolute());
        match own {
            Some(own) if self.uid != 0 && !self.run_directory => own.join("spantap/ingest.sock"),
            _ => Path::new(RUN_DIRECTORY).join("ingest.sock"),
        }
    }
}

/// All names that `name` stands for, the strongest first.
pub(crate) fn family(name: &str) -> Vec<String> {
    let Some(rest) = name.strip_prefix("OTEL_EBPF_").or_else(|| name.strip_prefix("BEYLA_")) else {
        return vec![name.to_owned()];
    };
    ["SPANTAP_", "SPANTAP_OTEL_", "OTEL_EBPF_", "BEYLA_", "BEYLA_OTEL_"].map(|prefix| format!("{prefix}{rest}")).into()
}
