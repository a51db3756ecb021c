//! Update (PUT, PATCH and the subresources that write): a function makes the new object of
//! the one that is there, and is asked again when somebody else wrote in between.

use bytes::Bytes;
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::Value;

use super::super::deletion::finished_by_update;
use super::super::ingest::stamp;
use super::super::managed::{drop_managers, keep_times_of_noop};
use super::super::object_meta::{fill_system_fields, keep, meta, meta_mut, set_generation};
use super::super::strategy::{Context, undo_failed};
use super::errors::During;
use super::{
    Current, Store, Write, Written, ensure_namespace, errors, set_resource_version,
    warn_duplicate_owners,
};
use crate::admission::Operation;
use crate::storage::{Revision, StorageError};

/// Makes the new object of the current one (`None`: there is none).
pub type Change<'a> = dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync + 'a;

/// Asked before an update creates what is not there: is the user allowed to create?
pub type Precondition<'a> = dyn Fn() -> Result<(), Status> + Send + Sync + 'a;

/// How an update is to be carried out.
pub struct Update<'a> {
    pub change: &'a Change<'a>,
    /// `update` or `patch`: rights that differ.
    pub verb: &'a str,
    /// The object must have this uid.
    pub uid: Option<&'a str>,
    /// Create what is missing, whatever the strategy says (server-side apply).
    pub force_create: bool,
    /// `change` notes by itself who owns which fields.
    pub noted: bool,
    pub may_create: &'a Precondition<'a>,
}

/// What one attempt came to.
enum Attempt {
    Done(Written),
    /// Somebody else wrote; start again from this, or read what is there now.
    Again(Option<Current>),
    /// The store did not do it, or nobody knows whether it did: to try again could refuse
    /// what was done.
    Failed(Status),
}

/// What a checked write came to.
enum Finished {
    /// With what lies in storage, where that is what was to be written.
    Written(Revision, Option<Bytes>),
    /// The object is not what the attempt started from.
    Stale(Option<Current>),
    /// See [`Attempt::Failed`].
    Failed(Status),
}

impl Store {
    pub async fn update(&self, write: &Write<'_>, update: &Update<'_>) -> Result<Written, Status> {
        let failed = |e| errors::status(e, &self.group_resource(), write.name, During::Update);
        // Nothing else would notice that a dry run began with an old state.
        let mut fresh = write.dry_run;
        let mut current = self
            .current(write.namespace, write.name, fresh)
            .await
            .map_err(failed)?;
        loop {
            match self.attempt(write, update, current.as_ref(), fresh).await {
                Ok(Attempt::Done(written)) => return Ok(written),
                Ok(Attempt::Again(Some(now))) => {
                    current = Some(now);
                    fresh = true;
                    continue;
                }
                Ok(Attempt::Again(None)) => {}
                Ok(Attempt::Failed(e)) => return Err(e),
                Err(e) if fresh => return Err(e),
                Err(_) => {}
            }
            // What failed may have failed because the cache is behind.
            current = self
                .current(write.namespace, write.name, true)
                .await
                .map_err(failed)?;
            fresh = true;
        }
    }

    async fn attempt(
        &self,
        write: &Write<'_>,
        update: &Update<'_>,
        current: Option<&Current>,
        fresh: bool,
    ) -> Result<Attempt, Status> {
        let Some(current) = current else {
            if !fresh {
                return Ok(Attempt::Again(None));
            }
            return self.create_by_update(write, update).await;
        };
        let old = &current.object;
        self.check_uid(write, update, old)?;
        refuse_unconverted(self.resource, &current.bytes)?;
        let mut object = (update.change)(Some(old))?;
        if !update.noted {
            write.own(Some(old), &mut object, (self.env.now)());
        }
        warn_duplicate_owners(&mut object, write.warnings, false);
        self.admit(
            write,
            Operation::Update,
            write.name,
            Some(&mut object),
            Some(old),
        )
        .await?;
        warn_duplicate_owners(&mut object, write.warnings, true);
        keep_times_of_noop(&mut object, old);
        self.check_resource_version(write, &mut object, current)?;

        let cx = self.context(write, update.verb);
        // Hooks look at the object as it will be.
        ensure_namespace(&mut object, write.namespace)?;
        keep_system_fields(&mut object, old);
        let undo = match self.hooks.get() {
            Some(hooks) => hooks.begin_update(&cx, &mut object, old).await?,
            None => None,
        };
        let result = self.finish(write, &cx, &mut object, current).await;
        match (&result, undo) {
            (Err(e) | Ok(Finished::Failed(e)), undo) => undo_failed(undo, e).await,
            (Ok(Finished::Written(..)), _) if !write.dry_run => {
                if let Some(hooks) = self.hooks.get() {
                    hooks.after_update(&object, old).await;
                }
            }
            (_, Some(undo)) => undo().await,
            (_, None) => {}
        }
        match result? {
            Finished::Written(revision, bytes) => {
                set_resource_version(&mut object, revision);
                let stored = bytes.and_then(|bytes| self.as_stored(&object, &bytes, revision));
                Ok(Attempt::Done(Written {
                    object,
                    stored,
                    created: false,
                }))
            }
            Finished::Stale(now) => Ok(Attempt::Again(now)),
            Finished::Failed(e) => Ok(Attempt::Failed(e)),
        }
    }

    /// Checks and writes.
    async fn finish(
        &self,
        write: &Write<'_>,
        cx: &Context<'_>,
        object: &mut Value,
        current: &Current,
    ) -> Result<Finished, Status> {
        let old = &current.object;
        self.check_update(write, cx, object, old)?;
        self.validate_admission(
            write,
            Operation::Update,
            write.name,
            Some(object),
            Some(old),
        )
        .await?;
        if finished_by_update(object, old) && !self.strategy.is_held(object) {
            return self.remove_finished(write, current).await;
        }
        let mut bytes = self.stored_bytes(object)?;
        // Writing the same again would only wake up every watcher.
        let unchanged = self.is_what_is_there(&bytes, current);
        if unchanged && !current.fresh {
            return Ok(Finished::Stale(None));
        }
        if unchanged {
            return Ok(Finished::Written(current.revision, Some(bytes)));
        }
        if write.dry_run {
            return Ok(Finished::Written(current.revision, None));
        }
        self.last_call(&bytes).await;
        let key = self.key(write.namespace, write.name);
        let ttl = self.strategy.ttl(object);
        let storage = &self.env.storage;
        let expected = current.revision;
        let mut written = storage.update(&key, bytes.clone(), expected, ttl).await;
        if matches!(written, Err(StorageError::TooLarge)) && drop_managers(object) {
            bytes = self.stored_bytes(object)?;
            written = storage.update(&key, bytes.clone(), expected, ttl).await;
        }
        match written {
            Ok(revision) => Ok(Finished::Written(revision, Some(bytes))),
            Err(StorageError::Conflict { current }) => Ok(Finished::Stale(
                current.and_then(|kv| self.current_of(kv).ok()),
            )),
            Err(StorageError::NotFound(_)) => Ok(Finished::Stale(None)),
            Err(e) => Ok(Finished::Failed(errors::status(
                e,
                &self.group_resource(),
                write.name,
                During::Update,
            ))),
        }
    }

    /// Whether these bytes are the ones that are stored. The cache's have the revision in them.
    fn is_what_is_there(&self, bytes: &[u8], current: &Current) -> bool {
        if current.fresh {
            return bytes == current.bytes;
        }
        if self.resource.storage_json {
            let stored = self.stored_bytes(&current.object);
            return stored.is_ok_and(|stored| stored == bytes);
        }
        stamp(bytes, current.revision).is_ok_and(|stamped| stamped == current.bytes)
    }

    /// `rest.BeforeUpdate`: what no update may change, the strategy, validation.
    fn check_update(
        &self,
        write: &Write<'_>,
        cx: &Context<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        set_generation(object, meta(old).generation());
        self.strategy.prepare_update(cx, object, old);

        keep_system_fields(object, old);
        let errs = self.strategy.validate_update(cx, object, old);
        if !errs.is_empty() {
            return Err(Status::invalid(
                &self.group_kind(),
                meta(object).name(),
                &errs,
            ));
        }
        let r = self.resource;
        for warning in api::warnings::on_update(r.group, r.kind, write.part(), object, old) {
            write.warnings.add(warning);
        }
        Ok(())
    }

    fn check_uid(&self, write: &Write<'_>, update: &Update<'_>, old: &Value) -> Result<(), Status> {
        match update.uid {
            Some(wanted) if wanted != meta(old).uid() => {
                Err(self.other_uid(write, wanted, meta(old).uid()))
            }
            _ => Ok(()),
        }
    }

    /// `found` is empty where there is no object.
    fn other_uid(&self, write: &Write<'_>, wanted: &str, found: &str) -> Status {
        let key = self.key(write.namespace, write.name);
        let message = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Status::conflict(&self.group_resource(), write.name, message)
    }

    /// The object's resourceVersion must be the current one, or absent where that is allowed.
    fn check_resource_version(
        &self,
        write: &Write<'_>,
        object: &mut Value,
        current: &Current,
    ) -> Result<(), Status> {
        let asked = meta(object).resource_version().to_owned();
        if asked.is_empty() || asked == "0" {
            if self.strategy.allow_unconditional_update() {
                set_resource_version(object, current.revision);
                return Ok(());
            }
            let errs = ErrorList::from(vec![FieldError::invalid(
                &Path::new("metadata").child("resourceVersion"),
                &serde_json::json!(0),
                "must be specified for an update",
            )]);
            let kind = GroupKind::new(self.resource.group, self.resource.plural);
            return Err(Status::invalid(&kind, write.name, &errs));
        }
        if asked.starts_with('+') || asked.parse::<u64>().is_err() {
            // An error that upstream gives no reason.
            return Err(Status {
                code: 500,
                message: format!("strconv.ParseUint: parsing {asked:?}: invalid syntax"),
                ..Status::default()
            });
        }
        if asked != current.revision.to_string() {
            return Err(errors::conflict(&self.group_resource(), write.name));
        }
        Ok(())
    }

    /// There is nothing to update: create it where that is allowed.
    async fn create_by_update(
        &self,
        write: &Write<'_>,
        update: &Update<'_>,
    ) -> Result<Attempt, Status> {
        // Where a PUT may create, one of the status may, too: of a Service.
        let applied = update.force_create && write.subresource.is_empty();
        if !self.strategy.allow_create_on_update() && !applied {
            return Err(Status::not_found(&self.group_resource(), write.name));
        }
        if let Some(wanted) = update.uid {
            return Err(self.other_uid(write, wanted, ""));
        }
        let mut object = (update.change)(None)?;
        let uid = meta(&object).uid();
        if update.force_create && !uid.is_empty() {
            let message = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(
                &self.group_resource(),
                write.name,
                message,
            ));
        }
        if !update.noted {
            write.own(None, &mut object, (self.env.now)());
        }
        self.admit(
            write,
            Operation::Create,
            write.name,
            Some(&mut object),
            None,
        )
        .await?;
        warn_duplicate_owners(&mut object, write.warnings, true);
        fill_system_fields(&mut object, (self.env.now)(), &self.env.uid());
        meta_mut(&mut object).remove("resourceVersion");
        (update.may_create)()?;
        let (mut object, undo) = self.prepared(write, object).await?;
        match self.insert(write, &mut object).await {
            Ok(stored) => {
                if let Some((_, revision)) = &stored {
                    set_resource_version(&mut object, *revision);
                }
                Ok(Attempt::Done(self.created(object, stored)))
            }
            Err(e) => {
                undo_failed(undo, &e).await;
                if e.is_already_exists() {
                    return Ok(Attempt::Again(None));
                }
                Err(e)
            }
        }
    }

    /// The update took the last finalizer of an object that is being deleted: it goes.
    async fn remove_finished(
        &self,
        write: &Write<'_>,
        current: &Current,
    ) -> Result<Finished, Status> {
        if write.dry_run {
            return Ok(Finished::Written(current.revision, None));
        }
        match self.remove(write.namespace, write.name, current).await {
            // A PUT is answered with the object that it put, not with what became of it.
            // Of several who take the last finalizer one removes it, and all have done it.
            Ok(_) | Err(StorageError::NotFound(_)) => Ok(Finished::Written(current.revision, None)),
            Err(StorageError::Conflict { current }) => Ok(Finished::Stale(
                current.and_then(|kv| self.current_of(kv).ok()),
            )),
            Err(e) => Ok(Finished::Failed(errors::status(
                e,
                &self.group_resource(),
                write.name,
                During::Delete,
            ))),
        }
    }
}

/// What of its metadata no update changes, or may leave out.
fn keep_system_fields(object: &mut Value, old: &Value) {
    let before = &old["metadata"];
    meta_mut(object);
    let m = &mut object["metadata"];
    if m.get("uid").is_none_or(|u| u == "") {
        keep(m, before, "uid");
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        if before.get(key).is_some() {
            keep(m, before, key);
        }
    }
    if m.get("deletionGracePeriodSeconds").is_none() {
        keep(m, before, "deletionGracePeriodSeconds");
    }
    // Only the server writes it, and it is no longer written.
    keep(m, before, "selfLink");
}

/// An object of a kind that is kept as JSON may lie there in a version that has other fields
/// (upstream keeps CustomResourceDefinitions as v1beta1). Without a conversion these would be
/// lost, so it is not written over.
fn refuse_unconverted(resource: &schema::Resource, stored: &[u8]) -> Result<(), Status> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TypeMeta {
        #[serde(default)]
        api_version: String,
    }
    if !resource.storage_json {
        return Ok(());
    }
    let TypeMeta { api_version } =
        serde_json::from_slice(stored).map_err(|e| Status::internal(e.to_string()))?;
    if api_version == super::super::convert::api_version(resource) {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the object is stored as {api_version}, which this server does not convert and so does not change"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_converted_is_not_written_over() {
        let crds = schema::resources()
            .iter()
            .find(|r| r.plural == "customresourcedefinitions" && r.version == "v1")
            .unwrap();
        let stored = |version: &str| {
            let bytes = format!(r#"{{"apiVersion":"apiextensions.k8s.io/{version}"}}"#);
            refuse_unconverted(crds, bytes.as_bytes())
        };
        assert!(stored("v1").is_ok());
        let refused = stored("v1beta1").unwrap_err();
        assert_eq!(refused.code, 400);
        assert!(refused.message.contains("apiextensions.k8s.io/v1beta1"));
    }
}
