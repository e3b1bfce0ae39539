//! The hard-traffic list over TLS: the cases of `hard_traffic` that TLS has room for, played by Python with OpenSSL and by Go with its
//! own library, each of them once as server and once as client. Exactly the same spans are due.
#![allow(missing_docs)]

#[path = "hard_traffic/bodies.rs"]
mod bodies;
#[path = "hard_traffic/case.rs"]
#[allow(dead_code, reason = "some of it is for cases without TLS")]
mod case;
#[path = "hard_traffic/endings.rs"]
mod endings;
#[path = "hard_traffic/framing.rs"]
mod framing;
#[path = "hard_traffic/processes.rs"]
#[allow(dead_code, reason = "these are for cases without TLS")]
mod processes;
#[path = "hard_traffic/sockets.rs"]
mod sockets;
#[path = "hard_traffic/strange.rs"]
mod strange;
#[path = "hard_traffic/world.rs"]
#[allow(dead_code, reason = "some of it is for cases without TLS")]
mod world;

use std::{
    process::{Command, ExitCode},
    sync::Arc,
};

use anyhow::{Context, Result};
use case::{Case, Due, Player, Server};
use spantap_tests::{
    certificate::Certificate,
    collector, compiled, host,
    https::succeeds,
    script::{At, By, How, Script, Step},
    servers::python,
    suite::Suite,
};

fn main() -> ExitCode {
    let tools = ["go", "python3", "openssl"].map(host::lacks);
    let lacks: Vec<_> = [host::lacks_root_and_btf(), collector::lacks_collector()].into_iter().chain(tools).collect();
    let made = if lacks.iter().any(Option::is_some) { Ok(None) } else { players().map(Some) };
    let (_held, python, go) = match made {
        Ok(made) => made.map_or((None, None, None), |(held, python, go)| (Some(held), Some(python), Some(go))),
        Err(error) => {
            eprintln!("hard_traffic_tls: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut cases = Vec::new();
    for (name, players) in [("go_asks_python", python.clone().zip(go.clone())), ("python_asks_go", go.zip(python))] {
        let all = [framing::cases(), bodies::cases(), endings::cases(), sockets::cases(), strange::cases()].concat();
        for case in all.into_iter().filter(fits).map(patient) {
            let players = players.clone().map(|(server, client)| [server, client]);
            cases.push(Case { name: format!("{name}_{}", case.name), players, ..case });
        }
    }
    let cases = Arc::new(cases);
    let prepared = Arc::clone(&cases);
    let mut suite = Suite::new("hard_traffic_tls", lacks, move || world::Table::start(&prepared));
    for (at, case) in cases.iter().enumerate() {
        let table = Arc::clone(&cases);
        suite = suite.case(case.name.clone(), move |world| table.get(at).map_or(Ok(()), |case| world.run(case)));
    }
    suite
        .case("nothing_came_later", world::Table::nothing_came_later)
        .case("stops_in_order_and_adds_up", world::Table::stops)
        .run()
}

/// Players in scripts have more to do between two steps: an exchange may begin later than the step before it ended.
fn patient(mut case: Case) -> Case {
    if let Due::Spans(server, client) = &mut case.due {
        for span in server.iter_mut().chain(client) {
            span.seconds.0 = (span.seconds.0 - 0.1).max(0.0);
        }
    }
    case
}

/// What both players can do over TLS: no other system calls, no half-close, no descriptor without its session. And of which the
/// scheme is that of the connection, not that of a target in absolute form.
fn fits(case: &Case) -> bool {
    case.name != "absolute_form"
        && matches!(&case.server, Server::Plays(script) if played(script))
        && played(&case.client)
}

fn played(script: &Script) -> bool {
    script.iter().all(|step| match step {
        Step::Listen(_, at) | Step::Connect(_, at) => *at == At::V4,
        Step::Send(_, _, how) => matches!(how, How::Write | How::Sendfile),
        Step::Read(_, _, by, _) => *by == By::Read,
        Step::Repeat(_, script) => played(script),
        Step::Accept(..) | Step::Close(_) | Step::Reset(_) | Step::Exit => true,
        Step::Signal(_) | Step::Wait(_) | Step::Pause(_) => true,
        Step::Shutdown(_) | Step::Dup(..) | Step::Inherit(..) | Step::Pass(..) | Step::Take(..) | Step::Until(..) => {
            false
        }
    })
}

/// What lasts as long as the players.
type Held = (tempfile::TempDir, Certificate);

/// Copies of the programs, which are selected by where they lie: Python's and Go's player.
fn players() -> Result<(Held, Player, Player)> {
    let (folder, certificate) = (host::folder()?, Certificate::make()?);
    let (interpreter, go) = (folder.path().join("python"), folder.path().join("player"));
    std::fs::copy(std::fs::canonicalize(python()?)?, &interpreter)?;
    let prefix = Command::new(python()?).args(["-c", "import sys; print(sys.base_prefix)"]).output()?.stdout;
    let mut command = Command::new(host::find("go").context("no go")?);
    command.current_dir(compiled::subjects().join("tls/player")).args(["build", "-buildvcs=false", "-o"]).arg(&go);
    succeeds(command.arg("."))?;
    let (file, key) = (certificate.file(), certificate.key());
    let python = Player {
        program: interpreter,
        arguments: vec![compiled::subjects().join("tls/player.py"), file.clone(), key.clone()],
        environment: vec![("PYTHONHOME", String::from_utf8(prefix)?.trim().to_owned())],
    };
    let go = Player { program: go, arguments: vec![file, key], environment: Vec::new() };
    Ok(((folder, certificate), python, go))
}
