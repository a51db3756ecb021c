//! kube-apiserver-serving-clustertrustbundle-publisher-controller: the API server's CA as a
//! ClusterTrustBundle, for pods to have it projected (KEP-3257).
//!
//! The bundle is named by its content. With another CA there is another bundle, and that of the
//! old one goes once the new one is there.

mod bundle;
mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::{Selection, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Client, DeleteOptions, Error, Informer, ResourceInfo, optional};

use self::bundle::Bundle;
use self::plan::{Plan, Write};
use crate::context::{Context, Run};
use crate::controllers::rootcapublisher;
use crate::discovery;
use crate::metrics::Syncs;

const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// Between questions that the API server does not answer.
const PAUSE: Duration = Duration::from_secs(1);

struct Publisher {
    ca: Arc<str>,
    bundles: Store<Bundle>,
    api: Api<Bundle>,
    syncs: Syncs,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let Some(ca) = rootcapublisher::authority(ctx)? else {
        return Ok(None);
    };
    let client = ctx.client("kube-apiserver-serving-clustertrustbundle-publisher")?;
    // All bundles of the signer are looked at together.
    let queue: Queue<()> = ctx.queue("ca_cert_publisher_cluster_trust_bundles");
    let syncs = Syncs::new(&ctx.meter, "clustertrustbundle_publisher")?;
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        let Some(served) = stop.run_until_cancelled(served(&client)).await else {
            return;
        };
        let Some(resource) = served else {
            tracing::info!(
                "no known scheme version was found for clustertrustbundles, cannot start kube-apiserver-serving-clustertrustbundle-publisher-controller"
            );
            return;
        };
        let api = Api::for_resource(&client, resource);
        let selection = Selection::fields(format!("spec.signerName={SIGNER}"));
        let bundles = Informer::new(api.clone(), &selection);
        let changed = queue.clone();
        bundles.add_handler(move |_| changed.add(()));
        bundles.start(&stop);
        bundles.wait_synced().await;
        // There may be none yet.
        queue.add(());
        let publisher = Arc::new(Publisher {
            ca,
            bundles: bundles.store().clone(),
            api,
            syncs,
        });
        queue
            .run(1, &stop, move |()| {
                let publisher = Arc::clone(&publisher);
                async move { publisher.sync().await }
            })
            .await;
    })))
}

/// How the API server serves bundles, if it does. What it serves changes with its flags only, and
/// whoever turns bundles on starts the manager anew.
async fn served(client: &Client) -> Option<ResourceInfo> {
    loop {
        match discovery::discover(client).await {
            Ok(resources) => {
                let mut versions = bundle::VERSIONS.into_iter();
                return versions.find(|resource| {
                    let version = resource.api_version();
                    resources.by_kind(&version, &resource.kind).is_some()
                });
            }
            Err(error) => {
                tracing::warn!(%error, "discovery failed for ClusterTrustBundle, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Publisher {
    async fn sync(&self) -> Result<Requeue, Error> {
        let began = Instant::now();
        let result = self.publish().await;
        self.syncs.done(began, result.as_ref().err());
        result.map(|()| Requeue::No)
    }

    async fn publish(&self) -> Result<(), Error> {
        let Plan { write, delete } = plan::plan(&self.bundles.list(), SIGNER, &self.ca);
        match write {
            None => {}
            Some(Write::Create(bundle)) => {
                self.api.create(&bundle.of(self.api.resource())).await?;
            }
            Some(Write::Replace(bundle)) => {
                self.api.replace(&bundle.of(self.api.resource())).await?;
            }
        }
        // One that stays keeps no other from going.
        let mut failure = None;
        for name in delete {
            let deleted = self.api.delete(&name, &DeleteOptions::new()).await;
            if let Err(error) = optional(deleted) {
                tracing::error!(bundle = name, %error, "failed to remove a cluster trust bundle");
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
