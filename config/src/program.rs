//! In: keys of the program itself. Out: names, logging, socket, admin address, agent's sizes.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    error::ConfigError,
    otel,
    otlp::{resource_attributes, usage_interval},
    propagation,
    settings::Settings,
    types::{
        Agent, ExcludeInstrumented, ExperimentalLinks, Forwarder, Hooks, Log, LogFormat, LogLevel, Sampler, Spool,
    },
};

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
const RING_BUFFER_BYTES: u32 = 8 << 20;
const QUEUE_BYTES: usize = 4 << 20;
const HEAD_BYTES: u32 = 4096;
const SPOOL_BYTES: u64 = 512 << 20;
const SPOOL_AGE: Duration = Duration::from_secs(24 * 3600);

/// Names of services and of the host.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) service_name: Option<String>,
    pub(crate) service_namespace: Option<String>,
    pub(crate) resource_attributes: Vec<(String, String)>,
    pub(crate) host_name: Option<String>,
    pub(crate) host_id: Option<String>,
}

/// Reads names. `service.name` and `service.namespace` of `OTEL_RESOURCE_ATTRIBUTES` count where nothing else names them.
pub(crate) fn names(settings: &mut Settings<'_>) -> Result<Names, ConfigError> {
    let mut attributes = Vec::new();
    if let Some(given) = settings.named("OTEL_RESOURCE_ATTRIBUTES", "OTEL_RESOURCE_ATTRIBUTES") {
        match resource_attributes(given.text()?) {
            Ok(given) => attributes = given,
            Err(flaw) => settings.warn(given.place(), format!("{flaw}; the whole variable is ignored")),
        }
    }
    let mut take = |key: &str| {
        let index = attributes.iter().position(|(known, _)| known == key)?;
        Some(attributes.remove(index).1)
    };
    let (attribute_name, attribute_namespace) = (take("service.name"), take("service.namespace"));
    Ok(Names {
        service_name: text(settings, "service_name")?.or(attribute_name),
        service_namespace: text(settings, "service_namespace")?.or(attribute_namespace),
        resource_attributes: attributes,
        host_name: text(settings, "attributes.instance_id.override_hostname")?,
        host_id: text(settings, "attributes.host_id.override")?,
    })
}

/// A text; an empty one is none.
fn text(settings: &Settings<'_>, key: &'static str) -> Result<Option<String>, ConfigError> {
    let Some(given) = settings.get(key) else { return Ok(None) };
    Ok(Some(given.text()?.to_owned()).filter(|text| !text.is_empty()))
}

/// Reads logging. `OTEL_LOG_LEVEL` is the weakest.
pub(crate) fn log(settings: &mut Settings<'_>) -> Result<Log, ConfigError> {
    #[rustfmt::skip]
    const LEVELS: [(&str, LogLevel); 6] = [
        ("debug", LogLevel::Debug), ("info", LogLevel::Info), ("warn", LogLevel::Warn), ("warning", LogLevel::Warn),
        ("error", LogLevel::Error), ("trace", LogLevel::Debug),
    ];
    let level = match settings.get("log_level") {
        Some(given) => Some(given.word(&LEVELS)?),
        None => match settings.named("OTEL_LOG_LEVEL", "log_level") {
            Some(given) => otel::word(settings, &given, &LEVELS)?,
            None => None,
        },
    };
    let format = match settings.get("log_format") {
        Some(given) => given.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])?,
        None => LogFormat::Text,
    };
    Ok(Log { level: level.unwrap_or(LogLevel::Info), format })
}

/// How long draining may take.
pub(crate) fn shutdown_timeout(settings: &Settings<'_>) -> Result<Duration, ConfigError> {
    settings.get("shutdown_timeout").map_or(Ok(SHUTDOWN_TIMEOUT), |given| given.duration())
}

/// Path of the ingest socket.
pub(crate) fn socket(settings: &Settings<'_>) -> Result<PathBuf, ConfigError> {
    /// `sun_path` of a Unix address, without its final zero (unix(7)).
    const MOST: usize = 107;
    let Some(given) = settings.get("spantap.socket") else { return Ok(settings.env.default_socket()) };
    let path = given.text()?;
    if !path.starts_with('/') || path.len() > MOST || path.contains('\0') {
        return Err(given.invalid(&format!("an absolute path of at most {MOST} bytes")));
    }
    Ok(PathBuf::from(path))
}

/// Address of health, readiness and self-metrics.
pub(crate) fn admin(settings: &Settings<'_>) -> Result<Option<SocketAddr>, ConfigError> {
    const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9465);
    let Some(given) = settings.get("spantap.admin") else { return Ok(Some(DEFAULT)) };
    let text = given.text()?.trim();
    // YAML 1.1 calls `off` a truth value; people write `false` for it.
    if text.eq_ignore_ascii_case("off") || text.eq_ignore_ascii_case("false") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| given.invalid("an address with port such as 127.0.0.1:9465, or off"))
}

/// Sizes that concern the agent.
pub(crate) fn agent(settings: &mut Settings<'_>, sampler: Sampler) -> Result<Agent, ConfigError> {
    let ring_buffer_bytes = match settings.get("spantap.ring_buffer_size") {
        None => RING_BUFFER_BYTES,
        Some(given) => {
            let bytes = bytes(given.text()?).and_then(|bytes| u32::try_from(bytes).ok());
            bytes.filter(|bytes| bytes.is_power_of_two() && (65_536..=1 << 30).contains(bytes)).ok_or_else(|| {
                given.invalid("a power of two from 64KiB to 1GiB, as bytes or with a unit (KiB, MiB, GiB)")
            })?
        }
    };
    let queue_bytes = match settings.get("spantap.agent_queue_size") {
        None => QUEUE_BYTES,
        Some(given) => {
            let bytes = bytes(given.text()?).and_then(|bytes| usize::try_from(bytes).ok());
            bytes
                .filter(|bytes| (65_536..=1 << 30).contains(bytes))
                .ok_or_else(|| given.invalid("64KiB to 1GiB, as bytes or with a unit (KiB, MiB, GiB)"))?
        }
    };
    let head_bytes = match settings.get("spantap.head_size") {
        None => HEAD_BYTES,
        Some(given) => {
            let bytes = bytes(given.text()?).and_then(|bytes| u32::try_from(bytes).ok());
            bytes
                .filter(|bytes| (256..=16_384).contains(bytes))
                .ok_or_else(|| given.invalid("256 to 16384 bytes, as bytes or with a unit (KiB)"))?
        }
    };
    let forwarder_uids = uids(settings, "spantap.forwarder_uids")?;
    let hooks = match settings.get("spantap.hooks") {
        None => Hooks::Auto,
        Some(given) => {
            let text = given.text()?.trim().to_ascii_lowercase();
            let known = Hooks::WORDS.iter().find(|(word, _)| *word == text);
            known.map(|(_, hooks)| *hooks).ok_or_else(|| given.invalid("auto, fentry, tracepoint or kprobe"))?
        }
    };
    let btf = match settings.get("spantap.btf") {
        None => None,
        Some(given) => match given.text()? {
            "" => None,
            path if path.starts_with('/') && path.len() < 4096 && !path.contains('\0') => Some(PathBuf::from(path)),
            _ => return Err(given.invalid("the absolute path of a file with BTF, or of a folder with RELEASE.btf")),
        },
    };
    let tls = match settings.get("spantap.tls") {
        None => true,
        Some(given) => match given.text()?.trim().to_ascii_lowercase().as_str() {
            "auto" => true,
            // YAML 1.1 calls `off` a truth value; people write `false` for it.
            "off" | "false" => false,
            _ => return Err(given.invalid("auto (TLS libraries are read where that is allowed) or off")),
        },
    };
    let usage_interval = usage_interval(settings)?;
    let propagation = propagation::propagation(settings, sampler)?;
    Ok(Agent {
        ring_buffer_bytes,
        queue_bytes,
        head_bytes,
        forwarder_uids,
        hooks,
        btf,
        tls,
        propagation,
        usage_interval,
    })
}

/// Whether spans are linked beyond what headers say.
pub(crate) fn links(settings: &Settings<'_>) -> Result<bool, ConfigError> {
    let Some(given) = settings.get("spantap.links") else { return Ok(true) };
    match given.text()?.trim().to_ascii_lowercase().as_str() {
        "auto" => Ok(true),
        // YAML 1.1 calls `off` a truth value; people write `false` for it.
        "off" | "false" => Ok(false),
        _ => Err(given.invalid("auto (spans are linked where a rule is proven) or off")),
    }
}

/// What is linked although that is an experiment, each once.
pub(crate) fn links_experimental(settings: &Settings<'_>) -> Result<Vec<ExperimentalLinks>, ConfigError> {
    let mut runtimes = Vec::new();
    let Some(given) = settings.get("spantap.links_experimental") else { return Ok(runtimes) };
    for item in given.items()? {
        let runtime = item.word(&ExperimentalLinks::WORDS)?;
        if !runtimes.contains(&runtime) {
            runtimes.push(runtime);
        }
    }
    Ok(runtimes)
}

/// What is left out of programs that export telemetry of their own. Metrics need the general switch to be on.
pub(crate) fn exclude_instrumented(settings: &mut Settings<'_>) -> Result<ExcludeInstrumented, ConfigError> {
    let spans = match settings.get("discovery.exclude_otel_instrumented_services") {
        Some(given) => given.boolean()?,
        None => true,
    };
    let mut metrics = false;
    if let Some(given) = settings.get("spantap.exclude_instrumented_metrics") {
        metrics = given.boolean()?;
        if metrics && !spans {
            settings.warn(
                given.place(),
                "spantap.exclude_instrumented_metrics has no effect where discovery.exclude_otel_instrumented_services is false",
            );
        }
    }
    Ok(ExcludeInstrumented { spans, metrics: metrics && spans })
}

/// Whom the forwarder runs as and takes for the agent.
pub(crate) fn forwarder(settings: &mut Settings<'_>) -> Result<Forwarder, ConfigError> {
    Ok(Forwarder { user: text(settings, "spantap.user")?, agent_uids: uids(settings, "spantap.agent_uids")? })
}

/// Where is kept what a destination cannot take. Without a path there is none, and the other keys have no effect.
pub(crate) fn spool(settings: &mut Settings<'_>) -> Result<Option<Spool>, ConfigError> {
    let max_bytes = match settings.get("spantap.spool.max_size") {
        None => SPOOL_BYTES,
        Some(given) => bytes(given.text()?)
            .filter(|bytes| (16 << 20..=256 << 30).contains(bytes))
            .ok_or_else(|| given.invalid("16MiB to 256GiB, as bytes or with a unit (KiB, MiB, GiB)"))?,
    };
    let max_age = match settings.get("spantap.spool.max_age") {
        None => SPOOL_AGE,
        Some(given) => {
            let age = given.duration()?;
            if age < Duration::from_secs(1) {
                return Err(given.invalid("1s or longer"));
            }
            age
        }
    };
    let path = match settings.get("spantap.spool.path") {
        Some(given) => match given.text()? {
            "" => None,
            path if path.starts_with('/') && path.len() < 4096 && !path.contains('\0') => Some(PathBuf::from(path)),
            _ => return Err(given.invalid("the absolute path of a folder")),
        },
        None => None,
    };
    if path.is_none() {
        for key in ["spantap.spool.max_size", "spantap.spool.max_age"] {
            if let Some(given) = settings.get(key) {
                settings.warn(given.place(), format!("{key} has no effect without spantap.spool.path"));
            }
        }
    }
    Ok(path.map(|path| Spool { path, max_bytes, max_age }))
}

/// Numeric user ids; none if the key is not there.
fn uids(settings: &Settings<'_>, key: &'static str) -> Result<Vec<u32>, ConfigError> {
    let Some(given) = settings.get(key) else { return Ok(Vec::new()) };
    let uids = given.items()?.iter().map(|item| item.number(0, u32::MAX - 1)).collect::<Result<Vec<u32>, _>>()?;
    // The absence of the key has a meaning of its own; a list that came out empty must not have it.
    if uids.is_empty() {
        return Err(given.invalid("numeric user ids; without any, leave the key out"));
    }
    Ok(uids)
}

/// `4096`, `64KiB`, `8MiB`, `1GiB`; `K`, `M`, `G` for short, all by 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" | "kb" => 1 << 10,
        "m" | "mib" | "mb" => 1 << 20,
        "g" | "gib" | "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
