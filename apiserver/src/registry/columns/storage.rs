//! Columns of volumes and storage.k8s.io.

use serde_json::Value;

use super::format::{self, UNSET};
use super::{AGE, Column, Kinds, NAME, Row, column, wide};

pub(super) const KINDS: Kinds = &[
    ("", "PersistentVolume", VOLUME),
    ("", "PersistentVolumeClaim", CLAIM),
    ("storage.k8s.io", "StorageClass", CLASS),
    ("storage.k8s.io", "VolumeAttributesClass", ATTRIBUTES_CLASS),
    ("storage.k8s.io", "VolumeAttachment", ATTACHMENT),
    ("storage.k8s.io", "CSINode", CSI_NODE),
    ("storage.k8s.io", "CSIDriver", CSI_DRIVER),
];

/// The old annotation still names the class of some volumes and claims.
const CLASS_ANNOTATION: &str = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";

fn class(row: &Row<'_>) -> Value {
    match row.text(CLASS_ANNOTATION) {
        "" => row.text("/spec/storageClassName").into(),
        class => class.into(),
    }
}

fn phase(row: &Row<'_>) -> Value {
    if row.at("/metadata/deletionTimestamp").is_null() {
        row.text("/status/phase").into()
    } else {
        "Terminating".into()
    }
}

const ATTRIBUTES: Column = column("VolumeAttributesClass", "string", |row| {
    row.text_or("/spec/volumeAttributesClassName", UNSET)
});
const MODE: Column = wide("VolumeMode", "string", |row| {
    row.text_or("/spec/volumeMode", UNSET)
});

const VOLUME: &[Column] = &[
    NAME,
    column("Capacity", "string", |row| {
        row.text_or("/spec/capacity/storage", "0")
    }),
    column("Access Modes", "string", |row| {
        format::access_modes(row.list("/spec/accessModes")).into()
    }),
    column("Reclaim Policy", "string", |row| {
        row.text("/spec/persistentVolumeReclaimPolicy").into()
    }),
    column("Status", "string", phase),
    column("Claim", "string", |row| {
        if row.at("/spec/claimRef").is_null() {
            return "".into();
        }
        format!(
            "{}/{}",
            row.text("/spec/claimRef/namespace"),
            row.text("/spec/claimRef/name")
        )
        .into()
    }),
    column("StorageClass", "string", class),
    ATTRIBUTES,
    column("Reason", "string", |row| row.text("/status/reason").into()),
    AGE,
    MODE,
];

fn is_bound(row: &Row<'_>) -> bool {
    !row.text("/spec/volumeName").is_empty()
}

const CLAIM: &[Column] = &[
    NAME,
    column("Status", "string", phase),
    column("Volume", "string", |row| {
        row.text("/spec/volumeName").into()
    }),
    column("Capacity", "string", |row| {
        if is_bound(row) {
            row.text_or("/status/capacity/storage", "0")
        } else {
            "".into()
        }
    }),
    column("Access Modes", "string", |row| {
        let modes = if is_bound(row) {
            row.list("/status/accessModes")
        } else {
            &[]
        };
        format::access_modes(modes).into()
    }),
    column("StorageClass", "string", class),
    ATTRIBUTES,
    AGE,
    MODE,
];

const CLASS: &[Column] = &[
    Column {
        cell: |row| {
            let default = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";
            let mark = if row.text(default) == "true" {
                " (default)"
            } else {
                ""
            };
            format!("{}{mark}", row.text("/metadata/name")).into()
        },
        ..NAME
    },
    column("Provisioner", "string", |row| {
        row.text("/provisioner").into()
    }),
    column("ReclaimPolicy", "string", |row| {
        row.text_or("/reclaimPolicy", "Delete")
    }),
    column("VolumeBindingMode", "string", |row| {
        row.text_or("/volumeBindingMode", "Immediate")
    }),
    column("AllowVolumeExpansion", "string", |row| {
        (row.at("/allowVolumeExpansion") == true).into()
    }),
    AGE,
];

const ATTRIBUTES_CLASS: &[Column] = &[
    NAME,
    column("DriverName", "string", |row| row.text("/driverName").into()),
    AGE,
];

const ATTACHMENT: &[Column] = &[
    NAME,
    Column {
        format: "name",
        ..column("Attacher", "string", |row| {
            row.text("/spec/attacher").into()
        })
    },
    column("PV", "string", |row| {
        row.text("/spec/source/persistentVolumeName").into()
    }),
    column("Node", "string", |row| row.text("/spec/nodeName").into()),
    column("Attached", "boolean", |row| {
        (row.at("/status/attached") == true).into()
    }),
    AGE,
];

const CSI_NODE: &[Column] = &[
    NAME,
    column("Drivers", "integer", |row| {
        row.list("/spec/drivers").len().into()
    }),
    AGE,
];

const CSI_DRIVER: &[Column] = &[
    NAME,
    column("AttachRequired", "boolean", |row| {
        (row.at("/spec/attachRequired") != false).into()
    }),
    column("PodInfoOnMount", "boolean", |row| {
        (row.at("/spec/podInfoOnMount") == true).into()
    }),
    column("StorageCapacity", "boolean", |row| {
        (row.at("/spec/storageCapacity") == true).into()
    }),
    column("TokenRequests", "string", |row| {
        match row.at("/spec/tokenRequests") {
            Value::Array(requests) => format::joined(requests, "audience").into(),
            _ => UNSET.into(),
        }
    }),
    column("RequiresRepublish", "boolean", |row| {
        (row.at("/spec/requiresRepublish") == true).into()
    }),
    column("Modes", "string", |row| {
        format::or_none(format::texts(row.list("/spec/volumeLifecycleModes"))).into()
    }),
    AGE,
];
