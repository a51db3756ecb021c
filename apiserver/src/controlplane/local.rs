//! Reads and writes objects as the API server itself (`system:apiserver`), without HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use meta::Status;
use serde_json::{Value, json};

use crate::authn::{ALL_AUTHENTICATED, MASTERS, User};
use crate::authz::bootstrap::reconcile::Objects;
use crate::registry::Registry;
use crate::registry::convert::api_version;
use crate::registry::managed::FieldManager;
use crate::registry::object_meta::meta;
use crate::registry::options::DeleteOptions;
use crate::registry::store::{Store, Update, Warnings, Write};
use crate::storage::cache::{At, ListQuery, Selector};

pub struct Local {
    registry: Arc<Registry>,
    user: User,
    warnings: Warnings,
}

impl Local {
    pub fn new(registry: Arc<Registry>) -> Local {
        Local {
            registry,
            user: User {
                name: "system:apiserver".to_owned(),
                uid: String::new(),
                groups: vec![ALL_AUTHENTICATED.to_owned(), MASTERS.to_owned()],
                extra: BTreeMap::new(),
            },
            warnings: Warnings::default(),
        }
    }

    /// Whether any resource of this group version is served.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.registry.serves(group, version)
    }

    fn store(&self, group: &str, plural: &str) -> Result<&Arc<Store>, Status> {
        self.registry
            .store(group, plural)
            .ok_or_else(Status::path_not_found)
    }

    fn write<'a>(&'a self, store: &Store, namespace: &'a str, name: &'a str) -> Write<'a> {
        Write {
            user: &self.user,
            group: "",
            namespace,
            name,
            subresource: "",
            dry_run: false,
            warnings: &self.warnings,
            fields: Some(FieldManager::server(store.resource)),
        }
    }

    pub async fn get(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        match self.store(group, plural)?.get_tree(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Defaults are applied.
    pub async fn create(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Status> {
        let store = self.store(group, plural)?;
        object["apiVersion"] = json!(api_version(store.resource));
        object["kind"] = json!(store.resource.kind);
        api::defaults::apply(store.resource.message, &mut object);
        let write = self.write(store, namespace, "");
        Ok(store.create(&write, object).await?.object)
    }

    /// The object carries the resourceVersion that it replaces.
    pub async fn update(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Status> {
        let store = self.store(group, plural)?;
        api::defaults::apply(store.resource.message, &mut object);
        let name = meta(&object).name().to_owned();
        let update = Update {
            change: &|_: Option<&Value>| Ok(object.clone()),
            verb: "update",
            uid: None,
            force_create: false,
            noted: false,
            may_create: &|| Ok(()),
        };
        let write = self.write(store, namespace, &name);
        Ok(store.update(&write, &update).await?.object)
    }

    pub async fn delete(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let store = self.store(group, plural)?;
        let write = self.write(store, namespace, name);
        store
            .delete(&write, &DeleteOptions::default())
            .await
            .map(drop)
    }

    /// What the cache has of a namespace's objects with the labels.
    pub async fn list(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        labels: &str,
    ) -> Result<Vec<Value>, Status> {
        let store = self.store(group, plural)?;
        let selector = Selector {
            namespace: namespace.to_owned(),
            labels: meta::labels::Selector::parse(labels).map_err(Status::internal)?,
            ..Selector::default()
        };
        let query = ListQuery {
            selector: &selector,
            at: At::Any,
            limit: 0,
            start: "",
        };
        let list = store.cache.list(&query).await.map_err(Status::internal)?;
        let trees = list.objects.iter();
        trees
            .map(|object| store.tree(object.bytes(), object.revision()))
            .collect()
    }

    /// Writes what `change` makes of an object.
    pub async fn modify(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        change: &(dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync),
    ) -> Result<Value, Status> {
        let store = self.store(group, plural)?;
        let manager = FieldManager::server(store.resource);
        store
            .modify_as(&manager, namespace, name, false, change)
            .await
    }

    /// Applies a status to a cluster-scoped object, as one of the server's controllers.
    pub async fn apply_status(
        &self,
        (group, plural): (&str, &str),
        name: &str,
        manager: &str,
        status: &Value,
    ) -> Result<(), Status> {
        let store = self.store(group, plural)?;
        let applied = json!({
            "apiVersion": api_version(store.resource),
            "kind": store.resource.kind,
            "metadata": {"name": name},
            "status": status,
        });
        let fields = FieldManager {
            subresource: "status",
            manager,
            ..FieldManager::server(store.resource)
        };
        let now = jiff::Timestamp::now();
        store
            .modify("", name, false, &|object| {
                *object = fields.apply(Some(object), &applied, true, now)?;
                Ok(())
            })
            .await
            .map(drop)
    }

    /// Creates what is not there; somebody else having done it meanwhile is as good.
    pub async fn ensure(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        object: Value,
    ) -> Result<(), Status> {
        let name = meta(&object).name().to_owned();
        if self.get(group, plural, namespace, &name).await?.is_some() {
            return Ok(());
        }
        match self.create(group, plural, namespace, object).await {
            Err(e) if !e.is_already_exists() => Err(e),
            _ => Ok(()),
        }
    }
}

impl Objects for Local {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>, Status>> {
        Box::pin(Local::get(self, group, resource, namespace, name))
    }

    fn create<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            Local::create(self, group, resource, namespace, object).await?;
            Ok(())
        })
    }

    fn update<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            Local::update(self, group, resource, namespace, object).await?;
            Ok(())
        })
    }

    fn delete<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(Local::delete(self, group, resource, namespace, name))
    }
}
