//! ResourceQuota: what a namespace holds stays within its quotas. What a write costs is
//! `api::quota`'s to say; here requests are measured and, a namespace at a time, charged.
//!
//! It runs last of all plugins: what is refused for another reason must not be charged.

mod batch;

use std::sync::Arc;

use api::quota::check::{Change, Refusal, Request};
use api::quota::resource_claims::{Claim, DeviceClass, DeviceClasses, Owner, Owners};
use api::quota::{Evaluator, Pod, Surroundings, config, is_ignored, lacks};
use serde::Deserialize as _;

use super::chain::Deps;
use super::config::ConfigError;
use super::*;
use crate::authn::Clock;
use crate::lookup::Lookup;
use batch::{Batches, Denied};

const DRA: &str = "resource.k8s.io";

/// Writes a quota's status.
pub trait QuotaWriter: Send + Sync + 'static {
    /// Replaces exactly the state that the object's resourceVersion names, or fails with a
    /// conflict. Returns what is stored now.
    fn write_status<'a>(&'a self, quota: Value) -> BoxFuture<'a, Result<Value, Status>>;
}

pub struct ResourceQuota {
    lookup: Arc<dyn Lookup>,
    clock: Clock,
    batches: Arc<Batches>,
}

impl ResourceQuota {
    pub fn new(deps: &Deps) -> Result<Self, ConfigError> {
        let kinds = config::Configuration::KINDS;
        let configuration: Option<config::Configuration> =
            deps.configuration.of("ResourceQuota", kinds)?;
        let configuration = configuration.unwrap_or_default();
        let errors = configuration.validate();
        if !errors.is_empty() {
            return Err(ConfigError::Invalid(errors.to_string()));
        }
        let limited = configuration.limited_resources;
        let batches = Batches::new(deps.lookup.clone(), deps.quotas.clone(), limited);
        Ok(Self {
            lookup: deps.lookup.clone(),
            clock: deps.clock.clone(),
            batches: Arc::new(batches),
        })
    }

    async fn evaluate(&self, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let (group, resource) = (a.resource.group, a.resource.plural);
        if is_ignored(group, resource) || a.is("", "namespaces") {
            return Ok(());
        }
        let evaluator = Evaluator::of(group, resource);
        if !handles(&evaluator, a, object) || self.batches.has_nothing(a.namespace) {
            return Ok(());
        }
        let request = self.measure(a, evaluator, object)?;
        let done = self.batches.evaluate(a.namespace, request, a.dry_run).await;
        done.map_err(|denied| match denied {
            Denied::Refused(Refusal::Forbidden(why)) => a.forbidden(Some(object), why),
            // Errors that upstream gives no reason.
            Denied::Refused(Refusal::Failed(message)) => Status {
                code: 500,
                message,
                ..Status::default()
            },
            Denied::Failed(status) => *status,
        })
    }

    fn measure(
        &self,
        a: &Attributes<'_>,
        evaluator: Evaluator,
        object: &Value,
    ) -> Result<Request, Status> {
        let failed = |e: api::quota::MeasureError| Status::internal(e);
        let classes = match evaluator {
            Evaluator::ResourceClaims => self.device_classes(),
            _ => DeviceClasses::default(),
        };
        let around = Surroundings {
            classes: &classes,
            owners: &Cached(self),
        };
        let new = evaluator.measure(object, &around).map_err(failed)?;
        let change = match (a.operation, a.old) {
            (Operation::Update, Some(old)) => {
                let old = evaluator.measure(old, &around).map_err(failed)?;
                Change::Update(Box::new(old))
            }
            _ => Change::Create,
        };
        let lacks = match evaluator {
            Evaluator::Pods => Pod::deserialize(object)
                .map(|pod| lacks(&pod))
                .map_err(Status::internal)?,
            _ => Default::default(),
        };
        Ok(Request {
            group: a.resource.group.to_owned(),
            resource: a.resource.plural.to_owned(),
            evaluator,
            change,
            is_status: a.subresource == "status",
            new,
            lacks,
            classes,
            now: (self.clock)(),
        })
    }

    fn device_classes(&self) -> DeviceClasses {
        let classes = self.lookup.list(DRA, "deviceclasses", "");
        let read = |class: &Arc<Value>| DeviceClass::deserialize(&**class).ok();
        classes.iter().filter_map(read).collect()
    }
}

/// Whether a request can change what a quota counts.
fn handles(evaluator: &Evaluator, a: &Attributes<'_>, object: &Value) -> bool {
    let update = a.operation == Operation::Update;
    match (evaluator, a.subresource) {
        (Evaluator::Pods, "resize") => update,
        (Evaluator::Pods, "") if update => {
            // Of all that an update can change only the deadline counts.
            let has_deadline = |pod: &Value| {
                let seconds = pod["spec"]["activeDeadlineSeconds"].as_i64();
                seconds.is_some_and(|s| s >= 0)
            };
            a.old.is_some_and(has_deadline) != has_deadline(object)
        }
        (Evaluator::VolumeClaims, "status") => true,
        (Evaluator::Pods | Evaluator::Count { .. }, "") => a.operation == Operation::Create,
        (_, "") => true,
        _ => false,
    }
}

/// Pods and claims as the watch cache has them.
struct Cached<'a>(&'a ResourceQuota);

impl Owners for Cached<'_> {
    fn pod(&self, namespace: &str, name: &str) -> Option<Owner> {
        let pod = self.0.lookup.get("", "pods", namespace, name)?;
        let pod = Pod::deserialize(&*pod).ok()?;
        Some(Owner {
            claim: pod.extended_claim().map(str::to_owned),
            usage: pod.measure().usage((self.0.clock)()).into_owned(),
            uid: pod.metadata.uid,
        })
    }

    fn claims(&self, namespace: &str, pod_uid: &str) -> Vec<(String, String)> {
        let claims = self.0.lookup.list(DRA, "resourceclaims", namespace);
        let read = claims.iter().filter_map(|c| Claim::deserialize(&**c).ok());
        read.filter(|claim| claim.pod_owner().is_some_and(|(_, uid)| uid == pod_uid))
            .map(|claim| (claim.metadata.creation_timestamp, claim.metadata.name))
            .collect()
    }
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match object {
            Some(object) if !a.namespace.is_empty() => Box::pin(self.evaluate(a, object)),
            _ => ready(Ok(())),
        }
    }
}
