//! The generic registry (`registry/generic/registry.Store`): create, get, list, watch,
//! update and delete of one resource, whatever its kind, on storage and the watch cache.
//!
//! Reads hand out the cache's bytes. Writes work on a tree of the storage version:
//! read, change, check, and write in one transaction on the key's revision; when that
//! fails because somebody else wrote, begin again with what is there now.
//!
//! What must not be here: HTTP, rules of one kind (strategies), other versions than the
//! stored one.

mod create;
mod delete;
pub mod errors;
mod list;
mod modify;
#[cfg(test)]
mod tests;
mod update;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use component::aside::LONG;
use jiff::Timestamp;
use meta::{GroupResource, Status};
use parking_lot::Mutex;
use schema::{Message, Resource};
use serde_json::{Value, json};

pub use list::Listed;
pub use update::{Change, Update};

use super::as_read;
use super::managed::FieldManager;
use super::object_meta::{meta, meta_mut, set};
use super::strategy::{Context, Hooks, Strategy};
use crate::admission;
use crate::authn::User;
use crate::storage::cache::{At, Object, ResourceCache};
use crate::storage::keys::{self, Keys};
use crate::storage::{KeyValue, Revision, Storage, StorageError};
use errors::During;

/// What every store works with; one per server.
#[derive(Clone)]
pub struct Env {
    pub storage: Arc<dyn Storage>,
    pub keys: Keys,
    /// The form in which objects are written; both are read.
    pub media: StorageMedia,
    pub admission: Arc<admission::Admission>,
    /// Deletions of one collection that are under way at the same time; at least one.
    pub collection_workers: usize,
    /// `IPv4` or `IPv6`: the first that Services have addresses of.
    pub primary_family: &'static str,
    pub now: fn() -> Timestamp,
    pub random: fn() -> u64,
}

impl Env {
    /// A random (version 4) UUID as text.
    fn uid(&self) -> String {
        let bits = (u128::from((self.random)()) << 64) | u128::from((self.random)());
        uuid::Builder::from_u128(bits)
            .with_variant(uuid::Variant::RFC4122)
            .with_version(uuid::Version::Random)
            .into_uuid()
            .to_string()
    }
}

/// The `Warning` headers that an answer will carry, in order, without repetitions.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Once>);

impl Warnings {
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.0.lock().push(text);
        }
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock()).in_order
    }
}

/// Texts in order, each once.
#[derive(Debug, Default)]
pub struct Once {
    in_order: Vec<String>,
    known: HashSet<String>,
}

impl Once {
    pub fn push(&mut self, text: String) {
        if !self.known.contains(&text) {
            self.known.insert(text.clone());
            self.in_order.push(text);
        }
    }
}

/// A write, as seen by the registry: on whose behalf, on what, and how.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub user: &'a User,
    /// The group of the version that the client speaks.
    pub group: &'a str,
    /// Empty for a cluster-scoped object.
    pub namespace: &'a str,
    /// Empty for a create.
    pub name: &'a str,
    pub subresource: &'a str,
    pub dry_run: bool,
    pub warnings: &'a Warnings,
    /// Who comes to own what is written; `None` where the server changes an object on its own
    /// account, whose fields stay whose they are.
    pub fields: Option<FieldManager<'a>>,
}

impl<'a> Write<'a> {
    /// What of the object itself is written. A scale is none of its parts: it writes the whole.
    fn part(&self) -> &'a str {
        match self.subresource {
            "scale" => "",
            part => part,
        }
    }

    /// Notes in `object` which of its fields the writer owns now.
    fn own(&self, live: Option<&Value>, object: &mut Value, now: Timestamp) {
        match self.fields {
            Some(fields) => fields.note(live, object, now),
            None => {
                let there = live.and_then(|live| meta(live).get("managedFields"));
                set(meta_mut(object), "managedFields", there.cloned());
            }
        }
    }
}

/// An object that has been written (or would have been, in a dry run).
#[derive(Debug)]
pub struct Written {
    /// The tree, with its new resourceVersion.
    pub object: Value,
    /// As it lies in etcd, to be answered like any read; `None` where nothing was stored.
    pub stored: Option<Arc<Object>>,
    pub created: bool,
}

/// An object as it is in storage, for a write to start from.
#[derive(Debug, Clone)]
struct Current {
    object: Value,
    bytes: Bytes,
    revision: Revision,
    /// Read from storage, not from the cache, which may lag behind.
    fresh: bool,
}

/// One resource, in the version that it is stored in.
pub struct Store {
    pub resource: &'static Resource,
    pub cache: Arc<ResourceCache>,
    pub strategy: Box<dyn Strategy>,
    hooks: OnceLock<Arc<dyn Hooks>>,
    env: Arc<Env>,
}

impl Store {
    pub fn new(
        resource: &'static Resource,
        cache: Arc<ResourceCache>,
        strategy: Box<dyn Strategy>,
        env: Arc<Env>,
    ) -> Store {
        Store {
            resource,
            cache,
            strategy,
            hooks: OnceLock::new(),
            env,
        }
    }

    /// Gives the kind its hooks, once, before anything is written. They come later than the
    /// store because they use other stores.
    pub fn set_hooks(&self, hooks: Arc<dyn Hooks>) {
        if self.hooks.set(hooks).is_err() {
            tracing::error!(resource = self.resource.plural, "has hooks already");
        }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.resource.group, self.resource.plural)
    }

    fn group_kind(&self) -> meta::GroupKind {
        meta::GroupKind::new(self.resource.group, self.resource.kind)
    }

    fn key(&self, namespace: &str, name: &str) -> String {
        self.env
            .keys
            .object(self.resource.storage_prefix, namespace, name)
    }

    fn context<'a>(&self, write: &Write<'a>, verb: &'a str) -> Context<'a> {
        Context {
            user: write.user,
            verb,
            group: write.group,
            now: (self.env.now)(),
            dry_run: write.dry_run,
            subresource: write.part(),
            warnings: Some(write.warnings),
        }
    }

    /// One object. `resource_version` is the request's, empty for the newest.
    pub async fn get(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
    ) -> Result<Arc<Object>, Status> {
        let at = match super::options::parse_resource_version(resource_version)? {
            0 if resource_version.is_empty() => At::Latest,
            0 => At::Any,
            n => At::NotOlderThan(n),
        };
        self.cache
            .get(&keys::relative(namespace, name), at)
            .await
            .and_then(|found| found.ok_or_else(|| StorageError::NotFound(name.to_owned())))
            .map_err(|e| errors::status(e, &self.group_resource(), name, During::Get))
    }

    /// About how many bytes an object has, if there is one.
    pub fn size_of(&self, namespace: &str, name: &str) -> Option<usize> {
        self.cache.size_of(&keys::relative(namespace, name))
    }

    /// One object's tree as the newest state has it.
    pub async fn get_tree(&self, namespace: &str, name: &str) -> Result<Value, Status> {
        let object = self.get(namespace, name, "").await?;
        self.tree(object.bytes(), object.revision())
    }

    /// The tree of stored bytes.
    pub fn tree(&self, bytes: &[u8], revision: Revision) -> Result<Value, Status> {
        let mut object = decode(self.resource, bytes).map_err(Status::internal)?;
        set_resource_version(&mut object, revision);
        Ok(object)
    }

    /// The bytes that etcd gets of a tree.
    fn stored_bytes(&self, object: &Value) -> Result<Bytes, Status> {
        encode_as(self.env.media, self.resource, object)
            .map(Bytes::from)
            .map_err(Status::internal)
    }

    /// Before these bytes are written. To make many of them took long: if nobody waits for them any
    /// more, now is the last time to end without a write of which nobody knows whether it was done.
    async fn last_call(&self, bytes: &[u8]) {
        if bytes.len() > LONG {
            tokio::task::yield_now().await;
        }
    }

    /// What has just been written, as reads will have it.
    fn as_stored(&self, object: &Value, bytes: &[u8], revision: Revision) -> Option<Arc<Object>> {
        let m = meta(object);
        let key = keys::relative(m.namespace(), m.name());
        self.cache.written(&key, bytes, revision)
    }

    /// Where a write starts: what the cache has (it is usually right and costs nothing), or
    /// what storage has.
    async fn current(
        &self,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Option<Current>, StorageError> {
        if fresh {
            let key = self.key(namespace, name);
            let found = self.env.storage.get(&key, 0).await?;
            return found.map(|kv| self.current_of(kv)).transpose();
        }
        let key = keys::relative(namespace, name);
        let Some(object) = self.cache.get(&key, At::Any).await? else {
            return Ok(None);
        };
        Ok(Some(Current {
            object: self
                .tree(object.bytes(), object.revision())
                .map_err(|e| StorageError::Internal(e.message))?,
            bytes: object.bytes().clone(),
            revision: object.revision(),
            fresh: false,
        }))
    }

    fn current_of(&self, kv: KeyValue) -> Result<Current, StorageError> {
        let mut object = as_read::read(self.resource, self.env.primary_family, &kv.value)
            .map_err(|e| StorageError::Internal(e.to_string()))?;
        set_resource_version(&mut object, kv.mod_revision);
        Ok(Current {
            object,
            bytes: kv.value,
            revision: kv.mod_revision,
            fresh: true,
        })
    }

    /// Whether writes [take more](Hooks::takes_more) than their objects.
    pub fn takes_more(&self) -> bool {
        self.hooks.get().is_some_and(|hooks| hooks.takes_more())
    }

    /// Asks the admission plugins that may still change the object.
    async fn admit(
        &self,
        write: &Write<'_>,
        operation: admission::Operation,
        name: &str,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let attributes = self.attributes(write, operation, name, old);
        self.env.admission.mutate(&attributes, object).await
    }

    /// Asks the admission plugins that have the last word.
    async fn validate_admission(
        &self,
        write: &Write<'_>,
        operation: admission::Operation,
        name: &str,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let attributes = self.attributes(write, operation, name, old);
        self.env.admission.validate(&attributes, object).await
    }

    /// Admission of an object that is posted to a subresource of this resource (a Binding,
    /// an Eviction) and not stored itself.
    pub async fn admit_subresource(
        &self,
        write: &Write<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        self.mutate_subresource(write, object).await?;
        self.validate_subresource(write, object).await
    }

    /// The first half of [`Store::admit_subresource`].
    pub async fn mutate_subresource(
        &self,
        write: &Write<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        let operation = admission::Operation::Create;
        self.admit(write, operation, write.name, Some(object), None)
            .await
    }

    /// The second half of [`Store::admit_subresource`].
    pub async fn validate_subresource(
        &self,
        write: &Write<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let operation = admission::Operation::Create;
        self.validate_admission(write, operation, write.name, Some(object), None)
            .await
    }

    fn attributes<'a>(
        &self,
        write: &Write<'a>,
        operation: admission::Operation,
        name: &'a str,
        old: Option<&'a Value>,
    ) -> admission::Attributes<'a> {
        // A namespace is in itself, as far as admission goes.
        let in_itself = self.resource.group.is_empty() && self.resource.plural == "namespaces";
        admission::Attributes {
            operation,
            resource: self.resource,
            subresource: write.subresource,
            namespace: if in_itself { name } else { write.namespace },
            name,
            user: write.user,
            old,
            dry_run: write.dry_run,
            warnings: write.warnings,
        }
    }
}

/// Reads stored bytes as a tree of the resource's storage version.
pub fn decode(resource: &'static Resource, bytes: &[u8]) -> codec::Result<Value> {
    decode_as(resource.message, bytes)
}

/// [`decode`], of any version of a kind.
pub fn decode_as(message: &'static Message, bytes: &[u8]) -> codec::Result<Value> {
    if codec::envelope::is_enveloped(bytes) {
        let unknown = codec::envelope::decode(bytes)?;
        return codec::tree::from_proto_with_type_meta(
            message,
            unknown.raw,
            unknown.api_version,
            unknown.kind,
        );
    }
    let decoded = codec::decode::json(message, bytes, codec::decode::Strictness::Ignore)?;
    Ok(decoded.value)
}

/// Reads some of the members of stored bytes; all of them when they are JSON.
pub fn decode_part(
    resource: &'static Resource,
    bytes: &[u8],
    part: codec::serde_pb::Part,
) -> codec::Result<Value> {
    if !codec::envelope::is_enveloped(bytes) {
        return decode(resource, bytes);
    }
    let raw = codec::envelope::decode(bytes)?.raw;
    codec::serde_pb::part_from_slice(resource.message, raw, part)
}

/// Whether two states of an object are the same for who reads only these members. States that
/// are not protobuf count as different.
pub fn is_same_part(
    resource: &'static Resource,
    one: &[u8],
    other: &[u8],
    part: codec::serde_pb::Part,
) -> bool {
    let raw = |bytes| codec::envelope::decode(bytes).map(|unknown| unknown.raw);
    match (raw(one), raw(other)) {
        (Ok(one), Ok(other)) => part.is_same(resource.message, one, other).unwrap_or(false),
        _ => false,
    }
}

/// `--storage-media-type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageMedia {
    Protobuf,
    Json,
}

/// Writes a tree as etcd holds it unless it is told otherwise.
pub fn encode(resource: &'static Resource, object: &Value) -> codec::Result<Vec<u8>> {
    encode_as(StorageMedia::Protobuf, resource, object)
}

/// Writes a tree as etcd shall hold it. The resource version is etcd's to say.
fn encode_as(
    media: StorageMedia,
    resource: &'static Resource,
    object: &Value,
) -> codec::Result<Vec<u8>> {
    let json = resource.storage_json || media == StorageMedia::Json;
    let bare;
    let object = if json || meta(object).get("selfLink").is_some() {
        let mut copy = object.clone();
        let m = meta_mut(&mut copy);
        m.remove("resourceVersion");
        m.remove("selfLink");
        bare = copy;
        &bare
    } else {
        object
    };
    if json {
        let mut out = Vec::new();
        codec::tree::to_json(resource.message, object, &mut out)?;
        out.push(b'\n');
        return Ok(out);
    }
    let mut raw = Vec::new();
    codec::tree::to_proto(resource.message, object, &mut raw)?;
    let mut stripped = Vec::new();
    if !meta(object).resource_version().is_empty() {
        codec::meta_splice::strip_resource_version(&raw, &mut stripped)?;
        raw = stripped;
    }
    Ok(codec::envelope::encode(
        resource.storage_version,
        resource.kind,
        &raw,
    ))
}

fn set_resource_version(object: &mut Value, revision: Revision) {
    meta_mut(object).insert("resourceVersion".into(), json!(revision.to_string()));
}

/// Makes the object's namespace the request's (`rest.EnsureObjectNamespaceMatchesRequestNamespace`).
fn ensure_namespace(object: &mut Value, expected: &str) -> Result<(), Status> {
    let own = meta(object).namespace();
    if own == expected {
        return Ok(());
    }
    if own.is_empty() || expected.is_empty() {
        super::object_meta::set_text(meta_mut(object), "namespace", expected);
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// Takes owners out that are named twice, and warns of them.
pub fn warn_duplicate_owners(object: &mut Value, warnings: &Warnings, after_admission: bool) {
    let duplicates = super::object_meta::dedup_owner_references(object);
    if duplicates.is_empty() {
        return;
    }
    let when = if after_admission {
        "after mutating admission happens"
    } else {
        ""
    };
    let space = if when.is_empty() { "" } else { " " };
    warnings.add(format!(
        ".metadata.ownerReferences contains duplicate entries{space}{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        duplicates.join(", ")
    ));
}
