//! The Kubernetes manifests and the Helm chart, without a cluster: what the API server would refuse is refused here.
//!
//! In: `packaging/kubernetes`, `packaging/helm`; helm and a reader that knows the API's own types (tools/kubernetes.sh).
//! Out: objects as the API reads them, and what they ask for.
// A look into a JSON value answers null for what is not there; it does not panic.
#![allow(missing_docs, clippy::indexing_slicing)]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use spantap_tests::{
    host,
    spantap::clear_environment,
    suite::{Suite, World},
};

/// The version whose fields the chart asks for at least.
const KUBERNETES: &str = "1.30.0";

/// Folder of the programs.
struct Tools(PathBuf);

impl World for Tools {
    fn logs(&self) -> String {
        String::new()
    }
}

fn main() -> ExitCode {
    Suite::new("kubernetes", [host::lacks("go")], tools)
        .case("manifests_are_what_the_api_reads", |tools| manifests(tools))
        .case("reader_refuses_mistakes", |tools| refuses(tools))
        .case("chart_passes_lint", |tools| lint(tools))
        .case("chart_renders_the_manifests", |tools| same(tools))
        .case("chart_values_reach_their_places", |tools| values(tools))
        .case("chart_refuses_unknown_values", |tools| unknown_values(tools))
        .case("agent_by_capabilities_forwarder_without", |tools| privilege(tools))
        .case("parts_fit_together", |tools| fits(tools))
        .case("configuration_is_one_that_spantap_takes", |tools| configuration(tools))
        .run()
}

fn tools() -> Result<Tools> {
    let output = Command::new(host::repository().join("tools/kubernetes.sh")).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "tools/kubernetes.sh: {}", output.status);
    Ok(Tools(PathBuf::from(String::from_utf8(output.stdout)?.trim())))
}

impl Tools {
    fn helm(&self, arguments: &[&str]) -> Result<Output> {
        let home = host::folder()?;
        Command::new(self.0.join("helm"))
            .args(arguments)
            .current_dir(host::repository().join("packaging/helm"))
            // Nothing of the user's own: no repositories, no plug-ins, no cluster.
            .env("HOME", home.path())
            .env_remove("KUBECONFIG")
            .output()
            .context("helm does not start")
    }

    fn template(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let fixed = ["template", "spantap", "spantap", "--namespace", "spantap", "--kube-version", KUBERNETES];
        let output = self.helm(&[&fixed[..], arguments].concat())?;
        ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
        self.read(&String::from_utf8(output.stdout)?)
    }

    /// Reads YAML documents into the API's types.
    fn read(&self, text: &str) -> Result<Vec<Value>> {
        let mut child = Command::new(self.0.join("manifests"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // It reads everything before it writes anything.
        child.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// The plain manifests, in the order in which kubectl applies a folder.
fn plain() -> Result<String> {
    let folder = host::repository().join("packaging/kubernetes");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    let texts = files.iter().map(std::fs::read_to_string).collect::<std::io::Result<Vec<_>>>()?;
    Ok(texts.join("\n---\n"))
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object["kind"].as_str()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind)
        .with_context(|| format!("no {kind} among {:?}", kinds(objects)))
}

fn container<'a>(daemon_set: &'a Value, name: &str) -> Result<&'a Value> {
    let containers = daemon_set["spec"]["template"]["spec"]["containers"].as_array().context("no containers")?;
    containers.iter().find(|container| container["name"] == name).with_context(|| format!("no container {name}"))
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    container["env"].as_array()?.iter().find(|variable| variable["name"] == name)
}

fn manifests(tools: &Tools) -> Result<()> {
    let objects = tools.read(&plain()?)?;
    ensure!(kinds(&objects) == ["Namespace", "ConfigMap", "DaemonSet"], "{:?}", kinds(&objects));
    let namespace = of_kind(&objects, "Namespace")?;
    ensure!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged", "{namespace}");
    Ok(())
}

/// The checks above are worth nothing if the reader takes anything.
fn refuses(tools: &Tools) -> Result<()> {
    let good = plain()?;
    for (from, to, names) in [
        ("readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true", "readOnlyRootFileSystem"),
        ("hostPID: true", "hostPID: \"yes\"", "hostPID"),
        ("periodSeconds: 10", "periodSeconds: ten", "periodSeconds"),
        ("kind: DaemonSet", "kind: DemonSet", "DemonSet"),
    ] {
        ensure!(good.contains(from), "the manifests do not hold {from:?}");
        match tools.read(&good.replacen(from, to, 1)) {
            Ok(_) => bail!("{to:?} was taken"),
            Err(error) => ensure!(format!("{error:#}").contains(names), "{to:?}: {error:#}"),
        }
    }
    Ok(())
}

fn lint(tools: &Tools) -> Result<()> {
    let output = tools.helm(&["lint", "--strict", "--kube-version", KUBERNETES, "spantap"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn same(tools: &Tools) -> Result<()> {
    let mut rendered = tools.template(&[])?;
    for object in &mut rendered {
        // What helm adds for itself.
        for label in ["app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"] {
            object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut).context("no labels")?.remove(label);
        }
        if let Some(pod) = object.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
            pod.remove("annotations").context("a changed configuration would start no new pods")?;
        }
    }
    let mut plain = tools.read(&plain()?)?;
    plain.retain(|object| object["kind"] != "Namespace");
    for objects in [&mut rendered, &mut plain] {
        for object in objects.iter_mut() {
            // The same YAML, indented as each likes.
            if let Some(text) = object["data"]["spantap.yml"].as_str() {
                let lines: Vec<_> = text.lines().map(str::trim).collect();
                object["data"]["spantap.yml"] = lines.join("\n").into();
            }
        }
    }
    ensure!(rendered == plain, "helm: {rendered:?}\nplain: {plain:?}");
    Ok(())
}

fn values(tools: &Tools) -> Result<()> {
    let objects = tools.template(&[
        "--set",
        "endpoint=https://otlp.example.com,headersSecret=mine,image.tag=9.9,agent.seccompProfile=Unconfined",
        "--set-json",
        r#"discovery={"instrument":[{"open_ports":"8080"}]}"#,
        "--set-json",
        r#"config={"routes":{"patterns":["/users/{id}"]}}"#,
        "--set-json",
        r#"tolerations=[]"#,
        "--set-json",
        r#"forwarder.extraEnv=[{"name":"OTEL_EXPORTER_OTLP_COMPRESSION","value":"gzip"}]"#,
    ])?;
    let file = of_kind(&objects, "ConfigMap")?["data"]["spantap.yml"].as_str().unwrap_or_default();
    ensure!(file.contains("8080") && file.contains("/users/{id}") && !file.contains("containers_only"), "{file}");
    let daemon_set = of_kind(&objects, "DaemonSet")?;
    let (forwarder, agent) = (container(daemon_set, "forwarder")?, container(daemon_set, "agent")?);
    ensure!(forwarder["image"] == "spantap:9.9" && agent["image"] == "spantap-agent:9.9", "{forwarder}{agent}");
    ensure!(agent["securityContext"]["seccompProfile"]["type"] == "Unconfined", "{agent}");
    ensure!(daemon_set["spec"]["template"]["spec"].get("tolerations").is_none(), "{daemon_set}");
    let value = |name: &str| variable(forwarder, name).with_context(|| format!("no {name}: {forwarder}"));
    ensure!(value("OTEL_EXPORTER_OTLP_ENDPOINT")?["value"] == "https://otlp.example.com");
    ensure!(value("OTEL_EXPORTER_OTLP_HEADERS")?["valueFrom"]["secretKeyRef"]["name"] == "mine");
    ensure!(value("OTEL_EXPORTER_OTLP_COMPRESSION")?["value"] == "gzip");
    ensure!(!file.contains("spool") && volume(daemon_set, "spool").is_none(), "a spool that nobody asked for: {file}");
    for (more, kind) in [(None, "emptyDir"), (Some("spool.hostPath=/var/lib/node"), "hostPath")] {
        let set: Vec<&str> = ["spool.enabled=true,spool.maxSize=1GiB"].into_iter().chain(more).collect();
        let objects = tools.template(&["--set", &set.join(",")])?;
        let file = of_kind(&objects, "ConfigMap")?["data"]["spantap.yml"].as_str().unwrap_or_default();
        ensure!(file.contains("path: /var/lib/spantap/spool") && file.contains("max_size: 1GiB"), "{file}");
        let daemon_set = of_kind(&objects, "DaemonSet")?;
        ensure!(volume(daemon_set, "spool").is_some_and(|volume| volume.get(kind).is_some()), "{daemon_set}");
        let mounts = |name| Ok::<_, anyhow::Error>(container(daemon_set, name)?["volumeMounts"].to_string());
        ensure!(mounts("forwarder")?.contains("/var/lib/spantap"), "the forwarder cannot reach it");
        ensure!(!mounts("agent")?.contains("/var/lib/spantap"), "the agent has no use for it");
    }
    let objects = tools.template(&["--set", "agent.tls=true"])?;
    let security = &container(of_kind(&objects, "DaemonSet")?, "agent")?["securityContext"];
    let added = json!(["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_ADMIN", "CHECKPOINT_RESTORE"]);
    ensure!(security["capabilities"] == json!({"drop": ["ALL"], "add": added}), "{security}");
    ensure!(security["allowPrivilegeEscalation"] == false && security["privileged"] == false, "{security}");
    let objects = tools.template(&[
        "--set",
        "agent.contextPropagation=true",
        "--set-json",
        r#"config={"ebpf":{"wakeup_len":7}}"#,
    ])?;
    let file = of_kind(&objects, "ConfigMap")?["data"]["spantap.yml"].as_str().unwrap_or_default();
    ensure!(file.contains("context_propagation: headers") && file.contains("wakeup_len: 7"), "{file}");
    let security = &container(of_kind(&objects, "DaemonSet")?, "agent")?["securityContext"];
    let added = json!(["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN"]);
    ensure!(security["capabilities"] == json!({"drop": ["ALL"], "add": added}), "{security}");
    // Credentials are the forwarder's alone.
    let names: Vec<_> = agent["env"].as_array().context("no env")?.iter().map(|v| v["name"].clone()).collect();
    ensure!(names == ["SPANTAP_CONFIG_PATH", "SPANTAP_SOCKET"], "{names:?}");
    Ok(())
}

fn volume<'a>(daemon_set: &'a Value, name: &str) -> Option<&'a Value> {
    daemon_set["spec"]["template"]["spec"]["volumes"].as_array()?.iter().find(|volume| volume["name"] == name)
}

fn unknown_values(tools: &Tools) -> Result<()> {
    for (set, names) in [
        ("agent.privileged=true", "privileged"),
        ("agent.tls=auto", "tls"),
        ("agent.contextPropagation=headers", "contextPropagation"),
        ("endpoint=collector:4318", "endpoint"),
        ("tolerations=all", "tolerations"),
        ("spool.hostPath=var", "hostPath"),
    ] {
        let output = tools.helm(&["template", "x", "spantap", "--kube-version", KUBERNETES, "--set", set])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(names), "{set} was taken: {said}");
    }
    Ok(())
}

fn privilege(tools: &Tools) -> Result<()> {
    let objects = tools.read(&plain()?)?;
    let daemon_set = of_kind(&objects, "DaemonSet")?;
    let pod = &daemon_set["spec"]["template"]["spec"];
    ensure!(pod["hostPID"] == true && pod["automountServiceAccountToken"] == false, "{pod}");
    for forbidden in ["hostNetwork", "hostIPC", "serviceAccountName"] {
        ensure!(pod.get(forbidden).is_none(), "{forbidden}: {pod}");
    }
    for volume in pod["volumes"].as_array().context("no volumes")? {
        ensure!(volume.get("hostPath").is_none(), "a path of the node is mounted: {volume}");
    }
    for name in ["forwarder", "agent"] {
        let security = &container(daemon_set, name)?["securityContext"];
        ensure!(security["privileged"] != true, "{name}: {security}");
        ensure!(security["allowPrivilegeEscalation"] == false, "{name}: {security}");
        ensure!(security["readOnlyRootFilesystem"] == true, "{name}: {security}");
        ensure!(security["capabilities"]["drop"] == json!(["ALL"]), "{name}: {security}");
    }
    let forwarder = &container(daemon_set, "forwarder")?["securityContext"];
    ensure!(forwarder["capabilities"].get("add").is_none() && forwarder["runAsNonRoot"] == true, "{forwarder}");
    let agent = &container(daemon_set, "agent")?["securityContext"];
    ensure!(
        agent["capabilities"]["add"] == json!(["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]),
        "docs/privileges.md names no others: {agent}"
    );
    Ok(())
}

/// What the API server would not tell: names that refer to nothing, two ends that do not meet.
fn fits(tools: &Tools) -> Result<()> {
    for objects in [tools.read(&plain()?)?, tools.template(&[])?] {
        let (config, daemon_set) = (of_kind(&objects, "ConfigMap")?, of_kind(&objects, "DaemonSet")?);
        let template = &daemon_set["spec"]["template"];
        let labels = template["metadata"]["labels"].as_object().context("no labels")?;
        for (key, value) in daemon_set["spec"]["selector"]["matchLabels"].as_object().context("no selector")? {
            ensure!(labels.get(key) == Some(value), "the selector {key} does not fit {labels:?}");
        }
        let volumes = template["spec"]["volumes"].as_array().context("no volumes")?;
        ensure!(volumes.iter().any(|volume| volume["configMap"]["name"] == config["metadata"]["name"]), "{volumes:?}");
        let mut sockets = Vec::new();
        for name in ["forwarder", "agent"] {
            let container = container(daemon_set, name)?;
            let mounts = container["volumeMounts"].as_array().context("no mounts")?;
            for mount in mounts {
                ensure!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount} mounts nothing");
            }
            let below = |path: &str| {
                mounts.iter().any(|mount| mount["mountPath"].as_str().is_some_and(|at| Path::new(path).starts_with(at)))
            };
            for variable_name in ["SPANTAP_CONFIG_PATH", "SPANTAP_SOCKET"] {
                let path = variable(container, variable_name).and_then(|v| v["value"].as_str()).unwrap_or_default();
                ensure!(below(path), "{name}: {variable_name}={path} lies in no volume");
            }
            sockets.push(variable(container, "SPANTAP_SOCKET").cloned());
            let program = if name == "agent" { "/spantap-agent" } else { "/spantap" };
            let command = &container["readinessProbe"]["exec"]["command"];
            ensure!(*command == json!([program, "health"]), "{name}: {command}");
            // `health` fails where the other of the two is missing, which a new start of this one would not mend.
            ensure!(container.get("livenessProbe").is_none(), "{name} would be started again for the other's sake");
        }
        ensure!(sockets.first() == sockets.last(), "the two meet at different sockets: {sockets:?}");
    }
    Ok(())
}

fn configuration(tools: &Tools) -> Result<()> {
    let folder = host::folder()?;
    for objects in [tools.read(&plain()?)?, tools.template(&[])?] {
        let text = of_kind(&objects, "ConfigMap")?["data"]["spantap.yml"].as_str().context("no spantap.yml")?;
        let path = folder.path().join("spantap.yml");
        std::fs::write(&path, text)?;
        let mut command = Command::new(host::built("spantap")?);
        command.arg("check").arg("--config").arg(&path);
        clear_environment(&mut command);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains("containers_only: true") && !said.contains("# warning"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
