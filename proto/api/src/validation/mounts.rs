//! Where containers mount volumes and find raw devices.

use std::collections::{HashMap, HashSet};

use meta::field::ErrorList;

use super::at::At;
use super::volume::Volumes;

/// Upstream leaves the index out of some paths.
fn of_list<'a>(list: &At<'a>, mount: &At<'a>, field: &'static str) -> At<'a> {
    mount.get(field).moved(list.path.child(field))
}

/// Which volumes one of a container's lists uses, and where.
struct Places<'a> {
    volumes: HashSet<&'a str>,
    paths: HashSet<&'a str>,
}

impl<'a> Places<'a> {
    fn of(list: &At<'a>, path: &'static str) -> Self {
        // Of several mounts of one volume upstream remembers the last.
        let last: HashMap<_, _> = (list.items())
            .map(|item| (item.get("name").text(), item.get(path).text()))
            .collect();
        Places {
            volumes: last.keys().copied().collect(),
            paths: last.into_values().collect(),
        }
    }
}

pub(super) fn mounts(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut ErrorList) {
    let (mounts, devices) = (
        container.get("volumeMounts"),
        container.get("volumeDevices"),
    );
    let device_places = Places::of(&devices, "devicePath");
    let mount_places = Places::of(&mounts, "mountPath");
    let mut points = HashSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if !name.is_given() {
            name.required(errors, "");
        }
        if !volumes.contains(name.text()) {
            name.not_found(errors);
        }
        if !path.is_given() {
            path.required(errors, "");
        }
        if !points.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
        if device_places.volumes.contains(name.text()) {
            name.invalid(errors, "must not already exist in volumeDevices");
        }
        if device_places.paths.contains(path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeDevices");
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = of_list(&mounts, &mount, field);
            if sub.is_given() {
                descending_path(&sub, errors);
            }
        }
        if mount.get("subPath").is_given() && mount.get("subPathExpr").is_given() {
            mount
                .get("subPathExpr")
                .invalid(errors, "subPathExpr and subPath are mutually exclusive");
        }
        propagation(
            container,
            &of_list(&mounts, &mount, "mountPropagation"),
            errors,
        );
        recursive_read_only(&mounts, &mount, errors);
    }
    self::devices(&devices, volumes, &mount_places, errors);
}

fn propagation(container: &At<'_>, propagation: &At<'_>, errors: &mut ErrorList) {
    if !propagation.is_set() {
        return;
    }
    propagation.one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.get("securityContext").get("privileged").is_true();
    if propagation.text() == "Bidirectional" && !privileged {
        propagation.forbidden(
            errors,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

/// Mounts below a read-only one (KEP-3857).
fn recursive_read_only(mounts: &At<'_>, mount: &At<'_>, errors: &mut ErrorList) {
    let mode = of_list(mounts, mount, "recursiveReadOnly");
    match mode.text() {
        "" if !mode.is_set() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").is_true() {
                mode.forbidden(errors, "may only be specified when readOnly is true");
            }
            let propagation = mount.get("mountPropagation");
            if propagation.is_set() && propagation.text() != "None" {
                mode.forbidden(
                    errors,
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        _ => mode.one_of(errors, &["Disabled", "IfPossible", "Enabled"]),
    }
}

fn devices(devices: &At<'_>, volumes: &Volumes<'_>, mounted: &Places<'_>, errors: &mut ErrorList) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if !name.is_given() {
            name.required(errors, "");
        }
        if !names.insert(name.text()) {
            name.invalid(errors, "must be unique");
        }
        if volumes.contains(name.text()) && !volumes.is_block(name.text()) {
            name.invalid(errors, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
        }
        if !volumes.contains(name.text()) {
            name.not_found(errors);
        }
        if !path.is_given() {
            path.required(errors, "");
        }
        if !paths.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
        no_backsteps(&path, errors);
        if mounted.volumes.contains(name.text()) {
            name.invalid(errors, "must not already exist in volumeMounts");
        }
        if mounted.paths.contains(path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeMounts");
        }
    }
}

/// A relative path that does not climb.
pub(super) fn descending_path(path: &At<'_>, errors: &mut ErrorList) {
    if path.text().starts_with('/') {
        path.invalid(errors, "must be a relative path");
    }
    no_backsteps(path, errors);
}

pub(super) fn no_backsteps(path: &At<'_>, errors: &mut ErrorList) {
    if path.text().split('/').any(|step| step == "..") {
        path.invalid(errors, "must not contain '..'");
    }
}
