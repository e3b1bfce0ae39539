//! Configuration of both programs.
//!
//! In: a YAML file (Beyla's, with Spantap's own keys under `spantap:`), the environment, the defaults.
//! Out: [`Config`], made of values that refused nonsense when they were built, and the warnings that
//! reading it gave. The agent uses [`Config::discovery`] and [`Config::agent`], the forwarder the rest.
//!
//! # Layout
//! `environment`, `yaml`, `secret_file` take in what there is · `keys` knows every name · `settings`, `given`, `values`, `otel` give the value
//! of a key as the type it needs · `discovery`, `otlp`, `exports`, `attributes`, `routes`, `sampling`, `capture`, `program` read one subject
//! each · `load` puts them together · `render` shows the result · `watch` tells when a file has changed.

mod aggregation;
mod attributes;
mod capture;
mod discovery;
mod environment;
mod error;
mod exports;
mod given;
mod keys;
mod load;
pub mod log;
mod otel;
mod otlp;
mod program;
mod propagation;
mod redaction;
mod render;
mod routes;
mod sampling;
mod secret_file;
mod settings;
mod suggest;
pub mod types;
mod values;
mod watch;
mod words;
mod yaml;

pub use environment::Environment;
pub use error::{ConfigError, Place, Warning};
pub use load::Loaded;
pub use types::*;
pub use watch::{FileState, Watch};
pub use words::words;

#[cfg(test)]
mod tests;
