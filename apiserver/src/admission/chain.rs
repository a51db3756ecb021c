//! Which plugins run, in upstream's order.
//!
//! What must not be here: what a plugin does.

use std::sync::Arc;

use component::features::FeatureGates;
use component::metrics::Registry;

use super::config::{ConfigError, Configuration};
use super::resource_quota::QuotaWriter;
use super::*;
use crate::authn::Clock;
use crate::authz::Authorizer;
use crate::lookup::Lookup;

/// What plugins work with.
#[derive(Clone)]
pub struct Deps {
    pub lookup: Arc<dyn Lookup>,
    pub authorizer: Arc<dyn Authorizer>,
    pub clock: Clock,
    /// Random bits, for generated names.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// `--default-not-ready-toleration-seconds`
    pub not_ready_toleration_seconds: i64,
    /// `--default-unreachable-toleration-seconds`
    pub unreachable_toleration_seconds: i64,
    pub quotas: Arc<dyn QuotaWriter>,
    /// `--admission-control-config-file`
    pub configuration: Configuration,
    pub gates: FeatureGates,
    pub metrics: Registry,
}

#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("{flag} plugin {name:?} is unknown")]
    Unknown { flag: &'static str, name: String },
    #[error("{0:?} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Overlap(Vec<String>),
    #[error(
        "enable-admission-plugins plugin {0:?} is not part of this server yet; leave it out, \
         what it would refuse is not refused"
    )]
    Missing(String),
    #[error("couldn't init admission plugin {plugin:?}: {source}")]
    Configuration {
        plugin: &'static str,
        source: ConfigError,
    },
}

/// How a plugin is made.
#[derive(Clone, Copy)]
enum Make {
    Plain(fn(&Deps) -> Arc<dyn Plugin>),
    /// It reads its part of the configuration file.
    Configured(fn(&Deps) -> Result<Arc<dyn Plugin>, ConfigError>),
}

impl Make {
    fn call(self, deps: &Deps) -> Result<Arc<dyn Plugin>, ConfigError> {
        match self {
            Make::Plain(make) => Ok(make(deps)),
            Make::Configured(make) => make(deps),
        }
    }
}

struct Entry {
    name: &'static str,
    /// Runs unless it is disabled.
    default: bool,
    make: Option<Make>,
    /// It does something only when this feature is on; empty for none.
    feature: &'static str,
}

const fn on(name: &'static str, make: fn(&Deps) -> Arc<dyn Plugin>) -> Entry {
    Entry {
        name,
        default: true,
        make: Some(Make::Plain(make)),
        feature: "",
    }
}

const fn configured(
    name: &'static str,
    make: fn(&Deps) -> Result<Arc<dyn Plugin>, ConfigError>,
) -> Entry {
    Entry {
        name,
        default: true,
        make: Some(Make::Configured(make)),
        feature: "",
    }
}

const fn off(name: &'static str, make: fn(&Deps) -> Arc<dyn Plugin>) -> Entry {
    Entry {
        name,
        default: false,
        make: Some(Make::Plain(make)),
        feature: "",
    }
}

/// Known upstream, not here yet.
const fn missing(name: &'static str, default: bool) -> Entry {
    Entry {
        name,
        default,
        make: None,
        feature: "",
    }
}

const fn when(feature: &'static str, entry: Entry) -> Entry {
    Entry { feature, ..entry }
}

/// Every plugin that upstream has, in its order.
const PLUGINS: &[Entry] = &[
    off("AlwaysAdmit", |_| Arc::new(simple::AlwaysAdmit)),
    missing("NamespaceAutoProvision", false),
    on("NamespaceLifecycle", |d| {
        Arc::new(namespace_lifecycle::NamespaceLifecycle::new(d))
    }),
    off("NamespaceExists", |d| {
        Arc::new(simple::NamespaceExists::new(d))
    }),
    missing("LimitPodHardAntiAffinityTopology", false),
    on("LimitRanger", |d| {
        Arc::new(limit_ranger::LimitRanger::new(d))
    }),
    on("ServiceAccount", |d| {
        Arc::new(service_account::ServiceAccount::new(d))
    }),
    off("NodeRestriction", |d| {
        Arc::new(node_restriction::NodeRestriction::new(d))
    }),
    on("TaintNodesByCondition", |_| {
        Arc::new(taint_nodes_by_condition::TaintNodesByCondition)
    }),
    off("AlwaysPullImages", |_| Arc::new(simple::AlwaysPullImages)),
    missing("ImagePolicyWebhook", false),
    configured("PodSecurity", |d| {
        Ok(Arc::new(pod_security::PodSecurity::new(d)?))
    }),
    missing("PodNodeSelector", false),
    on("Priority", |d| Arc::new(priority::Priority::new(d))),
    on("DefaultTolerationSeconds", |d| {
        Arc::new(default_toleration_seconds::DefaultTolerationSeconds::new(d))
    }),
    missing("PodTolerationRestriction", false),
    missing("EventRateLimit", false),
    missing("ExtendedResourceToleration", false),
    on("DefaultStorageClass", |d| {
        Arc::new(default_class::DefaultStorageClass::new(d))
    }),
    on("StorageObjectInUseProtection", |_| {
        Arc::new(storage_object_in_use_protection::StorageObjectInUseProtection)
    }),
    when(
        "GenericWorkload",
        on("PodGroupProtection", |_| Arc::new(pod_group::Protection)),
    ),
    missing("OwnerReferencesPermissionEnforcement", false),
    on("PersistentVolumeClaimResize", |d| {
        Arc::new(persistent_volume_claim_resize::PersistentVolumeClaimResize::new(d))
    }),
    on("RuntimeClass", |d| {
        Arc::new(runtime_class::RuntimeClass::new(d))
    }),
    on("CertificateApproval", |d| {
        Arc::new(certificates::Approval::new(d))
    }),
    on("CertificateSigning", |d| {
        Arc::new(certificates::Signing::new(d))
    }),
    when(
        "ClusterTrustBundle",
        on("ClusterTrustBundleAttest", |d| {
            Arc::new(certificates::BundleAttest::new(d))
        }),
    ),
    on("CertificateSubjectRestriction", |_| {
        Arc::new(certificates::SubjectRestriction)
    }),
    on("DefaultIngressClass", |d| {
        Arc::new(default_class::DefaultIngressClass::new(d))
    }),
    off("DenyServiceExternalIPs", |_| {
        Arc::new(simple::DenyServiceExternalIps)
    }),
    on("PodTopologyLabels", |d| {
        Arc::new(pod_topology_labels::PodTopologyLabels::new(d))
    }),
    when(
        "GenericWorkload",
        on("PodGroupWorkloadExists", |d| {
            Arc::new(pod_group::WorkloadExists::new(d))
        }),
    ),
    when(
        "NodeDeclaredFeatures",
        on("NodeDeclaredFeatureValidator", |d| {
            Arc::new(pod_resize::NodeDeclaredFeatureValidator::new(d))
        }),
    ),
    missing("JobValidation", false),
    on("PodResizeValidator", |d| {
        Arc::new(pod_resize::PodResizeValidator::new(d))
    }),
    missing("MutatingAdmissionPolicy", true),
    missing("MutatingAdmissionWebhook", true),
    missing("ValidatingAdmissionPolicy", true),
    missing("ValidatingAdmissionWebhook", true),
    configured("ResourceQuota", |d| {
        Ok(Arc::new(resource_quota::ResourceQuota::new(d)?))
    }),
    off("AlwaysDeny", |_| Arc::new(simple::AlwaysDeny)),
];

/// The plugins that run: the defaults and `--enable-admission-plugins`, without
/// `--disable-admission-plugins`.
pub fn chain<S: AsRef<str>>(
    enable: &[S],
    disable: &[S],
    deps: &Deps,
) -> Result<Vec<Arc<dyn Plugin>>, ChainError> {
    let has = |list: &[S], name: &str| list.iter().any(|n| n.as_ref() == name);
    for (flag, list) in [
        ("enable-admission-plugins", enable),
        ("disable-admission-plugins", disable),
    ] {
        for name in list {
            if !PLUGINS.iter().any(|p| p.name == name.as_ref()) {
                return Err(ChainError::Unknown {
                    flag,
                    name: name.as_ref().to_owned(),
                });
            }
        }
    }
    let both: Vec<String> = PLUGINS
        .iter()
        .filter(|p| has(enable, p.name) && has(disable, p.name))
        .map(|p| p.name.to_owned())
        .collect();
    if !both.is_empty() {
        return Err(ChainError::Overlap(both));
    }

    let mut plugins = Vec::new();
    let mut absent = Vec::new();
    for entry in PLUGINS {
        let explicit = has(enable, entry.name);
        if !explicit && (!entry.default || has(disable, entry.name)) {
            continue;
        }
        if !entry.feature.is_empty() && !deps.gates.enabled(entry.feature) {
            continue;
        }
        match entry.make {
            Some(make) => {
                let plugin = entry.name;
                let made = make.call(deps);
                plugins.push(made.map_err(|source| ChainError::Configuration { plugin, source })?);
            }
            // Someone relies on what it refuses: better not to start than to let it pass.
            None if explicit && !entry.default => {
                return Err(ChainError::Missing(entry.name.to_owned()));
            }
            None => absent.push(entry.name),
        }
    }
    if !absent.is_empty() {
        tracing::warn!(
            plugins = absent.join(","),
            "these admission plugins are on by default but not part of this server yet"
        );
    }
    Ok(plugins)
}
