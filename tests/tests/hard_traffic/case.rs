//! A case of the table: who plays what, and what must come of it.
//!
//! In: scripts. Out: [`Case`]; the services are called `{name}-server` and `{name}-client`.

use std::{path::PathBuf, process::Command};

use spantap_tests::{admin::EXCHANGE_LOSSES, expect::Expected, host::Reason, script::Script};

/// Who serves.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    /// A subject that plays a script.
    Plays(Script),
    /// Another program that speaks the lines of a subject, with its arguments.
    Program(PathBuf, Vec<String>),
}

impl Server {
    /// The command of a program.
    pub(crate) fn command(program: &PathBuf, arguments: &[String]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

/// A program that plays scripts over TLS, in the place of `subject`.
#[derive(Debug, Clone)]
pub(crate) struct Player {
    /// Nobody else's.
    pub(crate) program: PathBuf,
    /// What it is started with.
    pub(crate) arguments: Vec<PathBuf>,
    /// And with these variables.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Player {
    /// The command of it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What must come of it.
#[derive(Debug, Clone)]
pub(crate) enum Due {
    /// Exactly these spans at the server and at the client, and histograms that agree.
    Spans(Vec<Expected>, Vec<Expected>),
    /// No span at the server, whose sampler follows the parent, and a histogram that counts one all the same.
    Unsampled,
    /// This many exchanges, both sides counted: each is reported, or counted under [`EXCHANGE_LOSSES`].
    ReportedOrLost(u64),
    /// At most this many exchanges, both sides counted: more of them than can be seen. What is reported is right, and
    /// that something was lost is told, though not how much.
    BeyondSight(u64),
}

/// What may be counted as lost meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    /// Nothing.
    Nothing,
    /// Only this.
    May(&'static [&'static str]),
    /// This, once at each end of the connection, and nothing else.
    Must(&'static str),
}

/// When the subjects start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Before their turn, so that they have been found.
    Ahead,
    /// Before Spantap; they get the signal `observed` when it is ready.
    BeforeSpantap,
    /// The server ahead, the client at the moment of its turn.
    ClientFresh,
}

/// A case of the table.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Name of the test.
    pub(crate) name: String,
    /// Who serves.
    pub(crate) server: Server,
    /// What the client does.
    pub(crate) client: Script,
    /// What must come of it.
    pub(crate) due: Due,
    /// What may be lost.
    pub(crate) lost: Lost,
    /// When the subjects start.
    pub(crate) start: Start,
    /// What is missing for it on this machine.
    pub(crate) lacks: Option<Reason>,
    /// Over TLS: who plays the scripts of server and client.
    pub(crate) players: Option<[Player; 2]>,
}

impl Case {
    /// A case in which nothing may be lost and both sides see the same.
    pub(crate) fn new(name: &str, server: Script, client: Script, both: Vec<Expected>) -> Self {
        Self {
            name: name.to_owned(),
            server: Server::Plays(server),
            client,
            due: Due::Spans(both.clone(), both),
            lost: Lost::Nothing,
            start: Start::Ahead,
            lacks: None,
            players: None,
        }
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.players.is_some() { "https" } else { "http" }
    }

    /// The two sides see different things.
    pub(crate) fn sides(mut self, server: Vec<Expected>, client: Vec<Expected>) -> Self {
        self.due = Due::Spans(server, client);
        self
    }

    /// Each exchange is reported or counted; `total` of both sides.
    pub(crate) fn reported_or_lost(mut self, total: u64) -> Self {
        (self.due, self.lost) = (Due::ReportedOrLost(total), Lost::May(&EXCHANGE_LOSSES));
        self
    }

    /// More exchanges than can be seen; `total` of both sides.
    pub(crate) fn beyond_sight(mut self, total: u64) -> Self {
        (self.due, self.lost) = (Due::BeyondSight(total), Lost::May(&EXCHANGE_LOSSES));
        self
    }

    /// The request says that its trace is not sampled.
    pub(crate) fn unsampled(mut self) -> Self {
        self.due = Due::Unsampled;
        self
    }

    /// What may be lost.
    pub(crate) fn lost(mut self, lost: Lost) -> Self {
        self.lost = lost;
        self
    }

    /// When the subjects start.
    pub(crate) fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Another program serves.
    pub(crate) fn served_by(mut self, program: PathBuf, arguments: &[&str]) -> Self {
        self.server = Server::Program(program, arguments.iter().map(|a| (*a).to_owned()).collect());
        self
    }

    /// Skipped if something is missing.
    pub(crate) fn unless(mut self, lacks: Option<Reason>) -> Self {
        self.lacks = lacks;
        self
    }
}

/// `GET path` with a Host and nothing else.
pub(crate) fn get(path: &str) -> String {
    request("GET", path, "")
}

/// A request head; `fields` are whole lines.
pub(crate) fn request(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: case.test\r\n{fields}\r\n")
}

/// A 200 with a Content-Length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A response head; `fields` are whole lines.
pub(crate) fn response(status: &str, fields: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}\r\n")
}
