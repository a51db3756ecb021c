use serde_json::json;

use super::*;
use crate::sys::node::HugePages;

const GIB: u64 = 1 << 30;

fn pod(uid: &str, memory: &[(&str, &str)]) -> Pod {
    let container = |(name, memory): &(&str, &str)| {
        let mut list = json!({"cpu": "1", "memory": memory});
        if name.starts_with("huge") {
            list["hugepages-2Mi"] = json!("1Gi");
        }
        json!({"name": name, "resources": {"requests": list, "limits": list}})
    };
    let (init, containers): (Vec<_>, Vec<_>) = memory
        .iter()
        .partition(|(name, _)| name.starts_with("init"));
    let init: Vec<_> = init.into_iter().map(container).collect();
    let containers: Vec<_> = containers.into_iter().map(container).collect();
    let spec = json!({"initContainers": init, "containers": containers});
    serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).unwrap()
}

/// Three nodes of 10 GiB, of each 1 GiB reserved and 1 GiB in huge pages.
fn policy() -> (Static, State) {
    let node = |id| NumaNode {
        id,
        memory: 10 * GIB,
        hugepages: vec![HugePages {
            kib: 2048,
            count: 512,
        }],
        distances: Vec::new(),
    };
    let machine: Vec<NumaNode> = (0..3).map(node).collect();
    let reserved = |id| (id, Amounts::from([("memory".to_owned(), GIB)]));
    let policy = Static::new(&machine, (0..3).map(reserved).collect()).unwrap();
    let mut state = State::default();
    policy.start(&mut state).unwrap();
    (policy, state)
}

fn mask(nodes: &[u32]) -> Mask {
    Mask::of(nodes.iter().copied())
}

fn at(nodes: &[u32], preferred: bool) -> Hint {
    Hint {
        affinity: Some(mask(nodes)),
        preferred,
    }
}

/// Gives every container of the pod its memory; the nodes of each, or why not.
fn give(policy: &mut Static, state: &mut State, pod: &Pod, hint: Hint) -> Vec<String> {
    let containers = pod.init_containers().iter().chain(pod.containers());
    let given = containers.map(|container| {
        if let Err(error) = policy.allocate(state, pod, container, hint) {
            return error;
        }
        let blocks = state.get(pod.uid(), &container.name).unwrap();
        let shown = blocks
            .iter()
            .map(|block| format!("{} {:?}", block.kind, block.nodes));
        shown.collect::<Vec<_>>().join(", ")
    });
    given.collect()
}

fn free_on(state: &State) -> Vec<u64> {
    let nodes = state.nodes.values();
    nodes
        .map(|node| node.memory_map["memory"].free / GIB)
        .collect()
}

#[test]
fn memory_comes_and_goes() {
    let (mut policy, mut state) = policy();
    assert_eq!(free_on(&state), [8, 8, 8]);
    let anywhere = Hint::default();
    let first = pod("first", &[("c", "6Gi"), ("huge", "1Gi")]);
    let given = give(&mut policy, &mut state, &first, anywhere);
    assert_eq!(given, ["memory [0]", "hugepages-2Mi [0], memory [0]"]);
    assert_eq!(free_on(&state), [1, 8, 8]);
    assert_eq!(state.nodes[&0].number_of_assignments, 3);
    // Once more is no other.
    give(&mut policy, &mut state, &first, anywhere);
    assert_eq!(free_on(&state), [1, 8, 8]);
    // More than one node has: of a group that no other has anything of.
    let wide = pod("wide", &[("c", "12Gi")]);
    assert_eq!(
        give(&mut policy, &mut state, &wide, anywhere),
        ["memory [1, 2]"]
    );
    assert_eq!(free_on(&state), [1, 0, 4]);
    assert_eq!(state.nodes[&2].cells, [1, 2]);
    // What is left there is for the same group alone.
    let narrow = pod("narrow", &[("c", "2Gi")]);
    let error = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
    assert_eq!(
        give(&mut policy, &mut state, &narrow, anywhere),
        ["memory [1, 2]"]
    );
    let huge = pod("huge", &[("huge", "9Gi")]);
    assert_eq!(give(&mut policy, &mut state, &huge, anywhere), [error]);
    assert_eq!(
        policy.start(&mut state),
        Ok(()),
        "it fits what is written down"
    );
    for name in ["wide", "narrow"] {
        policy.release(&mut state, name, "c");
        policy.release(&mut state, name, "c");
    }
    assert_eq!(free_on(&state), [1, 8, 8]);
    assert_eq!(state.nodes[&2].cells, [2]);
}

#[test]
fn a_hint_is_followed_and_widened() {
    let (mut policy, mut state) = policy();
    let small = pod("small", &[("c", "1Gi")]);
    assert_eq!(
        give(&mut policy, &mut state, &small, at(&[2], true)),
        ["memory [2]"]
    );
    let wide = pod("wide", &[("c", "9Gi")]);
    // Too few nodes for it: more are added, but of a hint that was as good as any there is none.
    assert_eq!(
        give(&mut policy, &mut state, &wide, at(&[0], false)),
        ["memory [0, 1]"]
    );
    policy.release(&mut state, "wide", "c");
    assert_eq!(
        give(&mut policy, &mut state, &wide, at(&[2], false)),
        ["[memorymanager] failed to find NUMA nodes to extend the current topology hint"]
    );
    assert_eq!(
        give(&mut policy, &mut state, &wide, at(&[1, 2], true)),
        ["[memorymanager] preferred hint violates NUMA node allocation"]
    );
}

#[test]
fn init_containers_memory_is_had_again() {
    let (mut policy, mut state) = policy();
    let pod = pod("u", &[("init", "4Gi"), ("init2", "5Gi"), ("c", "3Gi")]);
    let given = give(&mut policy, &mut state, &pod, Hint::default());
    assert_eq!(given, ["memory [0]", "memory [0]", "memory [0]"]);
    assert_eq!(free_on(&state), [3, 8, 8], "the widest moment counts");
    let sizes = ["init", "init2", "c"].map(|name| state.get("u", name).unwrap()[0].size / GIB);
    assert_eq!(sizes, [0, 2, 3]);
    assert_eq!(pod_wanted(&pod)["memory"], 5 * GIB);
    assert_eq!(policy.start(&mut state), Ok(()));
}

#[test]
fn hints_say_where() {
    let (mut policy, mut state) = policy();
    let hints = |policy: &Static, state: &State, memory: &str| {
        let pod = pod("u", &[("c", memory)]);
        let hints = policy.hints(state, &pod, &pod.containers()[0]);
        assert_eq!(hints, policy.pod_hints(state, &pod));
        let shown = hints.get("memory").cloned().flatten().unwrap_or_default();
        let shown = shown.into_iter().map(|hint| {
            let nodes: Vec<u32> = hint.affinity.unwrap().nodes().collect();
            format!("{nodes:?}{}", if hint.preferred { "!" } else { "" })
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        hints(&policy, &state, "8Gi"),
        "[0]! [1]! [2]! [0, 1] [0, 2] [1, 2] [0, 1, 2]"
    );
    assert_eq!(
        hints(&policy, &state, "9Gi"),
        "[0, 1]! [0, 2]! [1, 2]! [0, 1, 2]"
    );
    assert_eq!(hints(&policy, &state, "25Gi"), "");
    give(
        &mut policy,
        &mut state,
        &pod("v", &[("c", "2Gi")]),
        at(&[1], true),
    );
    assert_eq!(hints(&policy, &state, "8Gi"), "[0]! [2]! [0, 2]");
    give(
        &mut policy,
        &mut state,
        &pod("u", &[("c", "9Gi")]),
        Hint::default(),
    );
    assert_eq!(
        hints(&policy, &state, "9Gi"),
        "[0, 2]!",
        "it keeps what it has"
    );
    assert_eq!(hints(&policy, &state, "1Gi"), "", "it has other memory");
    let mut burstable = pod("w", &[("c", "1Gi")]);
    let container = &mut burstable.spec.as_mut().unwrap().containers[0];
    container.resources.as_mut().unwrap().limits = None;
    assert!(policy.pod_hints(&state, &burstable).is_empty());
}

#[test]
fn a_state_that_does_not_fit() {
    let (mut policy, mut state) = policy();
    give(
        &mut policy,
        &mut state,
        &pod("u", &[("c", "1Gi")]),
        Hint::default(),
    );
    let refused = |change: fn(&mut State)| {
        let mut state = state.clone();
        change(&mut state);
        policy.start(&mut state).unwrap_err()
    };
    for (error, why) in [
        (
            refused(|s| s.nodes.clear()),
            "machine state can not be empty",
        ),
        (
            refused(|s| drop(s.nodes.remove(&2))),
            "different from the real one",
        ),
        (
            refused(|s| {
                s.nodes
                    .get_mut(&0)
                    .unwrap()
                    .memory_map
                    .get_mut("memory")
                    .unwrap()
                    .total += 1
            }),
            "different from the real one",
        ),
        (
            refused(|s| {
                s.assignments.get_mut("u").unwrap().get_mut("c").unwrap()[0].nodes = vec![7]
            }),
            "uses the NUMA that does not exist",
        ),
    ] {
        assert!(error.contains(why), "{error}");
    }
    assert!(Static::new(&[], Reserved::new()).is_err());
}
