//! Pods that use more of the node's disk than they may: an emptyDir beyond its `sizeLimit`,
//! containers beyond their limits of ephemeral storage, one by one or all together. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};
use meta::Quantity;
use meta::quantity::Format;

use super::disks::Disks;
use super::ranking::{PodUsage, Taken};
use crate::pods::pod::PodExt;
use crate::resources::requests::{container_limits, of, pod_limits};

const STORAGE: &str = "ephemeral-storage";

/// What has to be measured to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watched {
    /// Its volumes.
    pub volumes: bool,
    /// Its containers' layers and logs.
    pub containers: bool,
}

/// A limit that a pod is beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// What metrics call it.
    pub signal: &'static str,
    pub message: String,
}

/// What of the pod is limited.
pub fn watched(pod: &Pod) -> Watched {
    let limited = |container: &Container| {
        container_limits(container).is_some_and(|list| list.contains_key(STORAGE))
    };
    let mut containers = pod.containers().iter().chain(pod.init_containers());
    let containers = containers.any(limited);
    let sized = pod.pod_spec().volumes.iter().flatten().any(|volume| {
        let dir = volume.empty_dir.as_ref();
        dir.is_some_and(|dir| dir.size_limit.is_some())
    });
    Watched {
        volumes: sized || containers,
        containers,
    }
}

/// The first limit that the pod is beyond.
pub fn exceeded(pod: &Pod, usage: &PodUsage, disks: Disks) -> Option<Exceeded> {
    volume(pod, usage)
        .or_else(|| all_containers(pod, usage))
        .or_else(|| container(pod, usage, disks))
}

fn volume(pod: &Pod, usage: &PodUsage) -> Option<Exceeded> {
    let mut volumes = pod.pod_spec().volumes.iter().flatten();
    volumes.find_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let limit = Quantity::try_from(limit).ok()?;
        let used = usage.volumes.get(&volume.name)?.bytes;
        let beyond = limit.sign() > 0 && Quantity::new(used, Format::BinarySI) > limit;
        beyond.then(|| Exceeded {
            signal: "emptydirfs.limit",
            message: format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name,
                limit.to_string()
            ),
        })
    })
}

fn all_containers(pod: &Pod, usage: &PodUsage) -> Option<Exceeded> {
    let mut limit = *pod_limits(pod, false).get(STORAGE)?;
    if limit != 0 {
        limit += of(pod.pod_spec().overhead.as_ref(), STORAGE);
    }
    let mut taken = usage.volumes_taken();
    taken.add(usage.rest);
    for container in &usage.containers {
        let of_layer = container.layer.map(|layer| (layer, container.logs));
        if let Some((layer, logs)) = of_layer {
            taken.add(layer);
            taken.add(logs.unwrap_or_default());
        }
    }
    (taken.bytes > limit).then(|| Exceeded {
        signal: "ephemeralpodfs.limit",
        message: format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            Quantity::new(limit, written(pod))
        ),
    })
}

/// How the first of a pod's containers writes its limit; sums are written alike.
fn written(pod: &Pod) -> Format {
    let mut limits = pod.containers().iter().chain(pod.init_containers());
    let first = limits.find_map(limit);
    first.map_or(Format::BinarySI, |limit| limit.format())
}

fn limit(container: &Container) -> Option<Quantity> {
    let limit = container_limits(container)?.get(STORAGE)?;
    Quantity::try_from(limit).ok()
}

fn container(pod: &Pod, usage: &PodUsage, disks: Disks) -> Option<Exceeded> {
    pod.containers().iter().find_map(|container| {
        let limit = limit(container).filter(|limit| !limit.is_zero())?;
        let mut running = usage.containers.iter();
        let running = running.find(|running| running.name == container.name)?;
        let mut taken: Taken = running.logs.unwrap_or_default();
        if disks.layers_are_local() {
            taken.add(running.layer.unwrap_or_default());
        }
        let beyond = Quantity::new(taken.bytes, Format::BinarySI) > limit;
        beyond.then(|| Exceeded {
            signal: "ephemeralcontainerfs.limit",
            message: format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                container.name,
                limit.to_string()
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ranking::ContainerUsage;
    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn bytes(bytes: i64) -> Taken {
        Taken { bytes, inodes: 1 }
    }

    /// Bytes of a volume `v`, and of the layers and logs of containers `a`, `b`.
    fn usage(volume: i64, containers: &[(i64, i64)]) -> PodUsage {
        let each = containers.iter().zip(["a", "b"]);
        PodUsage {
            volumes: [("v".to_owned(), bytes(volume))].into(),
            containers: each
                .map(|((layer, logs), name)| ContainerUsage {
                    name: name.into(),
                    memory: None,
                    layer: Some(bytes(*layer)),
                    logs: Some(bytes(*logs)),
                })
                .collect(),
            ..PodUsage::default()
        }
    }

    fn beyond(pod: &Pod, usage: &PodUsage, disks: Disks) -> String {
        exceeded(pod, usage, disks).map_or_else(String::new, |exceeded| {
            format!("{} {}", exceeded.signal, exceeded.message)
        })
    }

    #[test]
    fn volumes() {
        let of = |dir: Value| {
            pod(json!({"containers": [], "volumes": [{"name": "v", "emptyDir": dir}]}))
        };
        let limited = of(json!({"sizeLimit": "1Ki"}));
        assert_eq!(beyond(&limited, &usage(1024, &[]), Disks::One), "");
        assert_eq!(
            beyond(&limited, &usage(1025, &[]), Disks::One),
            "emptydirfs.limit Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". "
        );
        for free in [json!({}), json!({"sizeLimit": "0"})] {
            assert_eq!(beyond(&of(free), &usage(1 << 40, &[]), Disks::One), "");
        }
        let watched = |dir| {
            let watched = watched(&of(dir));
            (watched.volumes, watched.containers)
        };
        assert_eq!(watched(json!({})), (false, false));
        assert_eq!(watched(json!({"sizeLimit": "1"})), (true, false));
    }

    #[test]
    fn containers_one_by_one_and_together() {
        let container = |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {STORAGE: limit}}});
        let two = pod(
            json!({"containers": [container("a", "1k"), container("b", "2k")], "volumes": [{"name": "v", "emptyDir": {}}]}),
        );
        assert_eq!(
            watched(&two),
            Watched {
                volumes: true,
                containers: true
            }
        );
        let of = |volume, containers: &[(i64, i64)], disks| {
            beyond(&two, &usage(volume, containers), disks)
        };
        let one = "ephemeralcontainerfs.limit Container a exceeded its local ephemeral storage limit \"1k\". ";
        let all = "ephemeralpodfs.limit Pod ephemeral local storage usage exceeds the total limit of containers 3k. ";
        assert_eq!(of(0, &[(500, 500), (1000, 1000)], Disks::One), "");
        assert_eq!(of(1, &[(500, 500), (1000, 1000)], Disks::One), all);
        assert_eq!(of(0, &[(600, 500)], Disks::One), one);
        // On a disk of their own, layers do not count to a container's limit.
        assert_eq!(of(0, &[(600, 500)], Disks::ImagesApart), "");
        assert_eq!(of(0, &[(0, 1001)], Disks::ImagesApart), one);
        let mut rest = usage(0, &[(500, 500), (1000, 1000)]);
        rest.rest = bytes(1);
        assert_eq!(beyond(&two, &rest, Disks::One), all);
        // A limit of some containers is one of the pod all the same.
        let some = pod(json!({"containers": [container("a", "2Ki"), {"name": "b"}]}));
        assert_eq!(
            beyond(&some, &usage(0, &[(0, 0), (2000, 48)]), Disks::One),
            ""
        );
        assert!(beyond(&some, &usage(0, &[(0, 0), (2000, 49)]), Disks::One).contains("2Ki"));
    }
}
