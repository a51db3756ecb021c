//! A directory that pods mount a part of (`subPath`) is swapped for a symbolic link out of its
//! volume and back, as fast as the kernel can: no container may ever see what is outside.
//!
//! On a cluster that `deploy/up` made, of anybody's binaries.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use crate::cluster::DEMO;
use crate::{Cluster, Namespace, until};

/// Races a symbolic link against pods that mount below it.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// Pods at the same time.
    #[arg(long, default_value_t = 20)]
    pub at_once: usize,
}

/// As the node sees them.
const VOLUME: &str = "/var/tmp/race";
const OUTSIDE: &str = "/var/tmp/outside";

/// What containers saw.
#[derive(Debug, Default)]
struct Tally {
    inside: usize,
    outside: usize,
    neither: usize,
    /// Those that the kubelet did not start.
    refused: usize,
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": false,
            "volumes": [{"name": "race", "hostPath": {"path": VOLUME}}],
            "containers": [{
                "name": "main", "image": DEMO[0],
                "command": ["sh", "-c", "test ! -e /seen/secret || exit 7; test -e /seen/inside"],
                "volumeMounts": [{"name": "race", "mountPath": "/seen", "subPath": "swapped/part"}],
            }],
        },
    })
}

/// Swaps until told to stop; counts.
fn swap(volume: &Path, stop: &AtomicBool, swapped: &AtomicU64) -> Result<()> {
    let name = |name: &str| CString::new(volume.join(name).into_os_string().into_encoded_bytes());
    let (one, other) = (name("swapped")?, name("link")?);
    while !stop.load(Ordering::Relaxed) {
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, one.as_c_str(), AT_FDCWD, other.as_c_str(), flags)?;
        swapped.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Where a pod has come to, if it goes no further.
fn end(pod: &Value, tally: &mut Tally) -> bool {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    let waits = &state["waiting"]["reason"];
    match pod["status"]["phase"].as_str() {
        Some("Succeeded") => tally.inside += 1,
        Some("Failed") if state["terminated"]["exitCode"] == 7 => tally.outside += 1,
        Some("Failed") => tally.neither += 1,
        _ if waits == "CreateContainerConfigError" || waits == "CreateContainerError" => {
            tally.refused += 1;
        }
        _ => return false,
    }
    true
}

fn batch(namespace: &Namespace, node: &str, round: usize, at_once: usize) -> Tally {
    let items: Vec<Value> = (0..at_once)
        .map(|i| pod(&format!("r-{round}-{i}"), node))
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    namespace.apply(&list.to_string());
    let tally = until("the pods to end", || {
        let list = namespace.get("pods")?;
        let mut tally = Tally::default();
        let pods = list["items"].as_array().into_iter().flatten();
        let ended = pods.filter(|pod| end(pod, &mut tally)).count();
        if ended == at_once {
            Ok(tally)
        } else {
            Err(format!("{ended} of {at_once}"))
        }
    });
    let delete = "delete pods --all --grace-period=0 --force";
    namespace.kubectl(delete).ok();
    until("the pods to be gone", || {
        let list = namespace.get("pods")?;
        let left = list["items"].as_array().map_or(0, Vec::len);
        if left == 0 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    });
    tally
}

/// Races, and prints what containers saw.
///
/// # Errors
///
/// When one saw what is outside, or there was no race.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::get();
    let namespace = Namespace::new("racer");
    let node = cluster.nodes().remove(0);
    let prepare = format!(
        "rm -rf {VOLUME} {OUTSIDE}; mkdir -p {VOLUME}/swapped/part {OUTSIDE}/part; \
         touch {VOLUME}/swapped/part/inside {OUTSIDE}/part/secret"
    );
    cluster.in_node(&node, &["sh", "-c", &prepare]);
    // The node's own file system, as the machine sees it.
    let root = cluster.path(&format!("nodes/{node}"));
    let volume = root.join(&VOLUME[1..]);
    ensure!(volume.is_dir(), "{} is no directory", volume.display());
    symlink(OUTSIDE, volume.join("link")).context("a link")?;
    let (stop, swapped) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swap(&volume, &stop, &swapped));
        let start = Instant::now();
        let racing = std::panic::catch_unwind(|| {
            let mut all = Tally::default();
            for round in 0.. {
                if start.elapsed() >= Duration::from_secs(options.minutes * 60) {
                    break;
                }
                let tally = batch(&namespace, &node, round, options.at_once);
                all.inside += tally.inside;
                all.outside += tally.outside;
                all.neither += tally.neither;
                all.refused += tally.refused;
            }
            all
        });
        stop.store(true, Ordering::Relaxed);
        all = racing.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        swapping.join().expect("no panic")
    })?;
    let swaps = swapped.load(Ordering::Relaxed);
    let Tally {
        inside,
        outside,
        neither,
        refused,
    } = all;
    println!(
        "{swaps} swaps; containers that saw inside {inside}, outside {outside}, \
         neither {neither}, not started {refused}"
    );
    fs::remove_dir_all(&volume)?;
    fs::remove_dir_all(root.join(&OUTSIDE[1..]))?;
    if outside > 0 {
        bail!("{outside} containers saw what is outside of their volume");
    }
    ensure!(neither == 0, "{neither} containers saw nothing");
    ensure!(inside > 0 && refused > 0, "there was no race");
    Ok(())
}
