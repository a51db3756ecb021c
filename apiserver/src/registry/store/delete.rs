//! Delete and deletecollection: the plan is `deletion.rs`'s, here it is carried out.

use futures::StreamExt;
use meta::Status;
use serde_json::Value;

use super::super::deletion::{self, Kind, Plan};
use super::super::object_meta::meta;
use super::super::options::DeleteOptions;
use super::errors::During;
use super::{Current, Store, Write, errors, set_resource_version};
use crate::admission::Operation;
use crate::storage::StorageError;

/// What a DELETE came to.
#[derive(Debug)]
pub struct Deleted {
    /// The object as it is now, or as it was last.
    pub object: Value,
    /// It is gone.
    pub gone: bool,
    /// It has been marked for deletion by this request.
    pub marked: bool,
}

/// What one attempt came to.
enum Attempt {
    Done(Deleted),
    /// Somebody else wrote in between.
    Again,
    /// The store did not do it, or nobody knows whether it did: to try again could refuse
    /// what was done.
    Failed(Status),
}

impl Store {
    pub async fn delete(
        &self,
        write: &Write<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let failed = |e| errors::status(e, &self.group_resource(), write.name, During::Delete);
        if let Some(why) = self.strategy.undeletable(write.name) {
            return Err(Status::forbidden(&self.group_resource(), write.name, why));
        }
        // Nothing else would notice that a dry run began with an old state.
        let mut fresh = write.dry_run;
        loop {
            let current = self
                .current(write.namespace, write.name, fresh)
                .await
                .map_err(failed)?;
            match self.delete_current(write, options, current).await {
                Ok(Attempt::Done(deleted)) => return Ok(deleted),
                Ok(Attempt::Again) => fresh = true,
                Ok(Attempt::Failed(e)) => return Err(e),
                Err(e) if fresh => return Err(e),
                // What failed may have failed because the cache is behind.
                Err(_) => fresh = true,
            }
        }
    }

    async fn delete_current(
        &self,
        write: &Write<'_>,
        options: &DeleteOptions,
        current: Option<Current>,
    ) -> Result<Attempt, Status> {
        let resource = self.group_resource();
        let Some(mut current) = current else {
            return Err(Status::not_found(&resource, write.name));
        };
        let object = &current.object;
        let (group, kind) = (self.resource.group, self.resource.kind);
        // Upstream has a code path of its own for namespaces.
        let named = match (group, kind) {
            ("", "Namespace") => self.resource.plural,
            _ => kind,
        };
        deletion::check_preconditions(object, options, group, named)?;
        self.admit(write, Operation::Delete, write.name, None, Some(object))
            .await?;
        self.validate_admission(write, Operation::Delete, write.name, None, Some(object))
            .await?;
        let kind = Kind {
            gc: self.strategy.garbage_collection(),
            graceful: self.strategy.is_graceful(),
            grace: self.strategy.grace_period(object, options),
            held: self.strategy.is_held(object),
        };
        let plan = deletion::plan(object, options, kind, (self.env.now)());
        let marks = matches!(plan, Plan::Mark(_));
        let (mark, remove) = match plan {
            // Nothing is written: it may be another one by now that has its name.
            Plan::Pending if !current.fresh => return Ok(Attempt::Again),
            Plan::Pending => {
                return Ok(Attempt::Done(Deleted {
                    object: current.object,
                    gone: false,
                    marked: false,
                }));
            }
            Plan::Mark(marked) => (Some(marked), false),
            Plan::MarkAndRemove(marked) => (Some(marked), true),
            Plan::Remove => (None, true),
        };
        let was_marked = mark.is_some();
        if let Some(mut marked) = mark {
            self.strategy.mark_deleting(&mut marked);
            // Asked for again, and for nothing more than is under way: there is nothing to write,
            // or whoever asks because the object has changed would never stop.
            let writes = marked != current.object;
            if !writes && !remove && !current.fresh {
                return Ok(Attempt::Again);
            }
            if !write.dry_run && writes {
                let bytes = self.stored_bytes(&marked)?;
                let key = self.key(write.namespace, write.name);
                let ttl = self.strategy.ttl(&marked);
                let written = self
                    .env
                    .storage
                    .update(&key, bytes.clone(), current.revision, ttl)
                    .await;
                match written {
                    Ok(revision) => {
                        current.revision = revision;
                        current.bytes = bytes;
                        set_resource_version(&mut marked, revision);
                    }
                    Err(StorageError::Conflict { .. } | StorageError::NotFound(_)) => {
                        return Ok(Attempt::Again);
                    }
                    Err(e) => {
                        let e = errors::status(e, &resource, write.name, During::Update);
                        return Ok(Attempt::Failed(e));
                    }
                }
            }
            current.object = marked;
        }
        let gone = remove;
        if gone && !write.dry_run {
            match self.remove(write.namespace, write.name, &current).await {
                Ok(revision) => set_resource_version(&mut current.object, revision),
                // Once it is marked anybody may finish it.
                Err(StorageError::NotFound(_)) if was_marked => {}
                Err(StorageError::Conflict { .. } | StorageError::NotFound(_)) => {
                    return Ok(Attempt::Again);
                }
                Err(e) => {
                    let e = errors::status(e, &resource, write.name, During::Delete);
                    return Ok(Attempt::Failed(e));
                }
            }
        }
        Ok(Attempt::Done(Deleted {
            object: current.object,
            gone,
            marked: marks,
        }))
    }

    /// Removes exactly this state of an object from storage; says at which revision.
    pub(super) async fn remove(
        &self,
        namespace: &str,
        name: &str,
        current: &Current,
    ) -> Result<u64, StorageError> {
        let key = self.key(namespace, name);
        let revision = self.env.storage.delete(&key, current.revision).await?;
        if let Some(hooks) = self.hooks.get() {
            hooks.after_delete(&current.object).await;
        }
        Ok(revision)
    }

    /// Deletes every one of these objects. What is gone before its turn counts as deleted;
    /// the first error ends it, and what was deleted until then stays deleted.
    pub async fn delete_collection(
        &self,
        write: &Write<'_>,
        options: &DeleteOptions,
        keys: Vec<(String, String)>,
    ) -> Result<(), Status> {
        let mut results = futures::stream::iter(keys)
            .map(|(namespace, name)| async move {
                let write = Write {
                    namespace: &namespace,
                    name: &name,
                    ..*write
                };
                match self.delete(&write, options).await {
                    Err(e) if !e.is_not_found() => Err(e),
                    _ => Ok(()),
                }
            })
            .buffer_unordered(self.env.collection_workers);
        while let Some(result) = results.next().await {
            result?;
        }
        Ok(())
    }

    /// The answer of a DELETE that shows no object: what was deleted, and that it was.
    pub fn deleted_status(&self, object: &Value) -> Status {
        let mut status = Status::success();
        status.code = 0;
        let details = status.details_mut();
        details.name = meta(object).name().to_owned();
        details.group = self.resource.group.to_owned();
        // The resource, not the kind, as upstream has it.
        details.kind = self.resource.plural.to_owned();
        details.uid = meta(object).uid().to_owned();
        status
    }
}
