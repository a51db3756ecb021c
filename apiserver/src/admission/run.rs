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

/// What is asked like a plugin and is none; upstream has no metric for it.
const UNNAMED: [&str; 2] = ["NoPrivileged", "RBACEscalation"];

struct TimedPlugin {
    plugin: Arc<dyn Plugin>,
    timed: Option<Timed>,
}

impl TimedPlugin {
    fn observe(&self, step: Step, a: &Attributes<'_>, result: &Result<(), Status>, asked: Instant) {
        let (rejected, took) = (result.is_err(), asked.elapsed());
        if let Some(timed) = &self.timed {
            timed.observe(step, a.operation, rejected, took);
        }
        if let Err(status) = result {
            let plugin = self.plugin.name();
            tracing::debug!(plugin, %status.message, "admission refused a request");
        }
    }
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
                timed: (!UNNAMED.contains(&plugin.name())).then(|| metrics.of(plugin.name())),
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
        for timed in &self.mutating {
            if !timed.plugin.handles(attributes.operation) {
                continue;
            }
            let asked = Instant::now();
            let object = object.as_deref_mut();
            result = timed.plugin.mutate(attributes, object).await;
            timed.observe(Step::Admit, attributes, &result, asked);
            if result.is_err() {
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
        for timed in &self.validating {
            if !timed.plugin.handles(attributes.operation) {
                continue;
            }
            let asked = Instant::now();
            result = timed.plugin.validate(attributes, object).await;
            timed.observe(Step::Validate, attributes, &result, asked);
            if result.is_err() {
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
