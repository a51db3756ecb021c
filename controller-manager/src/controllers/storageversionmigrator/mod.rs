//! storage-version-migrator-controller: writes every object of a resource anew, so that none is
//! stored in a version or under a key of old (KEP-4192).
//!
//! A StorageVersionMigration goes through three hands, each with a queue of its own, so that
//! long migrations keep nothing waiting but themselves:
//!
//! 1. [`runner`] has one migration of a resource run at a time, and tells the resource's
//!    definition;
//! 2. [`checkpoint`] notes the revision that the resource has when its turn comes;
//! 3. [`migrator`] writes anew what is not newer than that, and says how it went.
//!
//! Each goes by what the migration says, and begins anew where it was interrupted: objects
//! that were written are newer by then.

mod checkpoint;
mod definition;
mod migrator;
mod plan;
mod runner;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::bail;
use client::informer::Store;
use client::workqueue::{Queue, Requeue};
use client::{
    Api, Client, Error, Identity, Object, ObjectKey, Patch, PatchOptions, ResourceInfo,
    WriteOptions, optional,
};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::GroupResource;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::definition::Definition;
use crate::context::{Context, Run, now, retry_conflicts};
use crate::discovery::Resource;

const NAME: &str = "storage-version-migrator-controller";
/// Migrations of different resources at the same time.
const MIGRATORS: usize = 5;

struct Controller {
    client: Client,
    migrations: Store<StorageVersionMigration>,
    api: Api<StorageVersionMigration>,
    definitions: Api<Definition>,
    stop: CancellationToken,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let gates = &ctx.options.generic.feature_gates;
    if !gates.enabled("StorageVersionMigrator") || !gates.enabled("InformerResourceVersion") {
        return Ok(None);
    }
    // Ours asks nothing of the garbage collector, but whoever relies on the refusal has it.
    if !ctx.options.garbagecollector.enable_garbage_collector {
        bail!("storage version migrator requires garbage collector");
    }
    let (qps, burst) = ctx.options.rate_limit();
    let client = ctx.client(NAME)?.with_rate_limit(qps * 20.0, burst * 100);
    let informer = ctx.informer::<StorageVersionMigration>();
    let controller = Arc::new(Controller {
        migrations: informer.store().clone(),
        api: Api::all(&client),
        definitions: Api::all(&client),
        client,
        stop: ctx.stop.clone(),
    });
    let turns: Queue<ResourceKey> = ctx.queue("resource-version-controller");
    let checkpoints: Queue<ObjectKey> = ctx.queue("resource-version-controller");
    let migrations: Queue<ObjectKey> = ctx.queue(NAME);
    let queues = (turns.clone(), checkpoints.clone(), migrations.clone());
    informer.add_handler(move |change| {
        let (turns, checkpoints, migrations) = &queues;
        turns.add(ResourceKey::of(change.object()));
        if change.current().is_some() {
            checkpoints.add(change.key());
            migrations.add(change.key());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        informer.wait_synced().await;
        let [first, second, third] = [(); 3].map(|()| Arc::clone(&controller));
        tokio::join!(
            turns.run(1, &stop, move |resource| {
                let controller = Arc::clone(&first);
                async move { retry_conflicts(controller.give_turn(&resource).await) }
            }),
            checkpoints.run(1, &stop, move |key| {
                let controller = Arc::clone(&second);
                async move { retry_conflicts(controller.note_revision(&key).await) }
            }),
            migrations.run(MIGRATORS, &stop, move |key| {
                let controller = Arc::clone(&third);
                async move { retry_conflicts(controller.migrate(&key).await) }
            }),
        );
    })))
}

/// A resource as queues have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ResourceKey {
    group: String,
    resource: String,
}

impl ResourceKey {
    fn of(migration: &StorageVersionMigration) -> Self {
        let GroupResource { group, resource } = plan::resource_of(migration);
        Self { group, resource }
    }
}

/// An object as far as it must be known to be written anew.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Stored {
    metadata: Identity,
}

client::slim_object!(Stored);

impl Controller {
    /// The objects of a resource, of which the server tells the metadata only.
    fn stored(&self, resource: &Resource) -> Api<Stored> {
        let info = ResourceInfo::dynamic(&resource.gvr, &resource.kind, resource.namespaced);
        Api::metadata_as(&self.client, info)
    }

    /// Sets a condition; the migration may be gone by then.
    async fn tell(
        &self,
        migration: &StorageVersionMigration,
        verdict: &plan::Verdict,
    ) -> Result<Requeue, Error> {
        self.write(&plan::with(migration, verdict, now())).await
    }

    async fn write(&self, migration: &StorageVersionMigration) -> Result<Requeue, Error> {
        optional(self.api.replace_status(migration).await)?;
        Ok(Requeue::No)
    }
}

/// A server-side apply in somebody's name.
fn applying(manager: &str, force: bool) -> PatchOptions {
    PatchOptions {
        write: WriteOptions {
            field_manager: Some(manager.to_owned()),
            ..WriteOptions::default()
        },
        force,
    }
}

/// What is applied to an object to have it written anew: nothing but which one is meant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Touch<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: TouchMeta<'a>,
}

/// With the uid, an object that is gone is not made again. With the revision, one that was made
/// anew under its name is a conflict and no attempt to change a uid.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TouchMeta<'a> {
    uid: &'a str,
    resource_version: &'a str,
}

fn touch<'a>(resource: &'a Resource, api_version: &'a str, object: &'a Stored) -> Patch<Touch<'a>> {
    Patch::Apply(Touch {
        api_version,
        kind: &resource.kind,
        metadata: TouchMeta {
            uid: object.uid(),
            resource_version: object.resource_version(),
        },
    })
}
