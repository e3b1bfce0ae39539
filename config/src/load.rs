//! In: a flag, the environment, and through them a file. Out: the whole configuration, or the first error.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    attributes::attributes,
    capture,
    discovery::discovery,
    environment::Environment,
    error::{ConfigError, Place, Warning},
    exports, keys,
    otlp::{destinations, exporters},
    program, routes, sampling,
    settings::Settings,
    types::{Config, Console, Otlp},
    yaml,
};

/// Variables that name the file, the strongest first.
const PATH_VARIABLES: [&str; 3] = ["SPANTAP_CONFIG_PATH", "BEYLA_CONFIG_PATH", "OTEL_EBPF_CONFIG_PATH"];
/// More than a configuration file can have; the parser refuses what is longer than its own, lower bound.
const MOST_BYTES: u64 = 4 << 20;

/// A configuration and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What counts.
    pub config: Config,
    /// What its user should know, in the order in which it was found.
    pub warnings: Vec<Warning>,
    /// The file that was read, if any.
    pub source: Option<PathBuf>,
    /// Files beside it that have a part in it: secrets, certificates, keys.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Reads the configuration as a start does: defaults, then the file, then the environment.
    ///
    /// The file is named by `SPANTAP_CONFIG_PATH`, `BEYLA_CONFIG_PATH` or `OTEL_EBPF_CONFIG_PATH`, which win over `flag` as they do in
    /// Beyla. No file is fine. Fails if the file cannot be read or anything in it, or in the environment, cannot be honoured.
    pub fn load(flag: Option<&Path>, env: &Environment) -> Result<Loaded, ConfigError> {
        let variable = PATH_VARIABLES.iter().find_map(|name| env.get(name).map(Path::new));
        let Some(path) = variable.or(flag) else { return Self::read(None, env) };
        let text = read(path)?;
        Self::read(Some((path, &text)), env)
    }

    /// The same from a text that is already there; `path` is for messages.
    pub fn parse(path: &Path, text: &str, env: &Environment) -> Result<Loaded, ConfigError> {
        Self::read(Some((path, text)), env)
    }

    /// Whether anything is exported: by OTLP, for Prometheus or on the console. If not, [`Config::fallback`] says what may be.
    pub fn has_exporter(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some() || self.prometheus.is_some() || self.console != Console::Off
    }

    /// Files that the configuration names: headers, certificates, keys.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let traces = self.traces.iter().map(|of| &of.otlp);
        let destinations = traces.chain(self.metrics.iter().map(|of| &of.otlp));
        let scrape = self.prometheus.iter().flat_map(|of| of.scrape.tls.iter().flat_map(|(one, two)| [one, two]));
        destinations.flat_map(Otlp::files).chain(scrape)
    }

    fn read(file: Option<(&Path, &str)>, env: &Environment) -> Result<Loaded, ConfigError> {
        let source = file.map(|(path, _)| path.to_owned());
        let path = Arc::new(source.clone().unwrap_or_default());
        let place = keys::places(&path);
        let mut found = yaml::Found::default();
        let mut unserved = Vec::new();
        let root = match file {
            None => None,
            Some((_, text)) => {
                let flaw = |flaw: yaml::Flaw| ConfigError::Syntax { place: place(flaw.at), message: flaw.message };
                let mut root = yaml::parse(text).map_err(flaw)?;
                if let Some(root) = &mut root {
                    yaml::expand(root, env, &mut found).map_err(flaw)?;
                    unserved = keys::check(root, &place)?;
                }
                root
            }
        };
        let mut settings = Settings::new(root.as_ref(), Arc::clone(&path), env);
        settings.secret_files = found.files;
        settings.text = file.map(|(_, text)| text);
        for reference in found.unset {
            let message = format!("variable {} is not set, nothing is put in its place", reference.name);
            settings.warn(place(reference.at), message);
        }
        for warning in unserved.into_iter().chain(keys::check_variables(env)) {
            settings.warn(warning.place, warning.message);
        }
        let config = assemble(&mut settings)?;
        let mut files = settings.secret_files.clone();
        files.extend(config.files().filter(|path| !settings.secret_files.iter().any(|known| known == *path)).cloned());
        Ok(Loaded { config, warnings: settings.into_warnings(), source, files })
    }
}

/// Every section, one after the other.
fn assemble(settings: &mut Settings<'_>) -> Result<Config, ConfigError> {
    let names = program::names(settings)?;
    let exporters = exporters(settings)?;
    let discovery = discovery(settings)?;
    let sampler = sampling::sampler(settings)?;
    let agent = program::agent(settings, sampler)?;
    let destinations = destinations(settings, &exporters)?;
    let (prometheus, scraped) = exports::prometheus(settings)?;
    let console = exports::console(settings)?.or(exporters.console.then_some(Console::Text)).unwrap_or(Console::Off);
    let said = destinations.named || scraped || console != Console::Off;
    let config = Config {
        discovery,
        agent,
        socket: program::socket(settings)?,
        forwarder: program::forwarder(settings)?,
        spool: program::spool(settings)?,
        traces: destinations.traces,
        metrics: destinations.metrics,
        fallback: destinations.fallback.filter(|_| !said).map(Box::new),
        prometheus: prometheus.filter(|_| !exporters.disabled),
        console: if exporters.disabled { Console::Off } else { console },
        admin: program::admin(settings)?,
        routes: routes::routes(settings)?,
        redaction: exports::redaction(settings)?,
        headers: capture::headers(settings)?,
        attributes: attributes(settings)?,
        sampler,
        keep: sampling::keep(settings)?,
        links: program::links(settings)?,
        links_experimental: program::links_experimental(settings)?,
        exclude_instrumented: program::exclude_instrumented(settings)?,
        service_name: names.service_name,
        service_namespace: names.service_namespace,
        resource_attributes: names.resource_attributes,
        host_name: names.host_name,
        host_id: names.host_id,
        shutdown_timeout: program::shutdown_timeout(settings)?,
        log: program::log(settings)?,
    };
    conflicts(settings, &config)?;
    Ok(config)
}

/// What each section allows and both together do not.
fn conflicts(settings: &mut Settings<'_>, config: &Config) -> Result<(), ConfigError> {
    let (Some(prometheus), Some(admin)) = (&config.prometheus, config.admin) else { return Ok(()) };
    if prometheus.port == admin.port() {
        let place = settings.get("prometheus_export.port").map_or(Place::Effective, |given| given.place());
        return Err(ConfigError::Unsupported {
            place,
            key: "prometheus_export.port".to_owned(),
            message: format!("port {} is that of spantap.admin, too; give one of them another", prometheus.port),
        });
    }
    Ok(())
}

/// The text of a file, at most as long as a configuration can be.
fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let lines = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
        let place = Place::File { path: Arc::new(path.to_owned()), line: lines + 1, column: 1 };
        ConfigError::Syntax { place, message: "not UTF-8".to_owned() }
    })
}
