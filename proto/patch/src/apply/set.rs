//! Field sets: which fields of an object somebody owns, as a tree of path elements.
//!
//! A [`Set`] is kept sorted in upstream's order of path elements, which is also the order in
//! which `FieldsV1` lists them; the operations are merges of sorted lists.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use codec::compare_values as compare;
use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone)]
pub enum Element {
    /// A field of a struct, or a key of a map.
    Field(Cow<'static, str>),
    /// The item of an associative list that has these key fields, sorted by name.
    Key(Vec<(Cow<'static, str>, Value)>),
    /// The item of a set.
    Value(Value),
    /// The item of a list at a position. Nobody owns such items, but they are on the wire.
    Index(i64),
}

impl Element {
    pub fn field(name: &'static str) -> Element {
        Element::Field(Cow::Borrowed(name))
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                for ((name, value), (other_name, other)) in a.iter().zip(b) {
                    let order = name.cmp(other_name).then_with(|| compare(value, other));
                    if order.is_ne() {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Element::Value(a), Element::Value(b)) => compare(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// As conflicts name it: `.spec`, `[name="a"]`, `[="x"]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// Equal as values: `1` and `1.0` are the same number.
pub fn equal(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b).is_eq()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub element: Element,
    /// The field itself is in the set, not only what is below it.
    pub member: bool,
    pub children: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

/// A set of fields. No node is without members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<Node>,
}

impl Set {
    /// From nodes in any order, each element once.
    pub fn new(mut nodes: Vec<Node>) -> Set {
        nodes.retain(|n| !n.is_empty());
        nodes.sort_unstable_by(|a, b| a.element.cmp(&b.element));
        Set { nodes }
    }

    pub fn of(paths: &[&[&'static str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| n.element.cmp(element))
    }

    pub fn node(&self, element: &Element) -> Option<&Node> {
        self.find(element).ok().map(|i| &self.nodes[i])
    }

    /// The empty path (the whole object) is nobody's and not inserted.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let i = match self.find(first) {
            Ok(i) => i,
            Err(i) => {
                let node = Node {
                    element: first.clone(),
                    member: false,
                    children: Set::default(),
                };
                self.nodes.insert(i, node);
                i
            }
        };
        if rest.is_empty() {
            self.nodes[i].member = true;
        } else {
            self.nodes[i].children.insert(rest);
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.node(last).is_some_and(|n| n.member),
            [first, rest @ ..] => self.node(first).is_some_and(|n| n.children.has(rest)),
        }
    }

    /// What is in either.
    pub fn union(self, other: Set) -> Set {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let mut ours = self.nodes.into_iter().peekable();
        let mut theirs = other.nodes.into_iter().peekable();
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            match a.element.cmp(&b.element) {
                Ordering::Less => nodes.extend(ours.next()),
                Ordering::Greater => nodes.extend(theirs.next()),
                Ordering::Equal => {
                    if let (Some(a), Some(b)) = (ours.next(), theirs.next()) {
                        nodes.push(Node {
                            element: a.element,
                            member: a.member || b.member,
                            children: a.children.union(b.children),
                        });
                    }
                }
            }
        }
        nodes.extend(ours);
        nodes.extend(theirs);
        Set { nodes }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let both = |node: &Node| {
            let there = other.node(&node.element)?;
            let common = Node {
                element: node.element.clone(),
                member: node.member && there.member,
                children: node.children.intersection(&there.children),
            };
            (!common.is_empty()).then_some(common)
        };
        Set {
            nodes: self.nodes.iter().filter_map(both).collect(),
        }
    }

    /// Whether every member of another set is in this one.
    pub fn covers(&self, other: &Set) -> bool {
        other.nodes.iter().all(|theirs| {
            self.node(&theirs.element).is_some_and(|ours| {
                (ours.member || !theirs.member) && ours.children.covers(&theirs.children)
            })
        })
    }

    /// Whether any member is in both.
    pub fn meets(&self, other: &Set) -> bool {
        self.nodes.iter().any(|ours| {
            other.node(&ours.element).is_some_and(|theirs| {
                (ours.member && theirs.member) || ours.children.meets(&theirs.children)
            })
        })
    }

    /// Takes out the members of another set. What lies below a member stays.
    pub fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            if let Some(there) = other.node(&node.element) {
                node.member &= !there.member;
                node.children.subtract(&there.children);
            }
            !node.is_empty()
        });
    }

    /// Takes out the members of another set with all that lies below them.
    pub fn subtract_recursively(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            match other.node(&node.element) {
                Some(there) if there.member => return false,
                Some(there) => node.children.subtract_recursively(&there.children),
                None => {}
            }
            !node.is_empty()
        });
    }

    pub fn difference(&self, other: &Set) -> Set {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// Changes every node in place; nodes that end up without members go.
    pub fn edit(&mut self, change: &mut dyn FnMut(&mut Node)) {
        self.nodes.retain_mut(|node| {
            change(node);
            !node.is_empty()
        });
    }

    /// Every member's path as text, the members of a level before what lies below it.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        let members = self.nodes.iter().filter(|n| n.member);
        paths.extend(members.map(|n| format!("{prefix}{}", n.element)));
        for node in &self.nodes {
            node.children
                .collect(&format!("{prefix}{}", node.element), paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_are_added_and_subtracted() {
        let a = Set::of(&[&["spec"], &["spec", "replicas"], &["metadata", "labels"]]);
        let b = Set::of(&[&["spec", "replicas"], &["spec", "paused"]]);
        assert_eq!(
            a.clone().union(b.clone()).paths(),
            [
                ".spec",
                ".metadata.labels",
                ".spec.paused",
                ".spec.replicas"
            ]
        );
        assert_eq!(a.intersection(&b).paths(), [".spec.replicas"]);
        assert_eq!(a.difference(&b).paths(), [".spec", ".metadata.labels"]);
        assert!(a.meets(&b) && !a.difference(&b).meets(&b));
        assert!(a.covers(&a.intersection(&b)) && !a.covers(&b));
        let spec = Set::of(&[&["spec"]]);
        assert_eq!(
            a.difference(&spec).paths(),
            [".metadata.labels", ".spec.replicas"]
        );
        let mut all = a.clone();
        all.subtract_recursively(&spec);
        assert_eq!(all.paths(), [".metadata.labels"]);
    }

    #[test]
    fn numbers_are_ordered_as_numbers() {
        let port = |n: i64| Element::Key(vec![("containerPort".into(), json!(n))]);
        assert!(port(80) < port(443));
        assert!(Element::field("z") < port(1));
        assert!(port(9) < Element::Value(json!("a")));
        assert!(equal(&json!(1), &json!(1.0)));
        assert_eq!(port(80).to_string(), "[containerPort=80]");
    }
}
