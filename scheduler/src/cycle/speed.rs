//! How long decisions take, in this process alone. It checks what is decided, not how fast:
//! run it by name, with optimization, and read what it prints.
//!
//!     cargo test --release -p kube-scheduler -- --ignored --nocapture how_long

use std::time::Instant;

use serde_json::{Value, json};

use super::tests::{HOST, Stand, ZONE, affinity, cpu, spread, term};

const PODS: usize = 2000;
const NODES_PER_ZONE: usize = 20;
/// Each of which takes ten pods. Pods that want to be together find no room beyond one zone.
const ROOM_IN_ZONE: usize = 10 * NODES_PER_ZONE;
const TOGETHER: &str = "pod affinity";
/// The workload that fits nowhere.
const UNSCHEDULABLE: &str = "unschedulable";

fn workloads() -> Vec<(&'static str, Value)> {
    let preferred = |key| json!([{"weight": 1, "podAffinityTerm": term("s", key)}]);
    let with = |affinity: Value| json!({"containers": cpu("10m"), "affinity": affinity});
    let spreading = |when: &str| {
        let mut spec = spread(ZONE, 5, when, json!({}));
        spec["containers"] = cpu("10m");
        spec
    };
    vec![
        ("basic", json!({"containers": cpu("10m")})),
        (
            TOGETHER,
            with(affinity(
                "podAffinity",
                "required",
                json!([term("s", ZONE)]),
            )),
        ),
        (
            "pod anti-affinity",
            with(affinity(
                "podAntiAffinity",
                "required",
                json!([term("s", HOST)]),
            )),
        ),
        (
            "preferred pod affinity",
            with(affinity("podAffinity", "preferred", preferred(HOST))),
        ),
        ("topology spread", spreading("DoNotSchedule")),
        ("preferred spread", spreading("ScheduleAnyway")),
        (UNSCHEDULABLE, json!({"containers": cpu("64")})),
    ]
}

#[test]
#[ignore = "measures; run it with optimization"]
fn how_long_decisions_take() {
    for zones in [50, 250] {
        for (name, spec) in workloads() {
            let mut stand = Stand::new(zones, NODES_PER_ZONE);
            let mut times = Vec::with_capacity(PODS);
            let nodes = zones * NODES_PER_ZONE;
            let pods = match name {
                TOGETHER => ROOM_IN_ZONE,
                _ => PODS.min(nodes),
            };
            for i in 0..pods {
                let pod = format!("p{i}");
                let began = Instant::now();
                let placed = stand.place(&pod, json!({"app": "s"}), spec.clone());
                times.push(began.elapsed());
                assert_eq!(placed.is_ok(), name != UNSCHEDULABLE, "{name}: {placed:?}");
            }
            times.sort_unstable();
            println!(
                "{nodes:>5} nodes, {name:<24} median {:?}, mean {:?}",
                times[times.len() / 2],
                times.iter().sum::<std::time::Duration>() / u32::try_from(times.len()).unwrap(),
            );
        }
    }
}
