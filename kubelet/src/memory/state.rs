//! Who has memory of which NUMA nodes, and the file that says so, `memory_manager_state`, in
//! upstream's format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, dump_map};

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

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(rename = "machineState", default)]
    pub nodes: Nodes,
    #[serde(
        rename = "entries",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub assignments: Assignments,
}

impl State {
    pub fn get(&self, uid: &str, container: &str) -> Option<&Vec<Block>> {
        self.assignments.get(uid)?.get(container)
    }
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

impl checkpoint::State for State {
    const FILE: &'static str = "memory_manager_state";
    const MANAGER: &'static str = "memory";
    const PREFIX: &'static str = "[memorymanager] ";

    fn dump(&self, policy: &str) -> String {
        let pod = |pod: &BTreeMap<String, Vec<Block>>| {
            dump_map(pod, Clone::clone, |blocks| dump_blocks(blocks))
        };
        format!(
            "(*state.MemoryManagerCheckpoint){{PolicyName:(string){policy} MachineState:(state.NUMANodeMap){} \
             Entries:(state.ContainerMemoryAssignments){} Checksum:(checksum.Checksum)0}}",
            dump_map(&self.nodes, u32::to_string, dump_node),
            dump_map(&self.assignments, Clone::clone, pod),
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
        let (_, state) = open(dir.path(), "None").unwrap();
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
        let (file, state) = open(dir.path(), "static").unwrap();
        assert_eq!(state.get("pod", "container1").unwrap()[0].size, 512);
        assert_eq!(state.nodes[&0].memory_map["memory"].free, 1024);
        file.write(&state).unwrap();
        assert_eq!(open(dir.path(), "static").unwrap().1, state);
        assert!(open(dir.path(), "Static").is_err());
        let damaged = fs::read_to_string(&path).unwrap().replace("1024", "1025");
        fs::write(&path, damaged).unwrap();
        assert!(
            open(dir.path(), "static")
                .unwrap_err()
                .contains("corrupted")
        );
    }
}
