//! What the pipeline keeps of each process: its resource, its key in the registries, its spans that wait.
//!
//! In: processes of exchanges, ends. Out: one [`Known`] for each, found by the agent's id and checked by content, since ids
//! come again when an agent starts anew.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use hashbrown::HashMap;
use spantap_config::Config;
use tokio::time::Instant;

use super::{
    instrumented::Own,
    lock,
    services::{Service, Services},
};
use crate::{
    metric::registry::{ProcessKey, RESOURCE_BYTES, Registry},
    model::{ProcessId, ProcessRef},
    resource::{HostFacts, Resource, ResourceBuilder},
};

/// Processes that are known at once; beyond it the ones that ended first are forgotten, then any.
const LIMIT: usize = 16384;
/// Bytes of their resources, the same. (Their own texts are bounded where they come in.)
const BYTES: usize = RESOURCE_BYTES;
/// How long an ended process stays known, for exchanges that are told late.
const LINGER: Duration = Duration::from_secs(60);

/// What is kept of a process.
#[derive(Debug)]
pub(super) struct Known {
    process: ProcessRef,
    pub(super) key: ProcessKey,
    pub(super) resource: Arc<Resource>,
    pub(super) service: Arc<Service>,
    /// What it exports itself.
    pub(super) own: Own,
    /// Encoded spans that wait for the next request.
    pub(super) spans: Vec<u8>,
    pub(super) span_count: u64,
    /// Bytes of `spans` that the batcher has counted.
    pub(super) counted: usize,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct Processes {
    resources: ResourceBuilder,
    services: Services,
    known: HashMap<ProcessId, Known>,
    /// Of the resources of those.
    bytes: usize,
    ended: VecDeque<(Instant, ProcessId, ProcessKey)>,
    next_key: u64,
}

impl Processes {
    pub(super) fn new(resources: ResourceBuilder, services: Services) -> Self {
        Self { resources, services, known: HashMap::new(), bytes: 0, ended: VecDeque::new(), next_key: 0 }
    }

    pub(super) fn resources(&self) -> &ResourceBuilder {
        &self.resources
    }

    pub(super) fn set_host(&mut self, host: HostFacts) {
        self.resources.set_host(host);
    }

    /// Whether any span may be kept whatever its sampler says.
    pub(super) fn keeps_any(&self) -> bool {
        self.services.keeps_any()
    }

    /// Another configuration from now on. A process whose resource changes by it begins new series. Spans must have been sealed.
    pub(super) fn reconfigure(&mut self, config: &Config, registries: &[Arc<Mutex<Registry>>], now: Instant) {
        let Self { known, resources, services, next_key, bytes, .. } = self;
        *resources = resources.reconfigured(config);
        services.reconfigure(config);
        for known in known.values_mut() {
            let resource = resources.process(&known.process);
            if resource != *known.resource {
                registries.iter().for_each(|r| lock(r).end(known.key, now));
                *next_key += 1;
                known.key = ProcessKey(*next_key);
                known.service = services.of(&known.process, &resource);
                *bytes = (*bytes + resource.bytes()).saturating_sub(known.resource.bytes());
                known.resource = Arc::new(resource);
                if known.ended {
                    self.ended.push_back((now, known.process.id, known.key));
                }
            }
        }
    }

    /// Whether [`Processes::get`] will put another process in the place of one whose spans wait: the same id with other
    /// facts, or no room left.
    pub(super) fn is_replaced(&self, process: &ProcessRef) -> bool {
        match self.known.get(&process.id) {
            Some(known) => !Arc::ptr_eq(&known.process, process) && known.process != *process,
            None => self.is_full(),
        }
    }

    fn is_full(&self) -> bool {
        self.known.len() >= LIMIT || self.bytes >= BYTES
    }

    fn remove(&mut self, id: ProcessId) {
        if let Some(known) = self.known.remove(&id) {
            self.bytes = self.bytes.saturating_sub(known.resource.bytes());
        }
    }

    /// What is known of `process`, now if not before. `replaced` is what [`Processes::is_replaced`] says.
    pub(super) fn get(
        &mut self,
        process: &ProcessRef,
        replaced: bool,
        registries: &[Arc<Mutex<Registry>>],
    ) -> &mut Known {
        if replaced {
            let now = Instant::now();
            self.end(process.id, registries, now);
            self.remove(process.id);
            while self.is_full() && !self.known.is_empty() {
                self.forget_one(registries, now);
            }
        }
        let Self { known, resources, services, next_key, bytes, .. } = self;
        let known = known.entry(process.id).or_insert_with(|| {
            *next_key += 1;
            let resource = resources.process(process);
            *bytes += resource.bytes();
            Known {
                process: process.clone(),
                key: ProcessKey(*next_key),
                service: services.of(process, &resource),
                resource: Arc::new(resource),
                own: Own::default(),
                spans: Vec::new(),
                span_count: 0,
                counted: 0,
                ended: false,
            }
        });
        if !Arc::ptr_eq(&known.process, process) {
            known.process = process.clone(); // told again, unchanged: compare by address next time
        }
        known
    }

    /// What a process exports itself, as far as is known.
    pub(super) fn own(&self, id: ProcessId) -> Own {
        self.known.get(&id).map_or_else(Own::default, |known| known.own)
    }

    pub(super) fn get_known(&mut self, id: ProcessId) -> Option<&mut Known> {
        self.known.get_mut(&id)
    }

    pub(super) fn end(&mut self, id: ProcessId, registries: &[Arc<Mutex<Registry>>], now: Instant) {
        let Some(known) = self.known.get_mut(&id).filter(|k| !k.ended) else { return };
        known.ended = true;
        self.ended.push_back((now, id, known.key));
        registries.iter().for_each(|r| lock(r).end(known.key, now));
    }

    /// Ends and forgets all. Their spans must have been sealed.
    pub(super) fn end_all(&mut self, registries: &[Arc<Mutex<Registry>>], now: Instant) {
        for known in self.known.values().filter(|k| !k.ended) {
            registries.iter().for_each(|r| lock(r).end(known.key, now));
        }
        self.known.clear();
        self.bytes = 0;
        self.ended.clear();
    }

    /// Forgets processes that ended a while ago and whose spans have been sealed.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((ended, id, key)) = self.ended.front().copied() {
            let current = self.known.get(&id).filter(|k| k.key == key);
            if now.duration_since(ended) < LINGER || current.is_some_and(|k| k.span_count > 0) {
                return;
            }
            if current.is_some() {
                self.remove(id);
            }
            self.ended.pop_front();
        }
    }

    fn forget_one(&mut self, registries: &[Arc<Mutex<Registry>>], now: Instant) {
        while let Some((_, id, key)) = self.ended.pop_front() {
            if self.known.get(&id).is_some_and(|k| k.key == key) {
                self.remove(id);
                return;
            }
        }
        if let Some(id) = self.known.keys().next().copied() {
            self.end(id, registries, now);
            self.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn processes() -> Processes {
        let config = sample::config();
        Processes::new(ResourceBuilder::new(&config), Services::new(&config, Arc::default()))
    }

    fn known(processes: &mut Processes, id: u32, name: &str) -> ProcessKey {
        let process = Arc::new(sample::process(id, name));
        let replaced = processes.is_replaced(&process);
        processes.get(&process, replaced, &[]).key
    }

    #[test]
    fn a_process_is_its_facts() {
        let mut processes = processes();
        let first = known(&mut processes, 1, "a");
        assert_eq!(known(&mut processes, 1, "a"), first, "told again by a new stream");
        assert_ne!(known(&mut processes, 2, "a"), first);
        let other = Arc::new(sample::process(1, "b"));
        assert!(processes.is_replaced(&other), "the id names another program now");
        assert_ne!(known(&mut processes, 1, "b"), first);
    }

    #[test]
    fn ended_processes_linger() {
        let mut processes = processes();
        let (first, now) = (known(&mut processes, 1, "a"), Instant::now());
        processes.end(ProcessId(1), &[], now);
        processes.forget(now + LINGER / 2);
        assert_eq!(known(&mut processes, 1, "a"), first);
        if let Some(k) = processes.get_known(ProcessId(1)) {
            k.span_count = 1;
        }
        processes.forget(now + LINGER);
        assert_eq!(processes.known.len(), 1, "its spans wait");
        if let Some(k) = processes.get_known(ProcessId(1)) {
            k.span_count = 0;
        }
        processes.forget(now + LINGER);
        assert_eq!((processes.known.len(), processes.ended.len()), (0, 0));
    }

    #[test]
    fn room_is_bounded() {
        let mut processes = processes();
        let now = Instant::now();
        for id in 0..LIMIT as u32 + 10 {
            known(&mut processes, id, "a");
            if id == 5 {
                processes.end(ProcessId(5), &[], now);
            }
        }
        assert_eq!(processes.known.len(), LIMIT);
        assert!(!processes.known.contains_key(&ProcessId(5)), "ended ones go first");
    }

    #[test]
    fn what_processes_say_of_themselves_is_bounded() {
        let mut processes = processes();
        let many: String = (0..100).map(|n| format!("attribute.{n}={},", "x".repeat(200))).collect();
        let of = |id| {
            let environment = vec![("OTEL_RESOURCE_ATTRIBUTES".to_owned(), many.clone())];
            Arc::new(crate::model::Process { environment, ..sample::process(id, "a") })
        };
        for id in 0..3000 {
            let process = of(id);
            let replaced = processes.is_replaced(&process);
            processes.get(&process, replaced, &[]);
            let held: usize = processes.known.values().map(|known| known.resource.bytes()).sum();
            assert_eq!(processes.bytes, held);
        }
        let most = RESOURCE_BYTES + 256 * 1024;
        assert!((RESOURCE_BYTES / 2..most).contains(&processes.bytes), "{} bytes", processes.bytes);
        processes.end_all(&[], Instant::now());
        assert_eq!(processes.bytes, 0);
    }
}
