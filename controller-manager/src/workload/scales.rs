//! The `scale` subresource of any kind, built in or custom: found by discovery, read, written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use client::{Client, Error, Request};
use http::Method;
use k8s_openapi::api::autoscaling::v1::Scale;
use parking_lot::Mutex;
use serde::Deserialize;

/// What discovery has said is believed for so long, as upstream.
const BELIEVED: Duration = Duration::from_secs(30);

/// A kind's resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// `deployments.apps`, as messages name it.
    pub name: String,
    /// `/apis/apps/v1` and the like.
    prefix: String,
    plural: String,
    pub has_scale: bool,
}

/// A group and kind.
type Kind = (String, String);

/// Reads and writes scales, as one user.
pub struct Scales {
    client: Client,
    known: Mutex<HashMap<Kind, (Instant, Option<Scaled>)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Listed {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
}

impl Scales {
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            known: Mutex::default(),
        }
    }

    /// The resource of a kind, in the version that its group prefers of those that have it.
    pub async fn resource(&self, group: &str, kind: &str) -> Result<Option<Scaled>, Error> {
        let key = (group.to_owned(), kind.to_owned());
        if let Some((at, found)) = self.known.lock().get(&key)
            && at.elapsed() < BELIEVED
        {
            return Ok(found.clone());
        }
        let found = self.discover(group, kind).await?;
        let mut known = self.known.lock();
        known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        known.insert(key, (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn discover(&self, group: &str, kind: &str) -> Result<Option<Scaled>, Error> {
        let prefixes = if group.is_empty() {
            vec!["/api/v1".to_owned()]
        } else {
            let path = format!("/apis/{group}");
            let found = self.client.get_json::<Group>(&path).await;
            let Some(found) = client::optional(found)? else {
                return Ok(None);
            };
            let preferred = found.preferred_version.version;
            let others = found.versions.into_iter().map(|v| v.version);
            let others = others.filter(|v| *v != preferred).collect::<Vec<_>>();
            let all = std::iter::once(preferred.clone()).chain(others);
            all.map(|v| format!("/apis/{group}/{v}")).collect()
        };
        for prefix in prefixes {
            let listed: Listed = self.client.get_json(&prefix).await?;
            let mut all = listed.resources.iter();
            let whole = all.find(|r| r.kind == kind && !r.name.contains('/'));
            if let Some(Resource { name: plural, .. }) = whole {
                let scale = format!("{plural}/scale");
                return Ok(Some(Scaled {
                    name: [plural, group]
                        .map(str::to_owned)
                        .join(".")
                        .trim_end_matches('.')
                        .to_owned(),
                    has_scale: listed.resources.iter().any(|r| r.name == scale),
                    plural: plural.clone(),
                    prefix,
                }));
            }
        }
        Ok(None)
    }

    fn path(resource: &Scaled, namespace: &str, name: &str) -> String {
        let Scaled { prefix, plural, .. } = resource;
        format!("{prefix}/namespaces/{namespace}/{plural}/{name}/scale")
    }

    pub async fn get(
        &self,
        resource: &Scaled,
        namespace: &str,
        name: &str,
    ) -> Result<Scale, Error> {
        self.client
            .get_json(&Self::path(resource, namespace, name))
            .await
    }

    /// Writes a scale that was read before; it is refused if the object has changed.
    pub async fn put(&self, resource: &Scaled, scale: &Scale) -> Result<(), Error> {
        let field = |f: &Option<String>| f.clone().unwrap_or_default();
        let (namespace, name) = (
            field(&scale.metadata.namespace),
            field(&scale.metadata.name),
        );
        let body = serde_json::to_vec(scale).map_err(|e| Error::Encode {
            what: format!("scale of {name}"),
            message: e.to_string(),
        })?;
        let path = Self::path(resource, &namespace, &name);
        let request = Request::new(Method::PUT, path).body("application/json", body.into());
        self.client.fetch(&request).await.map(drop)
    }
}
