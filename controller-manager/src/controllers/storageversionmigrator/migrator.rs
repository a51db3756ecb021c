//! Writes the objects of a resource anew. Nothing is said to have been changed: the server
//! stores an object whose bytes are not those that it would store now, and no other.

use std::cmp::Ordering;
use std::sync::Arc;

use client::workqueue::Requeue;
use client::{Error, ListOptions, Object as _, ObjectKey};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;

use super::plan::{self, Consequence, Phase, Target, Verdict};
use super::{Controller, NAME, applying, touch};
use crate::context::now;
use crate::discovery::{Resource, discover};

/// How an attempt ended, if not with an error after which to try again.
enum Attempt {
    Done,
    /// The list is older than the revision up to which the migration goes.
    TooEarly,
    /// The migration is gone, or this manager ends.
    Abandoned,
    /// It would not go better another time; in a sentence.
    Failed(String),
}

impl Controller {
    /// Migrates, where that is what comes next.
    pub(super) async fn migrate(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(migration) = self.migrations.get_key(key) else {
            return Ok(Requeue::No);
        };
        let Phase::Bounded(revision) = plan::phase(&migration) else {
            return Ok(Requeue::No);
        };
        let served = discover(&self.client).await?;
        let absent = "unable to obtain GVR from discovery";
        let attempt = match plan::target(&migration, &served, absent, now()) {
            Target::Found(resource) => self.write_anew(&migration, resource, revision).await,
            Target::Awaited => return Ok(Requeue::Backoff),
            Target::Never(why) => Ok(Attempt::Failed(why)),
        };
        let verdict = match attempt {
            Ok(Attempt::Done) => Verdict::Succeeded,
            Ok(Attempt::Failed(why)) => {
                Verdict::Failed(format!("migration encountered unhandled error: {why}"))
            }
            Ok(Attempt::Abandoned) => return Ok(Requeue::No),
            Ok(Attempt::TooEarly) => return Ok(Requeue::Backoff),
            Err(error) => {
                // A server that is too busy says until when.
                let delay = error.retry_after().ok_or(error)?;
                tracing::info!(migration = key.name(), ?delay, "the server wants a pause");
                return Ok(Requeue::After(delay));
            }
        };
        // As it is by now: a label that it was given meanwhile is no reason to begin anew.
        match self.current(&migration) {
            Some(migration) => self.tell(&migration, &verdict).await,
            None => Ok(Requeue::No),
        }
    }

    /// The migration as it was seen last; `None` once it is gone.
    fn current(&self, migration: &StorageVersionMigration) -> Option<Arc<StorageVersionMigration>> {
        let current = self.migrations.get_key(&migration.key())?;
        (current.uid() == migration.uid()).then_some(current)
    }

    async fn write_anew(
        &self,
        migration: &StorageVersionMigration,
        resource: &Resource,
        revision: &str,
    ) -> Result<Attempt, Error> {
        let api = self.stored(resource);
        // All of it at once: what is kept of an object is small, and a page that is asked for
        // after long work may be of a revision that is no more.
        let list = match api.list_pages(&ListOptions::new()).await {
            Ok(list) => list,
            Err(error) => return failed(error),
        };
        match plan::compare(list.resource_version(), revision) {
            Ok(Ordering::Less) => return Ok(Attempt::TooEarly),
            Ok(_) => {}
            Err(malformed) => {
                let why = "error comparing resource versions between GC and SVM resource";
                return Ok(Attempt::Failed(format!("{why}: {malformed}")));
            }
        }
        if list.undecodable > 0 {
            let count = list.undecodable;
            return Ok(Attempt::Failed(format!("{count} objects cannot be read")));
        }
        let api_version = resource.gvr.group_version().to_string();
        let options = applying(NAME, false);
        for object in &list.items {
            if self.stop.is_cancelled() || self.current(migration).is_none() {
                return Ok(Attempt::Abandoned);
            }
            match plan::compare(object.resource_version(), revision) {
                Ok(Ordering::Greater) => continue,
                Ok(_) => {}
                Err(malformed) => return Ok(Attempt::Failed(malformed.to_string())),
            }
            let patch = touch(resource, &api_version, object);
            let written = api
                .within(object.namespace())
                .patch_unread(object.name(), "", &patch, &options)
                .await;
            match written {
                Err(error) if plan::consequence(&error) != Consequence::Unneeded => {
                    let (gvr, object) = (&resource.gvr, object.key());
                    tracing::warn!(%gvr, %object, %error, "object is not migrated");
                    return failed(error);
                }
                _ => {}
            }
        }
        let (name, objects) = (migration.name(), list.items.len());
        tracing::info!(migration = name, resource = %resource.gvr, objects, "migrated");
        Ok(Attempt::Done)
    }
}

fn failed(error: Error) -> Result<Attempt, Error> {
    match plan::consequence(&error) {
        Consequence::Fails => Ok(Attempt::Failed(error.to_string())),
        Consequence::Unneeded | Consequence::Again => Err(error),
    }
}
