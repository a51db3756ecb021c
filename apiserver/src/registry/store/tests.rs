//! The store on a fake storage: which writes come to it, and how.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use meta::Status;
use serde_json::{Value, json};

use super::{Env, StorageMedia, Store, Update, Warnings, Write};
use crate::admission::Admission;
use crate::authn::User;
use crate::registry::generic::Generic;
use crate::registry::ingest;
use crate::registry::object_meta::meta;
use crate::registry::services::Services;
use crate::registry::strategy::{Context, Hooks, Strategy, Undo};
use crate::storage::Storage;
use crate::storage::cache::{Cache, Options};
use crate::storage::fake::Fake;
use crate::storage::keys::Keys;
use crate::storage::metrics::Metrics;

/// A store of one resource, and what it is on.
struct Rig {
    store: Store,
    storage: Arc<Fake>,
    cache: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cache.abort();
    }
}

impl Rig {
    async fn new(
        plural: &str,
        strategy: fn(&'static schema::Resource) -> Box<dyn Strategy>,
    ) -> Rig {
        let resource = schema::resources()
            .iter()
            .find(|r| r.group.is_empty() && r.plural == plural)
            .unwrap();
        let storage = Fake::new();
        let cache = Cache::new(storage.clone(), Options::default(), Metrics::unregistered());
        let cached = cache.register(ingest::definition(resource, "IPv4"));
        let running = tokio::spawn(cache.clone().run());
        cache.synced().await;
        let admission = Admission::new(Vec::new(), &component::metrics::Registry::new());
        let env = Arc::new(Env {
            storage: storage.clone(),
            keys: Keys::new("/registry"),
            media: StorageMedia::Protobuf,
            collection_workers: 1,
            primary_family: "IPv4",
            admission: Arc::new(admission),
            now: || jiff::Timestamp::UNIX_EPOCH,
            random: || 7,
        });
        Rig {
            store: Store::new(resource, cached, strategy(resource), env),
            storage,
            cache: running,
        }
    }

    async fn has(&self, key: &str) -> bool {
        self.storage.get(key, 0).await.unwrap().is_some()
    }

    /// PUT.
    async fn put(
        &self,
        write: &Write<'_>,
        object: &Value,
        uid: Option<&str>,
    ) -> Result<bool, Status> {
        let update = Update {
            change: &|_: Option<&Value>| Ok(object.clone()),
            verb: "update",
            uid,
            force_create: false,
            noted: false,
            may_create: &|| Ok(()),
        };
        Ok(self.store.update(write, &update).await?.created)
    }
}

fn write<'a>(name: &'a str, user: &'a User, warnings: &'a Warnings) -> Write<'a> {
    Write {
        user,
        group: "",
        namespace: "ns",
        name,
        subresource: "",
        dry_run: false,
        warnings,
        fields: None,
    }
}

/// Refuse whatever they are asked; of what is new they say where.
struct Refusing;

impl Hooks for Refusing {
    fn begin_create<'a>(
        &'a self,
        _: &'a Context<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        let namespace = meta(object).namespace().to_owned();
        async move { Err(Status::bad_request(format!("refused in {namespace}"))) }.boxed()
    }

    fn begin_update<'a>(
        &'a self,
        _: &'a Context<'a>,
        _: &'a mut Value,
        _: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        async { Err(Status::bad_request("refused")) }.boxed()
    }
}

#[tokio::test]
async fn the_status_of_what_is_not_there_may_create_it_without_hooks() {
    let services = Rig::new("services", |_| Box::new(Services)).await;
    services.store.set_hooks(Arc::new(Refusing));
    let (user, warnings) = (User::default(), Warnings::default());
    let object = json!({"metadata": {"name": "a"}, "spec": {
        "type": "ClusterIP", "sessionAffinity": "None",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}});
    let itself = write("a", &user, &warnings);
    let status = Write {
        subresource: "status",
        ..itself
    };
    let refused = services.put(&itself, &object, None).await.unwrap_err();
    assert_eq!(refused.message, "refused in ns");
    let other = services.put(&status, &object, Some("u")).await.unwrap_err();
    assert!(
        other
            .message
            .ends_with("UID in precondition: u, UID in object meta: ")
    );
    assert_eq!(services.put(&status, &object, None).await, Ok(true));
    assert!(services.has("/registry/services/specs/ns/a").await);

    let pods = Rig::new("pods", |resource| Box::new(Generic::new(resource))).await;
    let missing = pods.put(&status, &json!({}), None).await.unwrap_err();
    assert_eq!(missing.code, 404);
}

#[tokio::test]
async fn who_waits_for_a_large_object_is_asked_before_it_is_written() {
    let maps = Rig::new("configmaps", |resource| Box::new(Generic::new(resource))).await;
    let (user, warnings) = (User::default(), Warnings::default());
    let key = "/registry/configmaps/ns/a";
    let write = write("a", &user, &warnings);
    let object = json!({"metadata": {"name": "a", "namespace": "ns"},
        "data": {"k": "v".repeat(component::aside::LONG)}});
    let created = maps.store.create(&write, object.clone());
    assert!(created.now_or_never().is_none());
    assert!(!maps.has(key).await);
    maps.store.create(&write, object.clone()).await.unwrap();
    assert!(maps.has(key).await);
}
