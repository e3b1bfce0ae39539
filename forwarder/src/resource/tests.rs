#![allow(clippy::unwrap_used)]
use super::*;
use crate::sample;

fn build(change: impl FnOnce(&mut Config, &mut Process)) -> Resource {
    let (mut config, mut process) = (sample::config(), sample::process(1, "shop"));
    change(&mut config, &mut process);
    let mut builder = ResourceBuilder::new(&config);
    builder.set_host(HostFacts { name: "web-1".into(), id: "abc".into() });
    builder.process(&process)
}

#[test]
fn facts_of_a_process() {
    let r = build(|_, p| p.container_id = Some("c".repeat(64)));
    for (key, value) in [
        (key::SERVICE_NAME, "shop"),
        (key::PROCESS_EXECUTABLE_NAME, "shop"),
        (key::PROCESS_EXECUTABLE_PATH, "/usr/bin/shop"),
        (key::PROCESS_CREATION_TIME, "2026-01-02T03:04:00.000Z"),
        (key::HOST_NAME, "web-1"),
        (key::HOST_ID, "abc"),
        (key::OS_TYPE, "linux"),
        (key::TELEMETRY_SDK_NAME, "spantap"),
        (key::TELEMETRY_SDK_LANGUAGE, "go"),
        (key::CONTAINER_ID, &"c".repeat(64)),
    ] {
        assert_eq!(r.text(key), value, "{key}");
    }
    assert_eq!(r.attributes.get(key::PROCESS_PID), Some(&Value::Int(1001)));
    assert_eq!(r.text(key::SERVICE_NAMESPACE), "");
    assert!(Uuid::parse_str(r.text(key::SERVICE_INSTANCE_ID)).is_ok());
}

#[test]
fn service_name_precedence() {
    let from = |levels: usize| {
        build(|c, p| {
            let on = |level| levels >= level;
            if on(1) {
                c.resource_attributes = vec![("service.name".into(), "spantap-attrs".into())];
            }
            if on(2) {
                p.environment.push(("OTEL_RESOURCE_ATTRIBUTES".into(), "service.name=own-attrs".into()));
            }
            if on(3) {
                p.environment.push(("OTEL_SERVICE_NAME".into(), "own-name".into()));
            }
            if on(4) {
                p.service_name = Some("entry".into());
            }
            if on(5) {
                c.service_name = Some("global".into());
            }
        })
        .text(key::SERVICE_NAME)
        .to_owned()
    };
    let names: Vec<_> = (0..=5).map(from).collect();
    assert_eq!(names, ["shop", "spantap-attrs", "own-attrs", "own-name", "entry", "global"]);
    assert_eq!(build(|_, p| p.executable.clear()).text(key::SERVICE_NAME), "unknown_service");
}

#[test]
fn the_instance_is_the_process() {
    let id = |change: fn(&mut Config, &mut Process)| build(change).text(key::SERVICE_INSTANCE_ID).to_owned();
    let base = id(|_, _| ());
    assert_eq!(base, id(|_, p| p.id = crate::model::ProcessId(99)), "the agent's numbering does not matter");
    assert_ne!(base, id(|_, p| p.pid += 1));
    assert_ne!(base, id(|_, p| p.start.0 += 1), "a reused pid is a new process");
    let own = id(|_, p| p.environment.push(("OTEL_RESOURCE_ATTRIBUTES".into(), "service.instance.id=i1".into())));
    assert_eq!(own, "i1");
}

/// The same process by number and start, on two hosts: one of two things that tell them apart will do.
#[test]
fn the_instance_is_of_its_host() {
    let (config, process) = (sample::config(), sample::process(1, "shop"));
    let on = |name: &str, id: &str| {
        let mut builder = ResourceBuilder::new(&config);
        builder.set_host(HostFacts { name: name.into(), id: id.into() });
        builder.process(&process).text(key::SERVICE_INSTANCE_ID).to_owned()
    };
    assert_eq!(on("web-1", "abc"), on("web-1", "abc"));
    assert_ne!(on("web-1", "abc"), on("web-2", "abc"), "a cloned machine id");
    assert_ne!(on("localhost", "abc"), on("localhost", "def"), "a name that every host has");
}

#[test]
fn environments_add_but_do_not_lie() {
    let r = build(|c, p| {
        let own = "deployment.environment.name=dev,host.name=lie,process.pid=1,container.id=lie,team=a";
        p.environment.push(("OTEL_RESOURCE_ATTRIBUTES".into(), own.into()));
        c.resource_attributes =
            vec![("deployment.environment.name".into(), "prod".into()), ("telemetry.sdk.name".into(), "x".into())];
    });
    assert_eq!(r.text("deployment.environment.name"), "prod");
    assert_eq!(r.text("team"), "a");
    assert_eq!(r.text(key::HOST_NAME), "web-1");
    assert_eq!(r.attributes.get(key::PROCESS_PID), Some(&Value::Int(1001)));
    assert!(!r.attributes.contains_key(key::CONTAINER_ID));
    assert_eq!(r.text(key::TELEMETRY_SDK_NAME), "spantap");
    let broken = build(|_, p| p.environment.push(("OTEL_RESOURCE_ATTRIBUTES".into(), "team=a,broken".into())));
    assert!(!broken.attributes.contains_key("team"));
}

#[test]
fn encoding_holds_every_attribute() {
    use prost::Message;
    let r = build(|_, _| ());
    let decoded = opentelemetry_proto::tonic::resource::v1::Resource::decode(r.encoded.as_slice()).unwrap();
    let keys: Vec<_> = decoded.attributes.iter().map(|a| a.key.clone()).collect();
    assert_eq!(keys, r.attributes.keys().cloned().collect::<Vec<_>>());
}
