use client::Propagation;

use super::decide::{Decision, OwnerState, decide};
use super::graph::{Change, Effects, Graph, Identity, Observed, Owner};

fn identity(kind: &str, namespace: &str, name: &str) -> Identity {
    Identity {
        kind: kind.into(),
        api_version: "v1".into(),
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("u-{name}").into(),
    }
}

fn owner(kind: &str, name: &str) -> Owner {
    Owner {
        api_version: "v1".into(),
        kind: kind.into(),
        name: name.into(),
        uid: format!("u-{name}").into(),
        controller: true,
        blocks_deletion: true,
    }
}

fn object(kind: &str, name: &str, owners: &[Owner]) -> Observed {
    Observed {
        identity: identity(kind, "ns", name),
        owners: owners.to_vec(),
        deleting: false,
        foreground: false,
        orphan: false,
    }
}

fn delete(effects: &Effects) -> Vec<&str> {
    effects.delete.iter().map(|u| &**u).collect()
}

fn put(graph: &mut Graph, o: Observed) -> Effects {
    graph.apply(Change::Put(o, None))
}

#[test]
fn an_owner_that_is_not_seen_is_looked_for() {
    let mut graph = Graph::default();
    let effects = put(&mut graph, object("Pod", "p", &[owner("Set", "s")]));
    assert_eq!(delete(&effects), ["u-s"]);
    assert!(graph.view("u-s").unwrap().r#virtual);
    // It does not exist: the dependent is to be looked at.
    let effects = graph.apply(Change::Absent(identity("Set", "ns", "s")));
    assert_eq!(delete(&effects), ["u-p"]);
    assert_eq!(graph.view("u-s"), None);
    assert!(graph.absent.contains(&identity("Set", "ns", "s")));
}

#[test]
fn an_owner_that_is_seen_later_becomes_real() {
    let mut graph = Graph::default();
    put(&mut graph, object("Pod", "p", &[owner("Set", "s")]));
    assert_eq!(put(&mut graph, object("Set", "s", &[])), Effects::default());
    let view = graph.view("u-s").unwrap();
    assert!(!view.r#virtual && view.has_dependents);
    assert_eq!(&*view.blocking[0].0, "u-p");
    // In the background, its deletion lets the dependents go.
    let effects = graph.apply(Change::Deleted(identity("Set", "ns", "s")));
    assert_eq!(delete(&effects), ["u-p"]);
}

#[test]
fn foreground_deletion_waits_for_blocking_dependents() {
    let mut graph = Graph::default();
    put(&mut graph, object("Set", "s", &[]));
    put(&mut graph, object("Pod", "p", &[owner("Set", "s")]));
    let going = Observed {
        deleting: true,
        foreground: true,
        ..object("Set", "s", &[])
    };
    let effects = graph.apply(Change::Put(going.clone(), Some(object("Set", "s", &[]))));
    assert_eq!(delete(&effects), ["u-p", "u-s"]);
    // Only the start counts.
    assert_eq!(
        graph.apply(Change::Put(going.clone(), Some(going))),
        Effects::default()
    );
    assert!(graph.view("u-s").unwrap().deleting_dependents);
    let effects = graph.apply(Change::Deleted(identity("Pod", "ns", "p")));
    assert_eq!(delete(&effects), ["u-s"]);
    assert!(graph.view("u-s").unwrap().blocking.is_empty());
}

#[test]
fn a_reference_that_does_not_block_any_more_lets_the_owner_go() {
    let mut graph = Graph::default();
    put(&mut graph, object("Set", "s", &[]));
    put(&mut graph, object("Pod", "p", &[owner("Set", "s")]));
    let free = Owner {
        blocks_deletion: false,
        ..owner("Set", "s")
    };
    assert_eq!(
        delete(&put(&mut graph, object("Pod", "p", &[free]))),
        ["u-s"]
    );
    assert_eq!(
        delete(&put(&mut graph, object("Pod", "p", &[]))),
        Vec::<&str>::new()
    );
    assert!(graph.dependents("u-s").is_empty());
}

#[test]
fn orphaning_is_asked_for_once() {
    let mut graph = Graph::default();
    put(&mut graph, object("Set", "s", &[]));
    let going = Observed {
        deleting: true,
        orphan: true,
        ..object("Set", "s", &[])
    };
    let effects = graph.apply(Change::Put(going.clone(), Some(object("Set", "s", &[]))));
    assert_eq!(effects.orphan.len(), 1);
    // After a restart there is no state before.
    assert_eq!(graph.apply(Change::Put(going, None)).orphan.len(), 1);
}

#[test]
fn owners_in_other_namespaces_are_suspicious() {
    let mut graph = Graph::default();
    put(&mut graph, object("Set", "s", &[]));
    let mut far = object("Pod", "p", &[owner("Set", "s")]);
    far.identity.namespace = "far".into();
    let effects = put(&mut graph, far);
    assert_eq!(delete(&effects), ["u-p"]);
    let (dependent, says) = &effects.wrong_namespace[0];
    assert_eq!((&*dependent.namespace, &*says.namespace), ("far", "far"));
    // Cluster-scoped owners are fine.
    let mut node = object("Node", "n", &[]);
    node.identity.namespace = "".into();
    put(&mut graph, node);
    assert_eq!(
        put(&mut graph, object("Pod", "q", &[owner("Node", "n")])),
        Effects::default()
    );
}

#[test]
fn wrong_coordinates_do_not_delete_right_ones() {
    let mut graph = Graph::default();
    let mut wrong = owner("Sett", "s");
    wrong.uid = "u-s".into();
    put(&mut graph, object("Pod", "bad", &[wrong]));
    let effects = put(&mut graph, object("Pod", "good", &[owner("Set", "s")]));
    assert_eq!(delete(&effects), ["u-good"]);
    // The wrong identity was tried first and does not exist.
    let effects = graph.apply(Change::Absent(identity("Sett", "ns", "s")));
    assert_eq!(delete(&effects), ["u-bad"]);
    assert_eq!(effects.delete_later.len(), 1);
    assert_eq!(&*graph.view("u-s").unwrap().identity.kind, "Set");
}

#[test]
fn decisions() {
    let mut graph = Graph::default();
    put(&mut graph, object("Set", "s", &[owner("Dep", "d")]));
    let leaf = graph.view("u-s").unwrap();
    put(&mut graph, object("Pod", "p", &[owner("Set", "s")]));
    let parent = graph.view("u-s").unwrap();
    let owners = |states: &[OwnerState]| {
        let names = ["a", "b", "c"].iter().zip(states);
        names
            .map(|(n, s)| (owner("Dep", n), *s))
            .collect::<Vec<_>>()
    };
    use OwnerState::{Dangling, Solid, Waiting};
    assert_eq!(decide(&leaf, &[], &[]), Decision::Keep);
    assert_eq!(decide(&leaf, &owners(&[Solid]), &[]), Decision::Keep);
    let dropped = decide(&leaf, &owners(&[Solid, Dangling, Waiting]), &[]);
    assert_eq!(
        dropped,
        Decision::DropReferences(vec!["u-b".into(), "u-c".into()])
    );
    let gone = |propagation| Decision::Delete {
        propagation,
        unblock: false,
    };
    assert_eq!(
        decide(&leaf, &owners(&[Dangling]), &[]),
        gone(Propagation::Background)
    );
    assert_eq!(
        decide(&leaf, &owners(&[Waiting]), &[]),
        gone(Propagation::Background)
    );
    assert_eq!(
        decide(&parent, &owners(&[Waiting]), &[]),
        gone(Propagation::Foreground)
    );
    assert_eq!(
        decide(&leaf, &owners(&[Dangling]), &["orphan".into()]),
        gone(Propagation::Orphan)
    );
    let foreground = ["foregroundDeletion".to_owned()];
    assert_eq!(
        decide(&leaf, &owners(&[Dangling]), &foreground),
        gone(Propagation::Foreground)
    );
}

#[test]
fn circles_of_waiting_objects_are_broken() {
    let mut graph = Graph::default();
    put(&mut graph, object("A", "a", &[owner("B", "b")]));
    let mut b = object("B", "b", &[owner("A", "a")]);
    (b.deleting, b.foreground) = (true, true);
    put(&mut graph, b);
    let a = graph.view("u-a").unwrap();
    assert!(a.dependent_deletes_dependents);
    let owners = [(owner("B", "b"), OwnerState::Waiting)];
    assert_eq!(
        decide(&a, &owners, &[]),
        Decision::Delete {
            propagation: Propagation::Foreground,
            unblock: true
        }
    );
}
