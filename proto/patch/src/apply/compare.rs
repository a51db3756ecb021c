//! What changed between two objects, as field sets.

use std::collections::BTreeMap;

use schema::{Field, Message, Type};
use serde_json::{Map, Value};

use super::set::{Element, Node, Set, equal};
use super::typed::{Atom, Ref, Relation, element_of, items};
use super::validate::Invalid;

/// Whose members a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// An object of the server, which has the members that Go prints of it, whether or not
    /// they are in the tree.
    Printed,
    /// What a client applies: what is there and nothing else.
    Literal,
}

/// No field is in more than one of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub fn subtract_recursively(&mut self, fields: &Set) {
        self.removed.subtract_recursively(fields);
        self.modified.subtract_recursively(fields);
        self.added.subtract_recursively(fields);
    }
}

/// Compares two objects of one type that are seen alike.
pub fn compare(
    message: &'static Message,
    view: View,
    old: &Value,
    new: &Value,
) -> Result<Comparison, Vec<Invalid>> {
    let mut walk = Walk {
        view,
        errors: Vec::new(),
    };
    let delta = walk.value(Ref::Object(message), Some(old), Some(new));
    if !walk.errors.is_empty() {
        return Err(walk.errors);
    }
    Ok(Comparison {
        removed: Set::new(delta.removed.below),
        modified: Set::new(delta.modified.below),
        added: Set::new(delta.added.below),
    })
}

/// A value's part of one of the three sets.
#[derive(Default)]
struct Part {
    member: bool,
    below: Vec<Node>,
}

#[derive(Default)]
struct Delta {
    removed: Part,
    modified: Part,
    added: Part,
}

impl Delta {
    /// Takes over what is known about a part of this value.
    fn push(&mut self, element: Element, part: Delta) {
        let put = |into: &mut Vec<Node>, part: Part| {
            if part.member || !part.below.is_empty() {
                into.push(Node {
                    element: element.clone(),
                    member: part.member,
                    children: Set::new(part.below),
                });
            }
        };
        put(&mut self.removed.below, part.removed);
        put(&mut self.modified.below, part.modified);
        put(&mut self.added.below, part.added);
    }
}

struct Walk {
    view: View,
    errors: Vec<Invalid>,
}

type Pair<'a> = (Option<&'a Value>, Option<&'a Value>);
/// The members of both sides of a struct.
type Sides<'a> = (Option<&'a Object>, Option<&'a Object>);
type Object = Map<String, Value>;

impl Walk {
    fn value(&mut self, of: Ref, old: Option<&Value>, new: Option<&Value>) -> Delta {
        if old == new {
            return Delta::default();
        }
        let (before, after) = (of.atom(old), of.atom(new));
        let changed_form = old.is_some()
            && new.is_some()
            && std::mem::discriminant(&before) != std::mem::discriminant(&after);
        let mut delta = Delta::default();
        let leaf = if new.is_none() {
            self.atom(before, old, new, &mut delta)
        } else {
            if changed_form {
                self.atom(before, old, new, &mut delta);
            }
            self.atom(after, old, new, &mut delta)
        };
        if !leaf {
            delta.added.member |= old.is_none();
            delta.removed.member |= new.is_none();
        }
        delta
    }

    /// Says whether the value was compared as a whole.
    fn atom(
        &mut self,
        atom: Atom,
        old: Option<&Value>,
        new: Option<&Value>,
        delta: &mut Delta,
    ) -> bool {
        match atom {
            Atom::Scalar(_) => {}
            Atom::Struct { message, atomic } => {
                if atomic {
                    self.leaf(Some(message), old, new, delta);
                    return true;
                }
                let fields = self.fields(message, old, new);
                if !fields.is_empty() {
                    for (field, (old, new)) in fields {
                        let part = self.value(Ref::Field(field), old, new);
                        delta.push(Element::field(field.json), part);
                    }
                    return false;
                }
                // Neither side has a field that is printed.
                self.leaf(Some(message), old, new, delta);
                return true;
            }
            Atom::Map { item, atomic } => {
                let entries = entries(old, new);
                if !atomic && !entries.is_empty() {
                    for (key, (old, new)) in entries {
                        let part = self.value(item, old, new);
                        delta.push(Element::Field(key.to_owned().into()), part);
                    }
                    return false;
                }
            }
            Atom::List { item, relation } => {
                let atomic = matches!(relation, Relation::Atomic);
                let (old, new) = (items(old), items(new));
                let empty = old.is_empty() && new.is_empty();
                if !atomic && !empty {
                    self.list(item, relation, old, new, delta);
                    return false;
                }
            }
        }
        self.leaf(None, old, new, delta);
        true
    }

    fn leaf(
        &self,
        message: Option<&'static Message>,
        old: Option<&Value>,
        new: Option<&Value>,
        delta: &mut Delta,
    ) {
        match (old, new) {
            (None, _) => delta.added.member = true,
            (_, None) => delta.removed.member = true,
            (Some(old), Some(new)) => {
                let same = match (message, self.view) {
                    (Some(message), View::Printed) => equal(
                        &codec::tree::printed_tree(message, old),
                        &codec::tree::printed_tree(message, new),
                    ),
                    _ => equal(old, new),
                };
                delta.modified.member |= !same;
            }
        }
    }

    /// The fields of a struct that either side has.
    fn fields<'a>(
        &self,
        message: &'static Message,
        old: Option<&'a Value>,
        new: Option<&'a Value>,
    ) -> Vec<(&'static Field, Pair<'a>)> {
        let mut found = Vec::new();
        // A side that is null has no members, whoever looks at it.
        let sides = (
            old.and_then(Value::as_object),
            new.and_then(Value::as_object),
        );
        self.collect(message, sides, &mut found);
        found
    }

    fn collect<'a>(
        &self,
        message: &'static Message,
        sides: Sides<'a>,
        found: &mut Vec<(&'static Field, Pair<'a>)>,
    ) {
        for field in message.fields {
            if field.json.is_empty() {
                if let Type::Message(inlined) = &field.ty {
                    self.collect(inlined, sides, found);
                }
                continue;
            }
            let side = |members: Option<&'a Object>| {
                let members = members?;
                match self.view {
                    View::Printed => codec::tree::printed(field, members.get(field.json)),
                    View::Literal => members.get(field.json),
                }
            };
            let pair = (side(sides.0), side(sides.1));
            if pair.0.is_some() || pair.1.is_some() {
                found.push((field, pair));
            }
        }
    }

    fn list(
        &mut self,
        item: Ref,
        relation: Relation,
        old: &[Value],
        new: &[Value],
        delta: &mut Delta,
    ) {
        let mut found: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (i, value) in old.iter().enumerate() {
            match element_of(relation, value) {
                Ok(element) => found.entry(element).or_default().0.push(value),
                Err(e) => self.errors.push(Invalid::item(i, e)),
            }
        }
        for (i, value) in new.iter().enumerate() {
            match element_of(relation, value) {
                Ok(element) => found.entry(element).or_default().1.push(value),
                Err(e) => self.errors.push(Invalid::item(i, e)),
            }
        }
        for (element, (old, new)) in found {
            let part = match (&old[..], &new[..]) {
                (old @ ([] | [_]), new @ ([] | [_])) => {
                    self.value(item, old.first().copied(), new.first().copied())
                }
                // Items that occur twice are owned together, as a leaf.
                ([_, _, ..], [_, _, ..]) => {
                    let mut part = Delta::default();
                    let same =
                        old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| equal(a, b));
                    part.modified.member = !same;
                    part
                }
                ([_, _, ..], rest) => {
                    let mut part = match rest.first() {
                        Some(only) => self.value(item, None, Some(only)),
                        None => Delta::default(),
                    };
                    part.removed.member = true;
                    part
                }
                (rest, _) => {
                    let mut part = match rest.first() {
                        Some(only) => self.value(item, Some(only), None),
                        None => Delta::default(),
                    };
                    part.added.member = true;
                    part
                }
            };
            delta.push(element, part);
        }
    }
}

/// The keys of a map that either side has.
fn entries<'a>(old: Option<&'a Value>, new: Option<&'a Value>) -> BTreeMap<&'a str, Pair<'a>> {
    let mut found: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
    for (key, value) in old.and_then(Value::as_object).into_iter().flatten() {
        found.entry(key).or_default().0 = Some(value);
    }
    for (key, value) in new.and_then(Value::as_object).into_iter().flatten() {
        found.entry(key).or_default().1 = Some(value);
    }
    found
}
