//! What discovery could not do, counted where it happens. Cumulative since the start of the agent.

/// Numbers for self-metrics and `doctor`; none of them is an error by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Files below `/proc` that this user may not read (files).
    pub denied: u64,
    /// Processes that ended while they were being read (processes).
    pub gone: u64,
    /// Processes with more open descriptors than were looked at for listening sockets (look-ups).
    pub descriptors_capped: u64,
    /// Executables whose content did not come in time, so that the language stayed unknown (reads).
    pub executables_slow: u64,
    /// Selected processes whose environment and arguments were cut because the memory for facts was used up (processes).
    pub facts_trimmed: u64,
    /// Processes that were not taken because the table was full (attempts).
    pub table_full: u64,
}
