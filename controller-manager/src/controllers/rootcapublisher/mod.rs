//! root-ca-certificate-publisher-controller: the API server's CA in every namespace, as
//! ConfigMap `kube-root-ca.crt`, for pods to verify the server with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use client::informer::{Event as Change, Selection};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, ObjectKey};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{Context, Run};
use crate::controllers::serviceaccount::is_active;
use crate::metrics::Syncs;
use crate::pki;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// What upstream writes; it only has to be there.
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The ConfigMap to write, and whether it is new; `None` if it is right.
fn plan(current: Option<&ConfigMap>, namespace: &str, ca: &str) -> Option<(ConfigMap, bool)> {
    let data: BTreeMap<String, String> = [("ca.crt".to_owned(), ca.to_owned())].into();
    let described = |m: &ConfigMap| {
        let annotations = m.metadata.annotations.as_ref();
        annotations
            .and_then(|a| a.get(DESCRIPTION))
            .is_some_and(|d| !d.is_empty())
    };
    if current.is_some_and(|m| m.data.as_ref() == Some(&data) && described(m)) {
        return None;
    }
    let mut map = current.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    map.data = Some(data);
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.to_owned(), TEXT.to_owned());
    Some((map, current.is_none()))
}

/// The CA by which pods are to know the API server, as PEM: that of `--root-ca-file`, or else the
/// one that the daemon itself trusts.
///
/// # Errors
///
/// When it cannot be read, or there is no certificate in it.
pub fn authority(ctx: &Context) -> anyhow::Result<Option<Arc<str>>> {
    let file = &ctx.options.serviceaccount.root_ca_file;
    if file.is_empty() {
        return Ok(ctx.root_ca()?.map(Arc::from));
    }
    let read = || {
        let text = std::fs::read_to_string(file)?;
        pki::check_certificates(&text)?;
        anyhow::Ok(text)
    };
    let text = read().with_context(|| format!("error parsing root-ca-file at {file}"))?;
    Ok(Some(text.into()))
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let Some(ca) = authority(ctx)? else {
        return Ok(None);
    };
    let client = ctx.client("root-ca-cert-publisher")?;
    let selection = Selection::name("", NAME);
    let maps = ctx.informers.select::<ConfigMap>(&selection);
    let namespaces = ctx.informer::<Namespace>();
    let queue: Queue<ObjectKey> = ctx.queue("root_ca_cert_publisher");
    let again = queue.clone();
    maps.add_handler(move |change| {
        if !matches!(change, Change::Added(_)) {
            again.add(ObjectKey::new("", change.key().namespace()));
        }
    });
    let added = queue.clone();
    namespaces.add_handler(move |change| {
        if change.current().is_some_and(|n| is_active(n)) {
            added.add(change.key());
        }
    });
    let api: Api<ConfigMap> = Api::all(&client);
    let syncs = Syncs::new(&ctx.meter, "root_ca_cert_publisher")?;
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        maps.wait_synced().await;
        namespaces.wait_synced().await;
        let store = maps.store().clone();
        queue
            .run(1, &stop, move |key| {
                let current = store.get(key.name(), NAME);
                let write = plan(current.as_deref(), key.name(), &ca);
                let (api, syncs) = (api.clone(), syncs.clone());
                async move {
                    let began = Instant::now();
                    let result = match write {
                        None => {
                            syncs.done(began, None);
                            return Ok::<_, Error>(Requeue::No);
                        }
                        Some((map, true)) => api.create(&map).await,
                        Some((map, false)) => api.replace(&map).await,
                    };
                    let failure = result.err();
                    let failure =
                        failure.filter(|e| !e.is_not_found() && !e.is_namespace_terminating());
                    syncs.done(began, failure.as_ref());
                    failure.map_or(Ok(Requeue::No), Err)
                }
            })
            .await;
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_only_what_is_wrong() {
        let (made, new) = plan(None, "ns", "CA").unwrap();
        assert!(new && made.metadata.namespace.as_deref() == Some("ns"));
        assert_eq!(plan(Some(&made), "ns", "CA"), None);
        let (changed, new) = plan(Some(&made), "ns", "CB").unwrap();
        assert_eq!(
            (changed.data.unwrap()["ca.crt"].as_str(), new),
            ("CB", false)
        );
        let mut bare = made;
        bare.metadata.annotations = None;
        assert!(plan(Some(&bare), "ns", "CA").is_some());
    }
}
