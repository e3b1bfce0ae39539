//! The hard-traffic list as a table of cases: for each, the spans of both sides, the histograms and what was counted
//! as lost. One Collector and one Spantap for all; each case has subjects of its own, so its telemetry is told
//! apart by `service.name`.
#![allow(missing_docs)]

mod bodies;
mod case;
mod endings;
mod framing;
mod processes;
mod sockets;
mod strange;
mod world;

use std::{process::ExitCode, sync::Arc};

use spantap_tests::{collector, host, suite::Suite};

fn main() -> ExitCode {
    let mut all =
        [framing::cases(), bodies::cases(), endings::cases(), sockets::cases(), processes::cases(), strange::cases()]
            .concat();
    // Where each of them takes seconds (tools/kernels.sh), some.
    if let Some(names) = std::env::var("SPANTAP_CASES").ok().filter(|names| !names.is_empty()) {
        if let Some(unknown) = names.split(',').find(|name| !all.iter().any(|case| case.name == *name)) {
            eprintln!("SPANTAP_CASES: there is no case {unknown}");
            return ExitCode::from(64);
        }
        all.retain(|case| names.split(',').any(|name| name == case.name));
    }
    // Connections that are open since before the start do not wait for long.
    all.sort_by_key(|case| case.start != case::Start::BeforeSpantap);
    let cases = Arc::new(all);
    let prepared = Arc::clone(&cases);
    let no_collector = collector::lacks_collector();
    let mut suite =
        Suite::new("hard_traffic", [host::lacks_root_and_btf(), no_collector], move || world::Table::start(&prepared));
    for (at, case) in cases.iter().enumerate() {
        let table = Arc::clone(&cases);
        suite = suite.case_unless(case.lacks.clone(), case.name.clone(), move |world| {
            table.get(at).map_or(Ok(()), |case| world.run(case))
        });
    }
    suite
        .case_unless(
            host::lacks("unshare").or(host::lacks("ip")),
            "two_namespaces_with_the_same_port",
            world::Table::same_port_twice,
        )
        .case("nothing_came_later", world::Table::nothing_came_later)
        .case("stops_in_order_and_adds_up", world::Table::stops)
        .run()
}
