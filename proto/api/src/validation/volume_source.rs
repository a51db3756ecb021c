//! Where volumes come from, one function per source; most stand in pods and in persistent
//! volumes alike.

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::resource::driver_name;
use super::{container, required};

/// Where a source stands: secrets that persistent volumes name are of some namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum In {
    Pod,
    PersistentVolume,
}

fn all_required(source: &At<'_>, fields: &[&'static str], errors: &mut ErrorList) {
    for field in fields {
        required(&source.get(field), errors);
    }
}

fn not_empty(list: &At<'_>, errors: &mut ErrorList) {
    if list.len() == 0 {
        list.required(errors, "");
    }
}

fn secret_ref(source: &At<'_>, place: In, errors: &mut ErrorList) {
    let reference = source.get("secretRef");
    if reference.is_set() {
        required(&reference.get("name"), errors);
        if place == In::PersistentVolume {
            required(&reference.get("namespace"), errors);
        }
    }
}

fn small_number(number: &At<'_>, lowest: i64, errors: &mut ErrorList) {
    if number.int().is_some_and(|n| !(0..=255).contains(&n)) {
        number.invalid(errors, format::inclusive_range_error(lowest, 255));
    }
}

/// The source `name` of a volume. Its own list of fields is what it says for itself.
pub(super) fn check(name: &str, source: &At<'_>, place: In, errors: &mut ErrorList) {
    match name {
        "gcePersistentDisk" => {
            // Its old name lives on in paths.
            let source = source.renamed("persistentDisk");
            all_required(&source, &["pdName"], errors);
            small_number(&source.get("partition"), 1, errors);
        }
        "awsElasticBlockStore" => {
            all_required(source, &["volumeID"], errors);
            small_number(&source.get("partition"), 1, errors);
        }
        "azureDisk" => azure_disk(source, errors),
        "azureFile" => {
            all_required(source, &["secretName", "shareName"], errors);
            let namespace = source.get("secretNamespace");
            if namespace.is_set() {
                required(&namespace, errors);
            }
        }
        "cephfs" => not_empty(&source.get("monitors"), errors),
        "cinder" => {
            all_required(source, &["volumeID"], errors);
            secret_ref(source, place, errors);
        }
        "fc" => fibre_channel(source, errors),
        "flexVolume" => flex(source, errors),
        "flocker" => flocker(source, errors),
        "glusterfs" => {
            all_required(source, &["endpoints", "path"], errors);
            let namespace = source.get("endpointsNamespace");
            if namespace.is_given() {
                namespace.check(errors, format::dns1123_label(namespace.text()));
            } else if namespace.is_set() {
                namespace.invalid(
                    errors,
                    "if the endpointnamespace is set, it must be a valid namespace name",
                );
            }
        }
        "hostPath" => host_path(source, errors),
        "iscsi" => iscsi(source, place, errors),
        "nfs" => {
            all_required(source, &["server", "path"], errors);
            let path = source.get("path");
            if !path.text().starts_with('/') {
                path.invalid(errors, "must be an absolute path");
            }
        }
        "photonPersistentDisk" => all_required(source, &["pdID"], errors),
        "portworxVolume" => all_required(source, &["volumeID"], errors),
        "quobyte" => quobyte(source, errors),
        "rbd" => {
            not_empty(&source.get("monitors"), errors);
            all_required(source, &["image"], errors);
        }
        "scaleIO" => all_required(source, &["gateway", "system", "volumeName"], errors),
        "storageos" => storage_os(source, place, errors),
        "vsphereVolume" => all_required(source, &["volumePath"], errors),
        "csi" => csi(source, place, errors),
        _ => {}
    }
}

pub(super) fn host_path(source: &At<'_>, errors: &mut ErrorList) {
    let path = source.get("path");
    if !required(&path, errors) {
        return;
    }
    container::no_backsteps(&path, errors);
    source.get("type").one_of(
        errors,
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

fn azure_disk(disk: &At<'_>, errors: &mut ErrorList) {
    all_required(disk, &["diskName", "diskURI"], errors);
    let caching = disk.get("cachingMode");
    if caching.is_set() {
        caching.one_of(errors, &["None", "ReadOnly", "ReadWrite"]);
    }
    let (kind, uri) = (disk.get("kind"), disk.get("diskURI"));
    if !kind.is_set() {
        return;
    }
    kind.one_of(errors, &["Dedicated", "Managed", "Shared"]);
    let (prefix, form) = if kind.text() == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        )
    };
    if !uri.text().starts_with(prefix) {
        uri.one_of(errors, &[form]);
    }
}

fn fibre_channel(source: &At<'_>, errors: &mut ErrorList) {
    const ONE: &str = "must specify either targetWWNs or wwids, but not both";
    let (targets, ids) = (source.get("targetWWNs"), source.get("wwids"));
    match (targets.len() > 0, ids.len() > 0) {
        (false, false) => targets.required(errors, ONE),
        (true, true) => targets.invalid(errors, ONE),
        _ => {}
    }
    if targets.len() > 0 {
        let lun = source.get("lun");
        if lun.is_set() {
            small_number(&lun, 0, errors);
        } else {
            lun.required(errors, "lun is required if targetWWNs is specified");
        }
    }
}

fn flex(source: &At<'_>, errors: &mut ErrorList) {
    all_required(source, &["driver"], errors);
    // The kubelet adds options of these names.
    for (key, option) in source.get("options").entries() {
        let namespace = key.split('/').next().unwrap_or_default().to_lowercase();
        let dotted = format!(".{namespace}");
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            errors.push(FieldError::invalid(
                &option.path,
                key,
                "keys in the kubernetes.io and k8s.io namespaces are reserved",
            ));
        }
    }
}

fn flocker(source: &At<'_>, errors: &mut ErrorList) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_given(), uuid.is_given()) {
        (false, false) => {
            source.required(errors, "one of datasetName and datasetUUID is required");
        }
        (true, true) => source.invalid(
            errors,
            "datasetName and datasetUUID can not be specified simultaneously",
        ),
        _ => {}
    }
    if name.text().contains('/') {
        name.invalid(errors, "must not contain '/'");
    }
}

/// RFC 3720 §3.2.6: names of initiators and targets.
fn iscsi_name(name: &At<'_>, errors: &mut ErrorList) {
    const FORM: &str = "must be valid format";
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let text = name.text();
    let good = if let Some(rest) = text.strip_prefix("iqn.") {
        // A date, a reversed domain and, after a colon, whatever its owner likes.
        let (date, rest) = rest.split_at_checked(7).unwrap_or((rest, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let dated = date
            .split_once('-')
            .is_some_and(|(y, m)| y.len() == 4 && m.len() == 2 && digits(y) && digits(m));
        let allowed = |c: char| match c {
            '_' | '/' => false,
            c if c.is_ascii() => c.is_ascii_graphic(),
            c => !c.is_whitespace(),
        };
        dated && rest.len() > 1 && rest.starts_with('.') && rest.chars().all(allowed)
    } else if let Some(rest) = text.strip_prefix("eui.") {
        rest.len() == 16 && hex(rest)
    } else if let Some(rest) = text.strip_prefix("naa.") {
        matches!(rest.len(), 16 | 32) && hex(rest)
    } else if ["iqn", "eui", "naa"].iter().any(|p| text.starts_with(p)) {
        false
    } else {
        name.invalid(
            errors,
            "must be valid format starting with iqn, eui, or naa",
        );
        return;
    };
    if !good {
        name.invalid(errors, FORM);
    }
}

fn iscsi(source: &At<'_>, place: In, errors: &mut ErrorList) {
    all_required(source, &["targetPortal"], errors);
    let name = source.get("iqn");
    if required(&name, errors) {
        iscsi_name(&name, errors);
    }
    small_number(&source.get("lun"), 0, errors);
    let secret = source.get("secretRef");
    let authenticates = ["chapAuthDiscovery", "chapAuthSession"]
        .iter()
        .any(|field| source.get(field).is_true());
    if authenticates && !secret.is_set() {
        secret.required(errors, "");
    }
    if secret.is_set() && place == In::PersistentVolume {
        required(&secret.get("name"), errors);
    }
    if source.get("initiatorName").is_set() {
        // Upstream spells this field in its own way.
        let name = source.get("initiatorName").renamed("initiatorname");
        iscsi_name(&name, errors);
    }
}

fn quobyte(source: &At<'_>, errors: &mut ErrorList) {
    const LIMIT: usize = 65;
    let registry = source.get("registry");
    if !registry.is_given() {
        registry.required(
            errors,
            "must be a host:port pair or multiple pairs separated by commas",
        );
    } else if registry.text().len() >= LIMIT {
        registry.invalid(errors, "must be less than 65 characters");
    } else if registry.text().split(',').any(|pair| !pair.contains(':')) {
        registry.invalid(
            errors,
            "must be a host:port pair or multiple pairs separated by commas",
        );
    }
    if source.get("tenant").text().len() >= LIMIT {
        source.get("tenant").required(
            errors,
            "must be a UUID and may not exceed a length of 64 characters",
        );
    }
    let volume = source.get("volume");
    if required(&volume, errors) && volume.text().len() >= LIMIT {
        volume.required(errors, "may not exceed a length of 64 characters");
    }
}

fn storage_os(source: &At<'_>, place: In, errors: &mut ErrorList) {
    let name = source.get("volumeName");
    if required(&name, errors) {
        name.check(errors, format::dns1123_label(name.text()));
    }
    let namespace = source.get("volumeNamespace");
    if namespace.is_given() {
        namespace.check(errors, format::dns1123_label(namespace.text()));
    }
    secret_ref(source, place, errors);
}

fn csi(source: &At<'_>, place: In, errors: &mut ErrorList) {
    driver_name(&source.get("driver"), errors);
    if place == In::Pod {
        let secret = source.get("nodePublishSecretRef");
        if secret.is_set() && required(&secret.get("name"), errors) {
            let name = secret.get("name");
            name.check(errors, format::dns1123_subdomain(name.text()));
        }
        return;
    }
    all_required(source, &["volumeHandle"], errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.get(field);
        if !secret.is_set() {
            continue;
        }
        let (name, namespace) = (secret.get("name"), secret.get("namespace"));
        if required(&name, errors) {
            name.check(errors, format::dns1123_subdomain(name.text()));
        }
        if required(&namespace, errors) {
            namespace.check(errors, format::dns1123_label(namespace.text()));
        }
    }
}
