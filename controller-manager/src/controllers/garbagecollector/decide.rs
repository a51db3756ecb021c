//! What to do about one object, once its owners have been looked at: pure.

use client::Propagation;

use super::graph::{FOREGROUND, ORPHAN, Owner, Uid, View};

/// What has become of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// It exists.
    Solid,
    /// It does not exist.
    Dangling,
    /// It is being deleted, and waits for its dependents.
    Waiting,
}

/// What to do about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Keep,
    /// It has other owners: take the references to these away.
    DropReferences(Vec<Uid>),
    Delete {
        propagation: Propagation,
        /// First make its references not block their owners: it is in a circle of objects
        /// that wait for each other.
        unblock: bool,
    },
}

/// Decides about an object that exists, with references `owners` and `finalizers` as they are now.
pub fn decide(view: &View, owners: &[(Owner, OwnerState)], finalizers: &[String]) -> Decision {
    if owners.is_empty() {
        return Decision::Keep;
    }
    let of = |state: OwnerState| owners.iter().filter(move |(_, s)| *s == state);
    if of(OwnerState::Solid).next().is_some() {
        let others = of(OwnerState::Dangling).chain(of(OwnerState::Waiting));
        let uids: Vec<Uid> = others.map(|(o, _)| o.uid.clone()).collect();
        return if uids.is_empty() {
            Decision::Keep
        } else {
            Decision::DropReferences(uids)
        };
    }
    if of(OwnerState::Waiting).next().is_some() && view.has_dependents {
        return Decision::Delete {
            propagation: Propagation::Foreground,
            unblock: view.dependent_deletes_dependents,
        };
    }
    let has = |finalizer: &str| finalizers.iter().any(|f| f == finalizer);
    let propagation = if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Decision::Delete {
        propagation,
        unblock: false,
    }
}
