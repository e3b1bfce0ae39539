//! The resource of a process: who did the I/O, in attributes that do not change while it lives.
//!
//! In: a [`Process`], the host, the configuration. Out: a [`Resource`], encoded once and shared.
//!
//! Precedence. The process's own `OTEL_RESOURCE_ATTRIBUTES` come first and are overridden by what was observed, which is
//! overridden by `OTEL_RESOURCE_ATTRIBUTES` of Spantap; what identifies the process is never overridden from outside.
//! `service.name`: Spantap's `service_name`, the discovery entry, `OTEL_SERVICE_NAME` of the process, its
//! `OTEL_RESOURCE_ATTRIBUTES`, those of Spantap, the name of the executable.

mod environment;

use std::collections::BTreeMap;

use spantap_config::Config;
use uuid::Uuid;

use crate::{
    model::Process,
    otlp::wire,
    semconv::{SCOPE_VERSION, key},
    value::{Value, text},
};

/// Longest value of an attribute of a resource, in bytes.
const MAX_VALUE: usize = 1024;
/// Attributes of a resource at most; the process's own environment could hold any number.
const MAX_ATTRIBUTES: usize = 128;
/// Namespace for instance ids that are derived (semantic conventions, `service.instance.id`).
const INSTANCE_NAMESPACE: Uuid = Uuid::from_u128(0x4d63009a_8d0f_11ee_aad7_4c796ed8e320);
/// What the process alone decides: its environment and Spantap's can not say otherwise.
const IDENTITY: &[&str] = &[
    key::PROCESS_PID,
    key::PROCESS_CREATION_TIME,
    key::PROCESS_EXECUTABLE_NAME,
    key::PROCESS_EXECUTABLE_PATH,
    key::CONTAINER_ID,
    key::TELEMETRY_SDK_NAME,
    key::TELEMETRY_SDK_VERSION,
    key::TELEMETRY_SDK_LANGUAGE,
];

/// The host that processes run on, as the agent tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// `host.name`; empty if not known.
    pub name: String,
    /// `host.id`; empty if not known.
    pub id: String,
}

/// A resource, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Attributes, ordered by key, keys unique.
    pub attributes: BTreeMap<String, Value<'static>>,
    /// `opentelemetry.proto.resource.v1.Resource`, encoded.
    pub encoded: Vec<u8>,
}

impl Resource {
    /// A resource of `attributes`.
    pub fn new(attributes: BTreeMap<String, Value<'static>>) -> Self {
        let mut encoded = Vec::new();
        for (key, value) in &attributes {
            wire::attr(&mut encoded, 0x0a, key, value);
        }
        Self { attributes, encoded }
    }

    /// Bytes of memory that it takes, about: texts stand in it twice, and each attribute is an entry of a tree.
    pub fn bytes(&self) -> usize {
        2 * self.encoded.len() + 100 * self.attributes.len()
    }

    /// Text of the attribute `key`; empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        match self.attributes.get(key) {
            Some(Value::Str(text)) => text,
            _ => "",
        }
    }
}

/// Makes resources of processes.
#[derive(Debug, Clone)]
pub struct ResourceBuilder {
    service_name: Option<String>,
    service_namespace: Option<String>,
    added: Vec<(String, String)>,
    host: HostFacts,
    host_override: HostFacts,
}

impl ResourceBuilder {
    /// A builder with the configuration's overrides; the host is told later.
    pub fn new(config: &Config) -> Self {
        Self {
            service_name: config.service_name.clone(),
            service_namespace: config.service_namespace.clone(),
            added: config.resource_attributes.clone(),
            host: HostFacts::default(),
            host_override: HostFacts {
                name: config.host_name.clone().unwrap_or_default(),
                id: config.host_id.clone().unwrap_or_default(),
            },
        }
    }

    /// The same host under another configuration.
    pub fn reconfigured(&self, config: &Config) -> Self {
        Self { host: self.host.clone(), ..Self::new(config) }
    }

    /// Takes what the agent tells of its host; applies to resources built from now on.
    pub fn set_host(&mut self, host: HostFacts) {
        self.host = host;
    }

    fn host(&self) -> (&str, &str) {
        let name = if self.host_override.name.is_empty() { &self.host.name } else { &self.host_override.name };
        let id = if self.host_override.id.is_empty() { &self.host.id } else { &self.host_override.id };
        (name, id)
    }

    /// The resource of `process`.
    pub fn process(&self, process: &Process) -> Resource {
        let variable =
            |name: &str| process.environment.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str());
        let own: BTreeMap<_, _> = variable("OTEL_RESOURCE_ATTRIBUTES")
            .and_then(environment::attributes)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let added =
            |name: &str| self.added.iter().rev().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str());
        let own_value = |name: &str| own.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let executable = base_name(&process.executable);
        let (host_name, host_id) = self.host();

        let mut out = Attributes::default();
        out.extend(own.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        out.set(key::OS_TYPE, "linux");
        out.set(key::HOST_NAME, host_name);
        out.set(key::HOST_ID, host_id);
        out.extend(self.added.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        for key in IDENTITY {
            out.0.remove(*key);
        }
        out.0.insert(key::PROCESS_PID.into(), Value::Int(process.pid.into()));
        out.set(key::PROCESS_EXECUTABLE_NAME, executable);
        out.set(key::PROCESS_EXECUTABLE_PATH, &process.executable);
        out.set(key::PROCESS_CREATION_TIME, &rfc3339(process.start.0).unwrap_or_default());
        out.set(key::CONTAINER_ID, process.container_id.as_deref().unwrap_or_default());
        out.set(key::TELEMETRY_SDK_NAME, "spantap");
        out.set(key::TELEMETRY_SDK_VERSION, SCOPE_VERSION);
        out.set(
            key::TELEMETRY_SDK_LANGUAGE,
            process.language.as_deref().filter(|l| !l.is_empty()).unwrap_or("unknown"),
        );

        let name = [
            self.service_name.as_deref(),
            process.service_name.as_deref(),
            variable("OTEL_SERVICE_NAME"),
            own_value(key::SERVICE_NAME),
            added(key::SERVICE_NAME),
            Some(executable),
        ];
        out.set(key::SERVICE_NAME, name.into_iter().flatten().find(|n| !n.is_empty()).unwrap_or("unknown_service"));
        let namespace = [
            self.service_namespace.as_deref(),
            process.service_namespace.as_deref(),
            own_value(key::SERVICE_NAMESPACE),
            added(key::SERVICE_NAMESPACE),
        ];
        out.0.remove(key::SERVICE_NAMESPACE);
        out.set(key::SERVICE_NAMESPACE, namespace.into_iter().flatten().find(|n| !n.is_empty()).unwrap_or_default());
        // A process that gives itself an instance id reports under it; else one that stays the same while it lives.
        let derived = || {
            Uuid::new_v5(
                &INSTANCE_NAMESPACE,
                format!("{host_id}/{host_name}/{}/{}", process.pid, process.start.0).as_bytes(),
            )
        };
        match own_value(key::SERVICE_INSTANCE_ID) {
            Some(id) => out.set(key::SERVICE_INSTANCE_ID, id),
            None => out.set(key::SERVICE_INSTANCE_ID, &derived().to_string()),
        }
        Resource::new(out.0)
    }

    /// The resource of Spantap itself.
    pub fn own(&self) -> Resource {
        let (host_name, host_id) = self.host();
        let mut out = Attributes::default();
        out.set(key::SERVICE_NAME, "spantap");
        out.set(key::SERVICE_VERSION, SCOPE_VERSION);
        let pid = std::process::id();
        out.set(
            key::SERVICE_INSTANCE_ID,
            &Uuid::new_v5(&INSTANCE_NAMESPACE, format!("{host_id}/{host_name}/spantap/{pid}").as_bytes()).to_string(),
        );
        out.set(key::HOST_NAME, host_name);
        out.set(key::HOST_ID, host_id);
        out.set(key::OS_TYPE, "linux");
        out.0.insert(key::PROCESS_PID.into(), Value::Int(pid.into()));
        out.set(key::TELEMETRY_SDK_NAME, "spantap");
        out.set(key::TELEMETRY_SDK_VERSION, SCOPE_VERSION);
        out.set(key::TELEMETRY_SDK_LANGUAGE, "rust");
        Resource::new(out.0)
    }
}

#[derive(Default)]
struct Attributes(BTreeMap<String, Value<'static>>);

impl Attributes {
    /// Sets `key`; an empty value leaves it as it is.
    fn set(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            let value = text(value.as_bytes(), MAX_VALUE).into_owned();
            self.0.insert(key.to_owned(), Value::Str(value.into()));
        }
    }

    fn extend<'a>(&mut self, attributes: impl Iterator<Item = (&'a str, &'a str)>) {
        for (key, value) in attributes {
            if self.0.len() < MAX_ATTRIBUTES && !key.is_empty() && key.len() <= 256 {
                self.set(key, value);
            }
        }
    }
}

/// Last component of a path. An interpreter's is its own name (`python3.12`), as the executable is what is observed.
fn base_name(path: &str) -> &str {
    path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default()
}

/// `nanoseconds` since the Unix epoch as RFC 3339 with milliseconds; `None` for zero.
fn rfc3339(nanoseconds: u64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()?;
    (nanoseconds != 0).then(|| format!("{time:.3}"))
}

#[cfg(test)]
mod tests;
