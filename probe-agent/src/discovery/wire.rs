//! Processes as messages.
//!
//! In: a [`Process`]. Out: the `Process` of `ingest.proto`.

use spantap_config::Sampler;
use spantap_proto::v1;

use super::Process;

impl From<&Process> for v1::Process {
    fn from(process: &Process) -> Self {
        let Process { id, pid, start_boottime_ns, start_realtime_ns, program, entry } = process;
        Self {
            id: id.get(),
            pid: *pid,
            start_boottime_ns: *start_boottime_ns,
            start_realtime_ns: *start_realtime_ns,
            executable: program.executable.clone(),
            environment: program.environment.iter().cloned().collect(),
            container_id: program.container_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            language: program.language.map(|language| language.as_str().to_owned()).unwrap_or_default(),
            service_name: entry.name.clone().unwrap_or_default(),
            service_namespace: entry.namespace.clone().unwrap_or_default(),
            export_traces: entry.exports.traces,
            export_metrics: entry.exports.metrics,
            routes_incoming: entry.routes.incoming.clone(),
            routes_outgoing: entry.routes.outgoing.clone(),
            sampler: entry.sampler.map(|sampler| sampler.name().to_owned()).unwrap_or_default(),
            sampler_ratio: entry.sampler.and_then(Sampler::ratio).unwrap_or_default(),
        }
    }
}
