//! What the end-to-end tests share.
//!
//! In: the built programs `spantap` and `spantap-agent`, the real Collector, the servers and clients of this machine.
//! Out: guards that start and stop them, and their telemetry as plain values.
//!
//! `process` one guarded child · `collector`, `telemetry` the receiver and what it wrote, `certificates` for it · `spantap`, `admin` the programs under
//! test · `place`, `credentials` the same under chosen users, and what the kernel says of them · `servers` subjects that know
//! nothing of tracing, `certificate` for those that speak TLS · `namespaces` several hosts on one · `kernel_programs` what is loaded and what it takes, `sockmap` programs of others, `setting` of the kernel,
//! `watcher` an agent and its forwarder with one hook set · `containers` an engine and a
//! compose project · `script`, `play`,
//! `pair` byte-exact exchanges between two subjects · `expect` what must come of them, `https` the same over TLS · `suite` cases as named tests,
//! skipped loudly · `python_environment`, `node_environment` what they run on · `relays` programs that ask each other, `loops` their links, judged by paths · `bench`, `sink` what Spantap costs.

pub mod admin;
pub mod bench;
pub mod certificate;
pub mod certificates;
pub mod collector;
pub mod compiled;
pub mod containers;
pub mod credentials;
pub mod expect;
pub mod host;
pub mod http;
pub mod https;
pub mod java;
pub mod kernel_programs;
pub mod load;
pub mod loops;
pub mod namespaces;
pub mod node_environment;
pub mod observed;
pub mod pair;
pub mod place;
pub mod play;
pub mod process;
pub mod python_environment;
pub mod relays;
pub mod script;
pub mod servers;
pub mod setting;
pub mod sink;
pub mod sockmap;
pub mod spantap;
pub mod suite;
pub mod telemetry;
pub mod watcher;
