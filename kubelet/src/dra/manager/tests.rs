use std::path::Path;
use std::time::Duration;

use grpc::plugins::dra::v1::dra_plugin_server::{DraPlugin, DraPluginServer};
use grpc::plugins::dra::v1::{
    NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::*;
use crate::plugins::{Handler, Plugin, fake};

/// Prepares every claim as one device of its own name, and tells of every call.
struct Driver {
    told: mpsc::UnboundedSender<String>,
    refuses: Arc<Mutex<bool>>,
}

#[tonic::async_trait]
impl DraPlugin for Driver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let claims = request.into_inner().claims.into_iter().map(|claim| {
            let _ = self.told.send(format!("prepare {}", claim.name));
            let device = pb::Device {
                request_names: vec!["r".into()],
                pool_name: "pool".into(),
                device_name: claim.name.clone(),
                cdi_device_ids: vec![format!("d.io/x={}", claim.name)],
                share_id: None,
            };
            let answer = NodePrepareResourceResponse {
                devices: vec![device],
                error: String::new(),
            };
            (claim.uid, answer)
        });
        let claims = claims.collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let refuses = *self.refuses.lock();
        let claims = request.into_inner().claims.into_iter().map(|claim| {
            let _ = self.told.send(format!("unprepare {}", claim.name));
            let error = if refuses { "busy" } else { "" }.to_owned();
            (claim.uid, NodeUnprepareResourceResponse { error })
        });
        let claims = claims.collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

fn manager(root: &Path, drivers: Drivers) -> Dra {
    let claims = Arc::new(Mutex::new(Claims::open(root).unwrap()));
    let metrics = Arc::new(Metrics::new("n", true).unwrap());
    Dra::new(claims, drivers, Some(Arc::default()), true, None, metrics)
}

fn claim(name: &str) -> Claim {
    let object: ResourceClaim = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("{name}-uid")}, "spec": {},
        "status": {"allocation": {"devices": {"results": [
            {"driver": "d.io", "pool": "pool", "device": name, "request": "r"}]}}},
    }))
    .unwrap();
    Claim::of(&object).unwrap()
}

fn pod(uid: &str, claims: &[&str]) -> Pod {
    let entries: Vec<_> = claims
        .iter()
        .map(|name| json!({"name": name, "resourceClaimName": name}))
        .collect();
    let used: Vec<_> = claims.iter().map(|name| json!({"name": name})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": uid},
        "spec": {"resourceClaims": entries, "containers": [{"name": "c", "resources": {"claims": used}}]},
        "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0}]},
    }))
    .unwrap()
}

#[tokio::test]
async fn claims_are_prepared_once_and_given_up_by_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("dra.sock");
    let (told, mut heard) = mpsc::unbounded_channel();
    let refuses = Arc::new(Mutex::new(false));
    let driver = Driver {
        told,
        refuses: refuses.clone(),
    };
    let _served = fake::serve(&socket, DraPluginServer::new(driver));
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::new("n", true).unwrap());
    let drivers = Drivers::new(None, "n", Duration::ZERO, None, metrics, &stop);
    let plugin = Plugin {
        kind: "DRAPlugin".into(),
        name: "d.io".into(),
        endpoint: socket.to_string_lossy().into_owned(),
        versions: vec!["v1.DRAPlugin".into()],
    };
    assert!(drivers.check("d.io").is_err());
    drivers.register(&plugin).await.unwrap();
    assert!(drivers.register(&plugin).await.is_err(), "twice");
    let dra = manager(dir.path(), drivers.clone());
    let prepare = async |dra: &Dra, uid: &str, names: &[&str]| {
        let wanted: Vec<Claim> = names.iter().map(|name| claim(name)).collect();
        // Until the driver is connected.
        while let Err(error) = dra.prepare_claims(uid, "n", wanted.clone()).await {
            assert!(
                matches!(error, DraError::Driver(DriverError::Call(..))),
                "{error}"
            );
            tokio::task::yield_now().await;
        }
    };
    prepare(&dra, "u1", &["a", "b"]).await;
    prepare(&dra, "u2", &["a"]).await;
    for call in ["prepare a", "prepare b"] {
        assert_eq!(heard.recv().await.unwrap(), call);
    }
    let first = pod("u1", &["a", "b"]);
    let devices = dra.cdi_devices(&first, &first.containers()[0]).unwrap();
    assert_eq!(devices, ["d.io/x=a", "d.io/x=b"]);
    let mut status = first.status.clone().unwrap();
    dra.show_health(&first, &mut status);
    let shown = &status.container_statuses.unwrap()[0].allocated_resources_status;
    assert_eq!(
        serde_json::to_value(shown).unwrap()[0],
        json!({"name": "claim:a", "resources": [{"resourceID": "d.io/x=a", "health": "Unknown"}]})
    );
    let users = Dra::users(&dra.claims.lock(), "d.io", &[("pool".into(), "b".into())]);
    assert_eq!(users, ["u1".into()]);

    // A pod that never got them gives nobody's up.
    dra.unprepare(&pod("u3", &["a"])).await.unwrap();
    // A kubelet that starts anew finds what was prepared.
    drop(dra);
    let dra = manager(dir.path(), drivers);
    *refuses.lock() = true;
    let error = dra.unprepare(&first).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "NodeUnprepareResources failed for ResourceClaim b: busy"
    );
    *refuses.lock() = false;
    dra.unprepare(&first).await.unwrap();
    // The other pod has gone by force.
    dra.reconcile(|uid| uid == "u1").await;
    for call in ["unprepare b", "unprepare b", "unprepare a"] {
        assert_eq!(heard.recv().await.unwrap(), call);
    }
    assert_eq!(Claims::open(dir.path()).unwrap().iter().count(), 0);
    stop.cancel();
}
