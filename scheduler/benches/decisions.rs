//! CPU time per pod of the scheduling cycle alone. Reads objects, one a line, nodes and pods that
//! are on them before the pods to be placed:
//!
//!     e2e/scheduling objects basic --nodes 5000 --pods 5000 | cargo bench -p kube-scheduler

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::Context as _;
use kube_scheduler::in_process::{Cluster, Outcome};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    let mut cluster = Cluster::new()?;
    let mut waiting = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let object = serde_json::from_str(&line?).context("a line is one object")?;
        waiting.extend(cluster.add(&object)?);
    }
    anyhow::ensure!(!waiting.is_empty(), "no pod is to be placed");
    let before = cpu()?;
    let outcomes: Vec<_> = waiting.iter().map(|pod| cluster.place(pod)).collect();
    let used = cpu()?.saturating_sub(before);
    let count = |outcome| outcomes.iter().filter(|o| **o == outcome).count();
    println!(
        "{} pods: {} placed, {} after others had gone, {} refused; {:.1} µs of CPU per pod",
        outcomes.len(),
        count(Outcome::Placed),
        count(Outcome::Preempted),
        count(Outcome::Refused),
        used.as_secs_f64() * 1e6 / outcomes.len() as f64,
    );
    Ok(())
}

/// Of this thread.
fn cpu() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).context(path)?;
    let nanoseconds = text.split_whitespace().next().context(path)?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
