//! ObjectMeta: what every kind's metadata must hold to.

use std::collections::HashSet;

use meta::field::{BadValue, ErrorList, FieldError, Path};
use meta::validation as format;
use serde_json::Value;

use super::NameRule;
use super::at::{At, IMMUTABLE, NOT_NEGATIVE};
use super::same::same;

/// All annotations of an object together, in bytes.
pub(super) const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Whether a kind's finalizers need a domain, unless they are standard ones. Upstream asks it of
/// the kinds whose metadata the core API's rules are for.
fn needs_domains(group: &str, kind: &str) -> bool {
    !matches!(
        (group, kind),
        (
            "admissionregistration.k8s.io"
                | "coordination.k8s.io"
                | "node.k8s.io"
                | "policy"
                | "apiregistration.k8s.io"
                | "apiextensions.k8s.io",
            _
        ) | ("", "Event")
    )
}

/// `metadata.name` of an object of this group and kind must look as `name` says.
pub(super) fn create(
    (group, kind): (&str, &str),
    meta: &At<'_>,
    namespaced: bool,
    name: NameRule,
    errors: &mut ErrorList,
) {
    prefix((group, kind), meta, name, errors);
    let own = meta.get("name");
    if own.is_given() {
        own.check(errors, name(own.text()));
    } else {
        own.required(errors, "name or generateName is required");
    }
    let namespace = meta.get("namespace");
    match (namespaced, namespace.is_given()) {
        (true, false) => namespace.required(errors, ""),
        (true, true) => namespace.check(errors, format::dns1123_label(namespace.text())),
        (false, true) => namespace.forbidden(errors, "not allowed on this type"),
        (false, false) => {}
    }
    common(needs_domains(group, kind), meta, errors);
}

/// `metadata.generateName`: names that begin so must look as `name` says.
pub(super) fn prefix(of: (&str, &str), meta: &At<'_>, name: NameRule, errors: &mut ErrorList) {
    let prefix = meta.get("generateName");
    if !prefix.is_given() {
        return;
    }
    // Their rules are for whole names only.
    let whole = [
        ("networking.k8s.io", "IPAddress"),
        ("apiregistration.k8s.io", "APIService"),
    ];
    // The suffix is yet to come, so a trailing dash is no fault.
    let text = prefix.text();
    let messages = match text.strip_suffix('-') {
        Some(base) if !base.is_empty() && !whole.contains(&of) => {
            let before = base.char_indices().next_back().map_or(0, |(at, _)| at);
            name(&format!("{}a", &base[..before]))
        }
        _ => name(text),
    };
    // Upstream judges these by their schema, which does not know of prefixes.
    let by_schema = [
        ("resource.k8s.io", "DeviceClass"),
        ("", "ReplicationController"),
    ];
    if !by_schema.contains(&of) {
        prefix.check(errors, messages);
    }
}

/// Whether an update's prefix is looked at, which names nothing any more: upstream does so where it
/// checks an update like a new object.
fn has_prefix_checked((group, kind): (&str, &str)) -> bool {
    match group {
        "" => !matches!(
            kind,
            "Event" | "PodTemplate" | "ReplicationController" | "ResourceQuota" | "Service"
        ),
        "apps" => kind == "ControllerRevision",
        "batch" => kind == "Job",
        "networking.k8s.io" => !matches!(kind, "NetworkPolicy" | "ServiceCIDR"),
        "resource.k8s.io" => matches!(kind, "ResourceClaim" | "ResourceClaimTemplate"),
        "storage.k8s.io" => kind != "CSIDriver",
        "admissionregistration.k8s.io"
        | "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "discovery.k8s.io"
        | "flowcontrol.apiserver.k8s.io"
        | "node.k8s.io" => true,
        _ => false,
    }
}

/// `name` is as for [`create`].
pub(super) fn update(
    of: (&str, &str),
    new: &At<'_>,
    old: &At<'_>,
    name: NameRule,
    errors: &mut ErrorList,
) {
    persistent(of, new, old, errors);
    if has_prefix_checked(of) {
        prefix(of, new, name, errors);
    }
}

/// What an update of a subresource, too, must leave as it is.
pub(super) fn persistent(
    (group, kind): (&str, &str),
    new: &At<'_>,
    old: &At<'_>,
    errors: &mut ErrorList,
) {
    for name in ["name", "namespace", "uid", "creationTimestamp"] {
        immutable(&new.get(name), &old.get(name), errors);
    }
    // A deletion, once asked for, is neither taken back nor moved.
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (new, old) = (new.get(name), old.get(name));
        if old.is_set() || new.is_set() {
            immutable(&new, &old, errors);
        }
    }
    if old.get("deletionTimestamp").is_set() {
        let before: HashSet<&str> = old.get("finalizers").items().map(|f| f.text()).collect();
        let added: Vec<&str> = new
            .get("finalizers")
            .items()
            .map(|f| f.text())
            .filter(|f| !before.contains(f))
            .collect();
        if !added.is_empty() {
            new.get("finalizers").forbidden(
                errors,
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {}",
                    go_strings(&added)
                ),
            );
        }
    }
    let (generation, before) = (new.get("generation"), old.get("generation"));
    if generation.int().unwrap_or(0) < before.int().unwrap_or(0) {
        generation.invalid(errors, "must not be decremented");
    }
    common(needs_domains(group, kind), new, errors);
}

/// `[]string{"a", "b"}`, as Go's `%#v` writes it.
fn go_strings(items: &[&str]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
    format!("[]string{{{}}}", quoted.join(", "))
}

/// A field that an update must leave as it is.
pub(super) fn immutable(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let same = match (new.is_given(), old.is_given()) {
        (false, false) => true,
        _ => new.value() == old.value(),
    };
    if !same {
        new.invalid(errors, IMMUTABLE);
    }
}

/// The same, for a message of the schema: what is empty may come and go.
pub(super) fn immutable_message(model: &str, new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    if new.is_set() != old.is_set() || !same(model, new.value(), old.value()) {
        new.invalid(errors, IMMUTABLE);
    }
}

fn common(domains: bool, meta: &At<'_>, errors: &mut ErrorList) {
    if meta.get("generation").int().is_some_and(|g| g < 0) {
        meta.get("generation").invalid(errors, NOT_NEGATIVE);
    }
    labels(&meta.get("labels"), errors);
    annotations(&meta.get("annotations"), errors);
    owners(&meta.get("ownerReferences"), errors);
    finalizers(domains, &meta.get("finalizers"), errors);
    managers(&meta.get("managedFields"), errors);
}

/// The name of who writes, of a request or in `managedFields`.
pub fn field_manager(manager: &str, path: &Path) -> ErrorList {
    const MOST: usize = 128;
    let mut errors = ErrorList::new();
    if manager.len() > MOST {
        errors.push(FieldError::too_long(path, MOST));
    }
    for (position, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let message = format!(
            "invalid character U+{:04X} (at position {position})",
            u32::from(c)
        );
        errors.push(FieldError::invalid(path, manager, message));
    }
    errors
}

fn managers(entries: &At<'_>, errors: &mut ErrorList) {
    const SUBRESOURCE: usize = 256;
    for entry in entries.items() {
        let operation = entry.get("operation");
        if !matches!(operation.text(), "Apply" | "Update") {
            operation.invalid(errors, "must be `Apply` or `Update`");
        }
        let fields = entry.get("fieldsType");
        if !matches!(fields.text(), "" | "FieldsV1") {
            fields.invalid(errors, "must be `FieldsV1`");
        }
        let manager = entry.get("manager");
        errors
            .0
            .extend(field_manager(manager.text(), &manager.path).0);
        let subresource = entry.get("subresource");
        if subresource.text().len() > SUBRESOURCE {
            errors.push(FieldError::too_long(&subresource.path, SUBRESOURCE));
        }
    }
}

/// A map of labels; also the form of a node selector and of a service's selector.
pub(super) fn labels(labels: &At<'_>, errors: &mut ErrorList) {
    for (key, value) in labels.entries() {
        for message in format::qualified_name(key) {
            errors.push(FieldError::invalid(&labels.path, key, message));
        }
        for message in format::label_value(value.text()) {
            errors.push(FieldError::invalid(&labels.path, value.text(), message));
        }
    }
}

/// What the metadata of a template may say: only labels and annotations are used.
pub(super) fn template(meta: &At<'_>, errors: &mut ErrorList) {
    annotations(&meta.get("annotations"), errors);
    labels(&meta.get("labels"), errors);
}

/// The same, where upstream forbids the fields that mean nothing in a template.
pub(super) fn strict_template(meta: &At<'_>, errors: &mut ErrorList) {
    template(meta, errors);
    for name in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ] {
        // Empty lists are set, too, to upstream, and so are pointers to zero.
        let pointer = name == "deletionGracePeriodSeconds" && meta.get(name).is_set();
        let list = meta.raw(name).is_some_and(Value::is_array);
        if meta.get(name).is_given() || list || pointer {
            let field = match name {
                "uid" => meta.path.child("uID"),
                _ => meta.path.child(name),
            };
            errors.push(FieldError::forbidden(&field, "cannot be set"));
        }
    }
}

fn annotations(annotations: &At<'_>, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        // Annotation keys may be upper case in their prefix.
        for message in format::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&annotations.path, key, message));
        }
        size += key.len() + value.text().len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(&annotations.path, ANNOTATIONS_LIMIT));
    }
}

fn owners(owners: &At<'_>, errors: &mut ErrorList) {
    let mut controller: Option<String> = None;
    let mut more = false;
    for owner in owners.items() {
        for name in ["apiVersion", "kind", "name", "uid"] {
            if !owner.get(name).is_given() {
                // Upstream does not say which owner's.
                let path = owners.path.child(name);
                let detail = match name {
                    "apiVersion" => "version must not be empty",
                    _ => "must not be empty",
                };
                errors.push(FieldError::invalid(&path, "", detail));
            }
        }
        let (kind, version) = (owner.get("kind").text(), owner.get("apiVersion").text());
        if version.matches('/').count() > 1 {
            let path = owners.path.child("apiVersion");
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(FieldError::invalid(&path, version, detail));
        }
        if (version, kind) == ("v1", "Event") {
            errors.push(FieldError::invalid(
                &owners.path,
                owner.bad_value(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.get("controller").is_true() {
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    owner.get("name").text()
                );
                // The list is shown once, or telling of long ones would take its square.
                let value = match more {
                    false => owners.bad_value(),
                    true => BadValue::Omitted,
                };
                more = true;
                errors.push(FieldError::invalid(&owners.path, value, detail));
            } else {
                controller = Some(owner.get("name").text().to_owned());
            }
        }
    }
}

/// `spec.finalizers` of a namespace, whose faults are those of one finalizer each.
pub(super) fn namespace_finalizers(finalizers: &At<'_>, errors: &mut ErrorList) {
    for finalizer in finalizers.items() {
        let name = finalizer.text();
        finalizer.check(errors, format::qualified_name(name));
        if !name.contains('/') && !is_standard(name) {
            finalizer.invalid(errors, NOT_QUALIFIED);
        }
    }
}

const NOT_QUALIFIED: &str = "name is neither a standard finalizer name nor is it fully qualified";

fn is_standard(finalizer: &str) -> bool {
    matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes")
}

fn finalizers(domains: bool, finalizers: &At<'_>, errors: &mut ErrorList) {
    let mut orphan = false;
    let mut foreground = false;
    for finalizer in finalizers.items() {
        let name = finalizer.text();
        for message in format::qualified_name(name) {
            errors.push(FieldError::invalid(&finalizers.path, name, message));
        }
        orphan |= name == "orphan";
        foreground |= name == "foregroundDeletion";
        if domains && !name.contains('/') && !is_standard(name) {
            finalizer.invalid(errors, NOT_QUALIFIED);
        }
    }
    if orphan && foreground {
        finalizers.invalid(
            errors,
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}
