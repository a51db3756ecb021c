//! What a write does to the managers of an object, and what server-side apply makes of the
//! object (KEP-555).

use std::collections::HashMap;
use std::sync::LazyLock;

use schema::Message;
use serde_json::Value;

use super::compare::{Comparison, View, compare};
use super::managed::{Entry, Identity, Managed, Operation};
use super::owned::{fields_of, with_named_fields};
use super::set::{Set, equal};
use super::validate::{self, validate};
use super::{merge, remove};

/// The manager of what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The only manager that takes over from client-side apply.
const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps what it applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The versions of a kind.
pub trait Versions {
    /// `None` for a version that is not (or no longer) known.
    fn message(&self, api_version: &str) -> Option<&'static Message>;

    /// The tree of a known version as the tree of another known version.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Value;
}

/// A request, as far as managers of fields go.
pub struct Request<'a> {
    pub versions: &'a dyn Versions,
    /// The version in which the client speaks, and its message.
    pub api_version: &'a str,
    pub message: &'static Message,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub manager: &'a str,
    /// RFC 3339 with seconds.
    pub now: &'a str,
    /// What a write by this way does not change, whatever it says.
    pub reset: &'a Set,
}

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Identity,
    pub path: String,
}

/// Why an apply failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    Conflicts(Vec<Conflict>),
    /// What is applied, or what is there, is not of its type.
    Invalid {
        doing: &'static str,
        why: String,
    },
}

/// What nobody owns.
static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    Set::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The fields that have another owner and another value, by manager.
type Conflicts = Vec<(Identity, Set)>;

impl Request<'_> {
    fn id(&self, manager: &str, operation: Operation) -> Identity {
        Identity::new(manager, operation, self.api_version, self.subresource)
    }

    /// After a create, update or patch: who changed a field owns it. `live` and `object` are
    /// trees of the request's version; the `managedFields` of `object` are not in it, so that who owns
    /// those loses them. An object without managers, unless it is being created, has none afterwards.
    pub fn update(
        &self,
        managed: &mut Managed,
        live: &Value,
        object: &Value,
        creating: bool,
    ) -> Result<(), Error> {
        if managed.is_empty() && !creating {
            return Ok(());
        }
        self.update_as(self.manager, managed, live, object)
    }

    fn update_as(
        &self,
        manager: &str,
        managed: &mut Managed,
        live: &Value,
        object: &Value,
    ) -> Result<(), Error> {
        self.fit_to_schema(managed);
        // The own entry is compared like the others': it keeps only what has not changed.
        let (changes, conflicts) = self.changes(managed, View::Printed, live, object, None)?;
        take_over(managed, &conflicts);
        let mut set = changes.modified.union(changes.added);
        set.subtract_recursively(self.reset);
        set.subtract(&NOBODYS);
        if !set.is_empty() {
            let id = self.id(manager, Operation::Update);
            let set = match managed.take(&id) {
                Some(mut earlier) => std::mem::take(earlier.set_mut()).union(set),
                None => set,
            };
            let mut entry = Entry::new(id, self.api_version, set);
            entry.time = Some(self.now.to_owned());
            managed.put(entry);
        }
        managed.cap();
        Ok(())
    }

    fn fit_to_schema(&self, managed: &mut Managed) {
        managed.entries.retain_mut(|entry| {
            let Some(message) = self.versions.message(&entry.api_version) else {
                return false;
            };
            entry.fit(message);
            true
        });
    }

    /// What changed in this version, and who else owns what changed. Takes from every other
    /// manager what is no longer there.
    fn changes(
        &self,
        managed: &mut Managed,
        view: View,
        live: &Value,
        object: &Value,
        own: Option<&Identity>,
    ) -> Result<(Comparison, Conflicts), Error> {
        let invalid = |errors: Vec<validate::Invalid>| Error::Invalid {
            doing: "failed to compare objects",
            why: validate::join(&errors),
        };
        let mut here = compare(self.message, view, live, object).map_err(invalid)?;
        here.subtract_recursively(self.reset);
        let mut elsewhere: Vec<(String, Comparison)> = Vec::new();
        let mut conflicts = Conflicts::new();
        for entry in &mut managed.entries {
            if own == Some(&entry.id) {
                continue;
            }
            let changes = if entry.api_version == self.api_version {
                &here
            } else {
                let version = &entry.api_version;
                if !elsewhere.iter().any(|(v, _)| v == version) {
                    let Some(message) = self.versions.message(version) else {
                        continue;
                    };
                    let convert = |object| self.versions.convert(object, self.api_version, version);
                    let (live, object) = (convert(live), convert(object));
                    let mut there =
                        compare(message, View::Printed, &live, &object).map_err(invalid)?;
                    there.subtract_recursively(self.reset);
                    elsewhere.push((version.clone(), there));
                }
                match elsewhere.iter().find(|(v, _)| v == version) {
                    Some((_, changes)) => changes,
                    None => continue,
                }
            };
            let all = [&changes.modified, &changes.added, &changes.removed];
            if !all.iter().any(|changed| entry.may_meet(changed)) {
                continue;
            }
            let set = entry.set();
            if set.meets(&changes.modified) || set.meets(&changes.added) {
                let changed = set
                    .intersection(&changes.modified)
                    .union(set.intersection(&changes.added));
                conflicts.push((entry.id.clone(), changed));
            }
            if entry.set().meets(&changes.removed) {
                entry.set_mut().subtract(&changes.removed);
            }
        }
        managed.entries.retain(|entry| !entry.is_empty());
        Ok((here, conflicts))
    }

    /// Server-side apply: the new object and its managers; no object where nothing changes.
    /// `live` is what is there, whose `managedFields` are not looked at; `applied` is what the
    /// client sent.
    pub fn apply(
        &self,
        managed: &mut Managed,
        live: &Value,
        applied: &Value,
        force: bool,
    ) -> Result<Option<Value>, Error> {
        let live = &mut codec::tree::printed_tree(self.message, live);
        if let Some(Value::Object(metadata)) = live.get_mut("metadata") {
            metadata.remove("managedFields");
        }
        let result = self.apply_once(managed, live, applied, force);
        let Err(Error::Conflicts(conflicts)) = result else {
            return result;
        };
        // What kubectl's client-side apply owns, kubectl's server-side apply may take over.
        let allowed = match self.manager {
            KUBECTL => self.last_applied(live),
            _ => None,
        };
        let Some(allowed) = allowed else {
            return Err(Error::Conflicts(conflicts));
        };
        let left: Vec<Conflict> = conflicts
            .into_iter()
            .filter(|c| !allowed.contains(&c.path))
            .collect();
        if !left.is_empty() {
            return Err(Error::Conflicts(left));
        }
        self.apply_once(managed, live, applied, true)
    }

    fn apply_once(
        &self,
        managed: &mut Managed,
        live: &Value,
        applied: &Value,
        force: bool,
    ) -> Result<Option<Value>, Error> {
        let mut books = managed.clone();
        if books.is_empty() {
            let nothing = Value::Object(serde_json::Map::new());
            self.update_as(BEFORE_FIRST_APPLY, &mut books, &nothing, live)?;
        }
        let errors = validate(self.message, applied, false);
        if !errors.is_empty() {
            return Err(Error::Invalid {
                doing: "failed to create typed patch object",
                why: validate::join(&errors),
            });
        }
        self.fit_to_schema(&mut books);
        let merged =
            merge::merge(self.message, live, applied).map_err(|errors| Error::Invalid {
                doing: "failed to merge config",
                why: validate::join(&errors),
            })?;
        let mut set = fields_of(self.message, applied);
        set.subtract_recursively(self.reset);
        let id = self.id(self.manager, Operation::Apply);
        let last = books.take(&id);
        let drops = last.as_ref().is_some_and(|last| {
            let there = last.set();
            let kept = last.api_version == self.api_version && set.covers(there);
            !there.is_empty() && !kept
        });
        let mut entry = Entry::new(id.clone(), self.api_version, set);
        entry.time = last.as_ref().and_then(|last| last.time.clone());
        books.put(entry);
        let object = match last {
            Some(last) if drops => self.prune(merged, &books, &last),
            _ => merged,
        };
        let (_, conflicts) = self.changes(&mut books, View::Literal, live, &object, Some(&id))?;
        if !force && !conflicts.is_empty() {
            return Err(Error::Conflicts(listed(conflicts)));
        }
        take_over(&mut books, &conflicts);
        let changed = !equal(live, &object);
        if let Some(mut entry) = books.take(&id) {
            entry.set_mut().subtract(&NOBODYS);
            if changed {
                entry.time = Some(self.now.to_owned());
            }
            if !entry.set().is_empty() {
                books.put(entry);
            }
        }
        *managed = books;
        Ok(changed.then_some(object))
    }

    /// Takes out what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, books: &Managed, last: &Entry) -> Value {
        let version = last.api_version.as_str();
        let Some(message) = self.versions.message(version) else {
            return merged;
        };
        let convert = |object: &Value, from: &str, to: &str| {
            if from == to {
                object.clone()
            } else {
                let converted = self.versions.convert(object, from, to);
                match self.versions.message(to) {
                    Some(message) => codec::tree::printed_tree(message, &converted),
                    None => converted,
                }
            }
        };
        let named =
            |message, object: &Value| with_named_fields(message, &fields_of(message, object));

        let whole = convert(&merged, self.api_version, version);
        let applied_last = with_named_fields(message, last.set());
        let mut pruned = remove::remove(message, &whole, &applied_last);

        // Give back what others own, or this manager applies now; the last version first,
        // because fields that conversion needs may be gone.
        let mut versions: Vec<&str> = vec![version];
        for entry in &books.entries {
            if !versions.contains(&entry.api_version.as_str()) {
                versions.push(&entry.api_version);
            }
        }
        let mut at = version;
        let mut all = whole.clone();
        for there in versions {
            let Some(message) = self.versions.message(there) else {
                continue;
            };
            let mut owned = books
                .entries
                .iter()
                .filter(|e| e.api_version == there)
                .map(|e| e.set().clone())
                .fold(Set::default(), Set::union);
            if there == version && owned.is_empty() {
                continue;
            }
            owned = with_named_fields(message, &owned);
            all = convert(&all, at, there);
            pruned = convert(&pruned, at, there);
            at = there;
            let mut gone = named(message, &all);
            gone.subtract(&named(message, &pruned).union(owned));
            pruned = remove::remove(message, &all, &gone);
        }

        // Only what this manager had applied may be gone at all.
        pruned = convert(&pruned, at, version);
        let mut gone = named(message, &whole);
        gone.subtract(&named(message, &pruned));
        let gone = gone.intersection(&applied_last);
        pruned = remove::remove(message, &whole, &gone);
        convert(&pruned, version, self.api_version)
    }

    /// The paths that client-side apply set last and that are as it set them.
    fn last_applied(&self, live: &Value) -> Option<Vec<String>> {
        let text = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
        let applied = codec::decode::untyped(text.as_bytes()).ok()?;
        let same_version = applied["apiVersion"] == self.api_version;
        if !same_version || !validate(self.message, &applied, false).is_empty() {
            return None;
        }
        let mut set = fields_of(self.message, &applied);
        let changes = compare(self.message, View::Literal, &applied, live).ok()?;
        set.subtract(&changes.modified);
        set.subtract(&changes.added);
        set.subtract(&changes.removed);
        Some(set.paths())
    }
}

/// What a manager's fields lose to the one that writes.
fn take_over(managed: &mut Managed, conflicts: &Conflicts) {
    let mut lost: HashMap<&Identity, Vec<&Set>> = HashMap::new();
    for (id, fields) in conflicts {
        lost.entry(id).or_default().push(fields);
    }
    for entry in &mut managed.entries {
        for fields in lost.get(&entry.id).into_iter().flatten() {
            entry.set_mut().subtract(fields);
        }
    }
    managed.entries.retain(|entry| !entry.is_empty());
}

fn listed(mut conflicts: Conflicts) -> Vec<Conflict> {
    conflicts.sort_by_key(|(id, _)| id.key());
    let paths = |(id, set): (Identity, Set)| {
        set.paths().into_iter().map(move |path| Conflict {
            manager: id.clone(),
            path,
        })
    };
    conflicts.into_iter().flat_map(paths).collect()
}
