//! One migration of a resource at a time, and what the resource's definition says of it.

use client::workqueue::Requeue;
use client::{Error, Object as _, Patch, optional};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use serde_json::Value;

use super::definition::{self, Definition};
use super::plan::{self, Turn, Verdict};
use super::{Controller, ResourceKey, applying};
use crate::context::now;

const MANAGER: &str = "migration-runner-controller";

impl Controller {
    /// Ends what has ended and lets the next migration of a resource begin.
    pub(super) async fn give_turn(&self, resource: &ResourceKey) -> Result<Requeue, Error> {
        let of_it = |m: &StorageVersionMigration| ResourceKey::of(m) == *resource;
        let Turn { completed, next } = plan::turn(&self.migrations.filter(of_it));
        // The definition is told first: until the migration is told too, this comes again.
        for migration in completed {
            let succeeded = plan::has_succeeded(&migration);
            let definition = self.definition(&migration).await?;
            let ended = definition.and_then(|d| d.ended(succeeded, now()));
            self.apply(&migration, ended).await?;
            self.write(&plan::completed(&migration, now())).await?;
        }
        if let Some(migration) = next {
            let definition = self.definition(&migration).await?;
            let begun = definition.and_then(|d| d.begun(migration.name(), now()));
            self.apply(&migration, begun).await?;
            self.tell(&migration, &Verdict::Running).await?;
        }
        Ok(Requeue::No)
    }

    async fn definition(
        &self,
        migration: &StorageVersionMigration,
    ) -> Result<Option<Definition>, Error> {
        let name = definition::name_of(&plan::resource_of(migration));
        self.definitions.get_opt(&name).await
    }

    /// A definition that is gone has nothing to be told.
    async fn apply(
        &self,
        migration: &StorageVersionMigration,
        status: Option<Value>,
    ) -> Result<(), Error> {
        let Some(status) = status else {
            return Ok(());
        };
        let name = definition::name_of(&plan::resource_of(migration));
        let (patch, options) = (Patch::Apply(status), applying(MANAGER, true));
        let told = self
            .definitions
            .patch_unread(&name, "status", &patch, &options)
            .await;
        optional(told).map(drop)
    }
}
