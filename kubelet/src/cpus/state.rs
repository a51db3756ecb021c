//! Who has which CPUs, and the file that says so, `cpu_manager_state`, in upstream's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CpuSet;
use crate::checkpoint::{self, checksum, dump_map};

/// Upstream's name of it below the root directory.
const FILE: &str = "cpu_manager_state";

/// CPUs by pod and container; the rest is everybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Those that containers share.
    pub shared: CpuSet,
    pub exclusive: BTreeMap<String, BTreeMap<String, CpuSet>>,
}

impl State {
    pub fn get(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.exclusive.get(uid)?.get(container)
    }

    /// All that are some container's alone.
    pub fn all_exclusive(&self) -> CpuSet {
        let sets = self.exclusive.values().flat_map(BTreeMap::values);
        sets.fold(CpuSet::default(), |all, set| all.union(set))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    policy_name: String,
    #[serde(rename = "defaultCpuSet", alias = "defaultCPUSet")]
    default_cpu_set: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, String>>,
    checksum: u64,
}

impl Checkpoint {
    fn sum(&self) -> u64 {
        let pod = |pod: &BTreeMap<String, String>| dump_map(pod, Clone::clone, Clone::clone);
        checksum(&format!(
            "(*state.CPUManagerCheckpoint){{PolicyName:(string){} DefaultCPUSet:(string){} \
             Entries:(map[string]map[string]string){} Checksum:(checksum.Checksum)0}}",
            self.policy_name,
            self.default_cpu_set,
            dump_map(&self.entries, Clone::clone, pod),
        ))
    }
}

/// The file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    policy: &'static str,
}

impl File {
    /// The file of this policy, and what it says; it is made where there is none.
    ///
    /// # Errors
    /// When there is one and it is not whole, or another policy's.
    pub fn open(root: &Path, policy: &'static str) -> Result<(Self, State), String> {
        let path = root.join(FILE);
        let file = Self { path, policy };
        let state = file.read().map_err(|why| {
            format!(
                "could not restore state from checkpoint: {why}, please drain this node and delete the CPU manager \
                 checkpoint file {:?} before restarting Kubelet",
                file.path
            )
        })?;
        Ok((file, state))
    }

    fn read(&self) -> Result<State, String> {
        let text = checkpoint::read(&self.path).map_err(|error| error.to_string())?;
        let Some(text) = text else {
            let state = State::default();
            self.write(&state).map_err(|error| error.to_string())?;
            return Ok(state);
        };
        let checkpoint: Checkpoint =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        // Before there was one, it was left out.
        if checkpoint.checksum != 0 && checkpoint.checksum != checkpoint.sum() {
            return Err("checkpoint is corrupted".into());
        }
        if checkpoint.policy_name != self.policy {
            return Err(format!(
                "configured policy {:?} differs from state checkpoint policy {:?}",
                self.policy, checkpoint.policy_name
            ));
        }
        let set = |text: &str| {
            let parsed = text.parse::<CpuSet>();
            parsed.map_err(|error| format!("could not parse cpu set {text:?}: {error}"))
        };
        let mut state = State {
            shared: set(&checkpoint.default_cpu_set)?,
            ..State::default()
        };
        for (uid, containers) in &checkpoint.entries {
            let own = state.exclusive.entry(uid.clone()).or_default();
            for (name, cpus) in containers {
                own.insert(name.clone(), set(cpus)?);
            }
        }
        Ok(state)
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &State) -> std::io::Result<()> {
        let pods = state.exclusive.iter().map(|(uid, containers)| {
            let containers = containers.iter();
            let containers = containers.map(|(name, cpus)| (name.clone(), cpus.to_string()));
            (uid.clone(), containers.collect())
        });
        let mut checkpoint = Checkpoint {
            policy_name: self.policy.to_owned(),
            default_cpu_set: state.shared.to_string(),
            entries: pods.collect(),
            checksum: 0,
        };
        checkpoint.checksum = checkpoint.sum();
        checkpoint::write(&self.path, &serde_json::to_vec(&checkpoint)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_is_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (_, state) = File::open(dir.path(), "none").unwrap();
        assert_eq!(state, State::default());
        // As on every node that has this policy.
        let none = r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#;
        assert_eq!(fs::read_to_string(&path).unwrap(), none);
        let other = File::open(dir.path(), "static").unwrap_err();
        assert!(
            other.contains("configured policy \"static\" differs"),
            "{other}"
        );

        // With upstream's own checksum.
        let entries = json!({"pod": {"container1": "4-6", "container2": "1-3"}});
        let file = json!({"policyName": "none", "defaultCPUSet": "1-3", "entries": entries, "checksum": 3_610_638_499_u64});
        fs::write(&path, file.to_string()).unwrap();
        let (file, state) = File::open(dir.path(), "none").unwrap();
        assert_eq!(state.get("pod", "container1").unwrap().to_string(), "4-6");
        assert_eq!(state.all_exclusive().to_string(), "1-6");
        file.write(&state).unwrap();
        assert_eq!(File::open(dir.path(), "none").unwrap().1, state);
        let damaged = fs::read_to_string(&path).unwrap().replace("4-6", "4-7");
        fs::write(&path, damaged).unwrap();
        assert!(
            File::open(dir.path(), "none")
                .unwrap_err()
                .contains("corrupted")
        );
    }
}
