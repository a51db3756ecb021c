//! What a volume claim costs: itself and the storage that it asks for, also under the name of
//! its storage class.

use meta::Quantity;
use serde::Deserialize;

use super::scopes::Facts;
use super::{Measured, Meta, count};
use crate::resources::{Requirements, ResourceList};

const COUNT: &str = "count/persistentvolumeclaims";
const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct VolumeClaim {
    pub metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    resources: Requirements,
    storage_class_name: Option<String>,
    volume_attributes_class_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    allocated_resources: ResourceList,
    current_volume_attributes_class_name: Option<String>,
    modify_volume_status: Option<ModifyStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ModifyStatus {
    target_volume_attributes_class_name: String,
}

pub(super) fn counts(name: &str) -> bool {
    let of_class = |what: &str| name.ends_with(&format!("{OF_CLASS}{what}"));
    [COUNT, CLAIMS, STORAGE].contains(&name) || of_class(CLAIMS) || of_class(STORAGE)
}

impl VolumeClaim {
    /// The annotation is older than the field and has the last word.
    fn class(&self) -> &str {
        let annotation = "volume.beta.kubernetes.io/storage-class";
        let old = self.metadata.annotations.get(annotation);
        old.or(self.spec.storage_class_name.as_ref())
            .map_or("", String::as_str)
    }

    /// Whole bytes; while a volume grows what has been allocated for it, if that is more.
    fn storage(&self) -> Option<Quantity> {
        let asked = self.spec.resources.requests.get("storage")?;
        let allocated = self.status.allocated_resources.get("storage");
        let most = match allocated {
            Some(allocated) if allocated > asked => allocated,
            _ => asked,
        };
        let mut rounded = most.clone();
        if rounded.round_up(0) {
            return Some(most.clone());
        }
        Some(rounded)
    }

    pub fn measure(&self) -> Measured {
        let mut usage =
            ResourceList::from([(CLAIMS.to_owned(), count(1)), (COUNT.to_owned(), count(1))]);
        let class = self.class();
        if !class.is_empty() {
            usage.insert(format!("{class}{OF_CLASS}{CLAIMS}"), count(1));
        }
        if let Some(storage) = self.storage() {
            if !class.is_empty() {
                usage.insert(format!("{class}{OF_CLASS}{STORAGE}"), storage.clone());
            }
            usage.insert(STORAGE.to_owned(), storage);
        }
        let modified = self.status.modify_volume_status.as_ref();
        let mut classes: Vec<String> = [
            self.spec.volume_attributes_class_name.as_ref(),
            self.status.current_volume_attributes_class_name.as_ref(),
            modified.map(|m| &m.target_volume_attributes_class_name),
        ]
        .into_iter()
        .flatten()
        .filter(|class| !class.is_empty())
        .cloned()
        .collect();
        classes.sort();
        classes.dedup();
        Measured {
            usage,
            facts: Facts::VolumeClaim { classes },
            ..Measured::default()
        }
    }
}
