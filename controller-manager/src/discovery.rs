//! Which resources the API server serves, as the garbage collector and the namespace
//! controller need it: by kind and by resource, with verbs and scope.

use std::collections::{BTreeMap, HashMap};

use client::{Client, Error, Request};
use http::Method;
use meta::{GroupVersion, GroupVersionKind, GroupVersionResource};
use serde::Deserialize;

/// A served resource (no subresource).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub gvr: GroupVersionResource,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// All that is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    all: Vec<Resource>,
    /// Indexes into `all` of the preferred version of each resource.
    preferred: Vec<usize>,
    by_kind: HashMap<(String, String, String), usize>,
    /// Groups that could not be asked, such as those of an aggregated server that is down.
    pub failed: BTreeMap<GroupVersion, String>,
}

impl Resources {
    /// Each resource once, in the version that its group prefers.
    pub fn preferred(&self) -> impl Iterator<Item = &Resource> {
        self.preferred.iter().map(|i| &self.all[*i])
    }

    /// The resource of a kind in exactly this version.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).map(|i| &self.all[*i])
    }

    /// The kinds of a resource in exactly this version, by its plural or singular name. Without a
    /// group, of all groups: so upstream's REST mapper takes the core group's name.
    pub fn kinds_of(
        &self,
        group: &str,
        version: &str,
        resource: &str,
    ) -> impl Iterator<Item = GroupVersionKind> {
        let resource = resource.to_lowercase();
        let is = move |known: &&Resource| {
            let gvr = &known.gvr;
            (group.is_empty() || gvr.group == group)
                && gvr.version == version
                && (gvr.resource == resource || known.kind.to_lowercase() == resource)
        };
        self.all.iter().filter(is).map(|known| {
            let gvr = &known.gvr;
            GroupVersionKind::new(
                gvr.group.as_str(),
                gvr.version.as_str(),
                known.kind.as_str(),
            )
        })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn push(&mut self, resource: Resource, seen: &mut HashMap<(String, String), ()>) {
        let gvr = &resource.gvr;
        let index = self.all.len();
        let key = (
            gvr.group.clone(),
            gvr.version.clone(),
            resource.kind.clone(),
        );
        self.by_kind.entry(key).or_insert(index);
        // Versions come in the group's order of preference.
        if seen
            .insert((gvr.group.clone(), gvr.resource.clone()), ())
            .is_none()
        {
            self.preferred.push(index);
        }
        self.all.push(resource);
    }

    #[cfg(test)]
    pub fn of(all: Vec<Resource>) -> Self {
        let mut resources = Self::default();
        let mut seen = HashMap::new();
        all.into_iter().for_each(|r| resources.push(r, &mut seen));
        resources
    }

    /// In one message for conditions and logs.
    pub fn failure(&self) -> Option<String> {
        if self.failed.is_empty() {
            return None;
        }
        let list: Vec<String> = self
            .failed
            .iter()
            .map(|(gv, e)| format!("{gv}: {e}"))
            .collect();
        let text = format!(
            "unable to retrieve the complete list of server APIs: {}",
            list.join(", ")
        );
        Some(format!(
            "Discovery failed for some groups, {} failing: {text}",
            list.len()
        ))
    }
}

/// The answer to aggregated discovery (`apidiscovery.k8s.io/v2`), as far as it is needed.
#[derive(Deserialize)]
struct Aggregated {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<AggregatedResource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize, Default)]
struct ResponseKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct GroupList {
    groups: Vec<LegacyGroup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyGroup {
    name: String,
    versions: Vec<LegacyVersion>,
}

#[derive(Deserialize)]
struct LegacyVersion {
    version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<LegacyResource>,
}

#[derive(Deserialize)]
struct LegacyResource {
    name: String,
    namespaced: bool,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
}

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// Asks the server.
pub async fn discover(client: &Client) -> Result<Resources, Error> {
    let mut resources = Resources::default();
    let mut seen = HashMap::new();
    for root in ["/api", "/apis"] {
        let mut request = Request::new(Method::GET, root);
        request.accept = AGGREGATED.to_owned();
        let (_, bytes) = client.fetch(&request).await?;
        let decode = |e: serde_json::Error| Error::Decode {
            what: format!("discovery of {root}"),
            message: e.to_string(),
        };
        let answer: Aggregated = serde_json::from_slice(&bytes).map_err(decode)?;
        if answer.kind == "APIGroupDiscoveryList" {
            answer
                .items
                .into_iter()
                .for_each(|g| take_group(&mut resources, g, &mut seen));
        } else if root == "/api" {
            legacy_version(client, "/api/v1", "", "v1", &mut resources, &mut seen).await;
        } else {
            let list: GroupList = serde_json::from_slice(&bytes).map_err(decode)?;
            for group in list.groups {
                for LegacyVersion { version } in group.versions {
                    let path = format!("/apis/{}/{version}", group.name);
                    legacy_version(
                        client,
                        &path,
                        &group.name,
                        &version,
                        &mut resources,
                        &mut seen,
                    )
                    .await;
                }
            }
        }
    }
    Ok(resources)
}

fn take_group(resources: &mut Resources, group: Group, seen: &mut HashMap<(String, String), ()>) {
    let name = group.metadata.name;
    for version in group.versions {
        if version.freshness == "Stale" {
            let gv = GroupVersion::new(name.as_str(), version.version.as_str());
            let message = format!("stale GroupVersion discovery: {gv}");
            resources.failed.insert(gv, message);
        }
        for r in version.resources {
            let kind = r.response_kind.unwrap_or_default();
            // A resource may answer with a kind of another group (`autoscaling/v1, Scale`).
            let own = (kind.group.is_empty() || kind.group == name)
                && (kind.version.is_empty() || kind.version == version.version);
            if !own {
                continue;
            }
            let resource = Resource {
                gvr: GroupVersionResource::new(name.as_str(), version.version.as_str(), r.resource),
                kind: kind.kind,
                namespaced: r.scope == "Namespaced",
                verbs: r.verbs,
            };
            resources.push(resource, seen);
        }
    }
}

async fn legacy_version(
    client: &Client,
    path: &str,
    group: &str,
    version: &str,
    resources: &mut Resources,
    seen: &mut HashMap<(String, String), ()>,
) {
    match client.get_json::<ResourceList>(path).await {
        Ok(list) => {
            for r in list.resources.into_iter().filter(|r| !r.name.contains('/')) {
                let resource = Resource {
                    gvr: GroupVersionResource::new(group, version, r.name),
                    kind: r.kind,
                    namespaced: r.namespaced,
                    verbs: r.verbs,
                };
                resources.push(resource, seen);
            }
        }
        Err(e) => {
            resources
                .failed
                .insert(GroupVersion::new(group, version), e.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferred_versions_and_kinds() {
        let group: Group = serde_json::from_str(
            r#"{"metadata":{"name":"apps"},"versions":[
                {"version":"v1","freshness":"Current","resources":[
                    {"resource":"deployments","responseKind":{"group":"","version":"","kind":"Deployment"},
                     "scope":"Namespaced","verbs":["list","delete"],
                     "subresources":[{"subresource":"scale"}]}]},
                {"version":"v1beta1","freshness":"Stale","resources":[
                    {"resource":"deployments","responseKind":{"kind":"Deployment"},"scope":"Namespaced","verbs":[]},
                    {"resource":"old","responseKind":{"kind":"Old"},"scope":"Cluster","verbs":["get"]}]}]}"#,
        )
        .unwrap();
        let mut resources = Resources::default();
        take_group(&mut resources, group, &mut HashMap::new());
        let preferred: Vec<_> = resources.preferred().map(|r| r.gvr.to_string()).collect();
        assert_eq!(preferred.len(), 2);
        let found = resources.by_kind("apps/v1", "Deployment").unwrap();
        assert!(found.namespaced && found.supports("delete") && !found.supports("watch"));
        assert!(resources.by_kind("apps/v1beta1", "Deployment").is_some());
        assert!(resources.by_kind("v1", "Deployment").is_none());
        assert_eq!(
            resources.failure().unwrap(),
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of \
             server APIs: apps/v1beta1: stale GroupVersion discovery: apps/v1beta1"
        );
    }
}
