//! What the client needs to know of an object: who it is, and how its kind is served.
//!
//! Every `k8s-openapi` kind is an [`Object`] and a [`Kind`] already. A hot path declares a
//! slim struct with only the fields it reads and a [`SlimMeta`], and makes it one with
//! [`slim_kind!`](crate::slim_kind).

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope};
use meta::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How a kind is served: what paths and list requests are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceInfo {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    /// Empty where it does not matter (dynamic access by resource).
    pub kind: Cow<'static, str>,
    /// The resource's name in URLs.
    pub plural: Cow<'static, str>,
    pub namespaced: bool,
}

impl ResourceInfo {
    /// For constants.
    pub const fn of(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// For resources found by discovery.
    pub fn dynamic(gvr: &GroupVersionResource, kind: &str, namespaced: bool) -> Self {
        Self {
            group: gvr.group.clone().into(),
            version: gvr.version.clone().into(),
            kind: kind.to_owned().into(),
            plural: gvr.resource.clone().into(),
            namespaced,
        }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.group, &*self.version, &*self.plural)
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }

    pub fn api_version(&self) -> String {
        GroupVersion::new(&*self.group, &*self.version).to_string()
    }
}

/// Something with a name that can be read from the API.
pub trait Object: DeserializeOwned + Send + Sync + 'static {
    fn name(&self) -> &str;
    /// Empty for cluster-scoped objects.
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn resource_version(&self) -> &str;

    /// `namespace/name`, or the name alone.
    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }

    /// Drops what no one reads, before an informer keeps the object. `k8s-openapi` kinds lose
    /// their `managedFields`, which are often the largest part.
    fn trim(&mut self) {}
}

/// An [`Object`] whose kind is known at compile time.
pub trait Kind: Object {
    const RESOURCE: ResourceInfo;
}

impl<T> Object for T
where
    T: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }
    fn resource_version(&self) -> &str {
        self.metadata()
            .resource_version
            .as_deref()
            .unwrap_or_default()
    }
    fn trim(&mut self) {
        self.metadata_mut().managed_fields = None;
    }
}

impl<T> Kind for T
where
    T: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
    T::Scope: Scope,
{
    const RESOURCE: ResourceInfo = ResourceInfo::of(
        T::GROUP,
        T::VERSION,
        T::KIND,
        T::URL_PATH_SEGMENT,
        T::Scope::NAMESPACED,
    );
}

/// The scopes of things that have their own path.
pub trait Scope {
    const NAMESPACED: bool;
}
impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}
impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

/// `namespace/name`, or `name` alone for cluster-scoped objects: what caches and work queues
/// are keyed by. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() {
            return Self(name.into());
        }
        Self([namespace, "/", name].concat().into())
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(ns, _)| ns)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ObjectKey {
    fn from(s: &str) -> Self {
        Self(s.into())
    }
}
impl Borrow<str> for ObjectKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The metadata that most readers need, and nothing that is large. Strings are empty when absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimMeta {
    pub name: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

/// Makes a struct with a field `metadata: SlimMeta` an [`Object`] and a [`Kind`].
///
/// ```
/// use client::{Kind, SlimMeta, slim_kind};
///
/// #[derive(serde::Deserialize)]
/// struct SlimService {
///     metadata: SlimMeta,
/// }
/// slim_kind!(SlimService, "", "v1", "Service", "services", namespaced);
/// assert!(SlimService::RESOURCE.namespaced);
/// ```
#[macro_export]
macro_rules! slim_kind {
    (@scope namespaced) => {
        true
    };
    (@scope cluster) => {
        false
    };
    ($ty:ty, $group:literal, $version:literal, $kind:literal, $plural:literal, $scope:ident) => {
        $crate::slim_object!($ty);
        impl $crate::Kind for $ty {
            const RESOURCE: $crate::ResourceInfo = $crate::ResourceInfo::of(
                $group,
                $version,
                $kind,
                $plural,
                $crate::slim_kind!(@scope $scope),
            );
        }
    };
}

/// Makes a type an [`Object`] whose field `metadata` has the four fields that say who it is:
/// [`SlimMeta`], [`Identity`] or another that has more. `trim` is [`Object::trim`].
#[macro_export]
macro_rules! slim_object {
    ($ty:ty $(, trim: $trim:path)?) => {
        impl $crate::Object for $ty {
            fn name(&self) -> &str {
                &self.metadata.name
            }
            fn namespace(&self) -> &str {
                &self.metadata.namespace
            }
            fn uid(&self) -> &str {
                &self.metadata.uid
            }
            fn resource_version(&self) -> &str {
                &self.metadata.resource_version
            }
            $(fn trim(&mut self) {
                $trim(self)
            })?
        }
    };
}

/// Who an object is, when nothing else of its metadata is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    pub name: Box<str>,
    pub namespace: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
}

/// Any object, reduced to its metadata (`PartialObjectMetadata`): what the garbage collector
/// and the namespace controller watch of every resource. The server does the reducing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialObject {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
}

impl Object for PartialObject {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
    fn resource_version(&self) -> &str {
        self.metadata
            .resource_version
            .as_deref()
            .unwrap_or_default()
    }
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

/// Any object, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dynamic(pub serde_json::Value);

impl Dynamic {
    fn metadata(&self, field: &str) -> &str {
        self.0["metadata"][field].as_str().unwrap_or_default()
    }
}

impl Object for Dynamic {
    fn name(&self) -> &str {
        self.metadata("name")
    }
    fn namespace(&self) -> &str {
        self.metadata("namespace")
    }
    fn uid(&self) -> &str {
        self.metadata("uid")
    }
    fn resource_version(&self) -> &str {
        self.metadata("resourceVersion")
    }
    fn trim(&mut self) {
        if let Some(metadata) = self.0.get_mut("metadata").and_then(|m| m.as_object_mut()) {
            metadata.remove("managedFields");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Node, Pod};

    #[test]
    fn openapi_kinds_are_kinds() {
        assert_eq!(
            Pod::RESOURCE,
            ResourceInfo::of("", "v1", "Pod", "pods", true)
        );
        assert_eq!(
            <Node as Kind>::RESOURCE.gvr(),
            GroupVersionResource::new("", "v1", "nodes")
        );
        let pod: Pod =
            serde_json::from_str(r#"{"metadata":{"namespace":"a","name":"b"}}"#).unwrap();
        assert_eq!(pod.key().as_str(), "a/b");
    }

    #[test]
    fn keys_split() {
        let key = ObjectKey::new("ns", "n");
        assert_eq!((key.namespace(), key.name()), ("ns", "n"));
        let key = ObjectKey::new("", "node");
        assert_eq!((key.namespace(), key.name()), ("", "node"));
    }
}
