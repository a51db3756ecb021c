//! Objects that extenders without a cache of their own are shown: the scheduler keeps of them
//! only what it needs itself, so they are asked for.

use std::collections::{BTreeMap, HashMap};

use client::{Api, Client, Dynamic, ListOptions, Object as _};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use meta::GroupVersionResource;
use serde_json::{Value, json};

use crate::model::PodInfo;
use crate::plugins::default_preemption::Offer;

/// Nodes whose pods are asked for at the same time.
const AT_ONCE: usize = 16;

/// Nodes that extenders are asked about.
#[derive(Default)]
pub struct Nodes {
    pub names: Vec<String>,
    /// As the API has them, by name; empty when no extender wants them.
    objects: BTreeMap<String, Value>,
}

impl Nodes {
    pub async fn new(names: Vec<String>, whole: bool, client: &Client) -> client::Result<Self> {
        let mut objects = BTreeMap::new();
        if whole {
            let gvr = GroupVersionResource::new("", "v1", "nodes");
            let api = Api::<Dynamic>::dynamic(client, &gvr, false);
            for node in api.list(&ListOptions::new()).await?.items {
                let name = node.name().to_owned();
                objects.insert(name, node.0);
            }
        }
        Ok(Self { names, objects })
    }

    /// A NodeList of those that are left.
    pub(super) fn list(&self) -> Value {
        let items: Vec<&Value> = self
            .names
            .iter()
            .filter_map(|name| self.objects.get(name))
            .collect();
        json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items})
    }
}

fn pods() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "pods")
}

/// The pod as the API has it.
pub async fn whole_pod(client: &Client, pod: &PodInfo) -> client::Result<Value> {
    let api = Api::<Dynamic>::dynamic(client, &pods(), true).within(pod.key.namespace());
    Ok(api.get(pod.key.name()).await?.0)
}

/// Pods as the API has them, by uid.
#[derive(Default)]
pub struct Pods(HashMap<Box<str>, Value>);

impl Pods {
    /// Those of the nodes that are offered.
    pub async fn of(offers: &[Offer], client: &Client) -> client::Result<Self> {
        let api = &Api::<Dynamic>::dynamic(client, &pods(), true);
        let nodes: Vec<Box<str>> = offers.iter().map(|offer| offer.node.clone()).collect();
        let lists = stream::iter(nodes).map(|node| async move {
            let fields = format!("spec.nodeName={node}");
            let at_hand = ListOptions::new().fields(fields).at("0");
            api.list(&at_hand).await
        });
        let lists: Vec<_> = lists.buffer_unordered(AT_ONCE).try_collect().await?;
        let pods = lists.into_iter().flat_map(|list| list.items);
        Ok(Self(pods.map(|pod| (pod.uid().into(), pod.0)).collect()))
    }

    pub fn get(&self, uid: &str) -> Option<&Value> {
        self.0.get(uid)
    }
}
