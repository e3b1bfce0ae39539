//! Running a doctor and reading what it says.
//!
//! In: program, configuration, environment, user. Out: exit code, text, and single checks of the JSON form.

use std::{
    ffi::OsString,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spantap_tests::{host, process::Process, spantap::clear_environment};

/// User and group `nobody` of Debian.
const NOBODY: u32 = 65534;
/// A report takes 10 s at most; two of them may run on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A doctor that has not been asked yet: by default `spantap`, printing to the terminal, no admin address.
#[derive(Debug, Clone)]
pub(crate) struct Doctor {
    folder: Arc<tempfile::TempDir>,
    program: String,
    programs: PathBuf,
    config: Option<PathBuf>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
    nobody: bool,
}

impl Doctor {
    pub(crate) fn new() -> Result<Self> {
        let folder = host::folder()?;
        let run = folder.path().join("run");
        std::fs::create_dir(&run)?;
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))?;
        let variables = [
            ("SPANTAP_SOCKET", run.join("ingest.sock").display().to_string()),
            ("SPANTAP_ADMIN", "off".to_owned()),
            ("SPANTAP_CONSOLE", "counter".to_owned()),
        ];
        Ok(Self {
            folder: Arc::new(folder),
            program: "spantap".to_owned(),
            programs: host::programs()?,
            config: None,
            variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            wrapper: Vec::new(),
            nobody: false,
        })
    }

    /// The same for another program.
    pub(crate) fn of(&self, program: &str) -> Self {
        Self { program: program.to_owned(), ..self.clone() }
    }

    /// The same under another command.
    pub(crate) fn under(&self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(), ..self.clone() }
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// With a configuration of its own.
    pub(crate) fn yaml(mut self, text: &str) -> Self {
        let path = self.folder.path().join("doctor.yml");
        // A file that is not there is seen when the doctor is asked.
        let _ = std::fs::write(&path, text);
        self.config = Some(path);
        self
    }

    /// With the configuration of somebody else, and none of the variables.
    pub(crate) fn file(mut self, path: &Path) -> Self {
        self.variables.clear();
        self.config = Some(path.to_path_buf());
        self
    }

    /// As nobody, who owns the folder of the socket.
    pub(crate) fn nobody(mut self) -> Result<Self> {
        self.copy(&["spantap", "spantap-agent"])?;
        std::os::unix::fs::chown(self.folder.path().join("run"), Some(NOBODY), Some(NOBODY))?;
        self.nobody = true;
        Ok(self)
    }

    /// Without an agent anywhere.
    pub(crate) fn alone(mut self) -> Result<Self> {
        self.copy(&["spantap"])?;
        let path = self.folder.path().display().to_string();
        Ok(self.env("PATH", path))
    }

    /// Programs where everyone may run them.
    fn copy(&mut self, programs: &[&str]) -> Result<()> {
        for program in programs {
            std::fs::copy(host::built(program)?, self.folder.path().join(program))?;
        }
        self.programs = self.folder.path().to_path_buf();
        Ok(())
    }

    pub(crate) fn json(&self) -> Result<Said> {
        let mut said = self.run(&["--json"])?;
        said.json = serde_json::from_str(&said.out).with_context(|| format!("no JSON: {said:?}"))?;
        Ok(said)
    }

    pub(crate) fn text(&self) -> Result<Said> {
        self.run(&[])
    }

    /// With more arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Said> {
        let mut words: Vec<OsString> = self.wrapper.iter().map(OsString::from).collect();
        words.push(self.programs.join(&self.program).into());
        words.push("doctor".into());
        if let Some(config) = &self.config {
            words.extend(["--config".into(), config.into()]);
        }
        words.extend(arguments.iter().map(OsString::from));
        let (first, rest) = words.split_first().context("no command")?;
        let mut command = Command::new(first);
        command.args(rest).current_dir("/");
        if self.nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        clear_environment(&mut command);
        command.env_remove("XDG_RUNTIME_DIR").envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start("doctor", self.folder.path(), command)?;
        let code = process.wait(LIMIT)?.code();
        let said = Said { code, out: process.output(), err: process.log(), json: Value::Null };
        ensure!(!said.err.contains("panicked"), "panicked: {said:?}");
        Ok(said)
    }
}

/// What a doctor said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    json: Value,
}

impl Said {
    pub(crate) fn code(&self, code: i32) -> Result<&Self> {
        ensure!(self.code == Some(code), "exit code {:?}, not {code}\n{}\n{}", self.code, self.out, self.err);
        Ok(self)
    }

    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    pub(crate) fn value(&self, pointer: &str) -> Result<&Value> {
        self.json.pointer(pointer).with_context(|| format!("no {pointer}: {}", self.out))
    }

    pub(crate) fn summary(&self) -> Result<String> {
        Ok(self.value("/summary")?.as_str().unwrap_or_default().to_owned())
    }

    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.json.get("checks").and_then(Value::as_array).into_iter().flatten()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.checks().filter_map(|check| check.get("id")?.as_str())
    }

    fn of(&self, id: &str) -> Result<&Value> {
        let mut found = self.checks().filter(|check| check.get("id").is_some_and(|known| known == id));
        let first = found.next().with_context(|| format!("no check {id}: {}", self.out))?;
        ensure!(found.next().is_none(), "{id} is there twice: {}", self.out);
        Ok(first)
    }

    /// The check has this state, and its finding these words.
    pub(crate) fn check(&self, id: &str, state: &str, mentions: &[&str]) -> Result<()> {
        let check = self.of(id)?;
        ensure!(check.get("state").is_some_and(|known| known == state), "not {state}: {check}");
        let finding = check.get("finding").and_then(Value::as_str).unwrap_or_default();
        for text in mentions {
            ensure!(finding.contains(text), "{text:?} is not in {finding:?}");
        }
        Ok(())
    }

    /// The same of one that has failed for want of a thing, whatever else this user may lack.
    pub(crate) fn failed(&self, id: &str, mentions: &[&str]) -> Result<()> {
        self.code(69)?.check(id, "failed", mentions)
    }

    pub(crate) fn fix(&self, id: &str) -> Result<String> {
        Ok(self.of(id)?.get("fix").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    pub(crate) fn details(&self, id: &str) -> Result<Vec<String>> {
        let lines = self.of(id)?.get("details").and_then(Value::as_array).into_iter().flatten();
        Ok(lines.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The text form has these words.
    pub(crate) fn check_text(&self, words: &str) -> Result<()> {
        ensure!(self.out.contains(words), "{words:?} is not in\n{}", self.out);
        Ok(())
    }
}
