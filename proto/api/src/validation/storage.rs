//! Volumes, claims, classes and attachments; and the runtime classes of containers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use meta::field::{ErrorList, FieldError, Path};
use meta::quantity::Quantity;
use meta::validation as format;
use serde_json::Value;

use super::at::{At, IMMUTABLE};
use super::metadata::{immutable, immutable_message};
use super::resource::driver_name;
use super::same::same;
use super::volume_source::{self, In};
use super::{Rules, any_update, classes, container, metadata, pod, required, volume};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "PersistentVolume",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            persistent_volume(&at.get("spec"), errors);
            annotated_mount_options(at, errors);
        },
        update: volume_update,
        status: any_update,
    },
    Rules {
        group: "",
        kind: "PersistentVolumeClaim",
        name: format::dns1123_subdomain,
        object: |at, errors| claim(&at.get("spec"), errors),
        update: claim_update,
        status: claim_status,
    },
    Rules {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        name: format::dns1123_subdomain,
        object: |at, errors| attachment(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            let model = "io.k8s.api.storage.v1.VolumeAttachmentSpec";
            immutable_message(model, &new, &old, errors);
        },
        status: any_update,
    },
    Rules {
        group: "storage.k8s.io",
        kind: "CSINode",
        name: format::dns1123_subdomain,
        object: |at, errors| csi_node(&at.get("spec"), errors),
        update: csi_node_update,
        status: any_update,
    },
    Rules {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        name: format::dns1123_subdomain,
        object: runtime_class,
        update: |new, old, errors| {
            immutable(&new.get("handler"), &old.get("handler"), errors);
        },
        status: any_update,
    },
    Rules {
        group: "storage.k8s.io",
        kind: "StorageClass",
        name: format::dns1123_subdomain,
        object: storage_class,
        update: |new, old, errors| {
            for field in [
                "parameters",
                "provisioner",
                "reclaimPolicy",
                "volumeBindingMode",
            ] {
                immutable(&new.get(field), &old.get(field), errors);
            }
        },
        status: any_update,
    },
];

/// Drivers and attachments are the storage system's own; what they must say is little.
fn attachment(spec: &At<'_>, errors: &mut ErrorList) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    driver_name(&spec.get("attacher"), errors);
    let source = spec.get("source");
    let (inline, name) = (
        source.get("inlineVolumeSpec"),
        source.get("persistentVolumeName"),
    );
    match (inline.is_set(), name.is_set()) {
        (false, false) => errors.push(FieldError::required(&source.path, ONE)),
        (true, true) => errors.push(FieldError::forbidden(&source.path, ONE)),
        (true, false) => inline_volume(&inline, errors),
        (false, true) => {
            if !name.is_given() {
                name.required(errors, "must specify non empty persistentVolumeName");
            }
        }
    }
    if name.is_set() {
        name.check(errors, format::dns1123_subdomain(name.text()));
    }
    let node = spec.get("nodeName");
    for message in format::dns1123_subdomain(node.text()) {
        errors.push(FieldError::invalid(&node.path, node.text(), message));
    }
}

fn csi_node(spec: &At<'_>, errors: &mut ErrorList) {
    let mut names = HashSet::new();
    for driver in spec.get("drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        driver_name(&name, errors);
        volume::named(&id, errors);
        if id.text().len() > NODE_ID_LIMIT {
            id.invalid(
                errors,
                format!("must be {NODE_ID_LIMIT} characters or less"),
            );
        }
        driver.get("allocatable").get("count").non_negative(errors);
        if !names.insert(name.text()) {
            name.duplicate(errors);
        }
        let mut keys = HashSet::new();
        for key in driver.get("topologyKeys").items().map(|key| key.text()) {
            if key.is_empty() {
                errors.push(FieldError::required(&driver.path, ""));
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(&driver.path, key));
            }
            for message in format::qualified_name(key) {
                errors.push(FieldError::invalid(&driver.path, key, message));
            }
        }
    }
}

/// The longest name that a driver has for a node, in bytes.
const NODE_ID_LIMIT: usize = 192;

/// A driver that is there stays as it is, but for how much it can attach.
fn csi_node_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let [drivers, were] = [new, old].map(|at| at.get("spec").get("drivers"));
    let fixed = |driver: &At<'_>| {
        ["name", "nodeID", "topologyKeys"].map(|field| driver.raw(field).cloned())
    };
    let name = |driver: &At<'_>| {
        driver
            .raw("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let before: HashMap<String, At<'_>> = were.items().map(|d| (name(&d), d)).collect();
    for driver in drivers.items() {
        let was = before.get(&name(&driver));
        if was.is_some_and(|was| fixed(was) != fixed(&driver)) {
            errors.push(FieldError::invalid(
                &drivers.path,
                driver.bad_value(),
                IMMUTABLE,
            ));
        }
    }
}

fn runtime_class(at: &At<'_>, errors: &mut ErrorList) {
    let handler = at.get("handler");
    if required(&handler, errors) {
        handler.check(errors, format::dns1123_label(handler.text()));
    }
    // Upstream checks the overhead as if it were a container's limits.
    let fixed = at.get("overhead").get("podFixed").renamed("limits");
    container::quantities(&fixed, errors);
    let scheduling = at.get("scheduling");
    metadata::labels(&scheduling.get("nodeSelector"), errors);
    let tolerations = scheduling.get("tolerations");
    pod::tolerations(&tolerations, errors);
    let mut seen = HashSet::new();
    for toleration in tolerations.items() {
        let operator = toleration.get("operator");
        // Upstream asks no gate here.
        if matches!(operator.text(), "Gt" | "Lt") {
            let known = ["Equal", "Exists", "Lt", "Gt"];
            let error = FieldError::not_supported(&operator.path, operator.text(), &known);
            errors.push(error);
        }
        let key = ["key", "operator", "value", "effect"].map(|field| toleration.get(field));
        if !seen.insert(key.map(|field| field.text().to_owned())) {
            toleration.duplicate(errors);
        }
    }
}

const ONE_POD: &str = "ReadWriteOncePod";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", ONE_POD];

fn access_modes(modes: &At<'_>, required: &'static str, errors: &mut ErrorList) {
    if modes.len() == 0 {
        modes.required(errors, required);
    }
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            let error = FieldError::not_supported(&modes.path, mode.text(), &ACCESS_MODES);
            errors.push(error);
        }
    }
    let one_pod = modes.items().any(|m| m.text() == ONE_POD);
    let other = modes.items().any(|m| ACCESS_MODES[..3].contains(&m.text()));
    if one_pod && other {
        modes.forbidden(
            errors,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

fn volume_mode(spec: &At<'_>, errors: &mut ErrorList) {
    if spec.get("volumeMode").is_set() {
        spec.get("volumeMode")
            .one_of(errors, &["Block", "Filesystem"]);
    }
}

fn class_name(name: &At<'_>, errors: &mut ErrorList) {
    if name.is_given() {
        name.check(errors, format::dns1123_subdomain(name.text()));
    }
}

fn size(of: &At<'_>) -> Option<Quantity> {
    of.text().parse().ok()
}

fn positive(quantity: &At<'_>, errors: &mut ErrorList) {
    if size(quantity).is_some_and(|q| q <= Quantity::default()) {
        quantity.invalid(errors, "must be greater than zero");
    }
}

/// Every source that a persistent volume may have.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

const INLINE: &str = "may not be specified in the context of inline volumes";

fn persistent_volume(spec: &At<'_>, errors: &mut ErrorList) {
    access_modes(&spec.get("accessModes"), "", errors);
    let capacity = spec.get("capacity");
    if capacity.len() == 0 {
        capacity.required(errors, "");
    }
    if capacity.raw("storage").is_none() || capacity.len() > 1 {
        let error = FieldError::not_supported(&capacity.path, capacity.bad_value(), &["storage"]);
        errors.push(error);
    }
    for (_, quantity) in capacity.entries() {
        positive(&quantity, errors);
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.is_given() {
        policy.one_of(errors, &["Delete", "Recycle", "Retain"]);
    }
    let required = spec.get("nodeAffinity").get("required");
    if required.is_set() {
        pod::node_selector(&required, errors);
    } else if spec.get("nodeAffinity").is_set() {
        required.required(errors, "must specify required node constraints");
    }
    source(spec, spec.get("nodeAffinity").is_set(), errors);
    let path = spec.get("hostPath").get("path").text();
    let is_root = !path.is_empty() && path.split('/').all(|step| matches!(step, "" | "."));
    if is_root && policy.text() == "Recycle" {
        policy.forbidden(errors, "may not be 'recycle' for a hostPath mount of '/'");
    }
    class_name(&spec.get("storageClassName"), errors);
    volume_mode(spec, errors);
    attributes(spec, errors);
}

/// Mount options were an annotation once, which only volumes may have that could be mounted
/// with options then.
fn annotated_mount_options(at: &At<'_>, errors: &mut ErrorList) {
    const KEY: &str = "volume.beta.kubernetes.io/mount-options";
    const MOUNTED: [&str; 13] = [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "gcePersistentDisk",
        "glusterfs",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "quobyte",
        "rbd",
        "vsphereVolume",
    ];
    let annotations = at.get("metadata").get("annotations");
    let spec = at.get("spec");
    if annotations.raw(KEY).is_some() && !MOUNTED.iter().any(|name| spec.get(name).is_set()) {
        let path = annotations.path.child(KEY);
        let detail = "may not specify mount options for this volume type";
        errors.push(FieldError::forbidden(&path, detail));
    }
}

/// The one source of a volume; `pinned`: it is said on which nodes it is.
fn source(spec: &At<'_>, pinned: bool, errors: &mut ErrorList) {
    let mut given = 0;
    for name in SOURCES {
        let source = spec.get(name);
        if !source.is_set() {
            continue;
        }
        given += 1;
        // Upstream forgets to count here.
        if given > 1 && *name != "flexVolume" {
            let source = if *name == "cephfs" {
                source.renamed("cephFS")
            } else {
                source
            };
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        volume_source::check(name, &source, In::PersistentVolume, errors);
        if *name == "local" {
            let path = source.get("path");
            volume::named(&path, errors);
            container::no_backsteps(&path, errors);
            if !pinned {
                spec.get("nodeAffinity")
                    .required(errors, "Local volume requires node affinity");
            }
        }
    }
    if given == 0 {
        spec.required(errors, "must specify a volume type");
    }
}

fn attributes(spec: &At<'_>, errors: &mut ErrorList) {
    let class = spec.get("volumeAttributesClassName");
    if !class.is_set() {
        return;
    }
    if class.is_given() {
        class_name(&class, errors);
    } else {
        class.required(errors, "an empty string is disallowed");
    }
    if !spec.get("csi").is_set() {
        spec.get("csi").required(
            errors,
            "has to be specified when using volumeAttributesClassName",
        );
    }
}

/// A volume that is attached without there being an object of it.
fn inline_volume(spec: &At<'_>, errors: &mut ErrorList) {
    for field in ["claimRef", "nodeAffinity"] {
        if spec.get(field).is_set() {
            spec.get(field).forbidden(errors, INLINE);
        }
    }
    for field in ["capacity", "storageClassName"] {
        if spec.get(field).is_given() {
            spec.get(field).forbidden(errors, INLINE);
        }
    }
    if !spec.get("csi").is_set() {
        spec.get("csi").required(
            errors,
            "has to be specified in the context of inline volumes",
        );
    }
    access_modes(&spec.get("accessModes"), "", errors);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.is_given() && policy.text() != "Retain" {
        policy.forbidden(
            errors,
            "may only be Retain in the context of inline volumes",
        );
    }
    source(spec, false, errors);
    let mode = spec.get("volumeMode");
    if mode.is_set() && mode.text() != "Filesystem" {
        mode.forbidden(
            errors,
            "may not specify volumeMode other than Filesystem in the context of inline volumes",
        );
    }
}

/// Where a volume comes from is settled once; a secret to grow it by may come later.
fn volume_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    const GROW: &str = "controllerExpandSecretRef";
    const SOURCE: &str = "io.k8s.api.core.v1.PersistentVolumeSource";
    let (new, old) = (new.get("spec"), old.get("spec"));
    let mut asked = new.value().cloned().unwrap_or_default();
    if !old.get("csi").get(GROW).is_set()
        && let Some(csi) = asked.get_mut("csi").and_then(Value::as_object_mut)
    {
        csi.remove(GROW);
    }
    if !same(SOURCE, Some(&asked), old.value()) {
        // Upstream calls the inlined struct by its Go name.
        let path = new.path.child("persistentvolumesource");
        errors.push(FieldError::forbidden(
            &path,
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    const AFFINITY: &str = "io.k8s.api.core.v1.VolumeNodeAffinity";
    // Upstream leaves `spec` out of these paths.
    let at_root = |name: &'static str| new.get(name).moved(Path::new(name));
    immutable(&at_root("volumeMode"), &old.get("volumeMode"), errors);
    let affinity = at_root("nodeAffinity");
    let was = old.raw("nodeAffinity");
    let renamed = was.map(|was| with_ga_keys(was, affinity.value()));
    let kept = affinity.is_set() && same(AFFINITY, affinity.value(), renamed.as_ref());
    if was.is_some() && !kept {
        affinity.invalid(
            errors,
            "field is immutable, except for updating from beta label to GA",
        );
    }
    let class = "volumeAttributesClassName";
    if old.get(class).is_set() && !new.get(class).is_set() {
        new.get(class)
            .forbidden(errors, "update from non-nil value to nil is forbidden");
    }
}

/// The affinity that a volume had, with the keys of its requirements changed as an update may:
/// from a beta label to the one that came of it. Upstream looks others up, too, and finds them
/// to have become no key at all, which is told of elsewhere.
fn with_ga_keys(old: &Value, new: Option<&Value>) -> Value {
    let mut renamed = old.clone();
    let terms = renamed.pointer_mut("/required/nodeSelectorTerms");
    let terms = terms.and_then(Value::as_array_mut).into_iter().flatten();
    for (i, term) in terms.enumerate() {
        for field in ["matchExpressions", "matchFields"] {
            let requirements = term.get_mut(field).and_then(Value::as_array_mut);
            for (j, requirement) in requirements.into_iter().flatten().enumerate() {
                let now = new.map(|new| &new["required"]["nodeSelectorTerms"][i][field][j]);
                let key = now
                    .filter(|now| now.is_object())
                    .map(|now| text(now, "key"));
                if key.is_some_and(|key| key == ga_label(text(requirement, "key"))) {
                    requirement["key"] = key.unwrap_or_default().into();
                }
            }
        }
    }
    renamed
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn ga_label(beta: &str) -> &'static str {
    match beta {
        "beta.kubernetes.io/arch" => "kubernetes.io/arch",
        "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/os" => "kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        _ => "",
    }
}

pub(super) fn claim(spec: &At<'_>, errors: &mut ErrorList) {
    let modes = spec.get("accessModes");
    access_modes(&modes, "at least 1 access mode is required", errors);
    pod::label_selector(&spec.get("selector"), errors);
    let storage = spec.get("resources").get("requests").get("storage");
    // Upstream leaves `requests` out of this path.
    let path = spec.get("resources").path.key("storage");
    match storage.value() {
        None => errors.push(FieldError::required(&path, "")),
        Some(value) => positive(&At::new(path, value), errors),
    }
    class_name(&spec.get("storageClassName"), errors);
    volume_mode(spec, errors);
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    data_source(&source, errors);
    data_source(&reference, errors);
    let namespace = reference.get("namespace");
    if namespace.is_given() {
        namespace.check(errors, format::dns1123_label(namespace.text()));
    }
    let same = ["apiGroup", "kind", "name"]
        .iter()
        .all(|field| source.get(field).text() == reference.get(field).text());
    if source.is_set() && namespace.is_given() {
        spec.invalid(
            errors,
            "may not be specified when dataSourceRef.namespace is specified",
        );
    } else if source.is_set() && reference.is_set() && !same {
        spec.invalid(errors, "must match dataSourceRef");
    }
    class_name(&spec.get("volumeAttributesClassName"), errors);
}

/// A new claim: the groups of its sources, which upstream looks at no more once there are any.
pub(super) fn claim_created(spec: &At<'_>, errors: &mut ErrorList) {
    for source in ["dataSource", "dataSourceRef"] {
        let group = spec.get(source).get("apiGroup");
        if group.is_given() {
            group.check(errors, format::dns1123_subdomain(group.text()));
        }
    }
}

fn data_source(source: &At<'_>, errors: &mut ErrorList) {
    if !source.is_set() {
        return;
    }
    volume::named(&source.get("name"), errors);
    volume::named(&source.get("kind"), errors);
    let (group, kind) = (source.get("apiGroup"), source.get("kind").text());
    if group.is_given() {
        return;
    }
    if kind != "PersistentVolumeClaim" {
        errors.push(FieldError::invalid(
            &source.path,
            kind,
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ));
    }
}

/// What the status may say of a claim that grows.
fn claim_status(new: &At<'_>, _: &At<'_>, errors: &mut ErrorList) {
    const STEPS: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let status = new.get("status");
    let basic = |quantity: &At<'_>, errors: &mut ErrorList| {
        if size(quantity).is_some_and(|q| q < Quantity::default()) {
            quantity.invalid(errors, "must be a valid resource quantity");
        }
    };
    for (_, quantity) in status.get("capacity").entries() {
        basic(&quantity, errors);
    }
    let statuses = status.get("allocatedResourceStatuses");
    for (name, step) in statuses.entries() {
        resource_key(name, &statuses, errors);
        if !STEPS.contains(&step.text()) {
            errors.push(FieldError::not_supported(&statuses.path, name, &STEPS));
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, quantity) in allocated.entries() {
        if resource_key(name, &allocated, errors) {
            basic(&quantity, errors);
        }
    }
}

/// Storage, or something of somebody else's.
fn resource_key(name: &str, of: &At<'_>, errors: &mut ErrorList) -> bool {
    let before = errors.len();
    for message in format::qualified_name(name) {
        errors.push(FieldError::invalid(&of.path, name, message));
    }
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if native && name != "storage" {
        errors.push(FieldError::not_supported(&of.path, name, &["storage"]));
    }
    errors.len() == before
}

/// A claim gets its volume once; when it is bound it may still grow and change its attributes.
fn claim_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    const CLAIM: &str = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
    let bound = new.get("status").get("phase").text() == "Bound";
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    let mut fixed = [new_spec.value(), old_spec.value()].map(|s| s.cloned().unwrap_or_default());
    let [asked, before] = &mut fixed;
    if !old_spec.get("volumeName").is_given() {
        before["volumeName"] = asked["volumeName"].clone();
    }
    if old_spec.get("storageClassName").value().is_none() {
        before["storageClassName"] = asked["storageClassName"].clone();
    }
    if bound {
        for spec in [&mut *asked, &mut *before] {
            spec["volumeAttributesClassName"] = Value::Null;
            if let Some(requests) = spec.pointer_mut("/resources/requests/storage") {
                *requests = Value::Null;
            }
        }
    }
    if !same(CLAIM, Some(asked), Some(before)) {
        new_spec.forbidden(
            errors,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let storage = |spec: &At<'_>| size(&spec.get("resources").get("requests").get("storage"));
    let reached = size(&old.get("status").get("capacity").get("storage")).unwrap_or_default();
    let [now, then] = [&new_spec, &old_spec].map(|spec| storage(spec).unwrap_or_default());
    if now < then && now <= reached {
        new_spec
            .get("resources")
            .get("requests")
            .get("storage")
            .forbidden(errors, "field can not be less than status.capacity");
    }
    // Upstream leaves `spec` out of this path.
    let mode = new_spec.get("volumeMode").moved(Path::new("volumeMode"));
    immutable(&mode, &old_spec.get("volumeMode"), errors);
    let class = new_spec.get("volumeAttributesClassName");
    let had = old
        .get("status")
        .get("currentVolumeAttributesClassName")
        .is_set();
    if had && class.value() != old_spec.raw("volumeAttributesClassName") {
        if !class.is_set() {
            class.forbidden(errors, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil");
        } else if !class.is_given() {
            class.forbidden(errors, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil");
        }
    }
}

fn storage_class(class: &At<'_>, errors: &mut ErrorList) {
    classes::provisioner(&class.get("provisioner"), errors);
    classes::parameters(&class.get("parameters"), errors);
    if class.get("reclaimPolicy").is_given() {
        class
            .get("reclaimPolicy")
            .one_of(errors, &["Delete", "Retain"]);
    }
    let mode = class.get("volumeBindingMode");
    if mode.is_set() {
        mode.one_of(errors, &["Immediate", "WaitForFirstConsumer"]);
    } else {
        mode.required(errors, "");
    }
    // Upstream compares with empty terms, too, before there are any.
    let mut terms: BTreeSet<BTreeMap<&str, BTreeSet<&str>>> = [BTreeMap::new()].into();
    for term in class.get("allowedTopologies").items() {
        let expressions = term.get("matchLabelExpressions");
        let parsed = topology_term(&expressions, errors);
        if !terms.insert(parsed) {
            errors.push(FieldError::duplicate(&expressions.path, ""));
        }
    }
}

fn topology_term<'a>(
    expressions: &At<'a>,
    errors: &mut ErrorList,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut term = BTreeMap::new();
    for expression in expressions.items() {
        let (key, values) = (expression.get("key"), expression.get("values"));
        let mut seen = BTreeSet::new();
        if values.len() == 0 {
            values.required(errors, "");
        }
        for value in values.items() {
            if !seen.insert(value.text()) {
                value.duplicate(errors);
            }
        }
        key.check(errors, format::qualified_name(key.text()));
        if term.insert(key.text(), seen).is_some() {
            key.duplicate(errors);
        }
    }
    term
}
