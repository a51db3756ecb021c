//! Which of a plugin's devices a container gets: those that lie near what else it has, and among
//! them those that the plugin prefers. Pure: where the plugin is to be asked, that is said, and its
//! answer taken.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::Device;
use crate::topology::Mask;

pub type Ids = BTreeSet<String>;

/// What there is to choose from.
pub struct From<'a> {
    /// All of the plugin's devices.
    pub devices: &'a BTreeMap<String, Device>,
    pub healthy: &'a Ids,
    /// Those that some container has.
    pub in_use: &'a Ids,
    /// Those of the pod's init containers that have ended by then.
    pub reusable: &'a Ids,
    pub affinity: Option<Mask>,
}

/// How far the choice has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    Done(Ids),
    /// The plugin may say what it prefers.
    Ask(Question),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    pub available: Ids,
    pub must_include: Ids,
    pub size: usize,
    /// Where what it prefers may come from, and where what is missing then comes from.
    among: Ids,
    rest: Vec<Ids>,
}

/// # Errors
/// When there are not enough: the text that the pod shows.
pub fn choose(resource: &str, size: usize, from: &From<'_>) -> Result<Choice, String> {
    let mut chosen = Ids::new();
    take(&mut chosen, from.reusable, size);
    if chosen.len() == size {
        return Ok(Choice::Done(chosen));
    }
    let available: Ids = from.healthy.difference(from.in_use).cloned().collect();
    let missing = size - chosen.len();
    if available.len() < missing {
        return Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {missing}, Available: {}",
            available.len()
        ));
    }
    let [near, far, anywhere] = split(from, &available);
    if missing < near.len() {
        return Ok(Choice::Ask(Question {
            available: near.union(&chosen).cloned().collect(),
            must_include: chosen,
            size,
            among: near.clone(),
            rest: vec![near],
        }));
    }
    take(&mut chosen, &near, size);
    if chosen.len() == size {
        return Ok(Choice::Done(chosen));
    }
    Ok(Choice::Ask(Question {
        available: available.union(&chosen).cloned().collect(),
        must_include: chosen,
        size,
        among: available,
        rest: vec![far, anywhere],
    }))
}

impl Question {
    /// The devices, given those that the plugin prefers; it may prefer none.
    ///
    /// # Errors
    /// When there are not enough after all.
    pub fn answered(self, preferred: &Ids) -> Result<Ids, String> {
        let mut chosen = self.must_include;
        let preferred: Ids = preferred.intersection(&self.among).cloned().collect();
        take(&mut chosen, &preferred, self.size);
        for more in &self.rest {
            take(&mut chosen, more, self.size);
        }
        if chosen.len() < self.size {
            return Err(format!(
                "unexpectedly allocated less resources than required. Requested: {}, Got: {}",
                self.size,
                chosen.len()
            ));
        }
        Ok(chosen)
    }
}

fn take(chosen: &mut Ids, from: &Ids, size: usize) {
    for id in from {
        if chosen.len() == size {
            return;
        }
        chosen.insert(id.clone());
    }
}

/// Devices of the wanted nodes, of others, and of none. Without a wish, or where no device of the
/// resource says where it is, all are of none.
fn split(from: &From<'_>, available: &Ids) -> [Ids; 3] {
    let placed = from.devices.values().any(|device| !device.nodes.is_empty());
    let mut groups: [Ids; 3] = Default::default();
    for id in available {
        let nodes = from.devices.get(id).map(|device| device.nodes.as_slice());
        let group = match (from.affinity.filter(|_| placed), nodes) {
            (None, _) | (_, None | Some([])) => 2,
            (Some(mask), Some(nodes)) => {
                let near = |node: &i64| u32::try_from(*node).is_ok_and(|node| mask.contains(node));
                usize::from(!nodes.iter().any(near))
            }
        };
        groups[group].insert(id.clone());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Ids {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Devices `a0 b0 c1 d1 e`: the digit is the node.
    fn devices() -> BTreeMap<String, Device> {
        let device = |id: &str| {
            let node = id.chars().nth(1).and_then(|c| c.to_digit(10));
            let device = Device {
                health: "Healthy".into(),
                nodes: node.into_iter().map(i64::from).collect(),
            };
            (id.to_owned(), device)
        };
        ["a0", "b0", "c1", "d1", "e"].map(device).into()
    }

    /// Size, in use, reusable, wanted node, what the plugin prefers; then what it is offered, and
    /// what is chosen.
    #[test]
    fn choices() {
        type Case<'a> = (
            usize,
            &'a str,
            &'a str,
            Option<u32>,
            &'a str,
            Option<&'a str>,
            Result<&'a str, &'a str>,
        );
        let cases: &[Case<'_>] = &[
            (1, "", "", None, "", Some("a0 b0 c1 d1 e"), Ok("a0")),
            (1, "", "", None, "d1", Some("a0 b0 c1 d1 e"), Ok("d1")),
            (1, "", "", Some(1), "a0", Some("c1 d1"), Ok("c1")),
            (1, "", "", Some(1), "d1 a0", Some("c1 d1"), Ok("d1")),
            (2, "", "", Some(1), "", None, Ok("c1 d1")),
            (
                3,
                "",
                "",
                Some(1),
                "e",
                Some("a0 b0 c1 d1 e"),
                Ok("c1 d1 e"),
            ),
            (
                3,
                "",
                "",
                Some(1),
                "",
                Some("a0 b0 c1 d1 e"),
                Ok("a0 c1 d1"),
            ),
            (2, "a0 c1", "a0 c1", None, "", None, Ok("a0 c1")),
            (3, "a0 c1", "a0 c1", Some(1), "", None, Ok("a0 c1 d1")),
            (
                1,
                "a0 b0 c1 d1 e",
                "",
                None,
                "",
                None,
                Err("requested number of devices unavailable for r. Requested: 1, Available: 0"),
            ),
        ];
        let devices = devices();
        let healthy: Ids = devices.keys().cloned().collect();
        for (size, in_use, reusable, node, preferred, offered, want) in cases {
            let from = From {
                devices: &devices,
                healthy: &healthy,
                in_use: &ids(in_use),
                reusable: &ids(reusable),
                affinity: node.map(|node| Mask::of([node])),
            };
            let mut asked = None;
            let chosen = choose("r", *size, &from).and_then(|choice| match choice {
                Choice::Done(chosen) => Ok(chosen),
                Choice::Ask(question) => {
                    asked = Some(question.available.clone());
                    question.answered(&ids(preferred))
                }
            });
            let what = (size, in_use, node, preferred);
            assert_eq!(asked, offered.map(ids), "{what:?}");
            assert_eq!(chosen, want.map(ids).map_err(str::to_owned), "{what:?}");
        }
    }
}
