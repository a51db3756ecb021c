//! A resource's objects by the value of something that lists select by: the fields that its
//! definition says, and the labels that clients turn out to ask for.
//!
//! Nobody says beforehand which labels matter, and an index of all of them would weigh more
//! than the objects. So a label key is indexed once it has been asked for a few times, and
//! forgotten when nobody asks any more.
//!
//! What must not be here: what a selector means; an index only leaves fewer objects to look at.

use std::collections::HashMap;
use std::sync::Arc;

use meta::labels::{Operator, Requirement};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::Definition;
use super::object::Object;
use super::selector::Selector;
use super::tree::Tree;
use super::watchers::indexed_term;

/// Fewer objects than this are looked through at once.
const WORTHWHILE: usize = 512;
/// A key is indexed when it is asked for the third time.
const ASKED: u32 = 3;
/// Keys that are indexed or counted at most.
const KEYS: usize = 8;
/// An index that nobody has asked for this long is dropped.
const UNUSED: Duration = Duration::from_secs(600);

/// Objects by value.
#[derive(Default)]
struct ByValue(HashMap<Box<str>, Tree>);

impl ByValue {
    /// Of objects in key order, each with its value.
    fn new<'o>(objects: impl Iterator<Item = (&'o str, &'o Arc<Object>)>) -> Self {
        let mut values: HashMap<Box<str>, Vec<Arc<Object>>> = HashMap::new();
        for (value, object) in objects {
            match values.get_mut(value) {
                Some(objects) => objects.push(object.clone()),
                None => drop(values.insert(value.into(), vec![object.clone()])),
            }
        }
        let trees = values.into_iter().map(|(v, o)| (v, Tree::from_sorted(o)));
        Self(trees.collect())
    }

    /// An object changed, with its value before and now; `None` where it has no place here.
    fn change(&mut self, before: Option<(&str, &Object)>, now: Option<(&str, &Arc<Object>)>) {
        if let Some((value, previous)) = before
            && now.is_none_or(|(now, _)| now != value)
            && let Some(tree) = self.0.get_mut(value)
        {
            tree.remove(previous.key());
            if tree.is_empty() {
                self.0.remove(value);
            }
        }
        if let Some((value, object)) = now {
            match self.0.get_mut(value) {
                Some(tree) => drop(tree.insert(object.clone())),
                None => {
                    let tree = Tree::from_sorted([object.clone()]);
                    self.0.insert(value.into(), tree);
                }
            }
        }
    }

    fn get(&self, value: &str) -> Tree {
        self.0.get(value).cloned().unwrap_or_default()
    }
}

/// The indexes of one resource.
#[derive(Default)]
pub(super) struct Indexes {
    /// By the field's place in [`Definition::fields`].
    fields: Vec<(usize, ByValue)>,
    /// By label key.
    labels: HashMap<Box<str>, ByValue>,
    asked: Mutex<HashMap<Box<str>, Asked>>,
}

/// How a label key has been asked for.
struct Asked {
    times: u32,
    last: Instant,
}

/// Where to look for what a selector selects.
pub(super) enum Candidates {
    Among(Tree),
    All,
    /// All, and it would be worth while to [`learn`](Indexes::learn) this label.
    Learn(Box<str>),
}

impl Indexes {
    pub(super) fn new(definition: &Definition, objects: &[Arc<Object>]) -> Self {
        let indexed = definition.fields.iter().enumerate();
        let indexed = indexed.filter(|(_, field)| field.indexed);
        let by_field = indexed.map(|(i, _)| {
            let values = objects.iter().map(|object| (object.field(i), object));
            (i, ByValue::new(values))
        });
        Self {
            fields: by_field.collect(),
            ..Self::default()
        }
    }

    pub(super) fn change(&mut self, previous: Option<&Arc<Object>>, object: Option<&Arc<Object>>) {
        for (field, values) in &mut self.fields {
            let before = previous.map(|previous| (previous.field(*field), &**previous));
            let now = object.map(|object| (object.field(*field), object));
            values.change(before, now);
        }
        for (key, values) in &mut self.labels {
            let before = previous.and_then(|o| Some((o.labels().get(key)?, &**o)));
            let now = object.and_then(|o| Some((o.labels().get(key)?, o)));
            values.change(before, now);
        }
    }

    /// What is left to look through for a selector, of `all` objects.
    pub(super) fn candidates(
        &self,
        definition: &Definition,
        selector: &Selector,
        all: usize,
    ) -> Candidates {
        if let Some((field, value)) = indexed_term(definition, selector) {
            let index = self.fields.iter().find(|(f, _)| *f == field);
            return Candidates::Among(index.map(|(_, index)| index.get(value)).unwrap_or_default());
        }
        let mut wanted = selector.labels.requirements().iter().filter_map(one_value);
        if let Some((index, key, value)) = wanted
            .clone()
            .find_map(|(key, value)| Some((self.labels.get(key)?, key, value)))
        {
            if let Some(asked) = self.asked.lock().get_mut(key) {
                asked.last = Instant::now();
            }
            return Candidates::Among(index.get(value));
        }
        match wanted.next() {
            Some((key, _)) if all >= WORTHWHILE && self.ask(key) => Candidates::Learn(key.into()),
            _ => Candidates::All,
        }
    }

    /// Counts a question for a key that has no index; whether it shall have one.
    fn ask(&self, key: &str) -> bool {
        let mut asked = self.asked.lock();
        if asked.len() >= KEYS && !asked.contains_key(key) {
            // The one that was asked for longest ago makes room, unless it is indexed.
            let oldest = asked
                .iter()
                .filter(|(key, _)| !self.labels.contains_key(*key))
                .min_by_key(|(_, asked)| asked.last)
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return false };
            asked.remove(&oldest);
        }
        let asked = asked.entry(key.into()).or_insert(Asked {
            times: 0,
            last: Instant::now(),
        });
        asked.times += 1;
        asked.last = Instant::now();
        asked.times >= ASKED
    }

    /// Indexes a label's values from now on. `objects` are all there are.
    pub(super) fn learn(&mut self, key: Box<str>, objects: &Tree) {
        let labelled = objects
            .iter()
            .filter_map(|object| Some((object.labels().get(&key)?, object)));
        let index = ByValue::new(labelled);
        self.labels.insert(key, index);
    }

    /// Drops what nobody has asked for in a long time.
    pub(super) fn forget_unused(&mut self) {
        let now = Instant::now();
        let asked = self.asked.get_mut();
        asked.retain(|_, asked| now.duration_since(asked.last) < UNUSED);
        self.labels.retain(|key, _| asked.contains_key(key));
    }
}

/// The one value that a requirement leaves to a label.
fn one_value(requirement: &Requirement) -> Option<(&str, &str)> {
    let equal = matches!(
        requirement.operator(),
        Operator::Equals | Operator::DoubleEquals | Operator::In
    );
    match requirement.values() {
        [value] if equal => Some((requirement.key(), value)),
        _ => None,
    }
}
