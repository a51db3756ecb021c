//! [`Admission`]: asks the plugins of a chain, in order, and times them.

use std::sync::Arc;
use std::time::Instant;

use super::metrics::{Metrics, Step, Timed};
use super::*;

/// Plugins of which upstream has only the one half. Ours are not asked for the other.
const ONLY_ADMIT: [&str; 8] = [
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "NamespaceLifecycle",
    "NodeRestriction",
    "PodTopologyLabels",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
];
const ONLY_VALIDATE: [&str; 13] = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DenyServiceExternalIPs",
    "NamespaceExists",
    "NoPrivileged",
    "NodeDeclaredFeatureValidator",
    "PersistentVolumeClaimResize",
    "PodResizeValidator",
    "PodSecurity",
    "RBACEscalation",
    "ResourceQuota",
];

struct TimedPlugin {
    plugin: Arc<dyn Plugin>,
    timed: Timed,
}

/// The plugins that run, by what they do.
pub struct Admission {
    mutating: Vec<TimedPlugin>,
    validating: Vec<TimedPlugin>,
    metrics: Metrics,
}

impl Admission {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>, registry: &component::metrics::Registry) -> Self {
        let metrics = Metrics::new(registry);
        let without = |absent: &[&str]| -> Vec<TimedPlugin> {
            let kept = plugins.iter().filter(|p| !absent.contains(&p.name()));
            kept.map(|plugin| TimedPlugin {
                timed: metrics.of(plugin.name()),
                plugin: plugin.clone(),
            })
            .collect()
        };
        Self {
            mutating: without(&ONLY_VALIDATE),
            validating: without(&ONLY_ADMIT),
            metrics,
        }
    }

    /// Asks the plugins that may still change the object.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Value>,
    ) -> Result<(), Status> {
        let began = Instant::now();
        let mut result = Ok(());
        for TimedPlugin { plugin, timed } in &self.mutating {
            if !plugin.handles(attributes.operation) {
                continue;
            }
            let asked = Instant::now();
            result = plugin.mutate(attributes, object.as_deref_mut()).await;
            let rejected = result.is_err();
            timed.observe(Step::Admit, attributes.operation, rejected, asked.elapsed());
            if let Err(status) = &result {
                refused_by(&**plugin, status);
                break;
            }
        }
        self.done(Step::Admit, attributes, &result, began);
        result
    }

    /// Asks the plugins that have the last word.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), Status> {
        let began = Instant::now();
        let mut result = Ok(());
        for TimedPlugin { plugin, timed } in &self.validating {
            if !plugin.handles(attributes.operation) {
                continue;
            }
            let asked = Instant::now();
            result = plugin.validate(attributes, object).await;
            let rejected = result.is_err();
            timed.observe(
                Step::Validate,
                attributes.operation,
                rejected,
                asked.elapsed(),
            );
            if let Err(status) = &result {
                refused_by(&**plugin, status);
                break;
            }
        }
        self.done(Step::Validate, attributes, &result, began);
        result
    }

    fn done(
        &self,
        step: Step,
        attributes: &Attributes<'_>,
        result: &Result<(), Status>,
        began: Instant,
    ) {
        let (rejected, took) = (result.is_err(), began.elapsed());
        let steps = &self.metrics.steps;
        steps.observe(step, attributes.operation, rejected, took);
    }
}

fn refused_by(plugin: &dyn Plugin, status: &Status) {
    tracing::debug!(plugin = plugin.name(), %status.message, "admission refused a request");
}
