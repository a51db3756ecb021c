//! Golden tests of the plan: a pod, what the runtime holds, and the one line that must come out.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Probes {
    liveness: HashMap<String, Health>,
    startup: HashMap<String, Health>,
}

impl Probed for Probes {
    fn liveness(&self, id: &str) -> Option<Health> {
        self.liveness.get(id).copied()
    }
    fn startup(&self, id: &str) -> Option<Health> {
        self.startup.get(id).copied()
    }
}

fn pod(policy: &str, init: Value, containers: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": containers},
    }))
    .unwrap()
}

fn c(name: &str) -> Value {
    json!({"name": name, "image": "img"})
}

fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "img", "restartPolicy": "Always"})
}

fn ready() -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: "sb".into(),
        metadata: Some(cri::PodSandboxMetadata {
            attempt: 0,
            ..Default::default()
        }),
        network: Some(cri::PodSandboxNetworkStatus {
            ip: "10.0.0.1".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn dead() -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        state: cri::PodSandboxState::SandboxNotready.into(),
        ..ready()
    }
}

/// `name=running`, `name=exited:1`, `name=created`, `name=unknown`; the id is the name with `#`.
fn observed(sandboxes: Vec<cri::PodSandboxStatus>, containers: &str) -> PodStatus {
    let containers = containers
        .split_whitespace()
        .map(|item| {
            let (name, state) = item.split_once('=').unwrap();
            let (state, code) = state.split_once(':').unwrap_or((state, "0"));
            ContainerStatus {
                id: format!("#{name}"),
                name: name.into(),
                state: match state {
                    "running" => State::Running,
                    "exited" => State::Exited,
                    "created" => State::Created,
                    _ => State::Unknown,
                },
                hash: hash::container(&Container {
                    name: name.into(),
                    image: Some("img".into()),
                    ..Default::default()
                }),
                restart_count: 0,
                image: "img".into(),
                image_ref: "sha256:1".into(),
                started_at: 1,
                finished_at: 0,
                exit_code: code.parse().unwrap(),
                reason: String::new(),
                message: String::new(),
                resources: None,
                user: None,
            }
        })
        .collect();
    PodStatus {
        sandboxes,
        containers,
        ..Default::default()
    }
}

fn line(actions: &Actions) -> String {
    let mut words = Vec::new();
    if actions.kill_pod {
        words.push("kill-pod".to_owned());
    }
    words.extend(
        actions
            .kill
            .iter()
            .map(|k| format!("kill({}: {})", k.id, k.message)),
    );
    words.extend(actions.remove.iter().map(|r| {
        let how = if r.kill { "kill-remove" } else { "remove" };
        format!("{how}({})", r.id)
    }));
    if actions.create_sandbox {
        words.push(format!("sandbox({})", actions.attempt));
    }
    let mut list = |what: &str, of: &[usize]| {
        if !of.is_empty() {
            words.push(format!("{what}{of:?}"));
        }
    };
    list("ephemeral", &actions.start_ephemeral);
    list("init", &actions.start_init);
    for (what, of) in [
        ("memory", &actions.resize_memory),
        ("cpu", &actions.resize_cpu),
    ] {
        if !of.is_empty() {
            let names: Vec<_> = of.iter().map(|resize| resize.name.as_str()).collect();
            words.push(format!("{what}({})", names.join(" ")));
        }
    }
    if actions.resize_pod {
        words.push("resize-pod".into());
    }
    let mut list = |what: &str, of: &[usize]| {
        if !of.is_empty() {
            words.push(format!("{what}{of:?}"));
        }
    };
    list("start", &actions.start);
    if words.is_empty() {
        "nothing".into()
    } else {
        words.join(" ")
    }
}

fn planned(pod: &Pod, observed: &PodStatus) -> String {
    line(&plan(pod, observed, &Probes::default()))
}

#[test]
fn sandboxes() {
    let p = pod("Always", json!([]), json!([c("a"), c("b")]));
    let never = pod("Never", json!([]), json!([c("a")]));
    let on_failure = pod("OnFailure", json!([]), json!([c("a"), c("b")]));
    let with_init = pod("Always", json!([c("i")]), json!([c("a")]));
    let no_address = cri::PodSandboxStatus {
        network: Some(Default::default()),
        ..ready()
    };
    let on_host = {
        let options = cri::NamespaceOption {
            network: cri::NamespaceMode::Node.into(),
            ..Default::default()
        };
        let namespaces = Some(cri::Namespace {
            options: Some(options),
        });
        cri::PodSandboxStatus {
            linux: Some(cri::LinuxPodSandboxStatus { namespaces }),
            ..ready()
        }
    };
    for (pod, sandboxes, containers, want) in [
        (&p, vec![], "", "kill-pod sandbox(0) start[0, 1]"),
        (&p, vec![ready()], "a=running b=running", "nothing"),
        (
            &p,
            vec![dead()],
            "a=exited:1 b=exited",
            "kill-pod sandbox(1) start[0, 1]",
        ),
        (
            &p,
            vec![ready(), ready()],
            "a=running b=running",
            "kill-pod sandbox(1) start[0, 1]",
        ),
        (&p, vec![no_address], "", "kill-pod sandbox(1) start[0, 1]"),
        (
            &p,
            vec![on_host],
            "a=running b=running",
            "kill-pod sandbox(1) start[0, 1]",
        ),
        (&never, vec![dead()], "a=exited:1", "kill-pod"),
        (&never, vec![dead()], "", "kill-pod sandbox(1) start[0]"),
        (
            &on_failure,
            vec![dead()],
            "a=exited b=exited:1",
            "kill-pod sandbox(1) start[1]",
        ),
        (&on_failure, vec![dead()], "a=exited b=exited", "kill-pod"),
        (
            &with_init,
            vec![dead()],
            "a=exited:1 i=exited",
            "kill-pod sandbox(1) init[0]",
        ),
    ] {
        assert_eq!(
            planned(pod, &observed(sandboxes, containers)),
            want,
            "containers: {containers}"
        );
    }
}

#[test]
fn regular_containers() {
    let always = pod("Always", json!([]), json!([c("a"), c("b")]));
    let on_failure = pod("OnFailure", json!([]), json!([c("a"), c("b")]));
    let never = pod("Never", json!([]), json!([c("a"), c("b")]));
    for (pod, containers, want) in [
        (&always, "", "start[0, 1]"),
        (&always, "a=running b=exited", "start[1]"),
        (&always, "a=running b=created", "start[1]"),
        (
            &always,
            "a=running b=unknown",
            "kill(#b: Container is in \"unknown\" state, try killing it before restart) start[1]",
        ),
        (&on_failure, "a=exited b=exited:2", "start[1]"),
        (&on_failure, "a=exited b=exited", "kill-pod"),
        (&never, "a=exited:1 b=running", "nothing"),
        (&never, "a=exited:1 b=exited", "kill-pod"),
    ] {
        assert_eq!(
            planned(pod, &observed(vec![ready()], containers)),
            want,
            "containers: {containers}"
        );
    }
}

#[test]
fn a_deleted_pod_restarts_nothing() {
    let mut p = pod("Always", json!([]), json!([c("a"), c("b")]));
    p.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        jiff::Timestamp::UNIX_EPOCH,
    ));
    assert_eq!(
        planned(&p, &observed(vec![ready()], "a=running b=exited:1")),
        "nothing"
    );
}

#[test]
fn a_changed_image_restarts_whatever_the_policy() {
    let p = pod("Never", json!([]), json!([{"name": "a", "image": "other"}]));
    assert_eq!(
        planned(&p, &observed(vec![ready()], "a=running")),
        "kill(#a: Container a definition changed, will be restarted) start[0]"
    );
}

#[test]
fn failed_probes_kill() {
    let always = pod("Always", json!([]), json!([c("a")]));
    let never = pod("Never", json!([]), json!([c("a")]));
    let seen = observed(vec![ready()], "a=running");
    let failing = HashMap::from([("#a".to_owned(), Health::Failure)]);
    let liveness = Probes {
        liveness: failing.clone(),
        ..Default::default()
    };
    let startup = Probes {
        startup: failing,
        ..Default::default()
    };
    assert_eq!(
        line(&plan(&always, &seen, &liveness)),
        "kill(#a: Container a failed liveness probe, will be restarted) start[0]"
    );
    assert_eq!(
        line(&plan(&always, &seen, &startup)),
        "kill(#a: Container a failed startup probe, will be restarted) start[0]"
    );
    assert_eq!(
        line(&plan(&never, &seen, &liveness)),
        "kill-pod kill(#a: Container a failed liveness probe)"
    );
}

#[test]
fn init_containers_run_one_after_the_other() {
    let always = pod("Always", json!([c("i"), c("j"), c("k")]), json!([c("a")]));
    let never = pod("Never", json!([c("i"), c("j"), c("k")]), json!([c("a")]));
    for (pod, containers, want) in [
        (&always, "", "init[0]"),
        (&always, "i=running", "nothing"),
        (&always, "i=created", "init[0]"),
        (&always, "i=exited", "init[1]"),
        (&always, "i=exited:1", "init[0]"),
        (&always, "j=exited", "init[2]"),
        (&always, "k=exited", "start[0]"),
        (&always, "k=exited:1 j=exited i=exited", "init[2]"),
        (&always, "a=running", "nothing"),
        (
            &always,
            "i=unknown",
            "kill(#i: Init container is in \"unknown\" state, try killing it before restart) init[0]",
        ),
        (&never, "i=exited:1", "kill-pod"),
        (&never, "i=unknown", "kill-pod"),
        (&never, "k=exited", "start[0]"),
        (&never, "k=exited a=exited:1", "kill-pod"),
    ] {
        assert_eq!(
            planned(pod, &observed(vec![ready()], containers)),
            want,
            "containers: {containers}"
        );
    }
}

#[test]
fn sidecars_keep_running() {
    let always = pod(
        "Always",
        json!([sidecar("s"), c("i"), sidecar("t")]),
        json!([c("a")]),
    );
    let never = pod(
        "Never",
        json!([sidecar("s"), sidecar("t")]),
        json!([c("a")]),
    );
    for (pod, containers, want) in [
        (&always, "", "init[0]"),
        (&always, "s=running", "init[1]"),
        (&always, "s=running i=exited", "init[2]"),
        (&always, "s=running i=exited t=running", "start[0]"),
        (
            &always,
            "s=exited:1 i=exited t=running a=running",
            "init[0]",
        ),
        (&always, "s=running t=exited a=running", "init[2]"),
        (&always, "a=running", "init[0, 2]"),
        (&always, "s=exited i=running", "init[0]"),
        (&never, "s=running t=running a=exited", "kill-pod"),
        (&never, "s=exited:1 t=running a=running", "init[0]"),
        (&never, "s=exited t=exited a=exited", "init[0, 1]"),
    ] {
        let want_message = format!("containers: {containers}");
        assert_eq!(
            planned(pod, &observed(vec![ready()], containers)),
            want,
            "{want_message}"
        );
    }
}

#[test]
fn a_sidecar_with_a_startup_probe_is_waited_for() {
    let mut s = sidecar("s");
    s["startupProbe"] = json!({"exec": {"command": ["true"]}});
    let p = pod("Always", json!([s, c("i")]), json!([c("a")]));
    let seen = observed(vec![ready()], "s=running");
    let probes = |health| Probes {
        startup: HashMap::from([("#s".to_owned(), health)]),
        ..Default::default()
    };
    assert_eq!(planned(&p, &seen), "nothing");
    assert_eq!(line(&plan(&p, &seen, &probes(Health::Unknown))), "nothing");
    assert_eq!(line(&plan(&p, &seen, &probes(Health::Success))), "init[1]");
    assert_eq!(
        line(&plan(&p, &seen, &probes(Health::Failure))),
        "kill(#s: Init container s failed startup probe) init[0]"
    );
}

#[test]
fn ephemeral_containers_start_once() {
    let mut p = pod("Always", json!([c("i")]), json!([c("a")]));
    p.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(
        json!([{"name": "e", "image": "img"}, {"name": "f", "image": "img"}]),
    )
    .unwrap();
    assert_eq!(
        planned(&p, &observed(vec![ready()], "")),
        "ephemeral[0, 1] init[0]"
    );
    assert_eq!(
        planned(&p, &observed(vec![ready()], "e=exited:1 a=running")),
        "ephemeral[1]"
    );
}

#[test]
fn a_containers_own_restart_rules_come_first() {
    let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
    let with = |operator: &str| {
        let mut a = c("a");
        a["restartPolicy"] = json!("Never");
        a["restartPolicyRules"] = rule(operator);
        pod("Never", json!([]), json!([a]))
    };
    assert_eq!(
        planned(&with("In"), &observed(vec![ready()], "a=exited:42")),
        "start[0]"
    );
    assert_eq!(
        planned(&with("In"), &observed(vec![ready()], "a=exited:1")),
        "kill-pod"
    );
    assert_eq!(
        planned(&with("NotIn"), &observed(vec![ready()], "a=exited:1")),
        "start[0]"
    );
}

#[test]
fn running_containers_get_what_they_were_granted() {
    let with = |name: &str, cpu: &str, memory: &str, policy: Value| {
        json!({"name": name, "image": "img", "resizePolicy": policy, "resources": {
            "requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}})
    };
    let restart = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let of = |cpu: [&str; 3], memory: [&str; 3]| {
        let containers = [
            with("a", cpu[0], memory[0], json!([])),
            with("b", cpu[1], memory[1], restart.clone()),
        ];
        let mut side = with("s", cpu[2], memory[2], json!([]));
        side["restartPolicy"] = json!("Always");
        pod("Always", json!([side]), json!(containers))
    };
    let before = of(["1", "1", "1"], ["1Gi", "1Gi", "1Gi"]);
    let mut seen = observed(vec![ready()], "s=running a=running b=running");
    seen.given = crate::allocation::PodResources::of(&before);
    assert_eq!(planned(&before, &seen), "nothing");
    for (cpu, memory, want) in [
        (["2", "1", "1"], ["1Gi", "1Gi", "1Gi"], "cpu(a)"),
        // Those that give back go first.
        (["2", "500m", "1"], ["1Gi", "1Gi", "1Gi"], "cpu(b a)"),
        (
            ["2", "3", "500m"],
            ["512Mi", "1Gi", "2Gi"],
            "memory(a s) cpu(s a b)",
        ),
        (
            ["1", "1", "2"],
            ["1Gi", "2Gi", "1Gi"],
            "kill(#b: Container b resize requires restart) cpu(s) resize-pod start[1]",
        ),
    ] {
        assert_eq!(planned(&of(cpu, memory), &seen), want, "{cpu:?} {memory:?}");
    }
    // The pod's own limits are those of containers that have none.
    let mut own = pod("Always", json!([]), json!([c("a"), c("b")]));
    let mut seen = observed(vec![ready()], "a=running b=running");
    seen.given = crate::allocation::PodResources::of(&own);
    own.spec.as_mut().unwrap().resources =
        serde_json::from_value(json!({"limits": {"cpu": "1"}})).unwrap();
    assert_eq!(planned(&own, &seen), "cpu(a b) resize-pod");
}

#[test]
fn all_begin_anew() {
    let mut source = c("a");
    source["restartPolicy"] = json!("Never");
    source["restartPolicyRules"] = json!([{"action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [42]}}]);
    let p = pod("Never", json!([c("i")]), json!([source, c("b")]));
    let mut seen = observed(vec![ready()], "i=exited:0 a=exited:42 b=running");
    seen.restarting_all = true;
    assert_eq!(
        planned(&p, &seen),
        "kill-remove(#b) remove(#i) remove(#a)",
        "the one that caused it stays until the last, to be found again"
    );
    seen.containers.clear();
    seen.restarting_all = false;
    assert_eq!(planned(&p, &seen), "init[0]");
}
