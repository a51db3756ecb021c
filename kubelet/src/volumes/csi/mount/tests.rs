use grpc::plugins::csi::node_server::{Node, NodeServer};
use grpc::plugins::csi::node_service_capability::{Rpc, Type};
use grpc::plugins::csi::*;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::*;
use crate::metrics::Metrics;
use crate::node_status::facts::Facts;
use crate::plugins::fake;
use crate::volumes::csi::NodeInfo;

type Answer<T> = Result<Response<T>, Status>;

/// Makes the directories that it is asked for, and tells of every call.
struct Driver {
    told: mpsc::UnboundedSender<String>,
    refuses: Arc<Mutex<bool>>,
}

impl Driver {
    fn tell(&self, call: &str, path: &str) {
        let pod = path
            .split("/pods/")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let _ = self.told.send(match pod {
            Some(pod) => format!("{call} {pod}"),
            None => call.to_owned(),
        });
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Answer<NodeStageVolumeResponse> {
        self.tell("stage", &request.into_inner().staging_target_path);
        Ok(Response::new(NodeStageVolumeResponse {}))
    }
    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        self.tell("unstage", &request.into_inner().staging_target_path);
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let request = request.into_inner();
        self.tell("publish", &request.target_path);
        if *self.refuses.lock() {
            return Err(Status::internal("no"));
        }
        if let Some(name) = request.volume_context.get("csi.storage.k8s.io/pod.name") {
            self.tell(&format!("for pod {name}"), "");
        }
        fs::create_dir_all(&request.target_path).unwrap();
        Ok(Response::new(NodePublishVolumeResponse {}))
    }
    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        self.tell("unpublish", &request.into_inner().target_path);
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }
    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        Err(Status::unimplemented(""))
    }
    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        Err(Status::unimplemented(""))
    }
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let rpc = Rpc {
            r#type: Capability::StageUnstageVolume.into(),
        };
        let capabilities = vec![NodeServiceCapability {
            r#type: Some(Type::Rpc(rpc)),
        }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }
    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        Err(Status::unimplemented(""))
    }
}

struct Bench {
    dir: tempfile::TempDir,
    _served: fake::Served,
    heard: mpsc::UnboundedReceiver<String>,
    refuses: Arc<Mutex<bool>>,
    facts: Arc<NodeFacts>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (told, heard) = mpsc::unbounded_channel();
        let refuses = Arc::new(Mutex::new(false));
        let driver = Driver {
            told,
            refuses: refuses.clone(),
        };
        let served = fake::serve(&dir.path().join("sock"), NodeServer::new(driver));
        Self {
            dir,
            _served: served,
            heard,
            refuses,
            facts: Arc::new(NodeFacts::new(Facts::default())),
        }
    }

    /// A kubelet that starts, and knows the driver as this object has it.
    fn start(&self, spec: Value) -> Arc<Csi> {
        let metrics = Arc::new(Metrics::new("n", true).unwrap());
        let drivers = Drivers::new(NodeInfo::new(None, "n"), metrics);
        drivers.insert("d", &self.dir.path().join("sock").to_string_lossy());
        let object = json!({"metadata": {"name": "d"}, "spec": spec});
        let kinds = Store::with([serde_json::from_value(object).unwrap()]);
        let setup = Setup {
            drivers,
            api: None,
            tokens: Arc::new(Tokens::new(None)),
            events: Arc::new(Events::new(None, "n")),
            node: "n".into(),
            root: Root::new(self.dir.path()),
            facts: self.facts.clone(),
            node_changed: Arc::default(),
        };
        Csi::start(setup, None, kinds, &CancellationToken::new())
    }

    async fn calls<const N: usize>(&mut self) -> [String; N] {
        let mut calls = [const { String::new() }; N];
        for call in &mut calls {
            *call = self.heard.recv().await.unwrap();
        }
        calls
    }
}

fn pod(uid: &str) -> Pod {
    let metadata = json!({"name": format!("pod-{uid}"), "namespace": "n", "uid": uid});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).unwrap()
}

fn volume() -> CsiVolume {
    let volume = serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {}})).unwrap();
    let source = serde_json::from_value(json!({"driver": "d", "volumeHandle": "h"})).unwrap();
    CsiVolume::persistent(&volume, &source, false)
}

#[tokio::test]
async fn the_first_stages_and_the_last_unstages() {
    let mut bench = Bench::new();
    let object = json!({"attachRequired": false, "fsGroupPolicy": "None", "podInfoOnMount": true});
    let csi = bench.start(object.clone());
    let path = csi.mount(&pod("a"), &volume()).await.unwrap();
    assert!(path.ends_with("pods/a/volumes/kubernetes.io~csi/pv/mount"));
    csi.mount(&pod("a"), &volume()).await.unwrap();
    assert_eq!(bench.calls().await, ["stage", "publish a", "for pod pod-a"]);
    // Another pod stages as well, which changes nothing.
    csi.mount(&pod("b"), &volume()).await.unwrap();
    assert_eq!(bench.calls().await, ["stage", "publish b", "for pod pod-b"]);
    csi.unmount_pod("a").await.unwrap();
    assert!(!path.parent().unwrap().exists());
    drop(csi);
    // A kubelet that starts anew goes by the files.
    let csi = bench.start(object);
    assert_eq!(bench.facts.get().volumes_in_use, ["kubernetes.io/csi/d^h"]);
    csi.unmount_pod("b").await.unwrap();
    csi.unmount_pod("b").await.unwrap();
    assert_eq!(
        bench.calls().await,
        ["unpublish a", "unpublish b", "unstage"]
    );
    let staging = staging_path(bench.dir.path(), "d", "h");
    while staging.parent().unwrap().exists() || !bench.facts.get().volumes_in_use.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_driver_refuses_leaves_nothing_and_what_is_used_stays() {
    let mut bench = Bench::new();
    let object =
        json!({"attachRequired": false, "fsGroupPolicy": "None", "requiresRepublish": true});
    let csi = bench.start(object);
    *bench.refuses.lock() = true;
    let error = csi.mount(&pod("a"), &volume()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "MountVolume.SetUp failed for volume \"pv\" : rpc error: code = Internal desc = no"
    );
    let dir = data::dir_of(&Root::new(bench.dir.path()).pod("a"), "pv");
    assert!(!dir.exists());
    // A pod that never got it leaves nothing staged.
    csi.mount(&pod("b"), &volume()).await.unwrap_err();
    csi.unmount_pod("b").await.unwrap();
    csi.release("b");
    let calls = bench.calls().await;
    assert_eq!(
        calls,
        ["stage", "publish a", "stage", "publish b", "unstage"]
    );
    *bench.refuses.lock() = false;
    csi.mount(&pod("a"), &volume()).await.unwrap();
    *bench.refuses.lock() = true;
    csi.mount(&pod("a"), &volume()).await.unwrap_err();
    assert!(dir.join("mount").exists());
    assert_eq!(bench.calls().await, ["stage", "publish a", "publish a"]);
}

#[tokio::test]
async fn a_driver_that_is_not_there_is_waited_for() {
    let bench = Bench::new();
    let csi = bench.start(json!({"attachRequired": false}));
    let other = CsiVolume {
        driver: "other".into(),
        ..volume()
    };
    let error = csi.mount(&pod("a"), &other).await.unwrap_err();
    assert!(error.to_string().ends_with(
        "failed to get CSI client: driver name other not found in the list of registered CSI drivers"
    ));
    // What was never published needs no driver to be taken away.
    let dir = data::dir_of(&Root::new(bench.dir.path()).pod("a"), "pv");
    fs::create_dir_all(&dir).unwrap();
    csi.unmount_pod("a").await.unwrap();
    assert!(!dir.exists());
    fs::create_dir_all(&dir).unwrap();
    Data::published(&other, "n").write(&dir).unwrap();
    assert!(csi.unmount_pod("a").await.is_err());
}

#[test]
fn what_a_claim_says_that_has_grown() {
    let claim = json!({"metadata": {}, "status": {"conditions": [
        {"type": "FileSystemResizePending", "status": "True"}, {"type": "Other", "status": "True"}]}});
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    let resize = Resize {
        claim: ("n".into(), "c".into()),
        to: k8s_openapi::apimachinery::pkg::api::resource::Quantity("2Gi".into()),
    };
    assert_eq!(
        grown(&claim, &resize),
        json!({"status": {"capacity": {"storage": "2Gi"}, "conditions": [{"type": "Other", "status": "True"}],
            "allocatedResourceStatuses": {"storage": null}}})
    );
}
