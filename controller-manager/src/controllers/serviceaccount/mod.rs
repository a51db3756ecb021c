//! serviceaccount-controller: every namespace has a service account `default`.

use std::sync::Arc;

use client::informer::Event as Change;
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, ObjectKey};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{Context, Run, enqueue_all};

const NAME: &str = "default";

/// Whether a namespace takes new objects.
pub fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Active")
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("service-account-controller")?;
    let accounts = ctx.informer::<ServiceAccount>();
    let namespaces = ctx.informer::<Namespace>();
    let queue: Queue<ObjectKey> = ctx.queue("serviceaccount");
    enqueue_all(&namespaces, &queue);
    let again = queue.clone();
    accounts.add_handler(move |change| {
        if let Change::Deleted(_) = change {
            again.add(ObjectKey::new("", change.key().namespace()));
        }
    });
    let api: Api<ServiceAccount> = Api::all(&client);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        accounts.wait_synced().await;
        namespaces.wait_synced().await;
        let (accounts, namespaces) = (accounts.store().clone(), namespaces.store().clone());
        let api = Arc::new(api);
        queue
            .run(1, &stop, move |key| {
                let namespace = namespaces.get_key(&key).filter(|n| is_active(n));
                let missing = accounts.get(key.name(), NAME).is_none();
                let api = Arc::clone(&api);
                async move {
                    if namespace.is_some() && missing {
                        create(&api, key.name()).await?;
                    }
                    Ok::<_, Error>(Requeue::No)
                }
            })
            .await;
    })))
}

async fn create(api: &Api<ServiceAccount>, namespace: &str) -> Result<(), Error> {
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    match api.create(&account).await {
        Err(e) if !e.is_already_exists() && !e.is_namespace_terminating() => Err(e),
        _ => Ok(()),
    }
}
