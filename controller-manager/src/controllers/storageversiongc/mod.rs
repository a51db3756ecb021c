//! storageversion-garbage-collector-controller: takes API servers that are no more out of
//! StorageVersions, which say in what version each server stores a resource (KEP-2339).
//!
//! A server that lives has a lease that says so. Caches tell when to look; what is done is
//! decided by what the API server says then, since a server that has just begun has its lease
//! before it says what it stores.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use client::informer::{Event as Change, Selection, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, optional};
use k8s_openapi::api::apiserverinternal::v1alpha1::StorageVersion;
use k8s_openapi::api::coordination::v1::Lease;

use self::plan::Plan;
use crate::context::{Context, Run, now, retry_conflicts};

const NAMESPACE: &str = "kube-system";
/// Of leases of API servers (KEP-1965).
const LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");

struct Collector {
    versions: Store<StorageVersion>,
    version_api: Api<StorageVersion>,
    lease_api: Api<Lease>,
    /// Names of StorageVersions.
    queue: Queue<String>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("storage-version-garbage-collector")?;
    let versions = ctx.informer::<StorageVersion>();
    let leases = ctx.informers.select::<Lease>(&Selection {
        namespace: NAMESPACE.to_owned(),
        labels: format!("{}={}", LABEL.0, LABEL.1),
        fields: String::new(),
    });
    let collector = Arc::new(Collector {
        versions: versions.store().clone(),
        version_api: Api::all(&client),
        lease_api: Api::namespaced(&client, NAMESPACE),
        queue: ctx.queue("storage_version_garbage_collector_storageversions"),
    });
    // Names of servers.
    let ended: Queue<String> = ctx.queue("storage_version_garbage_collector_leases");
    let servers = ended.clone();
    leases.add_handler(move |change| {
        if let Change::Deleted(lease) = change {
            servers.add(lease.name().to_owned());
        }
    });
    let (queue, living) = (collector.queue.clone(), leases.store().clone());
    versions.add_handler(move |change| {
        let Some(version) = change.current() else {
            return;
        };
        let mut servers = plan::servers(version);
        if servers.any(|server| living.get(NAMESPACE, server).is_none()) {
            queue.add(version.name().to_owned());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        leases.wait_synced().await;
        versions.wait_synced().await;
        let queue = collector.queue.clone();
        let [first, second] = [(); 2].map(|()| Arc::clone(&collector));
        tokio::join!(
            ended.run(1, &stop, move |server| {
                let collector = Arc::clone(&first);
                async move { collector.server_ended(&server).await }
            }),
            queue.run(1, &stop, move |name| {
                let collector = Arc::clone(&second);
                async move { retry_conflicts(collector.sync(&name).await) }
            }),
        );
    })))
}

impl Collector {
    /// Whether an API server is no more: it has no lease.
    async fn is_gone(&self, server: &str) -> Result<bool, Error> {
        if server.is_empty() {
            return Ok(true);
        }
        let lease = self.lease_api.get_opt(server).await?;
        let labels = lease.and_then(|lease| lease.metadata.labels);
        let label = labels.and_then(|mut labels| labels.remove(LABEL.0));
        Ok(label.as_deref() != Some(LABEL.1))
    }

    async fn server_ended(&self, server: &str) -> Result<Requeue, Error> {
        // It may have begun anew.
        if self.is_gone(server).await? {
            let names_it = |version: &StorageVersion| plan::servers(version).any(|s| s == server);
            for version in self.versions.filter(names_it) {
                self.queue.add(version.name().to_owned());
            }
        }
        Ok(Requeue::No)
    }

    async fn sync(&self, name: &str) -> Result<Requeue, Error> {
        let Some(version) = self.version_api.get_opt(name).await? else {
            return Ok(Requeue::No);
        };
        let mut gone = BTreeSet::new();
        for server in plan::servers(&version) {
            if self.is_gone(server).await? {
                gone.insert(server);
            }
        }
        match plan::plan(&version, &gone, now()) {
            Plan::Keep => {}
            Plan::Write(changed) => {
                optional(self.version_api.replace_status(&changed).await)?;
            }
            // A server that begins meanwhile has changed it.
            Plan::Delete => {
                let options = DeleteOptions {
                    resource_version: Some(version.resource_version().to_owned()),
                    ..DeleteOptions::with_uid(version.uid())
                };
                optional(self.version_api.delete(name, &options).await)?;
            }
        }
        Ok(Requeue::No)
    }
}
