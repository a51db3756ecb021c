//! Mirror pods: how the API server shows pods that this node runs of its own accord.

use std::sync::Arc;

use client::{Api, Client, DeleteOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tracing::{info, warn};

use super::pod::{CONFIG_HASH, CONFIG_MIRROR, PodExt};

/// Makes and removes mirror pods.
pub struct Mirrors {
    client: Client,
    node_name: String,
}

impl Mirrors {
    pub fn new(client: Client, node_name: String) -> Self {
        Self { client, node_name }
    }

    /// Sees to it that the static pod has a mirror that shows this very version of it.
    pub async fn reconcile(&self, pod: &Pod, mirror: Option<&Arc<Pod>>) {
        if let Some(mirror) = mirror {
            if !mirror.is_deleting()
                && mirror.annotation(CONFIG_MIRROR) == pod.annotation(CONFIG_HASH)
            {
                return;
            }
            info!(pod = %pod.full_name(), "replacing a mirror pod that shows an older version");
            if !self.delete(mirror).await {
                return;
            }
        }
        if let Err(error) = self.create(pod).await {
            warn!(pod = %pod.full_name(), %error, "cannot make a mirror pod yet");
        }
    }

    async fn create(&self, pod: &Pod) -> Result<(), client::Error> {
        // The mirror goes when its node does.
        let node = Api::<Node>::all(&self.client).get(&self.node_name).await?;
        let mut mirror = pod.clone();
        mirror.metadata.uid = None;
        let hash = pod.annotation(CONFIG_HASH).unwrap_or_default().to_owned();
        mirror
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(CONFIG_MIRROR.into(), hash);
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.node_name.clone(),
            uid: node.metadata.uid.unwrap_or_default(),
            controller: Some(true),
            ..Default::default()
        }]);
        match Api::<Pod>::namespaced(&self.client, pod.namespace())
            .create(&mirror)
            .await
        {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// True if the mirror is gone.
    pub async fn delete(&self, mirror: &Pod) -> bool {
        let pods: Api<Pod> = Api::namespaced(&self.client, mirror.namespace());
        match pods
            .delete(mirror.name(), &DeleteOptions::with_uid(mirror.uid()).now())
            .await
        {
            Ok(()) => true,
            Err(error) if error.is_not_found() => true,
            Err(error) => {
                warn!(pod = %mirror.full_name(), %error, "cannot delete a mirror pod yet");
                false
            }
        }
    }
}
