//! What the administrator limits even where no quota does (`ResourceQuotaConfiguration`).

use meta::field::{ErrorList, FieldError, Path};
use serde::Deserialize;

use super::scopes::Requirement;

/// The configuration of the admission plugin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    #[serde(default, rename = "apiVersion")]
    _api_version: String,
    #[serde(default, rename = "kind")]
    _kind: String,
    #[serde(default)]
    pub limited_resources: Vec<LimitedResource>,
}

/// A resource that is only to be had under a quota that covers it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitedResource {
    pub api_group: String,
    pub resource: String,
    /// Parts of the names of what is limited.
    pub match_contains: Vec<String>,
    pub match_scopes: Vec<Requirement>,
}

impl Configuration {
    /// The versions and kind of the configuration file.
    pub const KINDS: &[(&str, &str)] = &[
        ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
        ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
        ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
    ];

    pub fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("limitedResources");
        for (i, limited) in self.limited_resources.iter().enumerate() {
            if limited.resource.is_empty() {
                errors.push(FieldError::required(&path.index(i).child("resource"), ""));
            }
        }
        errors
    }
}
