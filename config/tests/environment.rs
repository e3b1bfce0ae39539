//! Variables of the OpenTelemetry specification, and who runs the program.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{clean, load, warnings};
use spantap_config::{Environment, LogLevel, Sampler};

#[test]
fn samplers_of_the_variables_fall_back_as_specified() {
    let sampler = |variables: &[(&str, &str)]| {
        let loaded = load("otel_traces_export: {sampler: {name: traceidratio, arg: '0.5'}}", variables);
        (loaded.config.sampler, loaded.warnings.len())
    };
    assert_eq!(sampler(&[]), (Sampler::TraceIdRatio(0.5), 0));
    assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER_ARG", "0.25")]), (Sampler::TraceIdRatio(0.25), 0));
    assert_eq!(
        sampler(&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")]),
        (Sampler::ParentBasedTraceIdRatio(0.5), 0)
    );
    assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER", "xray")]), (Sampler::TraceIdRatio(0.5), 1));
    assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER_ARG", "7")]), (Sampler::TraceIdRatio(0.5), 1));
    assert_eq!(load("", &[("OTEL_TRACES_SAMPLER", "traceidratio")]).config.sampler, Sampler::TraceIdRatio(1.0));
    assert_eq!(load("", &[]).config.sampler, Sampler::ParentBasedAlwaysOn);
}

#[test]
fn names_come_from_variables_of_the_specification() {
    let config = clean("", &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=pro%20d,x=%2C")]);
    assert_eq!(config.service_name.as_deref(), Some("a"));
    let expected = [("deployment.environment.name", "pro d"), ("x", ",")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(config.resource_attributes, expected);
    let config = clean(
        "",
        &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"), ("OTEL_SERVICE_NAME", "b"), ("BEYLA_SERVICE_NAME", "c")],
    );
    assert_eq!(config.service_name.as_deref(), Some("b"));
    for bad in ["a=b,c", "a=%zz", "a=%ff", "=b", "a=b=c"] {
        let loaded = load("", &[("OTEL_RESOURCE_ATTRIBUTES", bad)]);
        assert_eq!((loaded.config.resource_attributes.len(), loaded.warnings.len()), (0, 1), "{bad}");
    }
    assert_eq!(load("", &[("OTEL_LOG_LEVEL", "error")]).config.log.level, LogLevel::Error);
    assert_eq!(
        load("", &[("OTEL_LOG_LEVEL", "error"), ("SPANTAP_LOG_LEVEL", "debug")]).config.log.level,
        LogLevel::Debug
    );
    assert_eq!(warnings("", &[("OTEL_LOG_LEVEL", "loud")]).len(), 1);
}

#[test]
fn the_socket_is_where_its_user_can_make_it() {
    let socket = |env: Environment| {
        let loaded = spantap_config::Config::parse(std::path::Path::new("c"), "", &env).unwrap();
        loaded.config.socket.to_str().unwrap().to_owned()
    };
    let own = Environment::of([("XDG_RUNTIME_DIR", "/run/user/1000")]);
    assert_eq!(socket(own.clone().as_user(1000, false)), "/run/user/1000/spantap/ingest.sock");
    assert_eq!(socket(own.clone().as_user(1000, true)), "/run/spantap/ingest.sock");
    assert_eq!(socket(own.as_user(0, false)), "/run/spantap/ingest.sock");
    assert_eq!(
        socket(Environment::of([("XDG_RUNTIME_DIR", "relative")]).as_user(1000, false)),
        "/run/spantap/ingest.sock"
    );
    assert_eq!(socket(Environment::of([("SPANTAP_SOCKET", "/x")]).as_user(1000, false)), "/x");
}
