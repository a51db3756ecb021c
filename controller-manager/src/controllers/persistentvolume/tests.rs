//! Which claims get which volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::plan::{
    AroundClaim, ClaimAct, Reclaiming, VolumeAct, bind_claim, bind_volume, claim as plan_claim,
    claim_in, driven_claim, driven_volume, for_provisioner, reclaiming, unbind,
    volume as plan_volume,
};
use crate::events::reference;

fn merge(base: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        if value.is_object() && base[key].is_object() {
            merge(&mut base[key], value);
        } else {
            base[key] = value.clone();
        }
    }
}

fn claim(more: Value) -> PersistentVolumeClaim {
    let mut value = json!({"metadata": {"name": "c", "namespace": "n", "uid": "cu"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "5Gi"}}}});
    merge(&mut value, &more);
    serde_json::from_value(value).unwrap()
}

fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
    let mut value = json!({"metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Available"}});
    merge(&mut value, &more);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn class(name: &str, more: Value) -> Arc<StorageClass> {
    let mut value = json!({"metadata": {"name": name}, "provisioner": "x.com/p", "volumeBindingMode": "Immediate"});
    merge(&mut value, &more);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn word(act: &ClaimAct) -> String {
    use client::Object as _;
    match act {
        ClaimAct::Bind(volume) => format!("bind {}", volume.name()),
        ClaimAct::Pend(event) => format!("pend {}", event.as_ref().map_or("", |e| e.1)),
        ClaimAct::Assign(class) => format!("assign {class}"),
        ClaimAct::Provision(class) => format!("provision {}", class.name()),
        ClaimAct::Lose(event) => format!("lose {}", event.1),
        ClaimAct::Fail(event) => format!("fail {}", event.1),
    }
}

#[test]
fn claims() {
    let of = |uid: &str, name: &str| json!({"spec": {"claimRef": {"namespace": "n", "name": name, "uid": uid}}});
    let volumes = [
        volume("small", "1Gi", json!({})),
        volume("large", "100Gi", json!({})),
        volume("right", "6Gi", json!({"metadata": {"labels": {"a": "b"}}})),
        volume(
            "many",
            "5Gi",
            json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}),
        ),
        volume("released", "5Gi", json!({"status": {"phase": "Released"}})),
        volume("taken", "5Gi", of("other", "other")),
        volume("kept", "50Gi", of("", "k")),
        volume("mine", "5Gi", of("cu", "c")),
        volume("block", "5Gi", json!({"spec": {"volumeMode": "Block"}})),
        volume("fast", "9Gi", json!({"spec": {"storageClassName": "fast"}})),
    ];
    let classes = [
        class("fast", json!({})),
        class("late", json!({"volumeBindingMode": "WaitForFirstConsumer"})),
        class(
            "inside",
            json!({"provisioner": "kubernetes.io/no-provisioner"}),
        ),
    ];
    let done = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let node = json!({"volume.kubernetes.io/selected-node": "n1"});
    let (free, mine): (Vec<_>, Vec<_>) = volumes
        .iter()
        .cloned()
        .partition(|v| v.metadata.name.as_deref() != Some("mine"));
    assert_eq!(mine.len(), 1);
    for (more, all, want) in [
        (json!({}), false, "bind right"),
        // What is kept for it comes first.
        (json!({}), true, "bind mine"),
        (json!({"metadata": {"name": "k"}}), false, "bind kept"),
        (
            json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}),
            false,
            "pend FailedBinding",
        ),
        (
            json!({"spec": {"accessModes": ["ReadOnlyMany"]}}),
            false,
            "bind many",
        ),
        (
            json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
            false,
            "pend FailedBinding",
        ),
        (
            json!({"spec": {"volumeMode": "Block"}}),
            false,
            "bind block",
        ),
        (
            json!({"spec": {"resources": {"requests": {"storage": "500Gi"}}}}),
            false,
            "pend FailedBinding",
        ),
        (
            json!({"spec": {"storageClassName": "fast"}}),
            false,
            "bind fast",
        ),
        (
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "10Gi"}}}}),
            false,
            "provision fast",
        ),
        (
            json!({"spec": {"storageClassName": "late"}}),
            false,
            "pend WaitForFirstConsumer",
        ),
        (
            json!({"spec": {"storageClassName": "late"}, "metadata": {"annotations": node}}),
            false,
            "provision late",
        ),
        (
            json!({"spec": {"storageClassName": "inside"}}),
            false,
            "fail ProvisioningFailed",
        ),
        (
            json!({"spec": {"storageClassName": "none"}}),
            false,
            "fail ProvisioningFailed",
        ),
        (
            json!({"spec": {"volumeName": "large"}}),
            false,
            "bind large",
        ),
        (
            json!({"spec": {"volumeName": "small"}}),
            false,
            "pend VolumeMismatch",
        ),
        (
            json!({"spec": {"volumeName": "taken"}}),
            false,
            "pend FailedBinding",
        ),
        (json!({"spec": {"volumeName": "none"}}), false, "pend "),
        (
            json!({"spec": {"volumeName": "mine"}, "metadata": {"annotations": done}}),
            true,
            "bind mine",
        ),
        (
            json!({"spec": {"volumeName": "none"}, "metadata": {"annotations": done}}),
            false,
            "lose ClaimLost",
        ),
        (
            json!({"metadata": {"annotations": done}}),
            false,
            "lose ClaimLost",
        ),
        // The volume was lost, and is there again.
        (
            json!({"spec": {"volumeName": "large"}, "metadata": {"annotations": done},
                "status": {"phase": "Lost"}}),
            false,
            "bind large",
        ),
        (
            json!({"spec": {"volumeName": "taken"}, "metadata": {"annotations": done}}),
            false,
            "lose ClaimMisbound",
        ),
    ] {
        let around = AroundClaim {
            volumes: if all { &volumes } else { &free },
            classes: &classes,
            waiting_pods: &[],
            provisioning: true,
        };
        assert_eq!(
            word(&plan_claim(&claim(more.clone()), &around)),
            want,
            "{more}"
        );
    }
}

#[test]
fn classes_by_default() {
    let marked = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let classes = [
        class(
            "old",
            json!({"metadata": {"annotations": marked, "creationTimestamp": "2025-01-01T00:00:00Z"}}),
        ),
        class(
            "b",
            json!({"metadata": {"annotations": marked, "creationTimestamp": "2026-01-01T00:00:00Z"}}),
        ),
        class(
            "a",
            json!({"metadata": {"annotations": marked, "creationTimestamp": "2026-01-01T00:00:00Z"}}),
        ),
    ];
    let around = AroundClaim {
        volumes: &[],
        classes: &classes,
        waiting_pods: &[],
        provisioning: true,
    };
    let none = claim(json!({"spec": {"storageClassName": null}}));
    assert_eq!(word(&plan_claim(&none, &around)), "assign a");
    assert_eq!(
        word(&plan_claim(&claim(json!({})), &around)),
        "pend FailedBinding"
    );
}

#[test]
fn binding_is_written_once() {
    let claim = claim(json!({"status": {"phase": "Pending"}}));
    let free = volume("v", "6Gi", json!({}));
    let bound = bind_volume(&free, &claim, reference(&claim)).unwrap();
    assert_eq!(
        bound.metadata.annotations.as_ref().unwrap()["pv.kubernetes.io/bound-by-controller"],
        "yes"
    );
    assert!(bind_volume(&bound, &claim, reference(&claim)).is_none());
    // Kept by somebody else: they get no mark of ours.
    let kept = volume(
        "v",
        "6Gi",
        json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}),
    );
    let bound_kept = bind_volume(&kept, &claim, reference(&claim)).unwrap();
    assert!(bound_kept.metadata.annotations.is_none());
    let named = bind_claim(&claim, &bound).unwrap();
    assert_eq!(named.metadata.annotations.as_ref().unwrap().len(), 2);
    assert!(bind_claim(&named, &bound).is_none());
    let done = claim_in(&named, "Bound", Some(&bound)).unwrap();
    assert_eq!(
        done.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0,
        "6Gi"
    );
    assert!(claim_in(&done, "Bound", Some(&bound)).is_none());
    let lost = claim_in(&done, "Lost", None).unwrap();
    assert_eq!(lost.status.unwrap().capacity, None);
    assert!(unbind(&bound).spec.unwrap().claim_ref.is_none());
    let still_kept = unbind(&bound_kept).spec.unwrap().claim_ref.unwrap();
    assert_eq!(
        (still_kept.name.as_deref(), still_kept.uid),
        (Some("c"), None)
    );
}

#[test]
fn volumes() {
    let own = json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "cu"}}});
    let made = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "x"}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"namespace": "n", "name": "c", "uid": "cu"}}});
    let kept = json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}});
    let elsewhere = json!({"spec": {"volumeName": "other"}});
    for (more, claim_more, want) in [
        (json!({}), None, VolumeAct::Phase("Available")),
        (kept, None, VolumeAct::Phase("Available")),
        (own.clone(), None, VolumeAct::Reclaim),
        (own.clone(), Some(json!({})), VolumeAct::LookAtClaim),
        (
            own.clone(),
            Some(json!({"spec": {"volumeMode": "Block"}})),
            VolumeAct::Mismatch,
        ),
        (
            own.clone(),
            Some(json!({"spec": {"volumeName": "v"}})),
            VolumeAct::Phase("Bound"),
        ),
        (own, Some(elsewhere.clone()), VolumeAct::Unbind),
        (made, Some(elsewhere), VolumeAct::Reclaim),
    ] {
        let claim = claim_more.map(claim);
        assert_eq!(
            plan_volume(&volume("v", "1Gi", more.clone()), claim.as_ref()),
            want,
            "{more}"
        );
    }
}

#[test]
fn policies() {
    let by = |name: &str| {
        json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": name}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    };
    let to = |policy: &str, source: &str, fields: Value| json!({"spec": {"persistentVolumeReclaimPolicy": policy, source: fields}});
    let delete = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    let path = |path: &str| json!({"path": path});
    let nfs = json!({"server": "s", "path": "/"});
    let mut made = by("kubernetes.io/host-path");
    merge(&mut made, &to("Delete", "hostPath", path("/tmp/x")));
    let plugin = "error getting deleter volume plugin for volume \"v\"";
    for (more, want) in [
        (json!({}), "leave".to_owned()),
        (to("Retain", "hostPath", path("/tmp/x")), "leave".to_owned()),
        (to("Recycle", "hostPath", path("/x")), "recycle".to_owned()),
        (to("Recycle", "nfs", nfs.clone()), "recycle".to_owned()),
        (
            to("Recycle", "csi", json!({"driver": "d", "volumeHandle": "h"})),
            "VolumeFailedRecycle: No recycler plugin found for the volume!".to_owned(),
        ),
        (
            delete,
            format!("VolumeFailedDelete: {plugin}: no volume plugin matched"),
        ),
        (
            to("Delete", "nfs", nfs),
            format!("VolumeFailedDelete: {plugin}: no deletable volume plugin matched"),
        ),
        (
            to("Delete", "csi", json!({"driver": "d", "volumeHandle": "h"})),
            "leave".to_owned(),
        ),
        (
            to("Delete", "hostPath", path("/tmp/x/y")),
            "remove /tmp/x/y".to_owned(),
        ),
        (made, "remove /tmp/x".to_owned()),
        (
            to("Delete", "hostPath", path("/tmp/")),
            "host_path deleter only supports /tmp/.+ but received provided /tmp/".to_owned(),
        ),
        (
            to("Delete", "hostPath", path("/home")),
            "host_path deleter only supports /tmp/.+ but received provided /home".to_owned(),
        ),
        (by("x.com/p"), "leave".to_owned()),
        (by("kubernetes.io/aws-ebs"), "leave".to_owned()),
        (
            by("kubernetes.io/host-path"),
            "failed to create deleter for volume \"v\": spec.PersistentVolumeSource.HostPath is nil"
                .to_owned(),
        ),
        (
            by("kubernetes.io/nope"),
            "VolumeFailedDelete: no volume plugin matched name: kubernetes.io/nope".to_owned(),
        ),
    ] {
        let got = match reclaiming(&volume("v", "1Gi", more.clone())) {
            Reclaiming::Leave => "leave".to_owned(),
            Reclaiming::Recycle => "recycle".to_owned(),
            Reclaiming::Remove(Ok(path)) => format!("remove {path}"),
            Reclaiming::Remove(Err(why)) => why,
            Reclaiming::Fail((_, reason, message)) => format!("{reason}: {message}"),
        };
        assert_eq!(got, want, "{more}");
    }
}

#[test]
fn provisioners_are_named() {
    let (changed, event) = for_provisioner(
        &claim(json!({})),
        &class("c", json!({"provisioner": "kubernetes.io/gce-pd"})),
    );
    let changed = changed.unwrap();
    let annotations = changed.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        annotations["volume.kubernetes.io/storage-provisioner"],
        "pd.csi.storage.gke.io"
    );
    assert_eq!(event.1, "ExternalProvisioning");
    let again = for_provisioner(
        &changed,
        &class("c", json!({"provisioner": "kubernetes.io/gce-pd"})),
    );
    assert!(again.0.is_none());
}

#[test]
fn drivers_of_plugins_of_old_are_named() {
    const TO: &str = "pv.kubernetes.io/migrated-to";
    const BY: &str = "pv.kubernetes.io/provisioned-by";
    const NEW: &str = "volume.kubernetes.io/storage-provisioner";
    const OLD: &str = "volume.beta.kubernetes.io/storage-provisioner";
    let ebs = "ebs.csi.aws.com";
    // What is there, and what is to be there if it differs.
    for (annotations, expected) in [
        (json!({}), None),
        (json!({"x": "y"}), None),
        (json!({NEW: ebs}), None),
        (json!({NEW: ebs, OLD: "kubernetes.io/aws-ebs"}), None),
        (
            json!({OLD: "kubernetes.io/aws-ebs"}),
            Some(json!({OLD: "kubernetes.io/aws-ebs", TO: ebs})),
        ),
        (json!({NEW: "kubernetes.io/aws-ebs", TO: ebs}), None),
        (json!({NEW: ebs, TO: ebs}), Some(json!({NEW: ebs}))),
    ] {
        let got = driven_claim(&claim(json!({"metadata": {"annotations": annotations}})));
        let got = got.map(|claim| json!(claim.metadata.annotations));
        assert_eq!(got, expected, "{annotations}");
    }
    let kept = json!(["kubernetes.io/pv-protection", "kubernetes.io/pv-controller"]);
    let free = json!(["kubernetes.io/pv-protection"]);
    for (by, to, finalizers, expected) in [
        (
            "kubernetes.io/aws-ebs",
            json!({}),
            &free,
            Some((Some(ebs), &free)),
        ),
        ("kubernetes.io/aws-ebs", json!({TO: ebs}), &free, None),
        (
            "kubernetes.io/aws-ebs",
            json!({TO: ebs}),
            &kept,
            Some((Some(ebs), &free)),
        ),
        ("x.com/p", json!({}), &kept, None),
        ("x.com/p", json!({TO: ebs}), &kept, Some((None, &kept))),
    ] {
        let mut annotations = to;
        annotations[BY] = by.into();
        let metadata = json!({"annotations": annotations, "finalizers": finalizers});
        let got = driven_volume(&volume("v", "1Gi", json!({"metadata": metadata})));
        let got = got.map(|volume| {
            let to = volume.metadata.annotations.unwrap().remove(TO);
            (to, json!(volume.metadata.finalizers))
        });
        let expected = expected.map(|(to, all)| (to.map(str::to_owned), all.clone()));
        assert_eq!(got, expected, "{metadata}");
    }
    // Made by hand: whoever made it deletes it.
    let by_hand = json!({"spec": {"awsElasticBlockStore": {"volumeID": "vol-1"}}});
    assert_eq!(driven_volume(&volume("v", "1Gi", by_hand)), None);
}
