//! How long decisions take, in this process alone. Not a test of anything: run it by name,
//! with optimization, and read what it prints.
//!
//!     cargo test --release -p kube-scheduler -- --ignored --nocapture how_long

use std::time::Instant;

use serde_json::{Value, json};

use super::tests::{HOST, Stand, ZONE, affinity, cpu, spread, term};

const PODS: usize = 2000;

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
            "pod affinity",
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
        ("unschedulable", json!({"containers": cpu("64")})),
    ]
}

#[test]
#[ignore = "prints times"]
fn how_long_decisions_take() {
    for zones in [50, 250] {
        for (name, spec) in workloads() {
            let mut stand = Stand::new(zones, 20);
            let mut times = Vec::with_capacity(PODS);
            for i in 0..PODS.min(zones * 20) {
                let name = format!("p{i}");
                let began = Instant::now();
                let _ = stand.place(&name, json!({"app": "s"}), spec.clone());
                times.push(began.elapsed());
            }
            times.sort_unstable();
            println!(
                "{:>5} nodes, {name:<24} median {:?}, mean {:?}",
                zones * 20,
                times[times.len() / 2],
                times.iter().sum::<std::time::Duration>() / u32::try_from(times.len()).unwrap(),
            );
        }
    }
}
