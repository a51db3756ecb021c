//! A ClusterTrustBundle in any of its versions, which say the same.

use client::{Object, ResourceInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

const fn version(version: &'static str) -> ResourceInfo {
    let group = "certificates.k8s.io";
    ResourceInfo::of(
        group,
        version,
        "ClusterTrustBundle",
        "clustertrustbundles",
        false,
    )
}

/// How it may be served, the better first.
pub const VERSIONS: [ResourceInfo; 2] = [version("v1beta1"), version("v1alpha1")];

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bundle {
    api_version: String,
    kind: String,
    pub metadata: ObjectMeta,
    pub spec: Spec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub signer_name: String,
    /// Certificates in PEM.
    pub trust_bundle: String,
}

impl Bundle {
    /// A bundle that is not there yet.
    pub fn new(name: String, spec: Spec) -> Self {
        let metadata = ObjectMeta {
            name: Some(name),
            ..ObjectMeta::default()
        };
        Self {
            metadata,
            spec,
            ..Self::default()
        }
    }

    /// As it is sent: lists do not say of each object what it is.
    pub fn of(self, resource: &ResourceInfo) -> Self {
        Self {
            api_version: resource.api_version(),
            kind: resource.kind.to_string(),
            ..self
        }
    }
}

impl Object for Bundle {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        ""
    }
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
    fn resource_version(&self) -> &str {
        let version = self.metadata.resource_version.as_deref();
        version.unwrap_or_default()
    }
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}
