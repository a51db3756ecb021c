//! From what is there to what is wanted, as one nft transaction. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use super::Family;
use super::elements::Element;
use super::layout::TABLE;

/// Elements to remove, then elements to add.
#[derive(Debug, Default)]
pub struct Change {
    remove: BTreeSet<Element>,
    add: BTreeSet<Element>,
}

impl Change {
    /// Takes one service from `present` to `wanted`. `shared` counts who needs the
    /// elements that several services may have in common.
    pub fn service(
        &mut self,
        present: &BTreeSet<Element>,
        wanted: &BTreeSet<Element>,
        shared: &mut HashMap<Element, usize>,
    ) {
        for element in present.difference(wanted) {
            if is_shared(element) {
                match shared.get_mut(element) {
                    Some(users) if *users > 1 => {
                        *users -= 1;
                        continue;
                    }
                    _ => shared.remove(element),
                };
            }
            // Another service of this transaction may have added it just now.
            if !self.add.remove(element) {
                self.remove.insert(element.clone());
            }
        }
        for element in wanted.difference(present) {
            if is_shared(element) {
                let users = shared.entry(element.clone()).or_default();
                *users += 1;
                if *users > 1 {
                    continue;
                }
            }
            if !self.remove.remove(element) {
                self.add.insert(element.clone());
            }
        }
    }

    /// Writes the commands; one per map and direction.
    pub fn write(&self, family: Family, out: &mut String) {
        // Removals first: an address that moves between services is free by then.
        for (verb, elements) in [("delete", &self.remove), ("add", &self.add)] {
            let mut by_set: BTreeMap<&str, Vec<&Element>> = BTreeMap::new();
            for element in elements {
                by_set.entry(element.set()).or_default().push(element);
            }
            for (set, elements) in by_set {
                let done = write!(out, "{verb} element {} {TABLE} {set} {{ ", family.as_str());
                debug_assert!(done.is_ok(), "writing to a String does not fail");
                for (i, element) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    element.write(out);
                }
                out.push_str(" }\n");
            }
        }
    }
}

/// A pod behind two services needs its hairpin once.
fn is_shared(element: &Element) -> bool {
    matches!(element, Element::Hairpin(_))
}
