use serde_json::json;

use super::super::assign::tests::{machine, set};
use super::*;

fn pod(uid: &str, cpus: &[(&str, &str)]) -> Pod {
    let container = |(name, cpu): &(&str, &str)| {
        let list = json!({"cpu": cpu, "memory": "1Gi"});
        json!({"name": name, "resources": {"requests": list, "limits": list}})
    };
    let (init, containers): (Vec<_>, Vec<_>) = cpus
        .iter()
        .partition(|(name, _)| name.starts_with("init") || *name == "sidecar");
    let mut init: Vec<_> = init.into_iter().map(container).collect();
    for container in init.iter_mut().filter(|c| c["name"] == "sidecar") {
        container["restartPolicy"] = json!("Always");
    }
    let containers: Vec<_> = containers.into_iter().map(container).collect();
    let spec = json!({"initContainers": init, "containers": containers});
    serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).unwrap()
}

/// Two sockets of three cores, one core's first CPU reserved.
fn policy(options: StaticOptions) -> (Static, State) {
    let policy = Static::new(machine(2, 1, 3, 3), options, 1, &CpuSet::default()).unwrap();
    let mut state = State::default();
    policy.start(&mut state).unwrap();
    (policy, state)
}

fn give(policy: &mut Static, state: &mut State, pod: &Pod, mask: Option<Mask>) -> Vec<String> {
    let containers = pod.init_containers().iter().chain(pod.containers());
    let given = containers.map(|container| {
        if exclusive(pod, container) == 0 {
            return "shared".to_owned();
        }
        let given = policy.allocate(state, pod, container, mask);
        match given {
            Ok(_) => state.get(pod.uid(), &container.name).unwrap().to_string(),
            Err(error) => error.to_string(),
        }
    });
    given.collect()
}

#[test]
fn who_has_cpus_alone() {
    let of = |cpu: &str| {
        let pod = pod("u", &[("c", cpu)]);
        exclusive(&pod, &pod.containers()[0])
    };
    assert_eq!(["2", "1500m", "2000m"].map(of), [2, 0, 2]);
    let mut burstable = pod("u", &[("c", "2")]);
    let container = &mut burstable.spec.as_mut().unwrap().containers[0];
    container.resources.as_mut().unwrap().limits = None;
    assert_eq!(exclusive(&burstable, &burstable.containers()[0]), 0);
    // The widest moment counts.
    let wide = pod(
        "u",
        &[
            ("init", "4"),
            ("sidecar", "1"),
            ("init2", "4"),
            ("c", "2"),
            ("d", "500m"),
        ],
    );
    assert_eq!(pod_exclusive(&wide), 5);
}

#[test]
fn cpus_come_and_go() {
    let (mut policy, mut state) = policy(StaticOptions::default());
    assert_eq!(policy.reserved, set("0"));
    assert_eq!(state.shared, set("0-11"));
    let first = pod("first", &[("c", "4"), ("d", "500m")]);
    assert_eq!(
        give(&mut policy, &mut state, &first, None),
        ["1-2,7-8", "shared"]
    );
    assert_eq!(state.shared, set("0,3-6,9-11"));
    // Once more is no other.
    assert_eq!(
        give(&mut policy, &mut state, &first, None),
        ["1-2,7-8", "shared"]
    );
    let second = pod("second", &[("c", "8")]);
    let error = "Allocate failed due to not enough cpus available to satisfy request: requested=8, available=7, which is unexpected";
    assert_eq!(give(&mut policy, &mut state, &second, None), [error]);
    let near = pod("near", &[("c", "2")]);
    let mask = Some(Mask::of([1]));
    assert_eq!(give(&mut policy, &mut state, &near, mask), ["3,9"]);
    policy.release(&mut state, "first", "c");
    policy.release(&mut state, "first", "c");
    assert_eq!(state.shared, set("0-2,4-8,10-11"));
    assert!(!state.exclusive.contains_key("first"));
}

#[test]
fn init_containers_cpus_are_had_again() {
    let (mut policy, mut state) = policy(StaticOptions::default());
    let pod = pod("u", &[("init", "4"), ("sidecar", "2"), ("c", "2")]);
    let given = give(&mut policy, &mut state, &pod, None);
    assert_eq!(given, ["1-2,7-8", "1,7", "2,8"]);
    assert_eq!(state.shared, set("0,3-6,9-11"));
    // What others have still is not given back with it.
    policy.release(&mut state, "u", "init");
    assert_eq!(state.shared, set("0,3-6,9-11"));
    policy.release(&mut state, "u", "c");
    assert_eq!(state.shared, set("0,2-6,8-11"));
}

#[test]
fn whole_cores_only() {
    let options = StaticOptions {
        full_cores: true,
        ..StaticOptions::default()
    };
    let (mut policy, mut state) = policy(options);
    for (cpus, want) in [
        (
            "3",
            "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2",
        ),
        (
            "12",
            "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 10, requested CPUs = 12, CPUs per core = 2",
        ),
        ("10", "1-5,7-11"),
    ] {
        assert_eq!(
            give(&mut policy, &mut state, &pod("u", &[("c", cpus)]), None),
            [want]
        );
    }
}

#[test]
fn hints_say_where() {
    let (mut policy, mut state) = policy(StaticOptions::default());
    let hint = |nodes: &[u32], preferred| Hint {
        affinity: Some(Mask::of(nodes.iter().copied())),
        preferred,
    };
    let hints = |policy: &Static, state: &State, cpus: &str| {
        let pod = pod("u", &[("c", cpus)]);
        let mut hints = policy.hints(state, &pod, &pod.containers()[0]);
        assert_eq!(hints, policy.pod_hints(state, &pod));
        hints.remove("cpu").flatten()
    };
    let either = vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(hints(&policy, &state, "5"), Some(either));
    // One is reserved of the first; six would fit on one node if it were idle.
    let second = vec![hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(hints(&policy, &state, "6"), Some(second));
    assert_eq!(hints(&policy, &state, "7"), Some(vec![hint(&[0, 1], true)]));
    assert_eq!(hints(&policy, &state, "12"), Some(vec![]));
    assert_eq!(hints(&policy, &state, "500m"), None);
    give(
        &mut policy,
        &mut state,
        &pod("u", &[("c", "2")]),
        Some(Mask::of([1])),
    );
    let kept = vec![hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(hints(&policy, &state, "2"), Some(kept));
    assert_eq!(
        hints(&policy, &state, "3"),
        Some(vec![]),
        "it has other ones"
    );
}

#[test]
fn a_socket_is_near_enough() {
    let options = StaticOptions {
        by_socket: true,
        ..StaticOptions::default()
    };
    let mut policy = Static::new(machine(2, 2, 2, 2), options, 1, &set("0")).unwrap();
    let mut state = State::default();
    policy.start(&mut state).unwrap();
    let pod = pod("u", &[("c", "4")]);
    let hints = policy.hints(&state, &pod, &pod.containers()[0]);
    let preferred: Vec<Vec<u32>> = hints["cpu"]
        .iter()
        .flatten()
        .filter(|hint| hint.preferred)
        .map(|hint| hint.affinity.unwrap().nodes().collect())
        .collect();
    let want: [&[u32]; 5] = [&[1], &[2], &[3], &[0, 1], &[2, 3]];
    assert_eq!(preferred, want);
    // From the other node of the socket, too.
    let six = super::tests::pod("u", &[("c", "6")]);
    assert_eq!(
        give(&mut policy, &mut state, &six, Some(Mask::of([0]))),
        ["1-3,9-11"]
    );
}

#[test]
fn a_state_that_does_not_fit() {
    let strict = StaticOptions {
        strict_reservation: true,
        ..StaticOptions::default()
    };
    let (policy, mut state) = policy(strict);
    assert_eq!(state.shared, set("1-11"));
    policy.start(&mut state).unwrap();
    let loose = super::tests::policy(StaticOptions::default()).0;
    let with = |shared: &str, own: &str| {
        let mut state = State {
            shared: set(shared),
            ..State::default()
        };
        if !own.is_empty() {
            let container = ("c".to_owned(), set(own));
            state.exclusive.insert("u".into(), [container].into());
        }
        state
    };
    for (policy, mut state, why) in [
        (&loose, with("", "1"), "default cpuset cannot be empty"),
        (
            &loose,
            with("1-11", ""),
            "not all reserved cpus: \"0\" are present",
        ),
        (&loose, with("0-11", "1"), "overlaps with default cpuset"),
        (
            &loose,
            with("0-9", "10"),
            "current set of available CPUs \"0-11\" doesn't match",
        ),
        (
            &policy,
            with("0-11", ""),
            "some of strictly reserved cpus: \"0\" are present",
        ),
    ] {
        let error = policy.start(&mut state).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let error = Static::new(machine(1, 1, 2, 2), strict, 2, &set("0"))
        .err()
        .unwrap();
    assert!(error.contains("size of 0 did not equal 2"), "{error}");
}
