//! Defaults of storage.k8s.io and scheduling.k8s.io.

use serde_json::json;

use super::{Defaulter, Fields, set_empty, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.scheduling.v1.PriorityClass", priority_class),
    ("io.k8s.api.storage.v1.CSIDriverSpec", csi_driver),
    ("io.k8s.api.storage.v1.StorageClass", storage_class),
];

fn priority_class(class: &mut Fields) {
    set_unset(class, "preemptionPolicy", "PreemptLowerPriority");
}

fn csi_driver(spec: &mut Fields) {
    set_unset(spec, "attachRequired", true);
    set_unset(spec, "podInfoOnMount", false);
    set_unset(spec, "storageCapacity", false);
    set_unset(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    set_empty(spec, "volumeLifecycleModes", json!(["Persistent"]));
    set_unset(spec, "requiresRepublish", false);
    set_unset(spec, "seLinuxMount", false);
}

fn storage_class(class: &mut Fields) {
    set_unset(class, "reclaimPolicy", "Delete");
    set_unset(class, "volumeBindingMode", "Immediate");
}
