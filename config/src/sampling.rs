//! In: `otel_traces_export.sampler` with the variables of the OpenTelemetry specification, `sampler` of a discovery entry,
//! `spantap.sampler`. Out: the head sampler, and what is kept whatever it says.

use crate::{
    error::ConfigError,
    given::Given,
    otel,
    settings::Settings,
    types::{KeepSpans, Sampler},
};

const RATIO: &str = "a share from 0 to 1";

/// What a name of a sampler stands for.
#[derive(Clone, Copy)]
enum Kind {
    On,
    Off,
    Ratio,
    ParentOn,
    ParentOff,
    ParentRatio,
}

const KINDS: [(&str, Kind); 6] = [
    ("always_on", Kind::On),
    ("always_off", Kind::Off),
    ("traceidratio", Kind::Ratio),
    ("parentbased_always_on", Kind::ParentOn),
    ("parentbased_always_off", Kind::ParentOff),
    ("parentbased_traceidratio", Kind::ParentRatio),
];

fn made(kind: Kind, ratio: f64) -> Sampler {
    match kind {
        Kind::On => Sampler::AlwaysOn,
        Kind::Off => Sampler::AlwaysOff,
        Kind::Ratio => Sampler::TraceIdRatio(ratio),
        Kind::ParentOn => Sampler::ParentBasedAlwaysOn,
        Kind::ParentOff => Sampler::ParentBasedAlwaysOff,
        Kind::ParentRatio => Sampler::ParentBasedTraceIdRatio(ratio),
    }
}

impl Sampler {
    /// The name that the OpenTelemetry specification gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlwaysOn => "always_on",
            Self::AlwaysOff => "always_off",
            Self::TraceIdRatio(_) => "traceidratio",
            Self::ParentBasedAlwaysOn => "parentbased_always_on",
            Self::ParentBasedAlwaysOff => "parentbased_always_off",
            Self::ParentBasedTraceIdRatio(_) => "parentbased_traceidratio",
        }
    }

    /// Its share, 0..=1, if it has one.
    pub fn ratio(self) -> Option<f64> {
        match self {
            Self::TraceIdRatio(ratio) | Self::ParentBasedTraceIdRatio(ratio) => Some(ratio),
            _ => None,
        }
    }

    /// Of the random numbers of traces, 0..2^56, those not below this are kept where no parent decides; 2^56 keeps none. Rounded as
    /// the specification of `tracestate` advises: four hexadecimal digits beyond leading `f`s, so that it is short there. The
    /// decision is made by the rounded one, so that what is told is what was done.
    pub fn threshold(self) -> u64 {
        const BITS: u32 = 56;
        const MAX: u64 = (1 << BITS) - 1;
        const DIGITS: u32 = 4;
        let ratio = match self {
            Self::AlwaysOn | Self::ParentBasedAlwaysOn => 1.0,
            Self::AlwaysOff | Self::ParentBasedAlwaysOff => 0.0,
            Self::TraceIdRatio(ratio) | Self::ParentBasedTraceIdRatio(ratio) => ratio,
        };
        let exact = ((1.0 - ratio.clamp(0.0, 1.0)) * (MAX + 1) as f64).round() as u64;
        let exact = exact.min(MAX + 1);
        let leading = ((!(exact << (64 - BITS))).leading_zeros() / 4).min(BITS / 4);
        let kept = (leading + DIGITS) * 4;
        if exact > MAX || kept >= BITS {
            return exact;
        }
        let step = 1 << (BITS - kept);
        let rounded = (exact + step / 2) / step * step;
        // Rounding never turns "some" into "none".
        if rounded > MAX { exact } else { rounded }
    }

    /// The sampler of this name; `ratio` matters for those by share only. `None` for a name that nobody knows and for a
    /// share that is none.
    pub fn named(name: &str, ratio: f64) -> Option<Self> {
        let (_, kind) = KINDS.iter().find(|(known, _)| *known == name)?;
        (0.0..=1.0).contains(&ratio).then(|| made(*kind, ratio))
    }
}

/// Reads the head sampler.
pub(crate) fn sampler(settings: &mut Settings<'_>) -> Result<Sampler, ConfigError> {
    // A variable that says nothing known is reported and ignored; the file counts then.
    let mut kind = None;
    if let Some(given) = settings.variable("otel_traces_export.sampler.name") {
        kind = otel::word(settings, &given, &KINDS)?;
    }
    if let (None, Some(given)) = (kind, settings.file("otel_traces_export.sampler.name")) {
        kind = Some(given.word(&KINDS)?);
    }
    let ratio = ratio(settings)?;
    Ok(made(kind.unwrap_or(Kind::ParentOn), ratio))
}

/// The argument of the ratio samplers; 1 if there is none, as in the specification.
fn ratio(settings: &mut Settings<'_>) -> Result<f64, ConfigError> {
    if let Some(given) = settings.variable("otel_traces_export.sampler.arg") {
        match share(given.text()?) {
            Some(ratio) => return Ok(ratio),
            None => settings.warn(given.place(), format!("found {}, expected {RATIO}; ignored", given.shown()?)),
        }
    }
    match settings.file("otel_traces_export.sampler.arg") {
        Some(given) => share(given.text()?).ok_or_else(|| given.invalid(RATIO)),
        None => Ok(1.0),
    }
}

fn share(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

/// Reads `sampler` of a discovery entry; `None` if it names none.
pub(crate) fn of_service(given: &Given<'_>) -> Result<Option<Sampler>, ConfigError> {
    let (mut kind, mut ratio) = (None, 1.0);
    for (entry, value) in given.entries()? {
        match entry.key.as_str() {
            _ if value.is_null() => {}
            "name" => kind = Some(value.word(&KINDS)?),
            "arg" => ratio = share(value.text()?).ok_or_else(|| value.invalid(RATIO))?,
            _ => {
                return Err(ConfigError::UnknownKey {
                    place: given.at(entry.key_at),
                    key: value.key.clone(),
                    hint: Some("known here: name or arg".to_owned()),
                });
            }
        }
    }
    Ok(kind.map(|kind| made(kind, ratio)))
}

/// Reads what is kept whatever the sampler says.
pub(crate) fn keep(settings: &Settings<'_>) -> Result<KeepSpans, ConfigError> {
    let mut keep = KeepSpans::default();
    if let Some(given) = settings.get("spantap.sampler.keep_errors") {
        keep.errors = given.boolean()?;
    }
    if let Some(given) = settings.get("spantap.sampler.keep_slower_than") {
        keep.slower_than = Some(given.duration()?).filter(|limit| !limit.is_zero());
    }
    if let Some(given) = settings.get("spantap.sampler.keep_slowest") {
        keep.slowest = given.number(0, 1000)?;
    }
    Ok(keep)
}
