//! Changes that the server makes to stored objects by itself, beside the verbs of clients:
//! binding a pod, counting down a disruption budget, marking a range of ports.
//!
//! No strategy, admission or validation: who calls this has decided.

use meta::Status;
use serde_json::Value;

use super::super::managed::FieldManager;
use super::errors::{self, During};
use super::{Store, set_resource_version};
use crate::storage::StorageError;

impl Store {
    /// Writes what `change` makes of the object, again and again until nobody wrote in
    /// between. In a dry run nothing is written. Nobody becomes a manager of what is changed.
    pub async fn modify(
        &self,
        namespace: &str,
        name: &str,
        dry_run: bool,
        change: &(dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync),
    ) -> Result<Value, Status> {
        let change = |mut object: Value| {
            change(&mut object)?;
            Ok(object)
        };
        self.change(namespace, name, dry_run, &change).await
    }

    /// [`Store::modify`], on behalf of a manager of fields.
    pub async fn modify_as(
        &self,
        manager: &FieldManager<'_>,
        namespace: &str,
        name: &str,
        dry_run: bool,
        change: &(dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync),
    ) -> Result<Value, Status> {
        let now = (self.env.now)();
        let change = |before: Value| {
            let mut object = before.clone();
            change(&mut object)?;
            manager.note(Some(&before), &mut object, now);
            Ok(object)
        };
        self.change(namespace, name, dry_run, &change).await
    }

    async fn change(
        &self,
        namespace: &str,
        name: &str,
        dry_run: bool,
        change: &(dyn Fn(Value) -> Result<Value, Status> + Send + Sync),
    ) -> Result<Value, Status> {
        let failed = |e| errors::status(e, &self.group_resource(), name, During::Update);
        // Nothing else would notice that a dry run began with an old state.
        let mut fresh = dry_run;
        loop {
            let Some(current) = self.current(namespace, name, fresh).await.map_err(failed)? else {
                if fresh {
                    return Err(Status::not_found(&self.group_resource(), name));
                }
                fresh = true;
                continue;
            };
            let mut object = match change(current.object) {
                Ok(object) => object,
                Err(e) if fresh => return Err(e),
                // It may look different by now.
                Err(_) => {
                    fresh = true;
                    continue;
                }
            };
            if dry_run {
                return Ok(object);
            }
            let bytes = self.stored_bytes(&object)?;
            if fresh && bytes == current.bytes {
                return Ok(object);
            }
            let key = self.key(namespace, name);
            let ttl = self.strategy.ttl(&object);
            match self
                .env
                .storage
                .update(&key, bytes, current.revision, ttl)
                .await
            {
                Ok(revision) => {
                    set_resource_version(&mut object, revision);
                    return Ok(object);
                }
                Err(StorageError::Conflict { .. } | StorageError::NotFound(_)) => fresh = true,
                Err(e) => return Err(failed(e)),
            }
        }
    }
}
