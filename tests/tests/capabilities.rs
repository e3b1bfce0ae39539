//! Each line of the tables in docs/privileges.md: a capability is taken away, a user is another one, and what is said and done
//! is what the line says.
#![allow(missing_docs)]

#[path = "capabilities/optional.rs"]
mod optional;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use spantap_tests::{
    credentials::{Credentials, bit},
    host,
    place::{LIMIT, Place, observed},
    process::Process,
    servers::Server,
    suite::Suite,
};

/// The forwarder, where it is started apart: user and group `nobody` of Debian.
const NOBODY: [&str; 7] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
/// A user that no list names, with what an agent needs; in the forwarder's group.
const THIRD: [&str; 13] = [
    "setpriv",
    "--reuid",
    "65533",
    "--regid",
    "65533",
    "--groups",
    "65534",
    "--inh-caps",
    "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search",
    "--ambient-caps",
    "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search",
    "--no-new-privs",
    "--",
];
/// What remains of the bounding set that the test itself was given.
const REST: u64 = !bit::SETPCAP;

fn main() -> ExitCode {
    let lacks = [host::lacks_root_and_btf(), host::lacks("nginx"), host::lacks("setpriv")];
    let mut suite = Suite::new("capabilities", lacks, || Ok(()));
    for (taken, outcome) in AGENT {
        suite = suite.case(format!("agent_without_{}", name(taken)), move |()| agent_without(taken, outcome));
    }
    for (taken, mentions) in WHOLE {
        suite = suite.case(format!("one_command_without_{}", name(taken)), move |()| {
            Place::new(host::free_port()?, "")?.run(&without(taken), "spantap", &[])?.expect(77, mentions)
        });
    }
    suite
        .case("agent_without_net_admin", |()| optional::net_admin())
        .case_unless(lacks_tls(), "agent_without_sys_admin_counts_tls", |()| optional::tls_without_sys_admin())
        .case_unless(lacks_tls(), "agent_without_checkpoint_restore_names_a_replaced_library", |()| {
            optional::replaced_library_without_checkpoint_restore()
        })
        .case("one_command_without_setpcap", |()| whole_without_setpcap())
        .case("user_who_may_not_be_the_agent", |()| third_agent_refused())
        .case("agent_uids_let_an_agent_in_that_is_not_root", |()| third_agent())
        .case("user_who_may_not_be_the_forwarder", |()| third_forwarder_refused())
        .case("forwarder_becomes_the_user_it_is_told", |()| users())
        .case("forwarder_does_not_know_the_user", |()| unknown_user())
        .case("forwarder_stays_root_if_told", |()| stays_root())
        .case("forwarder_gives_up_capabilities_that_a_user_has", |()| capable_forwarder())
        .run()
}

fn lacks_tls() -> Option<host::Reason> {
    ["curl", "python3", "openssl"].into_iter().find_map(host::lacks)
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// Exit code 77 and this in the message.
    Refused(&'static str),
    /// Runs, and observes nothing of what the test asks; says this.
    Degraded(&'static str),
    /// Observes; keeps these capabilities, the bounding set is that, and says this.
    Works(u64, u64, &'static str),
}
use Outcome::{Degraded, Refused, Works};

/// The agent as root started after the forwarder of another user, without these.
const AGENT: [(&str, Outcome); 11] = [
    ("-bpf,-sys_admin", Refused("the agent needs CAP_BPF (or CAP_SYS_ADMIN)")),
    ("-perfmon,-sys_admin", Refused("the agent needs CAP_PERFMON (or CAP_SYS_ADMIN)")),
    ("-bpf,-perfmon", Works(bit::KEPT_WITH_TLS, bit::KEPT_WITH_TLS, "")),
    ("-sys_ptrace", Degraded("without CAP_SYS_PTRACE processes of other users may not be found")),
    (
        "-dac_read_search",
        Works(
            bit::SYS_PTRACE | bit::CHECKPOINT_RESTORE,
            bit::SYS_PTRACE | bit::CHECKPOINT_RESTORE,
            "without CAP_DAC_READ_SEARCH processes of other users may not be found",
        ),
    ),
    (
        "-setgid",
        Works(
            bit::KEPT_WITH_TLS | bit::DAC_OVERRIDE,
            bit::KEPT_WITH_TLS | bit::DAC_OVERRIDE,
            "cannot be joined: Operation not permitted",
        ),
    ),
    ("-setgid,-dac_override", Degraded("the agent is not in the socket's group")),
    ("-dac_override", Works(bit::KEPT_WITH_TLS, bit::KEPT_WITH_TLS, "")),
    // What it holds then is only what it could give; no_new_privs closes that way.
    ("-setpcap", Works(bit::KEPT_WITH_TLS, REST, "")),
    ("-sys_admin", Works(bit::KEPT, bit::KEPT, "attaching to TLS libraries takes CAP_SYS_ADMIN")),
    ("-checkpoint_restore", Works(bit::KEPT, bit::KEPT, "")),
];

/// The one command as root, without these.
const WHOLE: [(&str, &[&str]); 5] = [
    ("-bpf,-sys_admin", &["the agent needs CAP_BPF (or CAP_SYS_ADMIN)"]),
    ("-perfmon,-sys_admin", &["the agent needs CAP_PERFMON (or CAP_SYS_ADMIN)"]),
    ("-setuid", &["cannot become user", "CAP_SETUID"]),
    ("-setgid", &["cannot become user", "CAP_SETGID"]),
    ("-chown", &["ingest.sock", "CAP_CHOWN"]),
];

fn name(taken: &str) -> String {
    taken.trim_start_matches('-').replace(",-", "_and_")
}

fn without(taken: &str) -> [&str; 4] {
    ["setpriv", "--bounding-set", taken, "--"]
}

fn own_bounding_set() -> Result<u64> {
    Ok(Credentials::of(std::process::id())?.bounding)
}

fn apart(place: &Place, before: &[&str]) -> Result<Process> {
    place.start_until(before, "spantap", &["forward"], "waiting for the agent")
}

fn agent_without(taken: &str, outcome: Outcome) -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, "")?;
    let mut forwarder = apart(&place, &NOBODY)?;
    match outcome {
        Refused(reason) => place.run(&without(taken), "spantap-agent", &[])?.expect(77, &[reason]),
        Degraded(reason) => {
            let mut agent = place.start_until(&without(taken), "spantap-agent", &[], reason)?;
            // Long enough for one that sees: it looks through /proc before it asks for a stream.
            agent.wait_ready(LIMIT, |agent| {
                let log = agent.log();
                log.contains("streaming to the forwarder") || log.contains("cannot be reached")
            })?;
            for _ in 0..20 {
                ensure!(spantap_tests::http::get(server.port, "/unseen")?.status == 200, "the server");
            }
            agent.stop(LIMIT)?;
            forwarder.stop(LIMIT)?;
            ensure!(!forwarder.output().contains("/unseen"), "it works without {taken}: {}", forwarder.output());
            Ok(())
        }
        Works(kept, bounding, reason) => {
            let mut agent = place.start(&without(taken), "spantap-agent", &[])?;
            observed(&mut forwarder, server.port, "/seen").with_context(|| agent.tail())?;
            let found = Credentials::of(agent.pid())?;
            let bounding = bounding & own_bounding_set()?;
            let expected = Credentials { bounding, ..Credentials::of_agent(0, kept) };
            ensure!(found == expected, "{found:?}, expected {expected:?}");
            ensure!(agent.log().contains(reason), "nothing is said of {reason:?}: {}", agent.log());
            // What does not bear on anything is not complained of.
            ensure!(!reason.is_empty() || !agent.log().contains("WARN"), "{}", agent.log());
            ensure!(agent.stop(LIMIT)?.code() == Some(0), "{}", agent.tail());
            Ok(())
        }
    }
}

fn whole_without_setpcap() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, "")?;
    let mut spantap = place.start(&without("-setpcap"), "spantap", &[])?;
    observed(&mut spantap, server.port, "/seen")?;
    let found = Credentials::of(spantap.pid())?;
    let uid = found.uids.first().copied().unwrap_or_default();
    let expected = Credentials { bounding: REST & own_bounding_set()?, ..Credentials::of_forwarder(uid) };
    ensure!(uid != 0 && found == expected, "{found:?}, expected {expected:?}");
    ensure!(spantap.stop(LIMIT)?.code() == Some(0), "{}", spantap.tail());
    Ok(())
}

fn third_agent_refused() -> Result<()> {
    let place = Place::new(host::free_port()?, "")?;
    let mut forwarder = apart(&place, &NOBODY)?;
    let refusal = "user 65533 may not be the agent (spantap.agent_uids)";
    let _agent = place.start_until(&THIRD, "spantap-agent", &[], refusal)?;
    forwarder.wait_ready(LIMIT, |f| f.log().contains("refused an agent of a foreign user"))
}

/// Nobody is root here: capabilities by themselves will do.
fn third_agent() -> Result<()> {
    let server = Server::nginx(1, None)?;
    let place = Place::new(server.port, "  agent_uids: [65533]\n  tls: off\n")?;
    let mut forwarder = apart(&place, &NOBODY)?;
    let mut agent = place.start(&THIRD, "spantap-agent", &[])?;
    observed(&mut forwarder, server.port, "/seen").with_context(|| agent.tail())?;
    let found = Credentials::of(agent.pid())?;
    // Without CAP_SETPCAP the bounding set stays. Its files in /proc are root's: it is not dumpable.
    let expected = Credentials { bounding: found.bounding, ..Credentials::of_agent(65533, bit::KEPT) };
    ensure!(found == expected, "{found:?}, expected {expected:?}");
    let found = Credentials::of(forwarder.pid())?;
    let expected = Credentials { bounding: found.bounding, ..Credentials::of_forwarder(65534) };
    ensure!(found == expected, "{found:?}, expected {expected:?}");
    ensure!(!agent.log().contains("WARN"), "{}", agent.log());
    ensure!(agent.stop(LIMIT)?.code() == Some(0), "{}", agent.tail());
    ensure!(forwarder.stop(LIMIT)?.code() == Some(0), "{}", forwarder.tail());
    Ok(())
}

fn third_forwarder_refused() -> Result<()> {
    let place = Place::new(host::free_port()?, "  forwarder_uids: [65533]\n")?;
    let mut forwarder = apart(&place, &NOBODY)?;
    let of_folder = "belongs to user 65534, who may not be the forwarder and could replace the socket";
    let of_socket = "belongs to user 65534, who may not be the forwarder (spantap.forwarder_uids)";
    for refusal in [of_folder, of_socket] {
        let _agent = place.start_until(&[], "spantap-agent", &[], refusal)?;
        // Nor does it ask such a one for its health.
        place.run(&[], "spantap-agent", &["health"])?.expect(1, &[refusal])?;
        // Nobody can replace the socket any more, which is still the wrong user's.
        std::os::unix::fs::chown(place.folder().join("run"), Some(0), None)?;
    }
    ensure!(forwarder.is_running(), "{}", forwarder.tail());
    Ok(())
}

fn as_user(user: &str) -> Result<(Place, Process)> {
    let place = Place::new(host::free_port()?, &format!("  user: {user}\n"))?;
    let forwarder = apart(&place, &[])?;
    Ok((place, forwarder))
}

fn users() -> Result<()> {
    // Of Debian's base; a number that is nobody's; and one that is somebody's.
    for (user, uid) in [("daemon", 1), ("\"65533\"", 65533), ("65534", 65534)] {
        let (_place, forwarder) = as_user(user)?;
        let found = Credentials::of(forwarder.pid())?;
        ensure!(found == Credentials::of_forwarder(uid), "{user}: {found:?}");
        ensure!(!forwarder.log().contains("WARN"), "{user}: {}", forwarder.log());
    }
    Ok(())
}

fn unknown_user() -> Result<()> {
    let place = Place::new(host::free_port()?, "  user: no-such-user\n")?;
    let way_out = "useradd --system no-such-user";
    for command in [&["forward"][..], &[]] {
        place.run(&[], "spantap", command)?.expect(77, &["there is no user no-such-user", way_out])?;
    }
    Ok(())
}

fn stays_root() -> Result<()> {
    let (_place, forwarder) = as_user("root")?;
    let found = Credentials::of(forwarder.pid())?;
    ensure!(found == Credentials::of_forwarder(0), "{found:?}");
    ensure!(forwarder.log().contains("forwarding as root"), "{}", forwarder.log());
    Ok(())
}

fn capable_forwarder() -> Result<()> {
    let place = Place::new(host::free_port()?, "")?;
    let forwarder = apart(&place, &THIRD)?;
    let found = Credentials::of(forwarder.pid())?;
    let expected = Credentials { bounding: found.bounding, ..Credentials::of_forwarder(65533) };
    ensure!(found == expected, "{found:?}, expected {expected:?}");
    ensure!(forwarder.log().contains("was started with capabilities"), "{}", forwarder.log());
    Ok(())
}
