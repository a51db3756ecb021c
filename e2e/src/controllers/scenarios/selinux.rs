//! Pods that want the same volume with different SELinux labels.

use serde_json::{Value, json};

use super::Book;
use super::templates::{claim, merged, pod, volume};
use crate::controllers::World;
use crate::controllers::world::Propagation;

/// A pod's name, what its security context says, in JSON.
type Pods = &'static [(&'static str, &'static str)];

pub fn write(book: &mut Book) {
    let cases: &[(&str, Pods)] = &[
        ("alike", &[("a", LOW), ("b", LOW)]),
        ("labels", &[("a", LOW), ("b", HIGH), ("c", LOW)]),
        ("parts", &[("a", LOW), ("b", TYPED), ("c", TYPED_OTHER)]),
        ("types", &[("a", TYPED), ("b", TYPED_OTHER)]),
        ("no-label", &[("a", LOW), ("b", "{}")]),
        (
            "policies",
            &[("a", LOW), ("b", RECURSIVE), ("c", RECURSIVE)],
        ),
        ("empty-label", &[("a", EMPTY), ("b", LOW)]),
    ];
    for (name, pods) in cases {
        book.with(format!("selinux/{name}"), *pods, together);
    }
    book.add("selinux/driver-without-labels", without_labels);
    book.add("selinux/driver-comes-and-goes", driver_comes);
    book.add("selinux/claim-bound-later", bound_later);
    book.add("selinux/ended", ended);
    book.add("selinux/gone", gone);
    book.add("selinux/another-of-the-name", another);
    book.add("selinux/containers", containers);
    book.add("selinux/disks", disks);
    book.add("selinux/namespaces", namespaces);
    book.add("selinux/shared-files", shared_files);
}

const LOW: &str = r#"{"seLinuxOptions": {"level": "s0:c1,c2"}}"#;
const HIGH: &str = r#"{"seLinuxOptions": {"level": "s0:c8,c9"}}"#;
const TYPED: &str = r#"{"seLinuxOptions": {"level": "s0:c1,c2", "type": "container_t"}}"#;
const TYPED_OTHER: &str = r#"{"seLinuxOptions": {"level": "s0:c1,c2", "type": "spc_t"}}"#;
const EMPTY: &str = r#"{"seLinuxOptions": {}}"#;
const RECURSIVE: &str =
    r#"{"seLinuxOptions": {"level": "s0:c1,c2"}, "seLinuxChangePolicy": "Recursive"}"#;

async fn driver(w: &World, labels: bool) {
    w.create(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": w.name("driver")},
        "spec": {"attachRequired": false, "seLinuxMount": labels},
    }))
    .await;
}

async fn mounts_labels(w: &World, labels: bool) {
    let patch = json!({"spec": {"seLinuxMount": labels}});
    w.patch("CSIDriver", &w.name("driver"), patch).await;
}

/// A claim `c` that has a volume of the driver.
async fn bound(w: &World) {
    let source = json!({
        "accessModes": ["ReadWriteMany"],
        "csi": {"driver": w.name("driver"), "volumeHandle": w.name("h")},
    });
    w.create(volume(&w.name("v"), w.namespace(), source)).await;
    let wants = json!({"accessModes": ["ReadWriteMany"], "volumeName": w.name("v")});
    w.create(claim("c", w.namespace(), wants)).await;
    let phase = "/status/phase";
    w.until_field("PersistentVolumeClaim", "c", phase, json!("Bound"))
        .await;
}

/// A pod whose containers mount a volume.
fn mounting(name: &str, security: &str, source: Value) -> Value {
    let security: Value = serde_json::from_str(security).expect("it is JSON");
    let volume = merged(json!({"name": "v"}), source);
    let spec = json!({
        "securityContext": security, "volumes": [volume],
        "containers": [{
            "name": "c", "image": "one", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }],
    });
    merged(pod(name, name), json!({"spec": spec}))
}

fn claiming(name: &str, security: &str) -> Value {
    let source = json!({"persistentVolumeClaim": {"claimName": "c"}});
    mounting(name, security, source)
}

/// One after the other: who is told first of a conflict is who comes last.
async fn come(w: &World, pods: Pods) {
    for (name, security) in pods {
        w.create(claiming(name, security)).await;
        w.rest().await;
    }
}

async fn together(w: World, pods: Pods) {
    driver(&w, true).await;
    bound(&w).await;
    come(&w, pods).await;
    w.see("together").await;
}

/// Of these two the driver matters to one alone: which of several hears of it first is anybody's
/// guess.
const ONE_MINDS: Pods = &[("a", LOW), ("b", RECURSIVE)];

async fn without_labels(w: World) {
    driver(&w, false).await;
    bound(&w).await;
    come(&w, ONE_MINDS).await;
    w.see("without").await;
    mounts_labels(&w, true).await;
    w.see("with labels").await;
    mounts_labels(&w, false).await;
    w.see("without again").await;
}

async fn driver_comes(w: World) {
    bound(&w).await;
    come(&w, ONE_MINDS).await;
    w.see("no driver").await;
    driver(&w, true).await;
    w.see("a driver").await;
    w.delete("CSIDriver", &w.name("driver"), Propagation::Background)
        .await;
    w.rest().await;
    come(&w, &[("c", HIGH)]).await;
    w.see("no driver any more").await;
}

async fn bound_later(w: World) {
    driver(&w, true).await;
    come(&w, &[("a", LOW), ("b", HIGH)]).await;
    w.see("no claim").await;
    bound(&w).await;
    // Theirs comes back to pods whose claims are not bound ever more seldom.
    w.until_event("SELinuxLabelConflict").await;
    w.see("bound").await;
}

async fn ended(w: World) {
    driver(&w, true).await;
    bound(&w).await;
    come(&w, &[("a", LOW)]).await;
    w.end(&w.pods()[0], 0).await;
    w.rest().await;
    come(&w, &[("b", HIGH)]).await;
    w.see("no conflict").await;
}

async fn gone(w: World) {
    driver(&w, true).await;
    bound(&w).await;
    come(&w, &[("a", LOW)]).await;
    w.kill(&w.pods()[0]).await;
    w.rest().await;
    come(&w, &[("b", HIGH)]).await;
    w.see("no conflict").await;
}

async fn another(w: World) {
    driver(&w, true).await;
    bound(&w).await;
    come(&w, &[("a", LOW), ("b", HIGH)]).await;
    let first = w.get("Pod", "a");
    if let Some(first) = first {
        w.kill(&first).await;
    }
    w.until_gone("Pod", "a").await;
    w.rest().await;
    come(&w, &[("a", HIGH)]).await;
    w.see("alike").await;
}

/// Containers of one pod that disagree, about what is shared and about what is not.
async fn containers(w: World) {
    driver(&w, true).await;
    bound(&w).await;
    let container = |name: &str, level: &str| {
        json!({
            "name": name, "image": "one",
            "securityContext": {"seLinuxOptions": {"level": level}},
            "volumeMounts": [
                {"name": "v", "mountPath": "/v"}, {"name": "tmp", "mountPath": "/tmp"},
            ],
        })
    };
    let spec = json!({
        "automountServiceAccountToken": false,
        "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "containers": [container("c", "s0:c1"), container("d", "s0:c2")],
    });
    w.create(merged(pod("p", "p"), json!({"spec": spec}))).await;
    w.until_event("MultipleSELinuxLabels").await;
    w.see("torn").await;
    come(&w, &[("q", LOW)]).await;
    w.see("no conflict").await;
}

/// Of a pod's own, without a driver.
async fn disks(w: World) {
    let iscsi = json!({"iscsi": {"targetPortal": "192.0.2.1:3260", "iqn": format!("iqn.2024-01.com.example:{}", w.namespace()), "lun": 0}});
    let fc = json!({"fc": {"wwids": [w.namespace()]}});
    // A third would be told of both in any order.
    for (disk, first, second, other) in [(iscsi, "a", "b", HIGH), (fc, "c", "d", RECURSIVE)] {
        for (name, security) in [(first, LOW), (second, other)] {
            w.create(mounting(name, security, disk.clone())).await;
            w.rest().await;
        }
    }
    w.see("together").await;
}

async fn namespaces(w: World) {
    w.namespace_too("b").await;
    let disk = json!({"fc": {"wwids": [w.namespace()]}});
    w.create(mounting("one", LOW, disk.clone())).await;
    w.rest().await;
    let mut other = mounting("two", HIGH, disk);
    other["metadata"]["namespace"] = w.name("b").into();
    w.create(other).await;
    w.see("together").await;
}

/// Nobody mounts those with labels.
async fn shared_files(w: World) {
    let nfs = json!({"nfs": {"server": "192.0.2.1", "path": "/x"}});
    for (name, security) in [("a", LOW), ("b", HIGH)] {
        w.create(mounting(name, security, nfs.clone())).await;
        w.rest().await;
    }
    w.see("together").await;
}
