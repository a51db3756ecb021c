//! `metadata.managedFields` of what is written: who asked, in which version, and which fields
//! are not the writer's to own.
//!
//! The rules are [`patch::apply`]'s; what must not be here: storage.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use meta::Status;
use meta::status::StatusCause;
use patch::apply::{Entry, Error, Identity, Managed, Request, Set, Versions};
use schema::{Message, Resource};
use serde_json::{Value, json};

use super::as_read::label_like_the_template;
use super::convert::{api_version, convert};
use super::object_meta::{child_mut, meta, meta_mut, semantically_equal, set, time};
use crate::authn::token_issuer::DEFAULT_EXPIRATION;

/// On whose behalf fields are owned.
#[derive(Debug, Clone, Copy)]
pub struct FieldManager<'a> {
    /// The version in which the client speaks of the object.
    pub served: Spoken,
    /// What trees are of; `None` where the client speaks of something that is not stored
    /// (a scale).
    pub stored: Option<&'static Resource>,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub manager: &'a str,
}

/// A kind in a version.
#[derive(Debug, Clone, Copy)]
pub struct Spoken {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The resource that it is of.
    pub plural: &'static str,
}

impl Spoken {
    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn resource(&self, api_version: &str) -> Option<&'static Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        RESOURCES.get(&(group, version, self.plural)).copied()
    }
}

impl From<&'static Resource> for Spoken {
    fn from(r: &'static Resource) -> Spoken {
        Spoken {
            group: r.group,
            version: r.version,
            kind: r.kind,
            plural: r.plural,
        }
    }
}

impl Versions for Spoken {
    fn message(&self, api_version: &str) -> Option<&'static Message> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        // What was written through another group (events) upstream's managers do not know.
        (group == self.group)
            .then(|| schema::kind(group, version, self.kind))
            .flatten()
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Value {
        match (self.resource(from), self.resource(to)) {
            (Some(from), Some(to)) => convert(object.clone(), from, to),
            _ => object.clone(),
        }
    }
}

/// Who writes, for requests that do not say it: what the client program is called.
pub fn manager_of(options: &str, user_agent: &str) -> String {
    /// Characters.
    const MOST: usize = 128;
    if !options.is_empty() {
        return options.to_owned();
    }
    let program = user_agent.split('/').next().unwrap_or_default();
    program
        .chars()
        .filter(|c| !c.is_control())
        .take(MOST)
        .collect()
}

/// The fields that a write by this way does not change, beyond the rule: writing the object
/// does not change its status, and writing the status nothing but the status.
fn special_resets(group: &str, plural: &str, subresource: &str) -> Option<Set> {
    const METADATA: &[&[&str]] = &[&["metadata"], &["spec"]];
    let paths: &[&[&str]] = match (group, plural, subresource) {
        ("certificates.k8s.io", "certificatesigningrequests", "") => &[&["spec"], &["status"]],
        ("certificates.k8s.io", "certificatesigningrequests", "status") => {
            &[&["spec"], &["status", "conditions"]]
        }
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => {
            &[&["spec"], &["status", "certificate"]]
        }
        ("certificates.k8s.io", "podcertificaterequests", "") => &[],
        ("", "namespaces", "finalize") => &[&["status"]],
        ("", "pods", "status") => &[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ],
        ("apps", "deployments", "status") => &[&["spec"], &["metadata", "labels"]],
        (
            "admissionregistration.k8s.io"
            | "apiregistration.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "internal.apiserver.k8s.io"
            | "resource.k8s.io"
            | "scheduling.k8s.io"
            | "storage.k8s.io"
            | "storagemigration.k8s.io",
            _,
            "status",
        )
        | ("networking.k8s.io", "servicecidrs", "status") => METADATA,
        _ => return None,
    };
    Some(Set::of(paths))
}

/// By group, version and plural.
static RESOURCES: LazyLock<HashMap<(&str, &str, &str), &Resource>> = LazyLock::new(|| {
    let key = |r: &&'static Resource| (r.group, r.version, r.plural);
    schema::resources().iter().map(|r| (key(&r), r)).collect()
});

/// Every resource's sets, made once: by group, plural and subresource.
static RESETS: LazyLock<HashMap<(&str, &str, &str), Set>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for resource in schema::resources() {
        let (group, plural) = (resource.group, resource.plural);
        let has_status = resource.subresources.iter().any(|s| s.name == "status");
        let mut put = |subresource: &'static str, rule: Set| {
            let set = special_resets(group, plural, subresource).unwrap_or(rule);
            all.insert((group, plural, subresource), set);
        };
        if has_status {
            put("", Set::of(&[&["status"]]));
        }
        for subresource in resource.subresources {
            let rule = match subresource.name {
                "status" => Set::of(&[&["spec"]]),
                _ => Set::default(),
            };
            put(subresource.name, rule);
        }
    }
    all
});

static NOTHING: LazyLock<Set> = LazyLock::new(Set::default);

impl FieldManager<'_> {
    /// The server's own writes.
    pub fn server(resource: &'static Resource) -> FieldManager<'static> {
        FieldManager {
            served: resource.into(),
            stored: Some(resource),
            subresource: "",
            manager: "kube-apiserver",
        }
    }

    fn reset(&self) -> &Set {
        if self.stored.is_none() {
            return &NOTHING;
        }
        RESETS
            .get(&(self.served.group, self.served.plural, self.subresource))
            .unwrap_or(&NOTHING)
    }

    fn spoken(&self, object: &Value) -> Option<Value> {
        let stored = self.stored?;
        let own = api_version(stored);
        let wanted = self.served.api_version();
        (own != wanted).then(|| self.served.convert(object, &own, &wanted))
    }

    /// The object with what upstream has filled in at this point and ours comes to later.
    fn filled(&self, object: &Value) -> Option<Value> {
        const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
        let mut filled;
        match (self.served.group, self.served.kind) {
            ("apps", "DaemonSet") if meta(object).annotation(TEMPLATE_GENERATION).is_none() => {
                filled = object.clone();
                child_mut(&mut filled, "metadata");
                filled["metadata"]["annotations"][TEMPLATE_GENERATION] = json!("0");
            }
            ("", "PersistentVolumeClaim") if object["status"]["phase"].as_str().is_none() => {
                filled = object.clone();
                child_mut(&mut filled, "status").insert("phase".into(), json!("Pending"));
            }
            ("batch", "Job") => {
                filled = object.clone();
                label_like_the_template(&mut filled);
            }
            ("authentication.k8s.io", "TokenRequest") => {
                filled = object.clone();
                child_mut(&mut filled, "spec")
                    .entry("expirationSeconds")
                    .or_insert(json!(DEFAULT_EXPIRATION));
            }
            _ => return None,
        }
        Some(filled)
    }

    fn request<'b>(&'b self, api_version: &'b str, now: &'b str) -> Option<Request<'b>> {
        Some(Request {
            versions: &self.served,
            api_version,
            message: self.served.message(api_version)?,
            subresource: self.subresource,
            manager: self.manager,
            now,
            reset: self.reset(),
        })
    }

    /// Notes in an object that is about to be written what the writer changed. `live` is what
    /// is there; `None` for a create. An object whose books cannot be kept has none afterwards.
    pub fn note(&self, live: Option<&Value>, object: &mut Value, now: Timestamp) {
        let sent = meta_mut(object).remove("managedFields");
        let there = live.and_then(|live| meta(live).get("managedFields"));
        let managed = if !self.subresource.is_empty() {
            Managed::read_lazily(there, &self.served)
        } else if Managed::is_reset(sent.as_ref()) {
            Some(Managed::default())
        } else {
            Managed::read_lazily(sent.as_ref(), &self.served)
                .filter(|sent| !sent.is_empty())
                .or_else(|| Managed::read_lazily(there, &self.served))
        };
        let mut managed = managed.unwrap_or_default();
        let version = self.served.api_version();
        let now = time(now);
        let Some(request) = self.request(&version, now.as_str().unwrap_or_default()) else {
            return;
        };
        let nothing = json!({});
        let before = live.unwrap_or(&nothing);
        let after = self.spoken(object).or_else(|| self.filled(object));
        let after = expanded(request.message, object, after);
        let read = self
            .spoken(before)
            .or_else(|| live.and_then(|live| self.filled(live)));
        let before = expanded(request.message, before, read);
        match request.update(&mut managed, &before, &after, live.is_none()) {
            Ok(()) => set(meta_mut(object), "managedFields", managed.write()),
            Err(error) => {
                let m = meta(object);
                tracing::warn!(
                    namespace = m.namespace(),
                    name = m.name(),
                    kind = self.served.kind,
                    ?error,
                    "the managers of an object's fields could not be told"
                );
            }
        }
    }

    /// Server-side apply: the new object, of the stored version, before defaults.
    pub fn apply(
        &self,
        live: Option<&Value>,
        applied: &Value,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, Status> {
        let version = self.served.api_version();
        self.check_applied(&version, applied)?;
        let now = time(now);
        let request = self
            .request(&version, now.as_str().unwrap_or_default())
            .ok_or_else(|| Status::internal(format!("no kind {}", self.served.kind)))?;
        let there = live.and_then(|live| meta(live).get("managedFields"));
        let mut managed = Managed::read_lazily(there, &self.served)
            .ok_or_else(|| unexplained("failed to decode managed fields"))?;
        let live = match live {
            Some(live) => self.spoken(live).map_or(Cow::Borrowed(live), Cow::Owned),
            None => {
                Cow::Owned(json!({"apiVersion": version, "kind": self.served.kind, "metadata": {}}))
            }
        };
        let object = request
            .apply(
                &mut managed,
                &expanded(request.message, &live, None),
                applied,
                force,
            )
            .map_err(|e| self.refused(e, applied))?;
        let mut object = match object {
            Some(object) => self.typed(object, applied)?,
            None => live.into_owned(),
        };
        if self.manager == "kubectl" {
            sync_last_applied(&mut object, applied);
        }
        set(meta_mut(&mut object), "managedFields", managed.write());
        Ok(object)
    }

    fn check_applied(&self, version: &str, applied: &Value) -> Result<(), Status> {
        let text = |key: &str| applied[key].as_str().unwrap_or_default();
        let (found, kind) = (text("apiVersion"), text("kind"));
        if found != version || kind != self.served.kind {
            return Err(Status::bad_request(format!(
                "invalid object type: {}, Kind={kind}",
                with_group(found)
            )));
        }
        // What is no list of objects is none to upstream, and for the merge to judge.
        let managed = meta(applied).get("managedFields").and_then(Value::as_array);
        if managed.is_some_and(|list| list.iter().all(Value::is_object)) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        Ok(())
    }

    /// What was merged, as an object of its type.
    fn typed(&self, merged: Value, applied: &Value) -> Result<Value, Status> {
        let version = self.served.api_version();
        let message = self
            .served
            .message(&version)
            .ok_or_else(|| Status::internal(format!("no kind {}", self.served.kind)))?;
        let unconverted = |e: String| {
            unexplained(format!(
                "failed to convert new object ({}) to proper version: {e}",
                self.named(applied)
            ))
        };
        let mut object = match codec::decode::canonical(message, merged) {
            Ok(object) => object,
            Err(mut object) => {
                codec::decode::unstructured(message, &mut object).map_err(|e| {
                    let kind = format!("{}, Kind={}", with_group(&version), self.served.kind);
                    unconverted(format!(
                        "unable to convert unstructured object to {kind}: {e}"
                    ))
                })?;
                let text = codec::json::text(&object);
                let ignore = codec::decode::Strictness::Ignore;
                let decoded = codec::decode::json(message, text.as_bytes(), ignore);
                decoded.map_err(|e| unconverted(e.to_string()))?.value
            }
        };
        object["apiVersion"] = json!(version);
        object["kind"] = json!(self.served.kind);
        Ok(object)
    }

    /// `namespace/name; group/version, Kind=kind`.
    fn named(&self, object: &Value) -> String {
        let m = meta(object);
        format!(
            "{}/{}; {}, Kind={}",
            m.namespace(),
            m.name(),
            with_group(&self.served.api_version()),
            self.served.kind
        )
    }

    fn refused(&self, error: Error, applied: &Value) -> Status {
        match error {
            Error::Invalid { doing, why } if doing.contains("typed") => {
                unexplained(format!("{doing} ({}): {why}", self.named(applied)))
            }
            Error::Invalid { doing, why } => unexplained(format!("{doing}: {why}")),
            Error::Conflicts(conflicts) => conflict(&conflicts),
        }
    }
}

/// An object, or what it was made into, as its managers see it: they own what is in embedded
/// JSON too.
fn expanded<'a>(
    message: &'static Message,
    object: &'a Value,
    made: Option<Value>,
) -> Cow<'a, Value> {
    let mut seen = made.map_or(Cow::Borrowed(object), Cow::Owned);
    if message.holds_raw {
        codec::tree::expand_raw(message, seen.to_mut());
    }
    seen
}

/// A group and version as errors print them, the core group's name being empty.
fn with_group(api_version: &str) -> String {
    match api_version.contains('/') {
        true => api_version.to_owned(),
        false => format!("/{api_version}"),
    }
}

/// An error that upstream gives no reason.
fn unexplained(message: impl Into<String>) -> Status {
    Status {
        code: 500,
        message: message.into(),
        ..Status::default()
    }
}

fn conflict(conflicts: &[patch::apply::Conflict]) -> Status {
    let message = match conflicts {
        [only] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.manager, only.path
        ),
        several => {
            let mut lines: Vec<String> = Vec::new();
            let mut last = None;
            for conflict in several {
                if last != Some(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                    last = Some(&conflict.manager);
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                several.len(),
                lines.join("\n")
            )
        }
    };
    let causes = conflicts
        .iter()
        .map(|c| StatusCause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", c.manager),
            field: c.path.clone(),
        })
        .collect();
    Status::apply_conflict(causes, message)
}

/// Keeps the annotation of client-side apply, where there is one, in step with what kubectl
/// applies on the server.
fn sync_last_applied(object: &mut Value, applied: &Value) {
    /// Bytes, all annotations together.
    const MOST: usize = 256 * 1024;
    let key = patch::apply::LAST_APPLIED;
    if meta(object).annotation(key).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = applied["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(key);
        if annotations.is_empty() {
            meta_mut(&mut applied).remove("annotations");
        }
    }
    let Some(annotations) = meta_mut(object)
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    annotations.insert(key.to_owned(), json!(format!("{applied}\n")));
    let size: usize = annotations
        .iter()
        .map(|(k, v)| k.len() + v.as_str().map_or(0, str::len))
        .sum();
    if size > MOST {
        annotations.remove(key);
    }
}

/// Forgets the managers of an object that is too large to store with them. Says whether it
/// had any.
pub fn drop_managers(object: &mut Value) -> bool {
    meta_mut(object).remove("managedFields").is_some()
}

/// A write that changes nothing but the times of managers changes nothing.
pub fn keep_times_of_noop(object: &mut Value, old: &Value) {
    let list = |of: &Value| meta(of).get("managedFields").cloned();
    let same_managers = {
        let entries = |of| {
            let list = meta(of).get("managedFields").and_then(Value::as_array);
            list.map(Vec::as_slice).unwrap_or_default()
        };
        let (ours, theirs) = (entries(object), entries(old));
        !ours.is_empty()
            && ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(a, b)| {
                [
                    "manager",
                    "operation",
                    "subresource",
                    "apiVersion",
                    "fieldsV1",
                ]
                .iter()
                .all(|key| a.get(key) == b.get(key))
            })
    };
    if !same_managers {
        return;
    }
    let ours = meta_mut(object).remove("managedFields");
    let same = same_but_for_managers(object, old);
    let kept = if same { list(old) } else { ours };
    set(meta_mut(object), "managedFields", kept);
}

/// Whether an object without managers is what the other is but for its managers.
fn same_but_for_managers(object: &Value, old: &Value) -> bool {
    /// Whether all members are equal that are in either and pass.
    fn same(a: &Value, b: &Value, passes: impl Fn(&str) -> bool) -> bool {
        let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
            return a == b;
        };
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        keys.filter(|key| passes(key))
            .all(|key| semantically_equal(a.get(key), b.get(key)))
    }
    same(object, old, |key| key != "metadata")
        && same(&object["metadata"], &old["metadata"], |key| {
            key != "managedFields"
        })
}

/// What managers of a workload own of its scale, as managers of the scale.
pub fn scale_entries(workload: &Value) -> Option<Value> {
    let managed = Managed::read(meta(workload).get("managedFields"))?;
    let owners = managed.entries.into_iter().filter(owns_replicas);
    let entries = owners.map(|mut entry| {
        SCALE_VERSION.clone_into(&mut entry.api_version);
        *entry.set_mut() = REPLICAS.clone();
        entry
    });
    let scale = Managed {
        entries: entries.collect(),
    };
    scale.write()
}

const SCALE_VERSION: &str = "autoscaling/v1";

/// All that a manager of a scale can own.
static REPLICAS: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec", "replicas"]]));

fn owns_replicas(entry: &Entry) -> bool {
    !entry.set().intersection(&REPLICAS).is_empty()
}

/// The managers of a workload after its scale was written, whose managers these are.
///
/// Who owns the replicas by updates has the scale's version in one list and the workload's in the
/// other, and so is never found again: it loses them, and comes to own them as if it were new, by
/// an entry beside the one that it has. Of two entries that are the same the last one read counts,
/// which is the other: whoever writes next, the replicas belong to nobody. So it is upstream, and
/// whether an apply conflicts depends on it.
pub fn workload_entries(workload: &Value, scale: Option<&Value>, version: &str) -> Option<Value> {
    let mut owners = Managed::read(scale)?.entries;
    owners.retain(owns_replicas);
    let mut written = Managed::default();
    for mut entry in Managed::read(meta(workload).get("managedFields"))?.entries {
        if owns_replicas(&entry) {
            match owners.iter().position(|owner| owner.id == entry.id) {
                Some(i) => {
                    owners.swap_remove(i);
                }
                None => entry.set_mut().subtract(&REPLICAS),
            }
        }
        if !entry.set().is_empty() {
            written.put(entry);
        }
    }
    for owner in owners {
        let id = Identity::new(
            &owner.id.manager,
            owner.id.operation,
            version,
            &owner.id.subresource,
        );
        // Upstream looks for the time where a new owner has none yet.
        let entry = Entry::new(id, version, REPLICAS.clone());
        written.entries.push(entry);
    }
    let mut entries = written.write();
    for entry in entries
        .as_mut()
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        // Upstream has them in a map on this way, which is sorted by its keys' texts.
        if let Some(fields) = entry["fieldsV1"].as_str()
            && let Ok(sorted) = codec::decode::untyped(fields.as_bytes())
        {
            entry["fieldsV1"] = sorted.to_string().into();
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> &'static Resource {
        schema::resources()
            .iter()
            .find(|r| r.group == "apps" && r.plural == "deployments")
            .unwrap()
    }

    fn manager<'a>(manager: &'a str, subresource: &'a str) -> FieldManager<'a> {
        FieldManager {
            served: deployments().into(),
            stored: Some(deployments()),
            subresource,
            manager,
        }
    }

    fn deployment(replicas: i64) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
               "spec": {"replicas": replicas}, "status": {"replicas": replicas}})
    }

    fn fields(object: &Value) -> Vec<(&str, &str)> {
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        entries
            .iter()
            .map(|e| {
                (
                    e["manager"].as_str().unwrap(),
                    e["fieldsV1"].as_str().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_write_owns_what_it_changes_by_its_way() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = deployment(1);
        manager("creator", "").note(None, &mut first, now);
        assert_eq!(
            fields(&first),
            [("creator", r#"{"f:spec":{"f:replicas":{}}}"#)]
        );
        let mut second = deployment(2);
        second["metadata"]["managedFields"] = json!([]);
        manager("status", "status").note(Some(&first), &mut second, now);
        // What a subresource sends of managedFields does not count, nor what it cannot change.
        assert_eq!(fields(&second).len(), 2);
        assert_eq!(
            fields(&second)[1],
            ("status", r#"{"f:status":{"f:replicas":{}}}"#)
        );
        let mut reset = deployment(3);
        reset["metadata"]["managedFields"] = json!([{}]);
        manager("editor", "").note(Some(&second), &mut reset, now);
        assert!(reset["metadata"].get("managedFields").is_none());
    }

    #[test]
    fn only_times_changed_is_no_change() {
        let mut object = deployment(1);
        manager("a", "").note(None, &mut object, Timestamp::UNIX_EPOCH);
        let mut later = object.clone();
        later["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
        let mut changed = later.clone();
        changed["spec"]["replicas"] = json!(2);
        keep_times_of_noop(&mut later, &object);
        assert_eq!(later, object);
        let before = changed.clone();
        keep_times_of_noop(&mut changed, &object);
        assert_eq!(changed, before);
    }

    #[test]
    fn who_scales_owns_the_replicas() {
        let mut workload = deployment(1);
        manager("creator", "").note(None, &mut workload, Timestamp::UNIX_EPOCH);
        let mut scale = scale_entries(&workload).unwrap();
        assert_eq!(scale[0]["apiVersion"], SCALE_VERSION);
        scale[0]["manager"] = json!("scaler");
        scale[0]["subresource"] = json!("scale");
        let entries = workload_entries(&workload, Some(&scale), "apps/v1").unwrap();
        assert_eq!(entries.as_array().unwrap().len(), 1);
        assert_eq!(entries[0]["manager"], "scaler");
        assert_eq!(entries[0]["apiVersion"], "apps/v1");
        let fields = r#"{"f:ports":{"k:{\"port\":80}":{},"k:{\"port\":443}":{}}}"#;
        let workload = json!({"metadata": {"managedFields": [{
            "manager": "other", "operation": "Update", "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        }]}});
        let entries = workload_entries(&workload, Some(&scale), "apps/v1").unwrap();
        assert_eq!(
            entries[0]["fieldsV1"],
            r#"{"f:ports":{"k:{\"port\":443}":{},"k:{\"port\":80}":{}}}"#
        );
    }

    #[test]
    fn a_scale_that_is_the_same_takes_the_replicas_from_their_owner() {
        let mut workload = deployment(1);
        workload["metadata"]["labels"] = json!({"a": "b"});
        manager("creator", "").note(None, &mut workload, Timestamp::UNIX_EPOCH);
        let scaled = |workload: &mut Value| {
            let scale = scale_entries(workload);
            workload["metadata"]["managedFields"] =
                workload_entries(workload, scale.as_ref(), "apps/v1").unwrap();
        };
        let rest = r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#;
        scaled(&mut workload);
        assert_eq!(
            fields(&workload),
            [
                ("creator", r#"{"f:spec":{"f:replicas":{}}}"#),
                ("creator", rest)
            ]
        );
        scaled(&mut workload);
        assert_eq!(fields(&workload), [("creator", rest)]);
        // Appliers are the same in every version.
        let entries = &mut workload["metadata"]["managedFields"];
        entries[0]["operation"] = json!("Apply");
        entries[0]["fieldsV1"] = json!(r#"{"f:spec":{"f:replicas":{}}}"#);
        let applied = workload.clone();
        scaled(&mut workload);
        assert_eq!(workload, applied);
    }

    #[test]
    fn programs_are_known_by_their_names() {
        assert_eq!(manager_of("", "kubectl/v1.36 (linux)"), "kubectl");
        assert_eq!(manager_of("me", "kubectl/v1.36"), "me");
        assert_eq!(manager_of("", ""), "");
    }
}
