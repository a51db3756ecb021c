//! The three metrics APIs: resources of pods, custom metrics of objects, external metrics.

use std::collections::BTreeMap;

use client::{Api, Client, Error, ListOptions, Object as _, Request, SlimMeta, slim_kind};
use component::flags::GoDuration;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::labels::Selector;
use meta::quantity::Quantity;
use meta::{GroupResource, labels};
use serde::{Deserialize, Serialize};

/// Of metrics that do not say over what time they were taken.
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_mins(1);
const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";

/// One pod's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodMetric {
    pub at: Timestamp,
    /// It is over this time before `at`.
    pub window: SignedDuration,
    /// In thousandths.
    pub value: i64,
}

/// Values by pods' names.
pub type PodMetrics = BTreeMap<String, PodMetric>;

/// Reads metrics.
pub struct Metrics {
    client: Client,
    resources: Api<OfPod>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct OfPod {
    metadata: SlimMeta,
    timestamp: Option<Time>,
    window: Option<String>,
    containers: Vec<OfContainer>,
}

slim_kind!(
    OfPod,
    "metrics.k8s.io",
    "v1beta1",
    "PodMetrics",
    "pods",
    namespaced
);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct OfContainer {
    name: String,
    usage: BTreeMap<String, Text>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Item>,
}

/// A value of the custom or the external API.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    described_object: Described,
    timestamp: Option<Time>,
    window_seconds: Option<i64>,
    value: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Described {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

fn unfetched(why: &dyn std::fmt::Display) -> String {
    format!("unable to fetch metrics from custom metrics API: {why}")
}

fn milli(text: &Text) -> Result<i64, String> {
    let quantity: Quantity = text.0.parse().map_err(|e| format!("{:?}: {e}", text.0))?;
    Ok(quantity.milli_value())
}

fn at(time: Option<&Time>) -> Timestamp {
    time.map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// Percent-encodes what may not stand in a path segment or query as it is.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn query(pairs: &[(&str, &Selector)]) -> String {
    let given = pairs.iter().filter(|(_, s)| !s.is_empty());
    let parts: Vec<String> = given
        .map(|(key, s)| format!("{key}={}", encode(&s.to_string())))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("?{}", parts.join("&")),
    }
}

impl Metrics {
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            resources: Api::all(client),
        }
    }

    /// A resource's use by pods, or by one of their containers. Pods of which it is not known
    /// are left out.
    pub async fn resource(
        &self,
        resource: &str,
        container: &str,
        namespace: &str,
        selector: &labels::Selector,
    ) -> Result<PodMetrics, String> {
        let api = self.resources.within(namespace);
        let listed = api.list(&ListOptions::new().labels(selector)).await;
        let listed = listed
            .map_err(|e| format!("unable to fetch metrics from resource metrics API: {e}"))?;
        if listed.items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut metrics = PodMetrics::new();
        for pod in &listed.items {
            if let Some(value) = used(pod, resource, container)? {
                let window = pod.window.as_deref().and_then(|w| w.parse().ok());
                let window = window.map_or(SignedDuration::ZERO, |w: GoDuration| {
                    SignedDuration::try_from(w.get()).unwrap_or(SignedDuration::MAX)
                });
                let metric = PodMetric {
                    at: at(pod.timestamp.as_ref()),
                    window,
                    value,
                };
                metrics.insert(pod.name().to_owned(), metric);
            }
        }
        Ok(metrics)
    }

    async fn version(&self, group: &str) -> Result<String, Error> {
        let found: Group = self.client.get_json(&format!("/apis/{group}")).await?;
        Ok(found.preferred_version.version)
    }

    async fn list(&self, path: String, group: &str, about: &str) -> Result<Vec<Item>, Error> {
        let mut request = Request::new(Method::GET, path);
        let resource = GroupResource {
            group: group.to_owned(),
            resource: about.to_owned(),
        };
        request.about = (resource, String::new());
        let (_, bytes) = self.client.fetch(&request).await?;
        let list: List = serde_json::from_slice(&bytes).map_err(|e| Error::Decode {
            what: format!("metric {about}"),
            message: e.to_string(),
        })?;
        Ok(list.items)
    }

    /// The path of the custom metrics API in the version that its server prefers.
    async fn custom_root(&self) -> Result<String, String> {
        match self.version(CUSTOM).await {
            Ok(version) => Ok(format!("/apis/{CUSTOM}/{version}")),
            Err(e) if e.is_not_found() => Err(unfetched(&format!(
                "no custom metrics API ({CUSTOM}) registered"
            ))),
            Err(e) => Err(unfetched(&e)),
        }
    }

    async fn custom(&self, path: String, metric: &str) -> Result<Vec<Item>, String> {
        let listed = self.list(path, CUSTOM, metric).await;
        listed.map_err(|e| unfetched(&e))
    }

    /// A metric of the selected pods.
    pub async fn pods(
        &self,
        metric: &str,
        namespace: &str,
        pods: &Selector,
        of_metric: &Selector,
    ) -> Result<PodMetrics, String> {
        let query = query(&[("labelSelector", pods), ("metricLabelSelector", of_metric)]);
        let (root, metric_name) = (self.custom_root().await?, encode(metric));
        let path = format!("{root}/namespaces/{namespace}/pods/*/{metric_name}{query}");
        let items = self.custom(path, metric).await?;
        if items.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let mut metrics = PodMetrics::new();
        for item in items {
            let window = item.window_seconds.map(SignedDuration::from_secs);
            let metric = PodMetric {
                at: at(item.timestamp.as_ref()),
                window: window.unwrap_or(DEFAULT_WINDOW),
                value: milli(&item.value)?,
            };
            metrics.insert(item.described_object.name, metric);
        }
        Ok(metrics)
    }

    /// A metric of one object. `resource` finds its resource, with the group that it is of (as in
    /// `deployments.apps`): `None` for the namespace itself.
    pub async fn object(
        &self,
        metric: &str,
        namespace: &str,
        resource: impl Future<Output = Result<Option<String>, String>>,
        name: &str,
        of_metric: &Selector,
    ) -> Result<i64, String> {
        let root = self.custom_root().await?;
        let query = query(&[("metricLabelSelector", of_metric)]);
        let metric_name = encode(metric);
        let path = match resource.await.map_err(|e| unfetched(&e))? {
            Some(resource) => {
                format!("{root}/namespaces/{namespace}/{resource}/{name}/{metric_name}{query}")
            }
            None => format!("{root}/namespaces/{namespace}/metrics/{metric_name}{query}"),
        };
        match self.custom(path, metric).await?.as_slice() {
            [one] => milli(&one.value),
            items => Err(unfetched(&format!(
                "the custom metrics API server returned {} results when we asked for exactly one",
                items.len()
            ))),
        }
    }

    /// All values of a metric of something that is not in the cluster.
    pub async fn external(
        &self,
        metric: &str,
        namespace: &str,
        of_metric: &Selector,
    ) -> Result<Vec<i64>, String> {
        let query = query(&[("labelSelector", of_metric)]);
        let metric_name = encode(metric);
        let path = format!("/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{metric_name}{query}");
        let items = self.list(path, EXTERNAL, metric).await;
        let items =
            items.map_err(|e| format!("unable to fetch metrics from external metrics API: {e}"))?;
        if items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        items.iter().map(|item| milli(&item.value)).collect()
    }
}

/// What the pod, or the one container, uses; `None`: that is not known of all.
fn used(pod: &OfPod, resource: &str, container: &str) -> Result<Option<i64>, String> {
    let mut containers = pod.containers.iter();
    if !container.is_empty() {
        let found = containers.find(|c| c.name == container);
        return found
            .and_then(|c| c.usage.get(resource))
            .map(milli)
            .transpose();
    }
    let mut sum = 0;
    for container in containers {
        let Some(usage) = container.usage.get(resource) else {
            return Ok(None);
        };
        sum += milli(usage)?;
    }
    Ok(Some(sum).filter(|_| !pod.containers.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_use_what_their_containers_use() {
        let pod: OfPod = serde_json::from_value(json!({"metadata": {"name": "p"}, "containers": [
            {"name": "a", "usage": {"cpu": "100m", "memory": "1Ki"}}, {"name": "b", "usage": {"cpu": "0.2"}}]}))
        .unwrap();
        assert_eq!(used(&pod, "cpu", ""), Ok(Some(300)));
        assert_eq!(used(&pod, "cpu", "b"), Ok(Some(200)));
        assert_eq!(used(&pod, "memory", "a"), Ok(Some(1_024_000)));
        assert_eq!(used(&pod, "memory", ""), Ok(None));
        assert_eq!(used(&pod, "cpu", "x"), Ok(None));
    }

    #[test]
    fn selectors_are_encoded() {
        let one = Selector::parse("a=b,c in (d,e)").unwrap();
        let none = Selector::everything();
        assert_eq!(query(&[("x", &none)]), "");
        assert_eq!(
            query(&[("x", &none), ("y", &one)]),
            "?y=a%3Db%2Cc%20in%20%28d%2Ce%29"
        );
    }
}
