//! `metadata.managedFields`: who owns which fields of an object, since when, and by which
//! version of its kind.

use std::cell::OnceCell;
use std::collections::HashMap;

use schema::Message;
use serde_json::{Map, Value};

use super::owned::{fits, reconcile};
use super::set::{Element, Node, Set};
use super::update::Versions;
use super::{fields_v1, known};

/// Beyond so many managers that own fields by updates, the oldest are merged into one.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that the oldest are merged into.
const ANCIENT: &str = "ancient-changes";
const FIELDS_TYPE: &str = "FieldsV1";

/// By what kind of request a manager owns fields. An applier's fields go when it no longer
/// applies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells one entry from the others. An applier is the same in every version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub manager: String,
    pub operation: Operation,
    /// Empty for an applier.
    pub api_version: String,
    pub subresource: String,
}

impl Identity {
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        Identity {
            manager: match manager {
                "" => "unknown".to_owned(),
                manager => manager.to_owned(),
            },
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }

    /// Upstream's text for it, by which managers are ordered.
    pub fn key(&self) -> String {
        let mut text = String::from("{");
        let mut member = |name: &str, value: &str| {
            if !value.is_empty() {
                let comma = if text.len() > 1 { "," } else { "" };
                text.push_str(&format!("{comma}\"{name}\":{}", Value::from(value)));
            }
        };
        member("manager", &self.manager);
        member("operation", self.operation.as_str());
        member("apiVersion", &self.api_version);
        member("subresource", &self.subresource);
        text.push('}');
        text
    }
}

/// As a conflict names the manager.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub id: Identity,
    /// The version by which the fields are named.
    pub api_version: String,
    /// RFC 3339 with seconds.
    pub time: Option<String>,
    /// Read when it is asked for, where the text is known (see [`known`]).
    set: OnceCell<Set>,
    /// The set as it came, as long as it has not changed.
    source: Option<String>,
}

impl Entry {
    pub fn new(id: Identity, api_version: &str, set: Set) -> Entry {
        Entry {
            id,
            api_version: api_version.to_owned(),
            time: None,
            set: set.into(),
            source: None,
        }
    }

    pub fn set(&self) -> &Set {
        self.set.get_or_init(|| {
            let known = self
                .source
                .as_deref()
                .and_then(|text| fields_v1::read(text).ok());
            known.map(|read| read.set).unwrap_or_default()
        })
    }

    pub fn set_mut(&mut self) -> &mut Set {
        if self.set.get().is_none() {
            self.set();
        }
        self.source = None;
        self.set.get_mut().expect("it has just been read")
    }

    #[cfg(test)]
    pub fn is_read(&self) -> bool {
        self.set.get().is_some()
    }

    /// Whether it owns nothing.
    pub fn is_empty(&self) -> bool {
        self.set.get().is_some_and(Set::is_empty)
    }

    /// Whether the set may meet the other; what is not read is not read for it.
    pub fn may_meet(&self, other: &Set) -> bool {
        match (self.set.get(), &self.source) {
            (None, Some(text)) => (other.nodes().iter()).any(|node| may_name(text, telling(node))),
            _ => true,
        }
    }

    /// Makes the set fit today's schema.
    pub fn fit(&mut self, message: &'static Message) {
        let Some(set) = self.set.get() else {
            return;
        };
        if !fits(message, set) {
            reconcile(message, self.set_mut());
        } else if let Some(text) = self.source.as_deref().filter(|_| !set.is_empty()) {
            known::remember(message, text);
        }
    }

    /// With `versions`, what is known is not read.
    fn read(entry: &Value, versions: Option<&dyn Versions>) -> Option<Entry> {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() || text("fieldsType") != FIELDS_TYPE {
            return None;
        }
        let fields = match &entry["fieldsV1"] {
            Value::String(text) => text,
            Value::Null => "null",
            _ => return None,
        };
        let mut id = Identity::new("", operation, api_version, text("subresource"));
        id.manager = text("manager").to_owned();
        let message = versions.and_then(|versions| versions.message(api_version));
        let (set, canonical) = match message {
            Some(message) if known::contains(message, fields) => (OnceCell::new(), true),
            _ => {
                let fields_v1::Read { set, canonical } = fields_v1::read(fields).ok()?;
                (set.into(), canonical)
            }
        };
        Some(Entry {
            id,
            api_version: api_version.to_owned(),
            time: entry["time"].as_str().map(str::to_owned),
            set,
            source: canonical.then(|| fields.to_owned()),
        })
    }

    fn write(self) -> Value {
        let mut entry = Map::new();
        let mut put = |key: &str, value: String| {
            if !value.is_empty() {
                entry.insert(key.to_owned(), value.into());
            }
        };
        put("manager", self.id.manager);
        put("operation", self.id.operation.as_str().to_owned());
        put("apiVersion", self.api_version);
        put("subresource", self.id.subresource);
        put("time", self.time.unwrap_or_default());
        put("fieldsType", FIELDS_TYPE.to_owned());
        let fields = match self.source {
            Some(text) => text,
            None => fields_v1::write(self.set.get_or_init(Set::default)),
        };
        entry.insert("fieldsV1".to_owned(), fields.into());
        Value::Object(entry)
    }
}

/// The lowest field that is named by every set that meets the node.
fn telling(node: &Node) -> &Element {
    match node.children.nodes() {
        [only] if !node.member && matches!(only.element, Element::Field(_)) => telling(only),
        _ => &node.element,
    }
}

/// Whether the canonical text of a set may name the element, at whatever depth.
fn may_name(text: &str, element: &Element) -> bool {
    let Element::Field(name) = element else {
        return true;
    };
    // What need not be escaped is not, so that a name stands as it is.
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric());
    !plain || text.contains(&format!("\"f:{name}\":"))
}

/// The managers of an object.
#[derive(Debug, Clone, Default)]
pub struct Managed {
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads the list of an object; `None` when any of it cannot be read.
    pub fn read(list: Option<&Value>) -> Option<Managed> {
        Self::read_as(list, None)
    }

    /// The same, but for what is as it was when it was read before: that is read when it is
    /// asked for.
    pub fn read_lazily(list: Option<&Value>, versions: &dyn Versions) -> Option<Managed> {
        Self::read_as(list, Some(versions))
    }

    fn read_as(list: Option<&Value>, versions: Option<&dyn Versions>) -> Option<Managed> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: HashMap<Identity, usize> = HashMap::new();
        for entry in list.and_then(Value::as_array).into_iter().flatten() {
            let entry = Entry::read(entry, versions)?;
            // The last of those that are the same counts.
            match places.get(&entry.id) {
                Some(place) => entries[*place] = entry,
                None => {
                    places.insert(entry.id.clone(), entries.len());
                    entries.push(entry);
                }
            }
        }
        Some(Managed { entries })
    }

    /// Whether a client asks to forget all managers: an empty list, or one empty entry.
    pub fn is_reset(list: Option<&Value>) -> bool {
        match list.and_then(Value::as_array).map(Vec::as_slice) {
            Some([]) => true,
            Some([Value::Object(only)]) => only.values().all(Value::is_null),
            _ => false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn position(&self, id: &Identity) -> Option<usize> {
        self.entries.iter().position(|e| e.id == *id)
    }

    pub fn get(&self, id: &Identity) -> Option<&Entry> {
        self.position(id).map(|i| &self.entries[i])
    }

    pub fn take(&mut self, id: &Identity) -> Option<Entry> {
        self.position(id).map(|i| self.entries.swap_remove(i))
    }

    /// Adds an entry, or puts it in the place of the one that it is.
    pub fn put(&mut self, entry: Entry) {
        match self.position(&entry.id) {
            Some(i) => self.entries[i] = entry,
            None => self.entries.push(entry),
        }
    }

    /// Merges the oldest managers that own fields by updates, so that there are not too many.
    pub fn cap(&mut self) {
        let updates = |e: &Entry| e.id.operation == Operation::Update;
        let mut count = self.entries.iter().filter(|e| updates(e)).count();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let (updaters, others) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(updates);
        self.entries = others;
        let mut updaters: Vec<Entry> = updaters;
        updaters.sort_by_cached_key(|e| (e.time.clone().unwrap_or_default(), e.id.key()));
        let order: Vec<Identity> = updaters.iter().map(|e| e.id.clone()).collect();
        let mut left: HashMap<Identity, Entry> =
            (updaters.into_iter()).map(|e| (e.id.clone(), e)).collect();
        let mut first_of: HashMap<String, Identity> = HashMap::new();
        for id in &order {
            if count <= MAX_UPDATE_MANAGERS {
                break;
            }
            let Some(version) = left.get(id).map(|entry| entry.api_version.clone()) else {
                continue;
            };
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id.clone());
                continue;
            };
            let bucket = Identity::new(ANCIENT, Operation::Update, &version, "");
            if !left.contains_key(&bucket)
                && let Some(mut entry) = left.remove(first)
            {
                entry.id = bucket.clone();
                left.insert(bucket.clone(), entry);
            }
            let Some(mut entry) = left.remove(id) else {
                continue;
            };
            let Some(ancient) = left.get_mut(&bucket) else {
                continue;
            };
            let also = std::mem::take(entry.set_mut());
            let merged = std::mem::take(ancient.set_mut()).union(also);
            *ancient.set_mut() = merged;
            // The later of the two.
            ancient.time = entry.time;
            count -= 1;
        }
        let mut left: Vec<Entry> = left.into_values().collect();
        left.sort_by_cached_key(|e| e.id.key());
        self.entries.extend(left);
    }

    /// The list as objects carry it; `None` when there are no managers.
    pub fn write(mut self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.sort_by(|a, b| {
            let key = |e: &Entry| (e.id.operation, e.time.clone().unwrap_or_default());
            key(a)
                .cmp(&key(b))
                .then_with(|| a.id.manager.cmp(&b.id.manager))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| a.id.subresource.cmp(&b.id.subresource))
        });
        Some(self.entries.into_iter().map(Entry::write).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn updater(n: usize) -> Entry {
        let id = Identity::new(&format!("m{n:02}"), Operation::Update, "v1", "");
        let mut set = Set::default();
        set.insert(&[super::super::set::Element::Field(format!("f{n}").into())]);
        let mut entry = Entry::new(id, "v1", set);
        entry.time = Some(format!("2026-01-01T00:00:{n:02}Z"));
        entry
    }

    #[test]
    fn the_oldest_updaters_are_merged() {
        let mut managed = Managed::default();
        for n in 0..12 {
            managed.put(updater(n));
        }
        managed.cap();
        assert_eq!(managed.entries.len(), 10);
        let id = Identity::new(ANCIENT, Operation::Update, "v1", "");
        let ancient = managed.get(&id).unwrap();
        assert_eq!(ancient.set().paths(), [".f0", ".f1", ".f2"]);
        assert_eq!(ancient.time.as_deref(), Some("2026-01-01T00:00:02Z"));
    }

    #[test]
    fn lists_are_read_and_written() {
        let list = json!([
            {"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
             "fieldsType": "FieldsV1", "fieldsV1": r#"{"f:data":{"f:x":{}}}"#},
            {"manager": "b", "operation": "Update", "apiVersion": "v1", "subresource": "status",
             "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": r#"{"f:data":{}}"#},
        ]);
        let managed = Managed::read(Some(&list)).unwrap();
        let keys: Vec<_> = managed.entries.iter().map(|e| e.id.key()).collect();
        assert_eq!(
            keys,
            [
                r#"{"manager":"a","operation":"Apply"}"#,
                r#"{"manager":"b","operation":"Update","apiVersion":"v1","subresource":"status"}"#,
            ]
        );
        assert_eq!(managed.write().unwrap(), list);
        assert!(Managed::read(Some(&json!([{"operation": "Other"}]))).is_none());
        assert!(Managed::is_reset(Some(&json!([{}]))));
        assert!(!Managed::is_reset(None));
    }
}
