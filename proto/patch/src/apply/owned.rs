//! The fields that an object names, as a set: what an applier comes to own.

use schema::Message;
use serde_json::Value;

use super::set::{Element, Node, Set};
use super::typed::{Atom, Ref, Relation, element_of};

/// Every leaf and every item of an object that has been validated.
pub fn fields_of(message: &'static Message, object: &Value) -> Set {
    value(Ref::Object(message), object).1
}

/// Whether the value itself is a member, and what is below it.
fn value(of: Ref, from: &Value) -> (bool, Set) {
    let whole = (true, Set::default());
    match of.atom(Some(from)) {
        Atom::Scalar(_)
        | Atom::Struct { atomic: true, .. }
        | Atom::Map { atomic: true, .. }
        | Atom::List {
            relation: Relation::Atomic,
            ..
        } => whole,
        Atom::Struct { .. } | Atom::Map { .. } => {
            let mut nodes = Vec::new();
            for (key, from) in from.as_object().into_iter().flatten() {
                let element = Element::Field(key.clone().into());
                let Some(below) = of.descend(&element) else {
                    continue;
                };
                let (member, children) = value(below, from);
                let empty = match from {
                    Value::Null => true,
                    Value::Object(members) => members.is_empty(),
                    _ => false,
                };
                nodes.push(Node {
                    member: member || empty || !of.declares(&element),
                    element,
                    children,
                });
            }
            (false, Set::new(nodes))
        }
        Atom::List { item, relation } => {
            let mut nodes: Vec<Node> = Vec::new();
            for from in from.as_array().into_iter().flatten() {
                if let Ok(element) = element_of(relation, from) {
                    nodes.push(Node {
                        element,
                        member: true,
                        children: value(item, from).1,
                    });
                }
            }
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|again, first| {
                let repeated = again.element == first.element;
                if repeated {
                    // Repeated items are owned as one leaf.
                    first.children = Set::default();
                }
                repeated
            });
            (false, Set::new(nodes))
        }
    }
}

/// Adds the fields of structs that lead to members: removing or comparing them must not lose
/// the struct between.
pub fn with_named_fields(message: &'static Message, set: &Set) -> Set {
    named(Some(Ref::Object(message)), set)
}

fn named(of: Option<Ref>, set: &Set) -> Set {
    let nodes = set.nodes().iter().map(|node| Node {
        element: node.element.clone(),
        member: node.member
            || (!node.children.is_empty() && of.is_some_and(|of| of.declares(&node.element))),
        children: named(of.and_then(|of| of.descend(&node.element)), &node.children),
    });
    Set::new(nodes.collect())
}

/// Whether nothing that is owned in parts has become atomic since the set was written.
pub fn fits(message: &'static Message, set: &Set) -> bool {
    fits_below(Ref::Object(message), set)
}

fn fits_below(of: Ref, set: &Set) -> bool {
    let parted = set.nodes().iter().filter(|n| !n.children.is_empty());
    parted
        .filter_map(|node| Some((node, of.descend(&node.element)?)))
        .all(|(node, of)| match today(of) {
            Today::Leaf => true,
            Today::Whole => false,
            Today::Parts => fits_below(of, &node.children),
        })
}

/// Fits a set to today's schema: what has become atomic since the set was written is owned as
/// a whole.
pub fn reconcile(message: &'static Message, set: &mut Set) {
    reconcile_below(Ref::Object(message), set);
}

fn reconcile_below(of: Ref, set: &mut Set) {
    set.edit(&mut |node| {
        let Some(of) = of.descend(&node.element) else {
            return;
        };
        match today(of) {
            _ if node.children.is_empty() => {}
            Today::Leaf => {}
            Today::Whole => {
                node.member = true;
                node.children = Set::default();
            }
            Today::Parts => reconcile_below(of, &mut node.children),
        }
    });
}

/// How the values of a type are owned.
enum Today {
    Leaf,
    Whole,
    Parts,
}

fn today(of: Ref) -> Today {
    let atomic = match (of.free_form(), of.atom(None)) {
        (Some(below), _) => matches!(below, Ref::Untyped),
        (_, Atom::Struct { atomic, .. } | Atom::Map { atomic, .. }) => atomic,
        (_, Atom::List { relation, .. }) => matches!(relation, Relation::Atomic),
        (_, Atom::Scalar(_)) => return Today::Leaf,
    };
    if atomic { Today::Whole } else { Today::Parts }
}
