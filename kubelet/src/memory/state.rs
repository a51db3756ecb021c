//! Who has memory of which NUMA nodes, and the file that says so, `memory_manager_state`, in
//! upstream's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, checksum, dump_map};

/// Upstream's name of it below the root directory.
const FILE: &str = "memory_manager_state";

/// Memory of one kind on one node, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    pub total: u64,
    pub system_reserved: u64,
    pub allocatable: u64,
    /// What containers have of it.
    pub reserved: u64,
    pub free: u64,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Blocks that lie here, with others' of the same group.
    pub number_of_assignments: i64,
    /// `memory` and `hugepages-<size>`.
    pub memory_map: BTreeMap<String, Table>,
    /// The group of nodes that containers have memory of together; itself alone where they do not.
    pub cells: Vec<u32>,
}

/// By number.
pub type Nodes = BTreeMap<u32, Node>;

/// What a container has of one kind of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    #[serde(rename = "numaAffinity")]
    pub nodes: Vec<u32>,
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// By pod and container.
pub type Assignments = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub nodes: Nodes,
    pub assignments: Assignments,
}

impl State {
    pub fn get(&self, uid: &str, container: &str) -> Option<&Vec<Block>> {
        self.assignments.get(uid)?.get(container)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    policy_name: String,
    #[serde(default)]
    machine_state: Nodes,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Assignments,
    checksum: u64,
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

fn dump_table(table: &Table) -> String {
    format!(
        "<*>{{TotalMemSize:(uint64){} SystemReserved:(uint64){} Allocatable:(uint64){} Reserved:(uint64){} \
         Free:(uint64){}}}",
        table.total, table.system_reserved, table.allocatable, table.reserved, table.free
    )
}

fn dump_node(node: &Node) -> String {
    format!(
        "<*>{{NumberOfAssignments:(int){} MemoryMap:(map[v1.ResourceName]*state.MemoryTable){} Cells:([]int){}}}",
        node.number_of_assignments,
        dump_map(&node.memory_map, Clone::clone, dump_table),
        list(&node.cells)
    )
}

fn dump_blocks(blocks: &[Block]) -> String {
    let block = |block: &Block| {
        format!(
            "{{NUMAAffinity:([]int){} Type:(v1.ResourceName){} Size:(uint64){}}}",
            list(&block.nodes),
            block.kind,
            block.size
        )
    };
    let blocks: Vec<String> = blocks.iter().map(block).collect();
    format!("[{}]", blocks.join(" "))
}

impl Checkpoint {
    fn sum(&self) -> u64 {
        let pod = |pod: &BTreeMap<String, Vec<Block>>| {
            dump_map(pod, Clone::clone, |blocks| dump_blocks(blocks))
        };
        checksum(&format!(
            "(*state.MemoryManagerCheckpoint){{PolicyName:(string){} MachineState:(state.NUMANodeMap){} \
             Entries:(state.ContainerMemoryAssignments){} Checksum:(checksum.Checksum)0}}",
            self.policy_name,
            dump_map(&self.machine_state, u32::to_string, dump_node),
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
                "could not restore state from checkpoint: {why}, please drain this node and delete the memory \
                 manager checkpoint file {:?} before restarting Kubelet",
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
                "[memorymanager] configured policy {:?} differs from state checkpoint policy {:?}",
                self.policy, checkpoint.policy_name
            ));
        }
        Ok(State {
            nodes: checkpoint.machine_state,
            assignments: checkpoint.entries,
        })
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &State) -> std::io::Result<()> {
        let mut checkpoint = Checkpoint {
            policy_name: self.policy.to_owned(),
            machine_state: state.nodes.clone(),
            entries: state.assignments.clone(),
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
        let (_, state) = File::open(dir.path(), "None").unwrap();
        assert_eq!(state, State::default());
        // As on every node that has this policy.
        let none = r#"{"policyName":"None","machineState":{},"checksum":4236770233}"#;
        assert_eq!(fs::read_to_string(&path).unwrap(), none);

        // With upstream's own checksum.
        let table = json!({"total": 2048, "systemReserved": 512, "allocatable": 1536, "reserved": 512, "free": 1024});
        let node = json!({"numberOfAssignments": 0, "memoryMap": {"memory": table}, "cells": []});
        let block = json!({"numaAffinity": [0], "type": "memory", "size": 512});
        let file = json!({
            "policyName": "static",
            "machineState": {"0": node},
            "entries": {"pod": {"container1": [block]}},
            "checksum": 4_215_593_881_u64,
        });
        fs::write(&path, file.to_string()).unwrap();
        let (file, state) = File::open(dir.path(), "static").unwrap();
        assert_eq!(state.get("pod", "container1").unwrap()[0].size, 512);
        assert_eq!(state.nodes[&0].memory_map["memory"].free, 1024);
        file.write(&state).unwrap();
        assert_eq!(File::open(dir.path(), "static").unwrap().1, state);
        assert!(File::open(dir.path(), "Static").is_err());
        let damaged = fs::read_to_string(&path).unwrap().replace("1024", "1025");
        fs::write(&path, damaged).unwrap();
        assert!(
            File::open(dir.path(), "static")
                .unwrap_err()
                .contains("corrupted")
        );
    }
}
