//! The subjects themselves: every script of the hard-traffic table plays to its end with nobody watching, so that a
//! failure of that table is Spantap's. Needs no privilege.
#![allow(missing_docs, dead_code)]

#[path = "hard_traffic/bodies.rs"]
mod bodies;
#[path = "hard_traffic/case.rs"]
mod case;
#[path = "hard_traffic/endings.rs"]
mod endings;
#[path = "hard_traffic/framing.rs"]
mod framing;
#[path = "hard_traffic/processes.rs"]
mod processes;
#[path = "hard_traffic/sockets.rs"]
mod sockets;
#[path = "hard_traffic/strange.rs"]
mod strange;

use std::{collections::HashSet, process::ExitCode, time::Duration};

use case::{Case, Server, Start};
use spantap_tests::{
    host,
    pair::{Pair, Subject},
    suite::Suite,
};

fn main() -> ExitCode {
    let cases =
        [framing::cases(), bodies::cases(), endings::cases(), sockets::cases(), processes::cases(), strange::cases()]
            .concat();
    let names: HashSet<String> = cases.iter().map(|case| case.name.clone()).collect();
    let distinct = names.len() == cases.len();
    let mut suite = Suite::new("subjects_play", [], || Ok(()));
    suite = suite.case("names_are_distinct", move |()| {
        anyhow::ensure!(distinct, "two cases have the same name: their telemetry could not be told apart");
        Ok(())
    });
    for case in cases {
        suite = suite.case_unless(case.lacks.clone(), case.name.clone(), move |()| play(&case));
    }
    suite.run()
}

fn play(case: &Case) -> anyhow::Result<()> {
    let folder = host::folder()?;
    let server = match &case.server {
        Server::Plays(_) => Subject::scripted("server")?,
        Server::Program(program, arguments) => Subject::start(Server::command(program, arguments), "server")?,
    };
    let script = match &case.server {
        Server::Plays(script) => script.clone(),
        Server::Program(..) => Vec::new(),
    };
    let mut pair = Pair { server, client: Subject::scripted("client")? };
    pair.begin(&script, &case.client, folder.path())?;
    if case.start == Start::BeforeSpantap {
        pair.signal("observed")?;
    }
    pair.finish(Duration::from_secs(40))
}
