//! Configuration of both programs.
//!
//! In: a YAML file (Beyla's, with Spantap's own keys under `spantap:`), the environment, the defaults.
//! Out: [`Config`], made of values that refused nonsense when they were built, and the warnings that
//! reading it gave. The agent uses [`Config::discovery`] and [`Config::agent`], the forwarder the rest.

pub mod types;

pub use types::*;
