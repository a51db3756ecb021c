//! Volumes of a pod.

use std::collections::{HashMap, HashSet};

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::container;

/// A pod's volumes by name.
pub(super) struct Volumes<'a>(HashMap<&'a str, At<'a>>);

impl<'a> Volumes<'a> {
    /// Names them without checking; claim templates of a stateful set count too.
    pub fn named(volumes: &At<'a>) -> Self {
        Self(volumes.items().map(|v| (v.get("name").text(), v)).collect())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// May be used as a raw device.
    pub fn is_block(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|v| {
            v.raw("persistentVolumeClaim").is_some() || v.raw("ephemeral").is_some()
        })
    }
}

pub(super) fn volumes(volumes: &At<'_>, errors: &mut ErrorList) {
    let mut names = HashSet::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        if !name.is_given() {
            name.required(errors, "");
        } else {
            name.check(errors, format::dns1123_label(name.text()));
        }
        if !names.insert(name.text()) {
            name.duplicate(errors);
        }
        source(&volume, errors);
    }
}

/// Every source that a volume may have.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

fn source(volume: &At<'_>, errors: &mut ErrorList) {
    let mut given = 0;
    for name in SOURCES {
        let source = volume.get(name);
        if !source.is_set() {
            continue;
        }
        given += 1;
        if given > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        match *name {
            "emptyDir" => {
                container::quantity_value("", &source.get("sizeLimit"), errors);
            }
            "hostPath" => host_path(&source, errors),
            "secret" => {
                named(&source.get("secretName"), errors);
                file_mode(&source.get("defaultMode"), errors);
                key_paths(&source.get("items"), errors);
            }
            "configMap" => {
                named(&source.get("name"), errors);
                file_mode(&source.get("defaultMode"), errors);
                key_paths(&source.get("items"), errors);
            }
            "downwardAPI" => {
                file_mode(&source.get("defaultMode"), errors);
                downward_files(&source.get("items"), errors);
            }
            "projected" => projected(&source, errors),
            "persistentVolumeClaim" => named(&source.get("claimName"), errors),
            "nfs" => {
                named(&source.get("server"), errors);
                named(&source.get("path"), errors);
            }
            "csi" => named(&source.get("driver"), errors),
            _ => {}
        }
    }
    if given == 0 {
        volume.required(errors, "must specify a volume type");
    }
}

pub(super) fn named(field: &At<'_>, errors: &mut ErrorList) {
    if !field.is_given() {
        field.required(errors, "");
    }
}

pub(super) fn host_path(source: &At<'_>, errors: &mut ErrorList) {
    let path = source.get("path");
    named(&path, errors);
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

fn file_mode(mode: &At<'_>, errors: &mut ErrorList) {
    if mode.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        mode.invalid(
            errors,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

fn key_paths(items: &At<'_>, errors: &mut ErrorList) {
    for item in items.items() {
        named(&item.get("key"), errors);
        let path = item.get("path");
        named(&path, errors);
        local_non_reserved(&path, errors);
        file_mode(&item.get("mode"), errors);
    }
}

fn local_non_reserved(path: &At<'_>, errors: &mut ErrorList) {
    container::descending_path(path, errors);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        path.invalid(errors, "must not start with '..'");
    }
}

const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

fn downward_files(items: &At<'_>, errors: &mut ErrorList) {
    for item in items.items() {
        let path = item.get("path");
        named(&path, errors);
        local_non_reserved(&path, errors);
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => {
                item.invalid(
                    errors,
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (true, false) => container::field_ref(&field, DOWNWARD_FIELDS, errors),
            (false, true) => container::resource_field_ref(&resource, true, errors),
            (false, false) => {
                item.required(errors, "one of fieldRef and resourceFieldRef is required");
            }
        }
        file_mode(&item.get("mode"), errors);
    }
}

fn projected(source: &At<'_>, errors: &mut ErrorList) {
    file_mode(&source.get("defaultMode"), errors);
    let mut paths = HashSet::new();
    for projection in source.get("sources").items() {
        let mut given = 0;
        for name in [
            "clusterTrustBundle",
            "configMap",
            "downwardAPI",
            "podCertificate",
            "secret",
            "serviceAccountToken",
        ] {
            let part = projection.get(name);
            if !part.is_set() {
                continue;
            }
            given += 1;
            if given > 1 {
                part.forbidden(errors, "may not specify more than 1 volume type");
            }
            match name {
                "configMap" | "secret" => {
                    named(&part.get("name"), errors);
                    key_paths(&part.get("items"), errors);
                }
                "downwardAPI" => downward_files(&part.get("items"), errors),
                "serviceAccountToken" => token(&part, errors),
                _ => {}
            }
            let files = part.get("items").items().map(|i| i.get("path"));
            for path in files.chain(Some(part.get("path"))).filter(At::is_given) {
                if !paths.insert(path.text()) {
                    errors.push(FieldError::invalid(
                        &source.path,
                        path.text(),
                        format!("conflicting duplicate paths: {}", path.text()),
                    ));
                }
            }
        }
        if given == 0 {
            projection.required(errors, "must specify a volume source type");
        }
    }
}

fn token(token: &At<'_>, errors: &mut ErrorList) {
    let seconds = token.get("expirationSeconds");
    match seconds.int() {
        Some(s) if s < 600 => {
            seconds.invalid(errors, "may not specify a duration less than 10 minutes");
        }
        Some(s) if s > 1 << 32 => {
            seconds.invalid(
                errors,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
        _ => {}
    }
    named(&token.get("path"), errors);
}
