//! Indexes of the shared caches that several controllers use.

use client::informer::{Index, Informer};
use client::{Kind, Object as _, ObjectKey};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::owner::controller_of;

use crate::kinds::{Node, Pod};

/// Where objects without a controller are found in an index by owner.
pub fn orphans(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// By the UID of the controller.
pub fn by_owner<K>(informer: &Informer<K>) -> Index<K>
where
    K: Kind + Metadata<Ty = ObjectMeta>,
{
    informer.add_index("owner", |object| {
        let owner = controller_of(object.metadata()).map(|o| o.uid.clone());
        vec![owner.unwrap_or_else(|| orphans(object.namespace()))]
    })
}

/// Pods by the UID of their controller.
pub fn pods_by_owner(informer: &Informer<Pod>) -> Index<Pod> {
    informer.add_index("owner", |pod| {
        let owner = pod.controller().map(|o| o.uid.clone());
        vec![owner.unwrap_or_else(|| orphans(pod.namespace()))]
    })
}

/// Pods by the node they are assigned to.
pub fn pods_by_node(informer: &Informer<Pod>) -> Index<Pod> {
    informer.add_index("node", |pod| {
        Some(pod.spec.node_name.to_string())
            .filter(|n| !n.is_empty())
            .into_iter()
            .collect()
    })
}

/// Pods by the claims that their volumes use.
pub fn pods_by_claim(informer: &Informer<Pod>) -> Index<Pod> {
    informer.add_index("claim", |pod| {
        let keys = pod
            .claims()
            .map(|(name, _)| ObjectKey::new(pod.namespace(), &name));
        keys.map(|k| k.to_string()).collect()
    })
}

/// By namespace.
pub fn by_namespace<K: Kind>(informer: &Informer<K>) -> Index<K> {
    informer.add_index("namespace", |object| vec![object.namespace().to_owned()])
}

/// The zone of a node, as endpoints want it: `None` if there is no such node.
pub fn zone_of(node: Option<&Node>) -> Option<Option<String>> {
    node.map(|n| n.zone().map(str::to_owned))
}
