//! Volumes of a pod.

use std::collections::{HashMap, HashSet};

use meta::field::{ErrorList, FieldError, Path};
use meta::quantity::Quantity;
use meta::validation as format;

use super::at::At;
use super::volume_source::{self, In};
use super::{certificates, container, metadata, pod, pod_certificates, storage};

/// A pod's volumes by name.
pub(super) struct Volumes<'a>(HashMap<&'a str, At<'a>>);

impl<'a> Volumes<'a> {
    /// Those that are as they should be.
    pub fn checked(volumes: &At<'a>, errors: &mut ErrorList) -> Self {
        let mut named = HashMap::new();
        for volume in volumes.items() {
            let name = volume.get("name");
            let before = errors.len();
            source(&volume, errors);
            if !name.is_given() {
                name.required(errors, "");
            } else {
                name.check(errors, format::dns1123_label(name.text()));
            }
            if named.contains_key(name.text()) {
                name.duplicate(errors);
            }
            if errors.len() == before {
                named.insert(name.text(), volume);
            }
        }
        Self(named)
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

/// Every source that a volume may have; of several, the first counts.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
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
            // Upstream has names of its own for some.
            let source = match *name {
                "cephfs" => source.renamed("cephFS"),
                "downwardAPI" => source.renamed("downwarAPI"),
                _ => source,
            };
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        match *name {
            "emptyDir" => {
                let limit = source.get("sizeLimit");
                let size = limit.text().parse::<Quantity>();
                if size.is_ok_and(|s| s < Quantity::default()) {
                    limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
                }
            }
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
                downward_files(&source.get("items"), &source.path, errors);
            }
            "projected" => projected(&source, errors),
            "persistentVolumeClaim" => named(&source.get("claimName"), errors),
            "gitRepo" => {
                named(&source.get("repository"), errors);
                container::descending_path(&source.get("directory"), errors);
            }
            "image" => {
                named(&source.get("reference"), errors);
                let policy = source.get("pullPolicy");
                if policy.is_given() {
                    policy.one_of(errors, &["Always", "IfNotPresent", "Never"]);
                }
            }
            "ephemeral" => ephemeral(&source.get("volumeClaimTemplate"), errors),
            name => volume_source::check(name, &source, In::Pod, errors),
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

/// A claim that comes and goes with its pod: the pod names it.
fn ephemeral(template: &At<'_>, errors: &mut ErrorList) {
    if !template.is_set() {
        template.required(errors, "");
        return;
    }
    metadata::strict_template(&template.get("metadata"), errors);
    storage::claim(&template.get("spec"), errors);
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

/// Upstream tells of the files as of one, at `path`.
fn downward_files(items: &At<'_>, path: &Path, errors: &mut ErrorList) {
    for item in items.items().map(|item| item.moved(path.clone())) {
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

const PROJECTIONS: [&str; 6] = [
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
];

fn projected(source: &At<'_>, errors: &mut ErrorList) {
    file_mode(&source.get("defaultMode"), errors);
    let mut paths = HashSet::new();
    for projection in source.get("sources").items() {
        let mut given = 0;
        for name in PROJECTIONS {
            let part = projection.get(name);
            if !part.is_set() {
                continue;
            }
            given += 1;
            if given > 1 {
                projection.forbidden(errors, "may not specify more than 1 volume type");
            }
            match name {
                "configMap" | "secret" => {
                    named(&part.get("name"), errors);
                    key_paths(&part.get("items"), errors);
                }
                "downwardAPI" => downward_files(&part.get("items"), &part.path, errors),
                "serviceAccountToken" => token(&part, source, errors),
                "clusterTrustBundle" => trust_bundle(&part, errors),
                _ => pod_certificates::projection(&part, errors),
            }
            if name == "podCertificate" {
                for path in pod_certificates::PATHS.map(|path| part.get(path)) {
                    if path.is_given() {
                        local_non_reserved(&path, errors);
                    }
                }
            }
            let files = part.get("items").items().map(|i| i.get("path"));
            let files = files.chain(pod_certificates::PATHS.map(|path| part.get(path)));
            // Tokens may hide others' files, which is but warned of.
            let alone = Some(part.get("path")).filter(|_| name != "serviceAccountToken");
            for path in files.chain(alone).filter(At::is_given) {
                if !paths.insert(path.text()) {
                    errors.push(FieldError::invalid(
                        &source.path,
                        path.text(),
                        format!("conflicting duplicate paths: {}", path.text()),
                    ));
                }
            }
        }
    }
}

/// Tokens are of a pod's service account; templates need not name one yet.
pub(super) fn tokens_have_an_account(spec: &At<'_>, errors: &mut ErrorList) {
    if spec.get("serviceAccountName").is_given() {
        return;
    }
    for volume in spec.get("volumes").items() {
        for source in volume.get("projected").get("sources").items() {
            let token = source.get("serviceAccountToken");
            if token.is_set() {
                token.forbidden(
                    errors,
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
}

fn trust_bundle(part: &At<'_>, errors: &mut ErrorList) {
    let (name, signer) = (part.get("name"), part.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => part.invalid(errors, "only one of name and signerName may be used"),
        (true, false) => {
            named(&name, errors);
            if part.get("labelSelector").is_set() {
                part.get("labelSelector")
                    .invalid(errors, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.is_given() {
                certificates::signer_name(&signer, errors);
            } else {
                signer.required(errors, "must be set");
            }
            pod::label_selector(&part.get("labelSelector"), errors);
        }
        (false, false) => part.required(errors, "either name or signerName must be specified"),
    }
    let path = part.get("path");
    if path.is_given() {
        local_non_reserved(&path, errors);
    } else {
        path.required(errors, "");
    }
}

fn token(token: &At<'_>, volume: &At<'_>, errors: &mut ErrorList) {
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
    // Upstream leaves the source out of this path.
    let path = token.get("path").moved(volume.path.child("path"));
    named(&path, errors);
    local_non_reserved(&path, errors);
}
