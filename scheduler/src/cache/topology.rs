//! Which domain of a topology each node is in: one column of numbers per topology key.

use std::collections::HashMap;

use super::NodeInfo;

/// A topology key that somebody has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(usize);

/// The domain of a node that does not have the label.
pub const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
struct Column {
    label: Box<str>,
    /// Numbers stay when the last node of a domain goes.
    numbers: HashMap<Box<str>, u32>,
    of_slot: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Topology {
    columns: Vec<Column>,
}

impl Column {
    fn put(&mut self, node: &NodeInfo) {
        let next = u32::try_from(self.numbers.len()).unwrap_or(NOWHERE);
        let domain = match node.labels.get(&*self.label) {
            None => NOWHERE,
            Some(value) => match self.numbers.get(value.as_str()) {
                Some(known) => *known,
                None => {
                    self.numbers.insert(value.as_str().into(), next);
                    next
                }
            },
        };
        if self.of_slot.len() <= node.slot {
            self.of_slot.resize(node.slot + 1, NOWHERE);
        }
        self.of_slot[node.slot] = domain;
    }
}

impl Topology {
    /// The column of a label; made from `nodes` when it is asked for the first time.
    pub fn key<'a>(&mut self, label: &str, nodes: impl Iterator<Item = &'a NodeInfo>) -> Key {
        if let Some(at) = self.columns.iter().position(|c| &*c.label == label) {
            return Key(at);
        }
        let mut column = Column {
            label: label.into(),
            numbers: HashMap::new(),
            of_slot: Vec::new(),
        };
        for node in nodes {
            column.put(node);
        }
        self.columns.push(column);
        Key(self.columns.len() - 1)
    }

    pub fn put(&mut self, node: &NodeInfo) {
        for column in &mut self.columns {
            column.put(node);
        }
    }

    pub fn remove(&mut self, slot: usize) {
        for column in &mut self.columns {
            if let Some(domain) = column.of_slot.get_mut(slot) {
                *domain = NOWHERE;
            }
        }
    }

    pub fn domain(&self, key: Key, slot: usize) -> u32 {
        let column = &self.columns[key.0];
        column.of_slot.get(slot).copied().unwrap_or(NOWHERE)
    }

    /// The domains of all slots that have a node, and perhaps of others.
    pub fn column(&self, key: Key) -> &[u32] {
        &self.columns[key.0].of_slot
    }

    /// One more than the largest number of a domain.
    pub fn domains(&self, key: Key) -> usize {
        self.columns[key.0].numbers.len()
    }
}
