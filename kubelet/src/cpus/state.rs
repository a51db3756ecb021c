//! Who has which CPUs, and the file that says so, `cpu_manager_state`, in upstream's format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::CpuSet;
use crate::checkpoint::{self, dump_map};

/// CPUs by pod and container; the rest is everybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Those that containers share.
    #[serde(rename = "defaultCpuSet", alias = "defaultCPUSet")]
    pub shared: CpuSet,
    #[serde(
        rename = "entries",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
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

impl checkpoint::State for State {
    const FILE: &'static str = "cpu_manager_state";
    const MANAGER: &'static str = "CPU";
    const PREFIX: &'static str = "";

    fn dump(&self, policy: &str) -> String {
        let pod = |pod: &BTreeMap<String, CpuSet>| dump_map(pod, Clone::clone, CpuSet::to_string);
        format!(
            "(*state.CPUManagerCheckpoint){{PolicyName:(string){policy} DefaultCPUSet:(string){} \
             Entries:(map[string]map[string]string){} Checksum:(checksum.Checksum)0}}",
            self.shared,
            dump_map(&self.exclusive, Clone::clone, pod),
        )
    }
}

/// The file.
pub type File = checkpoint::StateFile<State>;

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use checkpoint::State as _;

    use super::*;

    fn open(root: &std::path::Path, policy: &'static str) -> Result<(File, State), String> {
        File::open(root, policy, |_| Ok(()))
    }

    #[test]
    fn the_file_is_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(State::FILE);
        let (_, state) = open(dir.path(), "none").unwrap();
        assert_eq!(state, State::default());
        // As on every node that has this policy.
        let none = r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#;
        assert_eq!(fs::read_to_string(&path).unwrap(), none);
        let other = open(dir.path(), "static").unwrap_err();
        assert!(
            other.contains("configured policy \"static\" differs"),
            "{other}"
        );

        // With upstream's own checksum.
        let entries = json!({"pod": {"container1": "4-6", "container2": "1-3"}});
        let file = json!({"policyName": "none", "defaultCPUSet": "1-3", "entries": entries, "checksum": 3_610_638_499_u64});
        fs::write(&path, file.to_string()).unwrap();
        let (file, state) = open(dir.path(), "none").unwrap();
        assert_eq!(state.get("pod", "container1").unwrap().to_string(), "4-6");
        assert_eq!(state.all_exclusive().to_string(), "1-6");
        file.write(&state).unwrap();
        assert_eq!(open(dir.path(), "none").unwrap().1, state);
        let damaged = fs::read_to_string(&path).unwrap().replace("4-6", "4-7");
        fs::write(&path, damaged).unwrap();
        assert!(open(dir.path(), "none").unwrap_err().contains("corrupted"));
    }
}
