//! Create: names and system fields, admission, validation, one transaction.

use bytes::Bytes;
use meta::Status;
use serde_json::Value;

use super::super::managed::drop_managers;
use super::super::object_meta::{fill_system_fields, meta, meta_mut, wipe_system_fields};
use super::super::strategy::{Undo, undo_failed};
use super::errors::During;
use super::warn_duplicate_owners;
use super::{Store, Write, Written, ensure_namespace, errors, set_resource_version};
use crate::admission::Operation;
use crate::storage::{Revision, StorageError};

/// How many names are tried for `generateName`. Eight keep a collision below 0.1 % until a
/// million objects share a prefix.
const NAME_ATTEMPTS: usize = 8;

impl Store {
    /// Creates an object. `object` is a tree of the storage version with defaults applied.
    pub async fn create(&self, write: &Write<'_>, mut object: Value) -> Result<Written, Status> {
        wipe_system_fields(&mut object);
        ensure_namespace(&mut object, write.namespace)?;
        write.own(None, &mut object, (self.env.now)());
        warn_duplicate_owners(&mut object, write.warnings, false);
        let name = meta(&object).name().to_owned();
        self.admit(write, Operation::Create, &name, Some(&mut object), None)
            .await?;
        warn_duplicate_owners(&mut object, write.warnings, true);

        let generated = name.is_empty() && !meta(&object).generate_name().is_empty();
        for _ in 1..NAME_ATTEMPTS {
            if !generated {
                break;
            }
            match self.create_once(write, object.clone()).await {
                Err(e) if e.is_already_exists() => {}
                done => return done,
            }
        }
        self.create_once(write, object).await
    }

    async fn create_once(&self, write: &Write<'_>, mut object: Value) -> Result<Written, Status> {
        fill_system_fields(&mut object, (self.env.now)(), &self.env.uid());
        let prefix = meta(&object).generate_name().to_owned();
        if meta(&object).name().is_empty() && !prefix.is_empty() {
            let name = meta::name_generator::generate_name(&prefix, self.env.random);
            meta_mut(&mut object).insert("name".into(), name.into());
        }
        let (mut object, undo) = self.prepared(write, object).await?;
        let created = self.insert(write, &mut object).await;
        match created {
            Ok(stored) => {
                match &stored {
                    Some((_, revision)) => set_resource_version(&mut object, *revision),
                    None => {
                        if let Some(undo) = undo {
                            undo().await;
                        }
                        meta_mut(&mut object).remove("resourceVersion");
                    }
                }
                Ok(self.created(object, stored))
            }
            Err(e) => {
                undo_failed(undo, &e).await;
                Err(e)
            }
        }
    }

    /// `stored` is what [`Store::insert`] said.
    pub(super) fn created(&self, object: Value, stored: Option<(Bytes, Revision)>) -> Written {
        let stored = stored.and_then(|(bytes, revision)| self.as_stored(&object, &bytes, revision));
        Written {
            object,
            stored,
            created: true,
        }
    }

    /// Everything that comes before the write itself; also of a create by PUT.
    pub(super) async fn prepared(
        &self,
        write: &Write<'_>,
        mut object: Value,
    ) -> Result<(Value, Option<Undo>), Status> {
        let cx = self.context(write, "create");
        // Hooks note whose what they take is.
        ensure_namespace(&mut object, write.namespace)?;
        // The hooks are those of the object itself: a Service that comes by its status has no
        // addresses.
        let hooks = self.hooks.get().filter(|_| write.subresource.is_empty());
        let undo = match hooks {
            Some(hooks) => hooks.begin_create(&cx, &mut object).await?,
            None => None,
        };
        let checked = self.checked(write, &mut object).await;
        match checked {
            Ok(()) => Ok((object, undo)),
            Err(e) => {
                if let Some(undo) = undo {
                    undo().await;
                }
                Err(e)
            }
        }
    }

    async fn checked(&self, write: &Write<'_>, object: &mut Value) -> Result<(), Status> {
        let cx = self.context(write, "create");
        self.strategy.prepare_create(&cx, object);
        let errs = self.strategy.validate_create(&cx, object);
        let name = meta(object).name().to_owned();
        if !errs.is_empty() {
            return Err(Status::invalid(&self.group_kind(), &name, &errs));
        }
        let r = self.resource;
        for warning in api::warnings::on_create(r.group, r.kind, object) {
            write.warnings.add(warning);
        }
        self.validate_admission(write, Operation::Create, &name, Some(object), None)
            .await
    }

    /// The transaction: what was written and when; `None` in a dry run.
    pub(super) async fn insert(
        &self,
        write: &Write<'_>,
        object: &mut Value,
    ) -> Result<Option<(Bytes, Revision)>, Status> {
        let m = meta(object);
        if !write.dry_run && m.resource_version().parse::<u64>().is_ok_and(|v| v != 0) {
            // An error that upstream gives no reason.
            return Err(Status {
                code: 500,
                message: "resourceVersion should not be set on objects to be created".to_owned(),
                ..Status::default()
            });
        }
        let name = m.name().to_owned();
        let key = self.key(write.namespace, &name);
        let written = if write.dry_run {
            match self.env.storage.get(&key, 0).await {
                Ok(None) => Ok(None),
                Ok(Some(_)) => Err(StorageError::Exists(key.clone())),
                Err(e) => Err(e),
            }
        } else {
            let mut bytes = self.stored_bytes(object)?;
            self.last_call(&bytes).await;
            let ttl = self.strategy.ttl(object);
            let storage = &self.env.storage;
            let mut written = storage.create(&key, bytes.clone(), ttl).await;
            if matches!(written, Err(StorageError::TooLarge)) && drop_managers(object) {
                bytes = self.stored_bytes(object)?;
                written = storage.create(&key, bytes.clone(), ttl).await;
            }
            written.map(|revision| Some((bytes, revision)))
        };
        match written {
            Ok(stored) => Ok(stored),
            Err(StorageError::Exists(_)) => Err(self.exists(write, object).await),
            Err(e) => Err(errors::status(
                e,
                &self.group_resource(),
                &name,
                During::Create,
            )),
        }
    }

    /// 409, with a word about why when the object is on its way out.
    async fn exists(&self, write: &Write<'_>, object: &Value) -> Status {
        let m = meta(object);
        let resource = self.group_resource();
        let mut status = if m.generate_name().is_empty() {
            Status::already_exists(&resource, m.name())
        } else {
            Status::generate_name_conflict(&resource, m.name(), 1)
        };
        if let Ok(Some(there)) = self.current(write.namespace, m.name(), true).await
            && meta(&there.object).is_deleting()
        {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }
}
