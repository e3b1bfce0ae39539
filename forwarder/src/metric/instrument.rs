//! What an instrument is: what is measured of exchanges and of processes, and how its points are made.
//!
//! In: nothing. Out: [`Instrument`]s, of which `table` holds all.

mod table;

use spantap_config::Feature;

pub use self::table::INSTRUMENTS;
use super::attribute::Mask;
use crate::exchange::Side;

/// What kind of metric an instrument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A distribution.
    Histogram,
    /// A sum that only grows.
    Counter,
    /// A sum that grows and shrinks; 0 when its process has ended.
    UpDownCounter,
    /// A value of the moment.
    Gauge,
}

/// Which value is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Of an exchange: its duration, seconds.
    Duration,
    /// Of an exchange: bytes of the request's body, where they are known.
    RequestSize,
    /// Of an exchange: bytes of the response's body, where they are known.
    ResponseSize,
    /// Of an exchange: 1.
    Calls,
    /// Of an exchange whose span's status is Error: 1.
    Failures,
    /// Of a server: requests that have begun and not ended.
    OpenRequests,
    /// Of a process: 1 for as long as it has series.
    Presence,
    /// Of a process: CPU time since its start, seconds, by `cpu.mode`.
    CpuTime,
    /// Of a process: share of the CPUs that it may use, since the reading before, by `cpu.mode`.
    CpuUtilization,
    /// Of a process: resident bytes.
    MemoryUsage,
    /// Of a process: mapped bytes.
    MemoryVirtual,
    /// Of a process: bytes moved to and from storage, by `disk.io.direction`.
    DiskIo,
}

impl Source {
    /// Whether a value of it is taken of each exchange.
    pub fn is_of_exchanges(self) -> bool {
        matches!(self, Self::Duration | Self::RequestSize | Self::ResponseSize | Self::Calls | Self::Failures)
    }

    /// Whether it is read of a process, not of an exchange.
    pub fn is_usage(self) -> bool {
        matches!(self, Self::CpuTime | Self::CpuUtilization | Self::MemoryUsage | Self::MemoryVirtual | Self::DiskIo)
    }
}

/// How the attributes of a point are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Those of its series, under their conventional keys; they can be chosen.
    Chosen,
    /// Those of span metrics (`span.name`, `status.code` …).
    Span,
    /// Those of an edge of the service graph (`client`, `server` …).
    Graph,
    /// None of its own: the resource says it all. In Prometheus those of the resource.
    Resource,
    /// The host's id.
    Host,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instrument {
    /// Name in OTLP.
    pub name: &'static str,
    /// Unit (UCUM).
    pub unit: &'static str,
    /// Kind.
    pub kind: Kind,
    /// What it says, for people.
    pub description: &'static str,
    /// Name in Prometheus, with its unit, without `_total`.
    pub prometheus: &'static str,
    /// Group that it belongs to.
    pub feature: Feature,
    /// Which value.
    pub source: Source,
    /// Exchanges of which side; `None`: both.
    pub side: Option<Side>,
    /// How attributes are made.
    pub style: Style,
    /// What tells series apart if nothing is chosen.
    pub shown: Mask,
    /// What may be chosen.
    pub allowed: Mask,
}

impl Instrument {
    /// Name of its samples in Prometheus text, without the suffixes of a histogram.
    pub fn sample_name(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{total}", self.prometheus)
    }

    /// The instrument with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        INSTRUMENTS.iter().find(|instrument| instrument.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenTelemetry specification, "Prometheus and OpenMetrics compatibility": from name and unit.
    fn derived(name: &str, unit: &str) -> String {
        let suffix = match unit {
            "s" => "_seconds",
            "By" => "_bytes",
            "1" => "_ratio",
            _ => "",
        };
        format!("{}{suffix}", name.replace('.', "_"))
    }

    #[test]
    fn prometheus_names_follow_from_name_and_unit() {
        for i in &INSTRUMENTS {
            let want = derived(i.name, i.unit);
            // Names that end in `_total` already: the suffix is that of the sample.
            assert_eq!(i.prometheus, want.strip_suffix("_total").unwrap_or(&want), "{}", i.name);
        }
        assert_eq!(
            Instrument::named("process.cpu.time").map(Instrument::sample_name).as_deref(),
            Some("process_cpu_time_seconds_total")
        );
    }

    #[test]
    fn what_is_shown_may_be_chosen() {
        assert!(INSTRUMENTS.iter().all(|i| i.shown.and(i.allowed) == i.shown));
    }
}
