//! Extended resources that stand for classes of devices (KEP-5004): a pod that requests some
//! gets a claim of its own for what a node does not have otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerExtendedResourceRequest;
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cache::NodeInfo;
use crate::cache::devices::Devices;
use crate::model::PodInfo;
use crate::model::pod::ExtendedContainer;

/// Marks the claim that is made for a pod's extended resources.
pub const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// The name of that claim as long as it is not written; no claim can have it.
pub const UNNAMED: &str = "<extended-resources>";

/// Which container gets its extended resources from which request.
pub type Mappings = Vec<ContainerExtendedResourceRequest>;

/// Whether a class stands for any extended resource that the pod requests.
pub fn concerns(pod: &PodInfo, devices: &Devices) -> bool {
    let mut wanted = pod.requests.scalars.iter();
    wanted.any(|(name, amount)| *amount != 0 && devices.class_for(name).is_some())
}

/// Whether a claim is the one for the pod's extended resources.
pub fn is_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    let marked = annotations.and_then(|a| a.get(ANNOTATION));
    let owners = claim.metadata.owner_references.as_deref();
    marked.is_some_and(|value| value == "true")
        && owners.unwrap_or_default().iter().any(|owner| {
            owner.controller == Some(true) && owner.uid == *pod.uid && owner.name == pod.key.name()
        })
}

/// The claim that an earlier attempt has made for the pod.
pub fn existing<'a>(pod: &PodInfo, devices: &'a Devices) -> Option<&'a Arc<ResourceClaim>> {
    devices.claims().find(|claim| is_for(claim, pod))
}

/// A claim for the pod that asks for nothing yet.
pub fn unwritten(pod: &PodInfo) -> ResourceClaim {
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.key.namespace().to_owned()),
            name: Some(UNNAMED.to_owned()),
            // While it has none, its pod's stands in: nobody else's claim has that.
            uid: Some(pod.uid.to_string()),
            generate_name: Some(format!("{}-extended-resources-", pod.key.name())),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.key.name().to_owned(),
                uid: pod.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            annotations: Some(BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        ..ResourceClaim::default()
    }
}

/// Resources that a node has to provide as devices; `None` when it does not have one of those
/// that are requested at all.
pub fn provided_as_devices(
    pod: &PodInfo,
    node: &NodeInfo,
    devices: &Devices,
) -> Option<Vec<Box<str>>> {
    let mut provided = Vec::new();
    for (name, amount) in &pod.requests.scalars {
        if *amount == 0 || !crate::model::pod::is_extended(name) {
            continue;
        }
        let plugged = node.allocatable.scalars.iter().find(|(n, _)| n == name);
        let none = plugged.is_none_or(|(_, amount)| *amount == 0);
        if none && devices.class_for(name).is_some() {
            provided.push(name.clone());
        } else if plugged.is_none() {
            return None;
        }
    }
    provided.sort();
    Some(provided)
}

/// The claim with requests for these resources.
pub fn asking(
    claim: &ResourceClaim,
    pod: &PodInfo,
    resources: &[Box<str>],
    devices: &Devices,
) -> (ResourceClaim, Mappings) {
    let mut requests: Vec<DeviceRequest> = Vec::new();
    let mut mappings = Mappings::new();
    for resource in resources {
        if let Some(class) = devices.class_for(resource) {
            let class = client::Object::name(&**class);
            of_resource(&pod.extended, resource, class, &mut requests, &mut mappings);
        }
    }
    requests.sort_by(|a, b| a.name.cmp(&b.name));
    let mut claim = claim.clone();
    claim.spec = ResourceClaimSpec {
        devices: Some(DeviceClaim {
            requests: Some(requests),
            ..DeviceClaim::default()
        }),
    };
    (claim, mappings)
}

/// A request for devices, by its name and how many.
type Wanted = (String, i64);

/// What containers get of one resource. Those that run for long get devices of their own;
/// init containers, one after the other, use what later ones will, and share what they need
/// beyond that.
fn of_resource(
    containers: &[ExtendedContainer],
    resource: &str,
    class: &str,
    requests: &mut Vec<DeviceRequest>,
    mappings: &mut Mappings,
) {
    let passing = |c: &ExtendedContainer| c.init && !c.sidecar;
    let mut lasting: Vec<(usize, Wanted)> = Vec::new();
    for container in containers.iter().filter(|c| !passing(c)) {
        let (wanted, mapped) = of_container(container, resource, &[]);
        lasting.extend(wanted.map(|wanted| (container.index, wanted)));
        mappings.extend(mapped);
    }
    let mut largest: Option<Wanted> = None;
    let mut names: Vec<String> = Vec::new();
    let mut mapped_passing = Mappings::new();
    for container in containers.iter().filter(|c| passing(c)) {
        let later = lasting
            .iter()
            .filter(|(index, _)| *index >= container.index);
        let later: Vec<&Wanted> = later.map(|(_, wanted)| wanted).collect();
        let (wanted, mapped) = of_container(container, resource, &later);
        if let Some(wanted) = wanted {
            names.push(wanted.0.clone());
            if largest.as_ref().is_none_or(|largest| largest.1 < wanted.1) {
                largest = Some(wanted);
            }
        }
        mapped_passing.extend(mapped);
    }
    if let Some((largest, _)) = &largest {
        for mapping in &mut mapped_passing {
            if names.contains(&mapping.request_name) {
                mapping.request_name.clone_from(largest);
            }
        }
    }
    mappings.extend(mapped_passing);
    let all = largest
        .into_iter()
        .chain(lasting.into_iter().map(|(_, wanted)| wanted));
    requests.extend(all.map(|(name, count)| DeviceRequest {
        name,
        exactly: Some(ExactDeviceRequest {
            device_class_name: class.to_owned(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(count),
            ..ExactDeviceRequest::default()
        }),
        first_available: None,
    }));
}

/// What a container has to request beside what it may use of others' requests.
fn of_container(
    container: &ExtendedContainer,
    resource: &str,
    others: &[&Wanted],
) -> (Option<Wanted>, Mappings) {
    let requested = container
        .requests
        .iter()
        .find(|(name, ..)| &**name == resource);
    let Some((_, amount, index)) = requested.filter(|(_, amount, _)| *amount != 0) else {
        return (None, Mappings::new());
    };
    let mapping = |request: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    };
    let mut sum = 0;
    let mut mappings = Mappings::new();
    for (request, count) in others {
        sum += count;
        mappings.push(mapping(request));
        if sum >= *amount {
            return (None, mappings);
        }
    }
    let name = format!("container-{}-request-{index}", container.index);
    mappings.push(mapping(&name));
    (Some((name, amount - sum)), mappings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(index: usize, init: bool, amount: i64) -> ExtendedContainer {
        ExtendedContainer {
            index,
            name: format!("c{index}"),
            init,
            sidecar: false,
            requests: vec![("example.com/gpu".into(), amount, 1)],
        }
    }

    #[test]
    fn init_containers_use_what_later_ones_have() {
        let containers = [
            container(0, true, 1),
            container(1, true, 4),
            container(2, false, 2),
            container(3, false, 1),
        ];
        let (mut requests, mut mappings) = (Vec::new(), Mappings::new());
        of_resource(
            &containers,
            "example.com/gpu",
            "gpu",
            &mut requests,
            &mut mappings,
        );
        let counts: Vec<_> = requests
            .iter()
            .map(|r| (&*r.name, r.exactly.as_ref().unwrap().count.unwrap()))
            .collect();
        assert_eq!(
            counts,
            [
                ("container-1-request-1", 1),
                ("container-2-request-1", 2),
                ("container-3-request-1", 1),
            ],
            "the second init container needs one more than both others have"
        );
        let mapped: Vec<_> = mappings
            .iter()
            .map(|m| (&*m.container_name, &*m.request_name))
            .collect();
        assert_eq!(
            mapped,
            [
                ("c2", "container-2-request-1"),
                ("c3", "container-3-request-1"),
                ("c0", "container-2-request-1"),
                ("c1", "container-2-request-1"),
                ("c1", "container-3-request-1"),
                ("c1", "container-1-request-1"),
            ]
        );
    }
}
