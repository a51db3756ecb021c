//! The graph of owners and dependents: pure. Changes of objects go in, what to look at comes out.
//!
//! A node is *virtual* as long as only dependents speak of it: it has not been seen, and may
//! not exist. Identities are what dependents claim, so a virtual node's may be wrong.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::absent::AbsentOwners;

/// An object's UID.
pub type Uid = Arc<str>;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Who an object is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub kind: Arc<str>,
    pub api_version: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Uid,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            api_version,
            namespace,
            name,
            uid,
        } = self;
        write!(
            f,
            "[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]"
        )
    }
}

/// A reference to an owner, as small as can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub api_version: Arc<str>,
    pub kind: Arc<str>,
    pub name: Arc<str>,
    pub uid: Uid,
    pub controller: bool,
    pub blocks_deletion: bool,
}

impl Owner {
    /// Whether the reference means this object, apart from the namespace.
    fn names(&self, identity: &Identity) -> bool {
        self.uid == identity.uid
            && self.name == identity.name
            && self.kind == identity.kind
            && self.api_version == identity.api_version
    }

    /// The owner's identity, if it lives in `namespace`.
    pub fn identity(&self, namespace: &Arc<str>) -> Identity {
        Identity {
            kind: self.kind.clone(),
            api_version: self.api_version.clone(),
            namespace: namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

impl From<&OwnerReference> for Owner {
    fn from(r: &OwnerReference) -> Self {
        Self {
            api_version: r.api_version.as_str().into(),
            kind: r.kind.as_str().into(),
            name: r.name.as_str().into(),
            uid: r.uid.as_str().into(),
            controller: r.controller == Some(true),
            blocks_deletion: r.block_owner_deletion == Some(true),
        }
    }
}

/// An object's state, as far as the graph cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub identity: Identity,
    pub owners: Vec<Owner>,
    pub deleting: bool,
    /// Has the finalizer `foregroundDeletion`.
    pub foreground: bool,
    /// Has the finalizer `orphan`.
    pub orphan: bool,
}

/// What happened to an object.
#[derive(Debug, Clone)]
pub enum Change {
    /// It was added or changed; the state before, if it was known.
    Put(Observed, Option<Observed>),
    Deleted(Identity),
    /// We have looked: no such object exists. No watch said so.
    Absent(Identity),
}

#[derive(Debug, Clone)]
struct Node {
    identity: Identity,
    owners: Vec<Owner>,
    dependents: BTreeSet<Uid>,
    deleting: bool,
    deleting_dependents: bool,
    r#virtual: bool,
}

/// What a change calls for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// See whether these can go.
    pub delete: Vec<Uid>,
    /// As `delete`, but not at once: each of them may be a wrong guess.
    pub delete_later: Vec<Uid>,
    /// Take the references to these from their dependents.
    pub orphan: Vec<Uid>,
    /// Dependents whose owner is in another namespace, and what they say of it.
    pub wrong_namespace: Vec<(Identity, Identity)>,
}

/// What is to be known of a node to decide about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub identity: Identity,
    pub owners: Vec<Owner>,
    pub deleting: bool,
    pub deleting_dependents: bool,
    pub r#virtual: bool,
    pub has_dependents: bool,
    /// Dependents that are themselves waiting for theirs.
    pub dependent_deletes_dependents: bool,
    /// Dependents that block this one's deletion, with whether they wait for theirs.
    pub blocking: Vec<(Uid, bool)>,
}

/// The graph. One lock around it is enough: all operations are quick.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    pub absent: AbsentOwners,
}

impl Graph {
    /// A node as it is now.
    pub fn view(&self, uid: &str) -> Option<View> {
        let node = self.nodes.get(uid)?;
        let dependents = node.dependents.iter().filter_map(|d| self.nodes.get(d));
        let blocks = |d: &&Node| {
            d.owners
                .iter()
                .any(|o| o.uid == node.identity.uid && o.blocks_deletion)
        };
        Some(View {
            identity: node.identity.clone(),
            owners: node.owners.clone(),
            deleting: node.deleting,
            deleting_dependents: node.deleting_dependents,
            r#virtual: node.r#virtual,
            has_dependents: !node.dependents.is_empty(),
            dependent_deletes_dependents: dependents.clone().any(|d| d.deleting_dependents),
            blocking: dependents
                .filter(blocks)
                .map(|d| (d.identity.uid.clone(), d.deleting_dependents))
                .collect(),
        })
    }

    /// Who depends on a node.
    pub fn dependents(&self, uid: &str) -> Vec<Identity> {
        let node = self.nodes.get(uid).into_iter();
        let uids = node.flat_map(|n| &n.dependents);
        uids.filter_map(|d| Some(self.nodes.get(d)?.identity.clone()))
            .collect()
    }

    /// Takes in a change.
    pub fn apply(&mut self, change: Change) -> Effects {
        let mut effects = Effects::default();
        match change {
            Change::Put(new, old) => {
                self.observe(&new.identity, &mut effects);
                if self.nodes.contains_key(&new.identity.uid) {
                    self.update(&new, &mut effects);
                } else {
                    self.insert(&new, &mut effects);
                }
                self.transitions(&new, old.as_ref(), &mut effects);
            }
            Change::Deleted(identity) => {
                self.observe(&identity, &mut effects);
                self.remove(&identity, &mut effects);
            }
            Change::Absent(identity) => {
                if self.confirm_absent(&identity, &mut effects) {
                    self.remove(&identity, &mut effects);
                }
            }
        }
        effects
    }

    /// A virtual node turns out to exist, perhaps under another identity than was claimed.
    fn observe(&mut self, identity: &Identity, effects: &mut Effects) {
        let Some(node) = self.nodes.get_mut(&identity.uid) else {
            return;
        };
        if !node.r#virtual {
            return;
        }
        node.r#virtual = false;
        if node.identity == *identity {
            return;
        }
        node.identity = identity.clone();
        let (_, wrong) = self.partition(identity);
        for uid in wrong {
            let Some(dependent) = self.nodes.get(&uid) else {
                continue;
            };
            if !identity.namespace.is_empty() && dependent.identity.namespace != identity.namespace
            {
                effects
                    .wrong_namespace
                    .extend(claimed(dependent, &identity.uid));
            }
            effects.delete.push(uid);
        }
    }

    fn insert(&mut self, new: &Observed, effects: &mut Effects) {
        let node = Node {
            identity: new.identity.clone(),
            owners: new.owners.clone(),
            dependents: BTreeSet::new(),
            deleting: new.deleting,
            deleting_dependents: new.deleting && new.foreground,
            r#virtual: false,
        };
        self.nodes.insert(new.identity.uid.clone(), node);
        self.add_to_owners(&new.identity, &new.owners, effects);
    }

    fn update(&mut self, new: &Observed, effects: &mut Effects) {
        let Some(node) = self.nodes.get_mut(&new.identity.uid) else {
            return;
        };
        node.deleting |= new.deleting;
        if node.owners == new.owners {
            return;
        }
        let old = std::mem::replace(&mut node.owners, new.owners.clone());
        let find = |list: &[Owner], uid: &Uid| list.iter().find(|o| o.uid == *uid).cloned();
        let added: Vec<_> = new
            .owners
            .iter()
            .filter(|o| find(&old, &o.uid).is_none())
            .cloned()
            .collect();
        for before in &old {
            let after = find(&new.owners, &before.uid);
            if before.blocks_deletion && !after.as_ref().is_some_and(|a| a.blocks_deletion) {
                // It may have been all that the owner waited for.
                if self.nodes.contains_key(&before.uid) {
                    effects.delete.push(before.uid.clone());
                }
            }
            if after.is_none()
                && let Some(owner) = self.nodes.get_mut(&before.uid)
            {
                owner.dependents.remove(&new.identity.uid);
            }
        }
        self.add_to_owners(&new.identity, &added, effects);
    }

    /// Notes the dependent on its owners, and looks for references that cannot be right.
    fn add_to_owners(&mut self, dependent: &Identity, owners: &[Owner], effects: &mut Effects) {
        let mut suspicious = false;
        for reference in owners {
            let Some(owner) = self.nodes.get_mut(&reference.uid) else {
                let node = Node {
                    identity: reference.identity(&dependent.namespace),
                    owners: Vec::new(),
                    dependents: [dependent.uid.clone()].into(),
                    deleting: false,
                    deleting_dependents: false,
                    r#virtual: true,
                };
                self.nodes.insert(reference.uid.clone(), node);
                effects.delete.push(reference.uid.clone());
                continue;
            };
            owner.dependents.insert(dependent.uid.clone());
            if suspicious {
                continue;
            }
            let namespaced = !owner.identity.namespace.is_empty();
            let same_namespace = owner.identity.namespace == dependent.namespace;
            if namespaced && !same_namespace {
                if !owner.r#virtual {
                    let says = reference.identity(&dependent.namespace);
                    effects.wrong_namespace.push((dependent.clone(), says));
                }
                suspicious = true;
            } else {
                suspicious = !reference.names(&owner.identity)
                    || (!namespaced && !same_namespace && owner.r#virtual);
            }
        }
        if suspicious {
            effects.delete.push(dependent.uid.clone());
        }
    }

    fn transitions(&mut self, new: &Observed, old: Option<&Observed>, effects: &mut Effects) {
        let started = |has: fn(&Observed) -> bool| {
            new.deleting && has(new) && !old.is_some_and(|o| o.deleting && has(o))
        };
        let uid = &new.identity.uid;
        if started(|o| o.orphan) {
            effects.orphan.push(uid.clone());
        } else if started(|o| o.foreground)
            && let Some(node) = self.nodes.get_mut(uid)
        {
            node.deleting_dependents = true;
            effects.delete.extend(node.dependents.iter().cloned());
            effects.delete.push(uid.clone());
        }
    }

    fn remove(&mut self, identity: &Identity, effects: &mut Effects) {
        let Some(node) = self.nodes.remove(&identity.uid) else {
            return;
        };
        if !node.dependents.is_empty() {
            self.absent.insert(identity.clone());
        }
        effects.delete.extend(node.dependents.iter().cloned());
        for owner in &node.owners {
            if let Some(owner) = self.nodes.get_mut(&owner.uid) {
                owner.dependents.remove(&identity.uid);
                if owner.deleting_dependents {
                    effects.delete.push(owner.identity.uid.clone());
                }
            }
        }
    }

    /// The object of this identity does not exist. Returns whether the node can go; it must
    /// stay if dependents claim other identities for it, of which one may be right.
    fn confirm_absent(&mut self, identity: &Identity, effects: &mut Effects) -> bool {
        let Some(node) = self.nodes.get(&identity.uid) else {
            return false;
        };
        let (is_virtual, same) = (node.r#virtual, node.identity == *identity);
        if !is_virtual && same {
            return true;
        }
        let (matching, others) = self.partition(identity);
        if is_virtual && others.is_empty() {
            return true;
        }
        if !matching.is_empty() {
            self.absent.insert(identity.clone());
            effects.delete.extend(matching);
        }
        if is_virtual
            && same
            && let Some(next) = self.alternative(&others, identity)
            && let Some(node) = self.nodes.get_mut(&identity.uid)
        {
            node.identity = next;
            effects.delete_later.push(identity.uid.clone());
        }
        false
    }

    /// A node's dependents: those that mean the owner of this identity, and those that mean
    /// another of the same UID.
    fn partition(&self, owner: &Identity) -> (Vec<Uid>, Vec<Uid>) {
        let (mut matching, mut others) = (Vec::new(), Vec::new());
        let dependents = self.nodes.get(&owner.uid).map(|n| n.dependents.iter());
        for uid in dependents.into_iter().flatten() {
            let Some(dependent) = self.nodes.get(uid) else {
                continue;
            };
            let foreign =
                !owner.namespace.is_empty() && dependent.identity.namespace != owner.namespace;
            let mut references = dependent.owners.iter().filter(|o| o.uid == owner.uid);
            if !foreign && references.clone().any(|o| o.names(owner)) {
                matching.push(uid.clone());
            }
            if foreign || references.any(|o| !o.names(owner)) {
                others.push(uid.clone());
            }
        }
        (matching, others)
    }

    /// The next identity that dependents claim for a node, in an order that gets to each.
    fn alternative(&self, dependents: &[Uid], absent: &Identity) -> Option<Identity> {
        let cluster_scoped = absent.namespace.is_empty();
        let mut claimed = BTreeSet::new();
        for dependent in dependents.iter().filter_map(|u| self.nodes.get(u)) {
            for owner in dependent.owners.iter().filter(|o| o.uid == absent.uid) {
                let local = cluster_scoped || absent.namespace == dependent.identity.namespace;
                if owner.names(absent) && local {
                    continue;
                }
                let mut identity = owner.identity(&dependent.identity.namespace);
                if cluster_scoped
                    && identity.api_version == absent.api_version
                    && identity.kind == absent.kind
                {
                    identity.namespace = "".into();
                }
                claimed.insert(identity);
            }
        }
        claimed.remove(absent);
        let following = claimed.iter().find(|i| *i > absent);
        following.or(claimed.first()).cloned()
    }
}

/// What a dependent says of the owner with this UID.
fn claimed(dependent: &Node, owner: &Uid) -> Option<(Identity, Identity)> {
    let reference = dependent.owners.iter().find(|o| o.uid == *owner)?;
    let says = reference.identity(&dependent.identity.namespace);
    Some((dependent.identity.clone(), says))
}
