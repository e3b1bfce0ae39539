//! The command line.
//!
//! In: arguments. Out: [`Arguments`], or the text and exit code that end the program.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

const AFTER_HELP: &str = "Environment: SPANTAP_SOCKET (socket of the forwarder), SPANTAP_LOG_LEVEL, and every BEYLA_ \
variable that concerns discovery, also as SPANTAP_ and OTEL_EBPF_.";

/// The privileged half of Spantap: watches selected processes with eBPF and streams raw events to `spantap`.
#[derive(Debug, Parser)]
#[command(name = "spantap-agent", version, about, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Configuration file [env: SPANTAP_CONFIG_PATH, BEYLA_CONFIG_PATH or OTEL_EBPF_CONFIG_PATH win over it]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Form of the log lines: text or json [env: SPANTAP_LOG_FORMAT, BEYLA_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
    /// A process that is never observed; given by `spantap` for itself.
    #[arg(long, value_name = "PID", hide = true, global = true)]
    pub exclude_pid: Vec<u32>,
    /// Stop when standard input ends; the process that started this one holds the other end of it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
    /// Start the agent as a child, and again when it dies; given by `spantap`.
    #[arg(long, hide = true, requires = "stop_with_stdin")]
    pub supervise: bool,
    /// Attach the agent's own programs to TLS libraries, as standard input says; given by the agent.
    #[arg(long, value_name = "NUMBERS", hide = true)]
    pub attach_tls: Option<crate::tls::Programs>,
    /// What to do; without a command: observe.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Look at what this host allows, print a report, start nothing. `spantap doctor` shows this and the destinations.
    ///
    /// Exit code: 0 the job can run, perhaps with limits; 64 the configuration is bad; 69 something needed is not there;
    /// 77 a privilege is missing.
    Doctor {
        /// As JSON (docs/doctor.md)
        #[arg(long)]
        json: bool,
    },
    /// Ask the forwarder, over the ingest socket, whether it hears an agent: exit code 0 or 1. For health checks.
    Health,
}

impl Arguments {
    /// Reads the command line; accepts Beyla's `-config` as well.
    ///
    /// # Errors
    /// Bad usage. `--help` and `--version` print and end the program.
    pub fn read() -> Result<Self, Failure> {
        match Self::try_parse_from(spantap_config::words()) {
            Ok(arguments) => Ok(arguments),
            Err(error) if error.use_stderr() => Err(Failure::Configuration(error.to_string())),
            Err(help) => help.exit(),
        }
    }
}
