//! A plugin plays its part over real sockets.

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::devices::fake::{device, play, register};
use crate::devices::serve;
use crate::status::StatusManager;

struct Kubelet {
    devices: Arc<Devices>,
    active: ActivePods,
    changed: mpsc::UnboundedReceiver<Vec<PodUid>>,
    node_changed: Arc<Notify>,
    _stop: tokio_util::sync::DropGuard,
}

impl Kubelet {
    fn start(dir: &Path) -> Self {
        let active = ActivePods {
            index: Arc::default(),
            status: Arc::new(StatusManager::new(Arc::default())),
        };
        let (changed, heard) = mpsc::unbounded_channel();
        let node_changed = Arc::new(Notify::new());
        let devices = Devices::open(Setup {
            dir: dir.to_owned(),
            active: active.clone(),
            running: [("running".to_owned(), "c".to_owned())].into(),
            nodes: vec![0],
            affinities: Arc::default(),
            metrics: Arc::new(Metrics::new("n", true).unwrap()),
            changed: Box::new(move |pods| {
                let _ = changed.send(pods);
            }),
            node_changed: node_changed.clone(),
        });
        let stop = CancellationToken::new();
        serve(&devices, stop.clone()).unwrap();
        Self {
            devices,
            active,
            changed: heard,
            node_changed,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits until the node shows so many devices, all and healthy ones.
    async fn shows(&self, all: i64, healthy: i64) {
        loop {
            let changed = self.node_changed.notified();
            let counts = self.devices.capacity().counts;
            if counts.get("d.io/gpu") == Some(&(all, healthy)) {
                return;
            }
            changed.await;
        }
    }

    fn pod(&self, uid: &str, gpus: u32) -> Arc<Pod> {
        let container = json!({"name": "c", "resources": {"limits": {"d.io/gpu": gpus}}});
        let pod =
            json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": [container]}});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        self.active.index.set(pod.clone());
        pod
    }

    async fn allocate(&self, pod: &Pod) -> Result<(), String> {
        let starting = !self.active.index.is_complete();
        let container = &pod.containers()[0];
        self.devices.allocate(pod, container, starting).await
    }

    async fn options(&self, pod: &Pod) -> Result<Options, String> {
        self.devices.options(pod, &pod.containers()[0]).await
    }

    fn ids(&self, pod: &Pod) -> Vec<String> {
        let has = self.devices.of_container(pod.uid(), "c").into_iter();
        has.flat_map(|(_, devices)| devices.into_keys()).collect()
    }
}

#[tokio::test]
async fn from_registration_to_a_start() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("device-plugins");
    let mut kubelet = Kubelet::start(&dir);
    assert!(kubelet.devices.is_fresh());
    for (version, resource, why) in [
        (
            "v1alpha",
            "d.io/gpu",
            "requested API version \"v1alpha\" is not supported by kubelet. Supported version is [\"v1beta1\"]",
        ),
        ("v1beta1", "cpu", "the ResourceName \"cpu\" is invalid"),
    ] {
        let refused = register(&dir, version, "gpu.sock", resource).await;
        assert_eq!(refused.unwrap_err(), why);
    }
    let unserved = register(&dir, "v1beta1", "gpu.sock", "d.io/gpu").await;
    assert!(
        unserved
            .unwrap_err()
            .starts_with("failed to dial device plugin:")
    );

    let mut plugin = play(&dir, "gpu.sock", &["a", "b", "c"], Some("b"));
    register(&dir, "v1beta1", "gpu.sock", "d.io/gpu")
        .await
        .unwrap();
    kubelet.shows(3, 3).await;

    let pod = kubelet.pod("u", 2);
    assert!(kubelet.devices.wants(&pod));
    kubelet.allocate(&pod).await.unwrap();
    assert_eq!(
        plugin.calls.recv().await.unwrap(),
        r#"prefer 2 of ["a", "b", "c"] with []"#
    );
    assert_eq!(plugin.calls.recv().await.unwrap(), r#"allocate ["a", "b"]"#);
    // Once more is no other.
    kubelet.allocate(&pod).await.unwrap();
    let options = kubelet.options(&pod).await.unwrap();
    assert_eq!(
        plugin.calls.recv().await.unwrap(),
        r#"start with ["a", "b"]"#
    );
    assert_eq!(options.env["GPUS"], "a,b");
    assert_eq!(options.annotations["d.io/gpu"], "a");
    assert_eq!(options.devices[0].host_path, "/dev/gpu-a");
    assert!(options.mounts[0].readonly);
    assert_eq!(options.cdi_devices, ["d.io/gpu=a"]);

    let more = kubelet.pod("v", 2);
    let error = kubelet.allocate(&more).await.unwrap_err();
    assert_eq!(
        error,
        "requested number of devices unavailable for d.io/gpu. Requested: 2, Available: 1"
    );
    // A device that fails is news for its pod, and is shown.
    plugin
        .devices
        .send(vec![device("a", "Unhealthy"), device("b", "Healthy")])
        .unwrap();
    assert_eq!(kubelet.changed.recv().await.unwrap(), [PodUid::from("u")]);
    kubelet.shows(2, 1).await;
    let status = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0}]});
    let mut status: PodStatus = serde_json::from_value(status).unwrap();
    kubelet.devices.show_health(&pod, &mut status);
    let shown = status.container_statuses.unwrap()[0]
        .allocated_resources_status
        .clone()
        .unwrap();
    let shown = shown[0].resources.clone().unwrap();
    let shown: Vec<_> = shown
        .into_iter()
        .map(|r| (r.resource_id, r.health.unwrap()))
        .collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(shown, [pair("a", "Unhealthy"), pair("b", "Healthy")]);
    // The pod is gone: others may have its devices.
    kubelet.active.index.set_complete();
    kubelet.active.index.remove(&pod);
    let next = kubelet.pod("w", 1);
    kubelet.allocate(&next).await.unwrap();
    assert_eq!(kubelet.ids(&next), ["b"]);
    assert!(kubelet.ids(&pod).is_empty());
    // What the plugin refuses, the pod cannot have.
    plugin
        .devices
        .send(vec![device("broken", "Healthy"), device("b", "Healthy")])
        .unwrap();
    kubelet.shows(2, 2).await;
    let error = kubelet.allocate(&kubelet.pod("x", 1)).await.unwrap_err();
    assert_eq!(error, "rpc error: code = Internal desc = it is broken");
}

#[tokio::test]
async fn kubelets_and_plugins_come_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("device-plugins");
    let kubelet = Kubelet::start(&dir);
    let plugin = play(&dir, "gpu.sock", &["a", "b"], None);
    register(&dir, "v1beta1", "gpu.sock", "d.io/gpu")
        .await
        .unwrap();
    kubelet.shows(2, 2).await;
    let pod = kubelet.pod("running", 1);
    kubelet.active.index.set_complete();
    kubelet.allocate(&pod).await.unwrap();
    let given = kubelet.options(&pod).await.unwrap();

    // Another plugin takes its place; that the old one goes then is no matter.
    let successor = play(&dir, "other.sock", &["a", "b", "c"], None);
    register(&dir, "v1beta1", "other.sock", "d.io/gpu")
        .await
        .unwrap();
    kubelet.shows(3, 3).await;
    drop(plugin.served);
    kubelet.shows(3, 3).await;
    drop(successor);
    kubelet.shows(3, 0).await;
    let error = kubelet.allocate(&kubelet.pod("late", 1)).await.unwrap_err();
    assert_eq!(
        error,
        "no healthy devices present; cannot allocate unhealthy devices d.io/gpu"
    );
    drop(kubelet);

    // The next kubelet knows what the containers have, and nothing of the plugin yet.
    let kubelet = Kubelet::start(&dir);
    assert!(!kubelet.devices.is_fresh());
    kubelet.shows(0, 0).await;
    let pod = kubelet.pod("running", 1);
    kubelet.allocate(&pod).await.unwrap();
    assert_eq!(kubelet.options(&pod).await.unwrap(), given);
    let mut allocatable = ResourceList::new();
    kubelet.devices.at_least_given(&pod, &mut allocatable);
    assert_eq!(allocatable["d.io/gpu"].0, "1");
    let stopped = kubelet.pod("stopped", 1);
    assert!(
        kubelet
            .allocate(&stopped)
            .await
            .unwrap_err()
            .starts_with("no healthy devices")
    );
    // Its sockets of before are gone, which tells plugins to register again.
    assert!(!dir.join("gpu.sock").exists() && dir.join("kubelet.sock").exists());
    let plugin = play(&dir, "gpu.sock", &["a", "b"], None);
    register(&dir, "v1beta1", "gpu.sock", "d.io/gpu")
        .await
        .unwrap();
    kubelet.shows(2, 2).await;
    kubelet.allocate(&stopped).await.unwrap();
    assert_eq!(kubelet.ids(&stopped), ["b"]);
    drop(plugin);
}
