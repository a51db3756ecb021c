//! What a resource claim costs: itself and the devices of each class that it may be given. A
//! claim that was made for a pod's extended resources costs only what the pod does not pay.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::pods::is_extended_request;
use super::{Measured, Meta, Surroundings, count};
use crate::resources::ResourceList;

const COUNT: &str = "count/resourceclaims.resource.k8s.io";
/// `<class>.deviceclass.resource.k8s.io/devices`
const OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// `requests.deviceclass.resource.kubernetes.io/<class>`
const IMPLICIT: &str = "requests.deviceclass.resource.kubernetes.io/";
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";
const EXTENDED_CLAIM: &str = "resource.kubernetes.io/extended-resource-claim";
/// The most devices that one claim can be given.
const MAX_DEVICES: i64 = 32;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    pub metadata: Meta,
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    devices: Devices,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Devices {
    requests: Vec<Request>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Request {
    exactly: Option<Exactly>,
    first_available: Vec<Exactly>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Exactly {
    device_class_name: String,
    allocation_mode: String,
    count: i64,
}

impl Exactly {
    fn devices(&self) -> i64 {
        match self.allocation_mode.as_str() {
            "ExactCount" => self.count,
            "All" => MAX_DEVICES,
            _ => 0,
        }
    }

    fn name(&self) -> String {
        format!("{}{OF_CLASS}", self.device_class_name)
    }
}

/// Which device class stands for which extended resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceClasses {
    /// Extended resource by class.
    resources: HashMap<String, String>,
    /// Classes by extended resource, the implicit ones too.
    classes: HashMap<String, (String, String)>,
}

/// A device class, as far as it stands for an extended resource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DeviceClass {
    pub metadata: Meta,
    spec: DeviceClassSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeviceClassSpec {
    extended_resource_name: Option<String>,
}

impl FromIterator<DeviceClass> for DeviceClasses {
    /// Of classes that stand for the same resource the newest counts.
    fn from_iter<T: IntoIterator<Item = DeviceClass>>(all: T) -> Self {
        let mut known = DeviceClasses::default();
        for DeviceClass { metadata, spec } in all {
            let implicit = format!("{DEVICE_CLASS}{}", metadata.name);
            let entry = (metadata.creation_timestamp, metadata.name.clone());
            if let Some(resource) = spec.extended_resource_name {
                let newer = known.classes.get(&resource).is_none_or(|(time, name)| {
                    entry.0 > *time || (entry.0 == *time && entry.1 < *name)
                });
                if newer {
                    known.classes.insert(resource.clone(), entry.clone());
                }
                known.resources.insert(metadata.name, resource);
            }
            known.classes.insert(implicit, entry);
        }
        known
    }
}

impl DeviceClasses {
    fn resource(&self, class: &str) -> Option<&str> {
        let found = self.resources.get(class).map(String::as_str);
        found.filter(|resource| !resource.is_empty())
    }

    fn has_class_for(&self, resource: &str) -> bool {
        self.classes.contains_key(resource)
    }
}

/// A pod that a claim was made for.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    pub uid: String,
    /// The claim that the pod's status names, if it names one.
    pub claim: Option<String>,
    pub usage: ResourceList,
}

/// Looks up what a claim belongs to.
pub trait Owners {
    fn pod(&self, namespace: &str, name: &str) -> Option<Owner>;

    /// Creation time and name of the claims that [`Claim::pod_owner`] says are this pod's.
    fn claims(&self, namespace: &str, pod_uid: &str) -> Vec<(String, String)>;
}

pub(super) fn counts(name: &str, classes: &DeviceClasses) -> bool {
    if name == COUNT || name.ends_with(OF_CLASS) {
        return true;
    }
    if let Some(class) = name.strip_prefix(IMPLICIT)
        && classes.resource(class).is_some()
    {
        return true;
    }
    is_extended_request(name) && classes.has_class_for(&name["requests.".len()..])
}

impl Claim {
    /// Name and uid of the pod whose extended resources this claim is for.
    pub fn pod_owner(&self) -> Option<(&str, &str)> {
        let marked = self.metadata.annotations.get(EXTENDED_CLAIM)?;
        let mut owners = self.metadata.owner_references.iter();
        let owner = owners.find(|o| o.controller == Some(true))?;
        (marked == "true" && owner.kind == "Pod" && owner.api_version == "v1")
            .then_some((&*owner.name, &*owner.uid))
    }

    /// What the pod pays that this claim was made for, once we are sure that it was.
    fn paid_by_pod(&self, owners: &dyn Owners) -> Option<ResourceList> {
        let (name, uid) = self.pod_owner()?;
        let m = &self.metadata;
        let pod = owners.pod(&m.namespace, name).filter(|p| p.uid == uid)?;
        let sure = match &pod.claim {
            Some(claim) => *claim == m.name,
            // The first of several is the one.
            None => {
                let own = (&m.creation_timestamp, &m.name);
                let all = owners.claims(&m.namespace, uid);
                all.iter().all(|(time, name)| (time, name) >= own)
            }
        };
        sure.then_some(pod.usage)
    }

    fn devices(&self) -> ResourceList {
        let mut devices = BTreeMap::<String, i64>::new();
        for request in &self.spec.devices.requests {
            // Of alternatives the worst of each class.
            let mut most = BTreeMap::<String, i64>::new();
            for choice in &request.first_available {
                let devices = choice.devices();
                if devices > 0 {
                    let known = most.entry(choice.name()).or_default();
                    *known = devices.max(*known);
                }
            }
            if request.first_available.is_empty()
                && let Some(exactly) = &request.exactly
            {
                most.insert(exactly.name(), exactly.devices());
            }
            for (name, n) in most {
                *devices.entry(name).or_default() += n;
            }
        }
        devices.into_iter().map(|(k, n)| (k, count(n))).collect()
    }

    pub fn measure(&self, around: &Surroundings<'_>) -> Measured {
        let mut usage = self.devices();
        let mut extended = ResourceList::new();
        for (name, devices) in &usage {
            let Some(class) = name.strip_suffix(OF_CLASS).filter(|c| !c.is_empty()) else {
                continue;
            };
            extended.insert(format!("{IMPLICIT}{class}"), devices.clone());
            if let Some(resource) = around.classes.resource(class) {
                extended.insert(format!("requests.{resource}"), devices.clone());
            }
        }
        let paid = match extended.is_empty() {
            true => None,
            false => self.paid_by_pod(around.owners),
        };
        let paid = paid.unwrap_or_default();
        for (name, mut devices) in extended {
            if let Some(paid) = paid.get(&name) {
                devices.sub(paid);
            }
            if devices.sign() > 0 {
                usage.insert(name, devices);
            }
        }
        usage.insert(COUNT.to_owned(), count(1));
        Measured::plain(usage)
    }
}
