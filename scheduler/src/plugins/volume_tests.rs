//! The plugins of volumes together, on claims, volumes and nodes from JSON.

use std::sync::Arc;

use client::{Object, ObjectKey};
use serde_json::{Value, json};

use super::default_profile;
use super::testing::api_node;
use crate::cache::Cache;
use crate::cache::storage::{Awaited, Claim, Plan, SELECTED_NODE, provisioned_by};
use crate::cycle::Decision;
use crate::evaluation::Evaluations;
use crate::model::{Pod, PodInfo};
use crate::reserve::Promised;

struct Stand {
    cluster: Cache,
    evaluations: Evaluations,
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

const ZONE: &str = "topology.kubernetes.io/zone";

impl Stand {
    /// Nodes `n0` to `n2`, each in a zone of its own; the class `local` has volumes that
    /// somebody makes by hand, `made` such as a driver makes.
    fn new() -> Self {
        let mut cluster = Cache::default();
        for i in 0..3 {
            let labels = json!({ZONE: format!("z{i}"), "kubernetes.io/hostname": format!("n{i}")});
            cluster.put_node(&api_node(
                &format!("n{i}"),
                json!({"metadata": {"labels": labels}}),
            ));
        }
        for (name, provisioner) in [("local", "kubernetes.io/no-provisioner"), ("made", "csi.x")] {
            let class = json!({
                "metadata": {"name": name}, "provisioner": provisioner,
                "volumeBindingMode": "WaitForFirstConsumer",
                "allowedTopologies": if name == "made" {
                    json!([{"matchLabelExpressions": [{"key": ZONE, "values": ["z2"]}]}])
                } else {
                    json!([])
                },
            });
            cluster.storage.classes.insert(name.into(), read(class));
        }
        Self {
            cluster,
            evaluations: Evaluations::default(),
        }
    }

    fn claim(&mut self, name: &str, class: &str, volume: &str, mode: &str) {
        let bound = match volume {
            "" => json!({}),
            _ => json!({"pv.kubernetes.io/bind-completed": "yes"}),
        };
        let claim: Arc<Claim> = read(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": bound},
            "spec": {"storageClassName": class, "volumeName": volume, "accessModes": [mode],
                "resources": {"requests": {"storage": "1Gi"}}},
        }));
        self.cluster.storage.claims.insert(claim.key(), claim);
    }

    fn volume(&mut self, name: &str, size: &str, zone: &str) {
        let volume: Arc<crate::cache::storage::Volume> = read(json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local",
                "csi": {"driver": "csi.x", "volumeHandle": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": ZONE, "operator": "In", "values": [zone]},
                ]}]}},
            },
            "status": {"phase": "Available"},
        }));
        self.cluster.storage.volumes.insert(name.into(), volume);
    }

    fn pod(name: &str, node: &str, claims: &[&str]) -> Arc<PodInfo> {
        let volumes: Vec<Value> = claims
            .iter()
            .map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}))
            .collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"volumes": volumes, "nodeName": node},
        }))
        .unwrap();
        PodInfo::new(&pod)
    }

    /// Where a pod goes and what its volumes need; or why it goes nowhere.
    fn place(&mut self, name: &str, claims: &[&str]) -> Result<(String, Plan), String> {
        let pod = Self::pod(name, "", claims);
        let decision = default_profile().schedule(
            &pod,
            &self.cluster,
            &mut self.evaluations,
            &mut 0,
            &mut |_| 0,
        );
        match decision {
            Decision::Node(node) => {
                let storage = &self.cluster.storage;
                let claims = storage.claims(&pod).unwrap();
                let node_info = self.cluster.node_named(&node).unwrap();
                let plan = storage.plan(&claims, node_info).unwrap();
                self.cluster.storage.assume(&plan, &node);
                self.cluster.assume(pod, &node);
                Ok((node.into(), plan))
            }
            Decision::Unschedulable(verdict) => Err(verdict.message()),
        }
    }
}

#[test]
fn a_claim_must_be_there_and_bound() {
    let mut stand = Stand::new();
    let message = stand.place("p", &["c"]).unwrap_err();
    assert!(
        message.starts_with("0/3 nodes are available: persistentvolumeclaim \"c\" not found."),
        "{message}"
    );
    stand.claim("c", "immediate", "", "ReadWriteOnce");
    let message = stand.place("p", &["c"]).unwrap_err();
    assert!(
        message.starts_with(
            "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        ),
        "{message}"
    );
    stand.claim("c", "local", "gone", "ReadWriteOnce");
    let message = stand.place("p", &["c"]).unwrap_err();
    assert!(
        message.contains("persistentvolume \"gone\" not found"),
        "{message}"
    );
}

#[test]
fn a_pod_goes_to_its_volume() {
    let mut stand = Stand::new();
    stand.volume("v", "1Gi", "z1");
    stand.claim("c", "local", "v", "ReadWriteOnce");
    let (node, plan) = stand.place("p", &["c"]).unwrap();
    assert_eq!((node.as_str(), plan.is_empty()), ("n1", true));
    stand.cluster.remove_node("n1");
    let message = stand.place("q", &["c"]).unwrap_err();
    assert!(
        message.starts_with(
            "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
        ),
        "{message}"
    );
}

#[test]
fn a_waiting_claim_gets_the_smallest_volume_and_no_volume_is_promised_twice() {
    let mut stand = Stand::new();
    stand.volume("large", "9Gi", "z0");
    stand.volume("small", "1Gi", "z0");
    stand.volume("tiny", "1Mi", "z0");
    for name in ["a", "b", "c"] {
        stand.claim(name, "local", "", "ReadWriteOnce");
    }
    let (node, plan) = stand.place("p", &["a"]).unwrap();
    let key = ObjectKey::new("default", "a");
    assert_eq!(node, "n0");
    assert_eq!(plan.bindings, [("small".into(), key)]);
    let (_, plan) = stand.place("q", &["b"]).unwrap();
    assert_eq!(&plan.bindings[0].0, &ObjectKey::from("large"));
    let message = stand.place("r", &["c"]).unwrap_err();
    assert!(
        message.contains("3 node(s) didn't find available persistent volumes to bind"),
        "{message}"
    );
}

#[test]
fn a_volume_is_made_where_its_class_allows() {
    let mut stand = Stand::new();
    stand.claim("c", "made", "", "ReadWriteOnce");
    let (node, plan) = stand.place("p", &["c"]).unwrap();
    assert_eq!(node, "n2");
    assert_eq!(plan.provisions, [ObjectKey::new("default", "c")]);
}

#[test]
fn what_is_asked_for_volumes_comes_true_or_does_not() {
    let claim = |version: &str, selected: &str, volume: &str| {
        let mut annotations = json!({"made-by": "somebody", SELECTED_NODE: selected});
        if !volume.is_empty() {
            annotations["pv.kubernetes.io/bind-completed"] = json!("yes");
        }
        let metadata = json!({"name": "c", "namespace": "default",
            "resourceVersion": version, "annotations": annotations});
        read::<Claim>(json!({"metadata": metadata, "spec": {"volumeName": volume}}))
    };
    let mut stand = Stand::new();
    let key = ObjectKey::new("default", "c");
    let made = Awaited {
        provisions: vec![(key.clone(), "10".into())],
        ..Awaited::default()
    };
    let mut after = |claim: Arc<Claim>| {
        stand.cluster.storage.claims.insert(key.clone(), claim);
        let (storage, node) = (&stand.cluster.storage, stand.cluster.node_named("n1"));
        storage.progress(&made, "n1", node)
    };
    assert_eq!(after(claim("9", "", "")), Ok(false), "before the write");
    assert_eq!(after(claim("10", "n1", "")), Ok(false));
    let failed = Err("provisioning failed for PVC \"c\"".to_owned());
    assert_eq!(after(claim("11", "", "")), failed);
    assert_eq!(after(claim("11", "n1", "v")), Ok(false), "not heard of yet");
    stand.volume("v", "1Gi", "z2");
    let elsewhere =
        "pv \"v\" node affinity doesn't match node \"n1\": no matching NodeSelectorTerms";
    let progress = |stand: &Stand, awaited: &Awaited| {
        let (storage, node) = (&stand.cluster.storage, stand.cluster.node_named("n1"));
        storage.progress(awaited, "n1", node)
    };
    assert_eq!(progress(&stand, &made), Err(elsewhere.to_owned()));
    stand.volume("v", "1Gi", "z1");
    assert_eq!(progress(&stand, &made), Ok(true));

    let bound = Awaited {
        bindings: vec![("v".into(), "".into(), key)],
        ..Awaited::default()
    };
    let reset = Err("ClaimRef got reset for pv \"v\"".to_owned());
    assert_eq!(progress(&stand, &bound), reset);
    stand.cluster.remove_node("n1");
    let gone = Err("failed to get node \"n1\": node \"n1\" not found".to_owned());
    assert_eq!(progress(&stand, &bound), gone);
}

#[test]
fn a_volume_that_is_gone_by_now_is_not_promised() {
    let mut stand = Stand::new();
    stand.volume("v", "1Gi", "z1");
    stand.claim("c", "local", "", "ReadWriteOnce");
    let pod = Stand::pod("p", "", &["c"]);
    let profile = default_profile();
    let make = |stand: &mut Stand| {
        let promised = Promised::make(&mut stand.cluster, &profile, &pod, "n1");
        promised.map(|promised| promised.forget(&mut stand.cluster))
    };
    assert_eq!(make(&mut stand), Ok(()));
    stand.cluster.storage.volumes.clear();
    let why = make(&mut stand).unwrap_err();
    assert_eq!(
        why,
        "running Reserve plugin \"VolumeBinding\": node(s) didn't find available persistent volumes to bind"
    );
}

#[test]
fn one_pod_alone_has_a_claim_of_its_kind() {
    let mut stand = Stand::new();
    stand.volume("v", "1Gi", "z1");
    stand.claim("c", "local", "v", "ReadWriteOncePod");
    assert!(stand.place("p", &["c"]).is_ok());
    let message = stand.place("q", &["c"]).unwrap_err();
    assert!(
        message.contains("3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"),
        "{message}"
    );
}

#[test]
fn a_node_has_so_many_volumes_of_a_driver() {
    let mut stand = Stand::new();
    stand.cluster.storage.csi_nodes.insert(
        "n1".into(),
        read(json!({
            "metadata": {"name": "n1"},
            "spec": {"drivers": [{"name": "csi.x", "allocatable": {"count": 1}}]},
        })),
    );
    for name in ["a", "b"] {
        stand.volume(name, "1Gi", "z1");
        stand.claim(name, "local", name, "ReadWriteOnce");
    }
    stand.cluster.put_pod(Stand::pod("there", "n1", &["a"]));
    assert!(
        stand.place("again", &["a"]).is_ok(),
        "it is attached already"
    );
    let message = stand.place("p", &["b"]).unwrap_err();
    assert!(
        message.contains("1 node(s) exceed max volume count"),
        "{message}"
    );
}

#[test]
fn what_is_attached_to_a_node_counts_until_it_is_not() {
    let mut stand = Stand::new();
    stand.cluster.storage.csi_nodes.insert(
        "n1".into(),
        read(json!({
            "metadata": {"name": "n1"},
            "spec": {"drivers": [{"name": "csi.x", "allocatable": {"count": 1}}]},
        })),
    );
    for name in ["a", "b"] {
        stand.volume(name, "1Gi", "z1");
        stand.claim(name, "local", name, "ReadWriteOnce");
    }
    let attachment = read(json!({
        "metadata": {"name": "of-a"},
        "spec": {"attacher": "csi.x", "nodeName": "n1", "source": {"persistentVolumeName": "a"}},
    }));
    stand.cluster.storage.attachments.put(&attachment);
    assert!(stand.place("p", &["b"]).is_err(), "the pod of a has gone");
    stand.cluster.storage.attachments.remove(&attachment);
    assert_eq!(stand.place("p", &["b"]).unwrap().0, "n1");
    stand.cluster.remove_pod(&ObjectKey::new("default", "p"));
    assert_eq!(stand.place("q", &["a"]).unwrap().0, "n1");
}

#[test]
fn a_volume_without_a_place_must_be_there() {
    let mut stand = Stand::new();
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}}});
    let volumes = &mut stand.cluster.storage.volumes;
    volumes.insert("v".into(), read(volume));
    stand.claim("c", "local", "v", "ReadWriteOnce");
    assert!(stand.place("p", &["c"]).is_ok());
    stand.cluster.storage.volumes.clear();
    let message = stand.place("q", &["c"]).unwrap_err();
    assert!(message.contains("not found"), "{message}");
}

#[test]
fn zones_of_volumes_are_heeded() {
    let mut stand = Stand::new();
    let volume = json!({
        "metadata": {"name": "v", "labels": {ZONE: "z0__z2"}},
        "spec": {"capacity": {"storage": "1Gi"}},
    });
    stand
        .cluster
        .storage
        .volumes
        .insert("v".into(), read(volume));
    stand.claim("c", "local", "v", "ReadWriteOnce");
    stand.cluster.remove_node("n0");
    assert_eq!(stand.place("p", &["c"]).unwrap().0, "n2");
    stand.cluster.remove_node("n2");
    let message = stand.place("q", &["c"]).unwrap_err();
    assert!(
        message.contains("1 node(s) had no available volume zone"),
        "{message}"
    );
}

#[test]
fn volumes_of_plugins_of_old_count_as_their_drivers() {
    let mut stand = Stand::new();
    let csi_node = json!({
        "metadata": {"name": "n1"},
        "spec": {"drivers": [{"name": "ebs.csi.aws.com", "allocatable": {"count": 1}}]},
    });
    let storage = &mut stand.cluster.storage;
    storage.csi_nodes.insert("n1".into(), read(csi_node));
    for name in ["a", "b"] {
        let volume = json!({
            "metadata": {"name": name, "labels": {ZONE: "z1"}},
            "spec": {"awsElasticBlockStore": {"volumeID": format!("aws://z1/vol-{name}")}},
        });
        let storage = &mut stand.cluster.storage;
        storage.volumes.insert(name.into(), read(volume));
        stand.claim(name, "local", name, "ReadWriteOnce");
    }
    // The disk of `a`, without a claim.
    let own: Pod = serde_json::from_value(json!({
        "metadata": {"name": "own", "namespace": "default", "uid": "own"},
        "spec": {"nodeName": "n1", "volumes": [{"name": "v",
            "awsElasticBlockStore": {"volumeID": "vol-a", "readOnly": true}}]},
    }))
    .unwrap();
    stand.cluster.put_pod(PodInfo::new(&own));
    assert!(stand.place("again", &["a"]).is_ok());
    let message = stand.place("p", &["b"]).unwrap_err();
    assert!(
        message.contains("1 node(s) exceed max volume count"),
        "{message}"
    );
}

#[test]
fn drivers_of_plugins_of_old_know_places_by_labels_of_their_own() {
    let mut stand = Stand::new();
    let volume = json!({
        "metadata": {"name": "v"},
        "spec": {
            "awsElasticBlockStore": {"volumeID": "vol-1"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": ZONE, "operator": "In", "values": ["z1"]},
            ]}]}},
        },
    });
    let storage = &mut stand.cluster.storage;
    storage.volumes.insert("v".into(), read(volume));
    stand.claim("c", "local", "v", "ReadWriteOnce");
    assert_eq!(stand.place("p", &["c"]).unwrap().0, "n1");
    // The node leaves such volumes to a driver, which does not know where the node is.
    let csi_node = json!({"metadata": {"name": "n1", "annotations": {
        "storage.alpha.kubernetes.io/migrated-plugins": "kubernetes.io/aws-ebs,kubernetes.io/cinder"}}});
    let storage = &mut stand.cluster.storage;
    storage.csi_nodes.insert("n1".into(), read(csi_node));
    let message = stand.place("q", &["c"]).unwrap_err();
    assert!(
        message.contains("3 node(s) didn't match PersistentVolume's node affinity"),
        "{message}"
    );
    let labels = json!({ZONE: "z1", "topology.ebs.csi.aws.com/zone": "z1"});
    let node = api_node("n1", json!({"metadata": {"labels": labels}}));
    stand.cluster.put_node(&node);
    assert_eq!(stand.place("r", &["c"]).unwrap().0, "n1");
}

#[test]
fn classes_of_plugins_of_old_have_drivers() {
    for (provisioner, expected) in [
        ("kubernetes.io/cinder", Some("cinder.csi.openstack.org")),
        ("kubernetes.io/vsphere-volume", None),
        ("csi.x", Some("csi.x")),
    ] {
        assert_eq!(provisioned_by(provisioner), expected);
    }
}
