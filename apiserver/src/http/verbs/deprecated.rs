//! Which kinds and versions every request is warned about: upstream's API lifecycle.
//!
//! What must not be here: warnings about what an object says (`proto/api/warnings`).

use schema::Resource;

use crate::registry::convert::api_version;

/// Group, version (`""`: every one), kind (`""`: every one), and since when, until when and
/// what to use instead.
const DEPRECATED: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "ComponentStatus", "v1.19+"),
    (
        "",
        "v1",
        "Endpoints",
        "v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    (
        "admissionregistration.k8s.io",
        "v1alpha1",
        "",
        "v1.35+, unavailable in v1.38+",
    ),
    (
        "certificates.k8s.io",
        "v1alpha1",
        "ClusterTrustBundle",
        "v1.34+, unavailable in v1.37+",
    ),
    (
        "coordination.k8s.io",
        "v1alpha2",
        "",
        "v1.35+, unavailable in v1.38+",
    ),
    (
        "coordination.k8s.io",
        "v1beta1",
        "",
        "v1.36+, unavailable in v1.39+",
    ),
    (
        "networking.k8s.io",
        "v1beta1",
        "",
        "v1.34+, unavailable in v1.37+",
    ),
    (
        "resource.k8s.io",
        "v1alpha3",
        "DeviceTaintRule",
        "v1.36+, unavailable in v1.39+",
    ),
    (
        "resource.k8s.io",
        "v1beta1",
        "",
        "v1.35+, unavailable in v1.38+",
    ),
    ("resource.k8s.io", "v1beta2", "DeviceTaintRule", ""),
    (
        "resource.k8s.io",
        "v1beta2",
        "",
        "v1.36+, unavailable in v1.39+",
    ),
    (
        "storage.k8s.io",
        "v1beta1",
        "VolumeAttributesClass",
        "v1.34+, unavailable in v1.37+; use storage.k8s.io/v1 VolumeAttributesClass",
    ),
];

/// That a resource is on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Deprecation(&'static str);

impl Deprecation {
    /// What to tell whoever asks for the resource.
    pub fn warning(self, resource: &Resource) -> String {
        let (version, kind) = (api_version(resource), resource.kind);
        format!("{version} {kind} is deprecated in {}", self.0)
    }

    /// The release that does not have it any more (`1.39`); empty where none is known.
    pub fn removed(self) -> &'static str {
        let (_, rest) = self.0.split_once("unavailable in v").unwrap_or_default();
        rest.split_once('+').unwrap_or_default().0
    }
}

/// Whether a resource is deprecated.
pub fn find(resource: &Resource) -> Option<Deprecation> {
    let (.., since) = DEPRECATED.iter().find(|(group, version, kind, _)| {
        *group == resource.group
            && *version == resource.version
            && (kind.is_empty() || *kind == resource.kind)
    })?;
    (!since.is_empty()).then_some(Deprecation(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(group: &str, version: &str, kind: &str) -> Option<String> {
        let found = schema::resources()
            .iter()
            .find(|r| (r.group, r.version, r.kind) == (group, version, kind));
        let resource = found.expect("a resource");
        let deprecation = find(resource)?;
        assert_eq!(deprecation.removed(), "1.38");
        Some(deprecation.warning(resource))
    }

    #[test]
    fn old_versions_are_told_of() {
        assert_eq!(
            of("resource.k8s.io", "v1beta1", "ResourceClaim").as_deref(),
            Some(
                "resource.k8s.io/v1beta1 ResourceClaim is deprecated in v1.35+, unavailable in v1.38+"
            )
        );
        assert_eq!(of("resource.k8s.io", "v1", "ResourceClaim"), None);
        assert_eq!(of("resource.k8s.io", "v1beta2", "DeviceTaintRule"), None);
    }
}
