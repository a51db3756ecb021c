//! [`Api`]: the verbs of one resource.

mod options;
mod watch;

use std::borrow::Cow;
use std::marker::PhantomData;

use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use meta::GroupVersionResource;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use options::{DeleteOptions, ListOptions, Patch, PatchOptions, Propagation, WriteOptions};
pub use watch::{WatchEvent, WatchStream};

use crate::client::{Client, Request};
use crate::error::{Error, Result, optional};
use crate::object::{Dynamic, Kind, Object, PartialObject, ResourceInfo};
use crate::wire;
use options::{Query, encode};

const PARTIAL_OBJECT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// A page of objects.
#[derive(Debug, Clone)]
pub struct List<K> {
    pub metadata: ListMeta,
    pub items: Vec<K>,
    /// Objects that could not be decoded. They have been logged, and are not in `items`.
    pub undecodable: usize,
}

impl<K> List<K> {
    /// The revision that the list shows; watch from here.
    pub fn resource_version(&self) -> &str {
        self.metadata
            .resource_version
            .as_deref()
            .unwrap_or_default()
    }

    /// Where the next page begins, if there is one.
    pub fn continue_token(&self) -> Option<&str> {
        self.metadata.continue_.as_deref().filter(|t| !t.is_empty())
    }
}

/// The verbs of one resource, in one namespace, in all, or of the cluster.
///
/// Cheap to make and to clone. An `Api` over all namespaces lists, watches and deletes
/// collections; for a single object narrow it with [`Api::within`].
///
/// ```no_run
/// # async fn f(client: client::Client) -> client::Result<()> {
/// use client::{Api, DeleteOptions, ListOptions};
/// use k8s_openapi::api::core::v1::Pod;
///
/// let pods: Api<Pod> = Api::all(&client);
/// for pod in pods.list(&ListOptions::new().labels("app=web")).await?.items {
///     let ns = pod.metadata.namespace.unwrap_or_default();
///     let name = pod.metadata.name.unwrap_or_default();
///     pods.within(&ns).delete(&name, &DeleteOptions::new()).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Api<K> {
    client: Client,
    resource: Cow<'static, ResourceInfo>,
    namespace: String,
    /// Ask the server for metadata only.
    partial: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            partial: self.partial,
            kind: PhantomData,
        }
    }
}

impl<K: Kind> Api<K> {
    /// Cluster-scoped objects, or those of all namespaces.
    pub fn all(client: &Client) -> Self {
        Self::for_resource(client, K::RESOURCE)
    }

    /// The objects of one namespace.
    pub fn namespaced(client: &Client, namespace: &str) -> Self {
        Self::all(client).within(namespace)
    }
}

impl Api<Dynamic> {
    /// A resource known at run time only, as JSON.
    pub fn dynamic(client: &Client, gvr: &GroupVersionResource, namespaced: bool) -> Self {
        Self::for_resource(client, ResourceInfo::dynamic(gvr, "", namespaced))
    }
}

impl Api<PartialObject> {
    /// The metadata of any resource.
    pub fn metadata(client: &Client, gvr: &GroupVersionResource, namespaced: bool) -> Self {
        let mut api = Self::for_resource(client, ResourceInfo::dynamic(gvr, "", namespaced));
        api.partial = true;
        api
    }
}

impl<K: Object> Api<K> {
    /// The metadata of any resource, as a type that reads still less of it than
    /// [`PartialObject`].
    pub fn metadata_as(client: &Client, resource: ResourceInfo) -> Self {
        let mut api = Self::for_resource(client, resource);
        api.partial = true;
        api
    }
}

impl<K> Api<K> {
    /// As the resource says, whatever the type is.
    pub fn for_resource(client: &Client, resource: ResourceInfo) -> Self {
        Self {
            client: client.clone(),
            resource: Cow::Owned(resource),
            namespace: String::new(),
            partial: false,
            kind: PhantomData,
        }
    }

    /// The objects of one namespace (of none if the resource is cluster-scoped).
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        let mut api = self.clone();
        if self.resource.namespaced {
            namespace.clone_into(&mut api.namespace);
        }
        api
    }

    /// Empty for all namespaces and for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn resource(&self) -> &ResourceInfo {
        &self.resource
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    fn path(&self, name: &str, subresource: &str) -> String {
        let r = &*self.resource;
        let mut path = if r.group.is_empty() {
            format!("/api/{}", r.version)
        } else {
            format!("/apis/{}/{}", r.group, r.version)
        };
        if !self.namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(&encode(&self.namespace));
        }
        path.push('/');
        path.push_str(&r.plural);
        for part in [name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(&encode(part));
            }
        }
        path
    }

    /// The path of one object; refuses what would reach a collection by mistake.
    fn object_path(&self, name: &str, subresource: &str) -> Result<String> {
        if name.is_empty() {
            return Err(Error::Request("resource name may not be empty".to_owned()));
        }
        if self.resource.namespaced && self.namespace.is_empty() {
            return Err(Error::Request(
                "an empty namespace may not be set when a resource name is provided".to_owned(),
            ));
        }
        Ok(self.path(name, subresource))
    }

    fn request(&self, method: Method, path: String, name: &str) -> Request {
        let accept = if self.partial {
            PARTIAL_OBJECT
        } else {
            wire::accept(self.client.content_type(), &self.resource)
        };
        Request {
            accept: accept.to_owned(),
            about: (self.resource.group_resource(), name.to_owned()),
            ..Request::new(method, path)
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let (content_type, bytes) = self.client.fetch(request).await?;
        wire::decode(&self.resource, &content_type, &bytes)
    }
}

/// # Reading
impl<K: Object> Api<K> {
    pub async fn get(&self, name: &str) -> Result<K> {
        let path = self.object_path(name, "")?;
        self.answer(&self.request(Method::GET, path, name)).await
    }

    /// `None` if there is no such object.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        optional(self.get(name).await)
    }

    /// One page, or everything if no limit is set.
    pub async fn list(&self, options: &ListOptions) -> Result<List<K>> {
        let path = options.query(false).append_to(self.path("", ""));
        let mut request = self.request(Method::GET, path, "");
        if self.partial {
            request.accept = PARTIAL_LIST.to_owned();
        }
        let (content_type, bytes) = self.client.fetch(&request).await?;
        let list = wire::decode_list(&self.resource, &content_type, &bytes)?;
        Ok(List {
            metadata: list.metadata,
            items: list.items,
            undecodable: list.undecodable,
        })
    }

    /// All pages, each of `options.limit` objects (500 if not set).
    pub async fn list_pages(&self, options: &ListOptions) -> Result<List<K>> {
        let mut options = options.clone();
        options.limit.get_or_insert(500);
        let mut all = self.list(&options).await?;
        while let Some(token) = all.continue_token().map(str::to_owned) {
            // The token stands for the revision of the first page.
            options.resource_version = None;
            options.resource_version_match = None;
            options.continue_token = Some(token);
            let page = self.list(&options).await?;
            all.metadata = page.metadata;
            all.items.extend(page.items);
            all.undecodable += page.undecodable;
        }
        Ok(all)
    }

    /// Changes from `options.resource_version` on. The stream ends when the server ends it;
    /// informers do what follows then.
    pub async fn watch(&self, options: &ListOptions) -> Result<WatchStream<K>> {
        let path = options.query(true).append_to(self.path("", ""));
        let request = self.request(Method::GET, path, "");
        let response = self.client.send(&request).await?;
        Ok(WatchStream::new(
            self.client.clone(),
            self.resource.clone().into_owned(),
            response,
        ))
    }
}

/// # Writing
impl<K: Object + Serialize> Api<K> {
    /// The stored object comes back, with what the server has filled in.
    pub async fn create(&self, object: &K) -> Result<K> {
        self.create_with(object, &WriteOptions::default()).await
    }

    pub async fn create_with(&self, object: &K, options: &WriteOptions) -> Result<K> {
        if self.resource.namespaced && self.namespace.is_empty() {
            let own = self.within(object.namespace());
            if own.namespace.is_empty() {
                return Err(Error::Request(
                    "an empty namespace may not be set during creation".to_owned(),
                ));
            }
            return own
                .write(Method::POST, own.path("", ""), object, options)
                .await;
        }
        self.write(Method::POST, self.path("", ""), object, options)
            .await
    }

    /// Creates an object whose stored form nobody asks for: the answer is not decoded.
    pub async fn create_unread(&self, object: &K) -> Result<()> {
        let (content_type, bytes) =
            wire::encode(self.client.content_type(), &self.resource, object)?;
        let request = self
            .request(Method::POST, self.path("", ""), object.name())
            .body(content_type, bytes);
        self.client.fetch(&request).await.map(drop)
    }

    /// Replaces the object of the same name. With a `resourceVersion` in it, fails with a
    /// conflict if it has changed since.
    pub async fn replace(&self, object: &K) -> Result<K> {
        self.replace_subresource("", object).await
    }

    /// Replaces the object's status only.
    pub async fn replace_status(&self, object: &K) -> Result<K> {
        self.replace_subresource("status", object).await
    }

    /// Replaces through a subresource that speaks the object's own kind (`status`, `approval`, `finalize`).
    pub async fn replace_subresource(&self, subresource: &str, object: &K) -> Result<K> {
        let own = self.own(object);
        let path = own.object_path(object.name(), subresource)?;
        own.write(Method::PUT, path, object, &WriteOptions::default())
            .await
    }

    /// Where the object itself lives.
    fn own(&self, object: &K) -> Self {
        if self.namespace.is_empty() {
            self.within(object.namespace())
        } else {
            self.clone()
        }
    }

    async fn write(
        &self,
        method: Method,
        path: String,
        object: &K,
        options: &WriteOptions,
    ) -> Result<K> {
        let (content_type, bytes) =
            wire::encode(self.client.content_type(), &self.resource, object)?;
        let path = options.query().append_to(path);
        let request = self
            .request(method, path, object.name())
            .body(content_type, bytes);
        self.answer(&request).await
    }
}

/// # Changing and deleting
impl<K: Object> Api<K> {
    pub async fn patch(&self, name: &str, patch: &Patch, options: &PatchOptions) -> Result<K> {
        self.patch_subresource(name, "", patch, options).await
    }

    pub async fn patch_status(
        &self,
        name: &str,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<K> {
        self.patch_subresource(name, "status", patch, options).await
    }

    /// Patches through a subresource that speaks the object's own kind.
    pub async fn patch_subresource(
        &self,
        name: &str,
        subresource: &str,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<K> {
        self.answer(&self.patch_request(name, subresource, patch, options)?)
            .await
    }

    /// Patches an object whose new form nobody asks for: the answer is not decoded.
    pub async fn patch_unread<B: Serialize>(
        &self,
        name: &str,
        subresource: &str,
        patch: &Patch<B>,
        options: &PatchOptions,
    ) -> Result<()> {
        let request = self.patch_request(name, subresource, patch, options)?;
        self.client.fetch(&request).await.map(drop)
    }

    fn patch_request<B: Serialize>(
        &self,
        name: &str,
        subresource: &str,
        patch: &Patch<B>,
        options: &PatchOptions,
    ) -> Result<Request> {
        let mut query: Query = options.write.query();
        if options.force {
            query.add("force", "true");
        }
        let path = query.append_to(self.object_path(name, subresource)?);
        let bytes = json(patch.value(), "patch")?;
        Ok(self
            .request(Method::PATCH, path, name)
            .body(patch.content_type(), bytes.into()))
    }

    /// Begins the deletion: objects with finalizers or a grace period remain for a while.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<()> {
        let path = self.object_path(name, "")?;
        self.delete_path(path, name, options).await
    }

    /// Deletes everything that `which` selects.
    pub async fn delete_collection(
        &self,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<()> {
        let path = which.query(false).append_to(self.path("", ""));
        self.delete_path(path, "", options).await
    }

    async fn delete_path(&self, path: String, name: &str, options: &DeleteOptions) -> Result<()> {
        let bytes = json(&options.body(), "DeleteOptions")?;
        let request = Request {
            accept: wire::JSON.to_owned(),
            ..self
                .request(Method::DELETE, path, name)
                .body(wire::JSON, bytes.into())
        };
        self.client.fetch(&request).await.map(drop)
    }
}

/// # Subresources of another kind
impl<K> Api<K> {
    /// POSTs to a subresource and returns its answer of the same kind: `token`, `eviction` dry runs.
    pub async fn create_subresource<B>(&self, name: &str, subresource: &str, body: &B) -> Result<B>
    where
        B: k8s_openapi::Resource + Serialize + DeserializeOwned,
    {
        let (request, resource) = self.subresource_request(name, subresource, body)?;
        let (content_type, bytes) = self.client.fetch(&request).await?;
        wire::decode(&resource, &content_type, &bytes)
    }

    /// POSTs to a subresource that answers with a mere success: `binding`, `eviction`.
    pub async fn post_subresource<B>(&self, name: &str, subresource: &str, body: &B) -> Result<()>
    where
        B: k8s_openapi::Resource + Serialize,
    {
        let (request, _) = self.subresource_request(name, subresource, body)?;
        self.client.fetch(&request).await.map(drop)
    }

    fn subresource_request<B>(
        &self,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<(Request, ResourceInfo)>
    where
        B: k8s_openapi::Resource + Serialize,
    {
        let resource = ResourceInfo::of(B::GROUP, B::VERSION, B::KIND, B::URL_PATH_SEGMENT, true);
        let (content_type, bytes) = wire::encode(self.client.content_type(), &resource, body)?;
        let path = self.object_path(name, subresource)?;
        let request = self
            .request(Method::POST, path, name)
            .body(content_type, bytes);
        Ok((request, resource))
    }
}

fn json(value: &impl Serialize, what: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Encode {
        what: what.to_owned(),
        message: e.to_string(),
    })
}
