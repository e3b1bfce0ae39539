//! The command line.
//!
//! In: arguments. Out: [`Arguments`], or the text and exit code that end the program.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::run::Failure;

const AFTER_HELP: &str = "\
Environment:
  SPANTAP_CONFIG_PATH, BEYLA_CONFIG_PATH, OTEL_EBPF_CONFIG_PATH  configuration file; win over --config
  OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS        where to send, and with which headers
  SPANTAP_SOCKET                                                 socket between agent and forwarder
  SPANTAP_ADMIN                                                  address of /healthz, /readyz, /metrics; or off
  Every BEYLA_ variable is also read as SPANTAP_ and OTEL_EBPF_.";

/// Turns the HTTP requests of programs on this host into OpenTelemetry traces and metrics, without changing them.
///
/// Without a command: starts the privileged `spantap-agent`, gives up its own privilege, and forwards.
#[derive(Debug, Parser)]
#[command(name = "spantap", version, about, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Configuration file, as Grafana Beyla reads it [env: SPANTAP_CONFIG_PATH, BEYLA_CONFIG_PATH or OTEL_EBPF_CONFIG_PATH win over it]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Form of the log lines on standard error: text or json [env: SPANTAP_LOG_FORMAT, BEYLA_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Only forward: wait for an agent on the ingest socket. Needs no privilege.
    Forward,
    /// Ask a running spantap whether it is ready: exit code 0 or 1. For health checks.
    Health,
    /// Read configuration and environment as a start would, print what is effective, start nothing.
    Check,
    /// Look at what this host and the destinations allow, print a report with a fix beside every failure, start nothing.
    ///
    /// Runs `spantap-agent doctor` for the kernel, privilege and processes; sends an empty export to each destination. Best
    /// as root (sudo spantap doctor); without privilege it says what it could not look at. Changes nothing.
    ///
    /// Exit code: 0 the configured job can run, perhaps with limits; 64 the configuration is bad; 69 something needed is
    /// not there; 77 a privilege is missing.
    Doctor {
        /// As JSON (docs/doctor.md)
        #[arg(long)]
        json: bool,
    },
}

impl Arguments {
    /// Reads the command line. Beyla's single dash is accepted: `-config FILE`, `-config=FILE`.
    ///
    /// # Errors
    /// Bad usage. `--help` and `--version` print and end the program.
    pub fn read() -> Result<Self, Failure> {
        match Self::try_parse_from(spantap_config::words()) {
            Ok(arguments) => Ok(arguments),
            Err(error) if error.use_stderr() => Err(Failure::Usage(error.render().to_string())),
            Err(help) => help.exit(),
        }
    }
}
