//! How kinds and resources are named: group, version, kind or resource.
//!
//! `Display` is upstream's, because these texts end up in error messages.

use std::fmt;
use std::str::FromStr;

/// An API group and version, written `group/version`, or `version` alone for the core group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersion {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
}

/// A kind without a version, written `Kind.group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupKind {
    pub group: String,
    pub kind: String,
}

/// A resource (the plural of a URL) without a version, written `resource.group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

/// What `apiVersion` and `kind` of an object say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// What a URL says: `/apis/<group>/<version>/…/<resource>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersionResource {
    pub group: String,
    pub version: String,
    pub resource: String,
}

/// An `apiVersion` that has more than one slash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unexpected GroupVersion string: {0}")]
pub struct ParseGroupVersionError(String);

impl GroupVersion {
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
        }
    }

    pub fn with_kind(&self, kind: impl Into<String>) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, kind)
    }

    pub fn with_resource(&self, resource: impl Into<String>) -> GroupVersionResource {
        GroupVersionResource::new(&self.group, &self.version, resource)
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.version.is_empty()
    }

    /// The path under which the API server serves it: `/api/v1` or `/apis/<group>/<version>`.
    pub fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }
}

impl FromStr for GroupVersion {
    type Err = ParseGroupVersionError;

    /// Reads an `apiVersion`. The empty string and `/` give the empty value, as upstream.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() || s == "/" {
            return Ok(Self::default());
        }
        match s.split_once('/') {
            None => Ok(Self::new("", s)),
            Some((group, version)) if !version.contains('/') => Ok(Self::new(group, version)),
            Some(_) => Err(ParseGroupVersionError(s.to_owned())),
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        f.write_str(&self.version)
    }
}

impl GroupKind {
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            kind: kind.into(),
        }
    }

    /// Reads `Kind.group`; without a dot it is a kind of the core group.
    pub fn parse(s: &str) -> Self {
        let (kind, group) = s.split_once('.').unwrap_or((s, ""));
        Self::new(group, kind)
    }

    pub fn with_version(&self, version: impl Into<String>) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, version, &self.kind)
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.kind.is_empty()
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dotted(f, &self.kind, &self.group)
    }
}

impl GroupResource {
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }

    /// Reads `resource.group`; without a dot it is a resource of the core group.
    pub fn parse(s: &str) -> Self {
        let (resource, group) = s.split_once('.').unwrap_or((s, ""));
        Self::new(group, resource)
    }

    pub fn with_version(&self, version: impl Into<String>) -> GroupVersionResource {
        GroupVersionResource::new(&self.group, version, &self.resource)
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.resource.is_empty()
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dotted(f, &self.resource, &self.group)
    }
}

impl GroupVersionKind {
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        kind: impl Into<String>,
    ) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        }
    }

    /// From an object's `apiVersion` and `kind`. An unreadable `apiVersion` leaves group and
    /// version empty, as upstream.
    pub fn from_api_version_and_kind(api_version: &str, kind: &str) -> Self {
        api_version
            .parse::<GroupVersion>()
            .unwrap_or_default()
            .with_kind(kind)
    }

    /// The `apiVersion` of an object of this kind.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&self.group, &self.version)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&self.group, &self.kind)
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.version.is_empty() && self.kind.is_empty()
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

impl GroupVersionResource {
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        resource: impl Into<String>,
    ) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
        }
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&self.group, &self.version)
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.version.is_empty() && self.resource.is_empty()
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}, Resource={}",
            self.group, self.version, self.resource
        )
    }
}

fn dotted(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    f.write_str(name)?;
    if !group.is_empty() {
        write!(f, ".{group}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_versions_parse_as_upstream() {
        assert_eq!("v1".parse(), Ok(GroupVersion::new("", "v1")));
        assert_eq!("apps/v1".parse(), Ok(GroupVersion::new("apps", "v1")));
        assert_eq!("".parse(), Ok(GroupVersion::default()));
        assert_eq!("/".parse(), Ok(GroupVersion::default()));
        assert_eq!("/v1".parse(), Ok(GroupVersion::new("", "v1")));
        let err = "a/b/c".parse::<GroupVersion>().unwrap_err();
        assert_eq!(err.to_string(), "unexpected GroupVersion string: a/b/c");
    }

    #[test]
    fn display_is_upstreams() {
        let gvk = GroupVersionKind::from_api_version_and_kind("apps/v1", "Deployment");
        assert_eq!(gvk.to_string(), "apps/v1, Kind=Deployment");
        assert_eq!(gvk.api_version(), "apps/v1");
        assert_eq!(gvk.group_kind().to_string(), "Deployment.apps");
        let core = GroupVersionKind::new("", "v1", "Pod");
        assert_eq!(core.to_string(), "/v1, Kind=Pod");
        assert_eq!(core.group_kind().to_string(), "Pod");
        let gvr = core.group_version().with_resource("pods");
        assert_eq!(gvr.to_string(), "/v1, Resource=pods");
        assert_eq!(gvr.group_version().path(), "/api/v1");
        assert_eq!(GroupVersion::new("apps", "v1").path(), "/apis/apps/v1");
        assert_eq!(
            GroupResource::parse("deployments.apps.example.com"),
            GroupResource::new("apps.example.com", "deployments")
        );
    }
}
