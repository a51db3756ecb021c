//! Container statuses: one line per container says what comes out.

use serde_json::json;

use super::*;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
    )
    .unwrap()
}

fn seen(name: &str, id: &str, state: State, restart_count: i32, exit_code: i32) -> Observed {
    Observed {
        id: id.into(),
        name: name.into(),
        state,
        hash: 0,
        restart_count,
        image: "img".into(),
        image_ref: "img@sha256:1".into(),
        started_at: 1_000_000_000,
        finished_at: 2_000_000_000,
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        resources: None,
        user: None,
    }
}

fn state(state: Option<&ContainerState>) -> String {
    match state {
        Some(ContainerState {
            running: Some(_), ..
        }) => "running".into(),
        Some(ContainerState {
            terminated: Some(t),
            ..
        }) => {
            format!(
                "{}({})",
                t.reason.as_deref().unwrap_or_default(),
                t.exit_code
            )
        }
        Some(ContainerState {
            waiting: Some(w), ..
        }) => format!("waiting:{}", w.reason.as_deref().unwrap_or_default()),
        _ => "-".into(),
    }
}

fn line(status: &ContainerStatus) -> String {
    format!(
        "{} {} last={} restarts={}",
        status.name,
        state(status.state.as_ref()),
        state(status.last_state.as_ref()),
        status.restart_count
    )
}

fn run(
    pod: &Pod,
    containers: Vec<Observed>,
    old: &[ContainerStatus],
    failures: &[(&str, &str)],
    kind: Kind,
) -> Vec<ContainerStatus> {
    let failures = failures
        .iter()
        .map(|(name, reason)| ((*name).into(), ((*reason).into(), "why".into())))
        .collect();
    let context = Context {
        runtime_name: "containerd",
        failures: &failures,
        recursive_read_only: false,
        restarting: false,
    };
    let observed = PodStatus {
        containers,
        ..Default::default()
    };
    statuses(pod, &observed, old, kind, &context)
}

#[test]
fn a_life_of_crashes() {
    let p = pod(json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "img"}]}));
    let step = |containers, old: &[ContainerStatus], failures: &[(&str, &str)]| {
        run(&p, containers, old, failures, Kind::Regular)
    };
    let first = step(vec![], &[], &[]);
    assert_eq!(
        line(&first[0]),
        "c waiting:ContainerCreating last=- restarts=0"
    );
    let pulling = step(vec![], &first, &[("c", "ErrImagePull")]);
    assert_eq!(
        line(&pulling[0]),
        "c waiting:ErrImagePull last=- restarts=0"
    );
    let running = step(vec![seen("c", "1", State::Running, 0, 0)], &pulling, &[]);
    assert_eq!(line(&running[0]), "c running last=- restarts=0");
    assert_eq!(running[0].container_id.as_deref(), Some("containerd://1"));
    let ended = step(vec![seen("c", "1", State::Exited, 0, 3)], &running, &[]);
    assert_eq!(line(&ended[0]), "c Error(3) last=- restarts=0");
    let again = step(
        vec![
            seen("c", "2", State::Running, 1, 0),
            seen("c", "1", State::Exited, 0, 3),
        ],
        &ended,
        &[],
    );
    assert_eq!(line(&again[0]), "c running last=Error(3) restarts=1");
    let both = vec![
        seen("c", "2", State::Exited, 1, 4),
        seen("c", "1", State::Exited, 0, 3),
    ];
    let crash_loop = step(both, &again, &[("c", "CrashLoopBackOff")]);
    assert_eq!(
        line(&crash_loop[0]),
        "c waiting:CrashLoopBackOff last=Error(4) restarts=1"
    );
}

#[test]
fn what_the_runtime_forgot_is_not_as_if_it_never_was() {
    let p = pod(json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "img"}]}));
    let running = run(
        &p,
        vec![seen("c", "1", State::Running, 2, 0)],
        &[],
        &[],
        Kind::Regular,
    );
    let gone = run(&p, vec![], &running, &[], Kind::Regular);
    assert_eq!(
        line(&gone[0]),
        "c waiting:ContainerCreating last=ContainerStatusUnknown(137) restarts=3"
    );
}

#[test]
fn init_containers_in_order() {
    let p = pod(json!({"restartPolicy": "Always",
        "initContainers": [{"name": "z", "image": "img"}, {"name": "b", "image": "img"}],
        "containers": [{"name": "c", "image": "img"}]}));
    let done = run(
        &p,
        vec![seen("z", "1", State::Exited, 0, 0)],
        &[],
        &[("z", "stale")],
        Kind::Init,
    );
    let lines: Vec<_> = done.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "z Completed(0) last=- restarts=0",
            "b waiting:PodInitializing last=- restarts=0"
        ]
    );
    let collected = run(
        &p,
        vec![seen("c", "9", State::Running, 0, 0)],
        &[],
        &[],
        Kind::Init,
    );
    assert_eq!(line(&collected[0]), "z Completed(0) last=- restarts=0");
}

#[test]
fn resources_follow_the_runtime() {
    let p = pod(
        json!({"containers": [{"name": "c", "image": "img", "resources": {
        "requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}}]}),
    );
    let mut container = seen("c", "1", State::Running, 0, 0);
    container.resources = Some(grpc::cri::LinuxContainerResources {
        cpu_shares: 102,
        cpu_quota: 20_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 128 << 20,
        ..Default::default()
    });
    let status = &run(&p, vec![container], &[], &[], Kind::Regular)[0];
    let shown = serde_json::to_value(&status.resources).unwrap();
    assert_eq!(
        shown,
        json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}})
    );
    assert_eq!(
        serde_json::to_value(&status.allocated_resources).unwrap(),
        json!({"cpu": "100m", "memory": "64Mi"})
    );
}
