//! validatingadmissionpolicy-status-controller: warns in the status of a
//! ValidatingAdmissionPolicy of expressions that cannot be right for the kinds it matches
//! (KEP-3488).

mod environment;
mod kinds;
mod plan;
mod schema;
mod served;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::informer::Store;
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions, WriteOptions};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{ParamKind, ValidatingAdmissionPolicy};
use meta::GroupVersionKind;
use serde_json::json;

use self::plan::Described;
use self::schema::Document;
use self::served::{Index, Known, Served};
use crate::context::{Context, Run, retry_conflicts};

const NAME: &str = "validatingadmissionpolicy-status";

struct Controller {
    policies: Store<ValidatingAdmissionPolicy>,
    api: Api<ValidatingAdmissionPolicy>,
    served: Arc<Served>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("validatingadmissionpolicy-status-controller")?;
    let policies = ctx.informer::<ValidatingAdmissionPolicy>();
    let queue: Queue<ObjectKey> = ctx.queue(NAME);
    let changed = queue.clone();
    policies.add_handler(move |change| {
        if change
            .current()
            .is_some_and(|policy| unobserved(policy).is_some())
        {
            changed.add(change.key());
        }
    });
    let controller = Arc::new(Controller {
        policies: policies.store().clone(),
        api: Api::all(&client),
        served: Served::new(&client),
    });
    let flags = &ctx.options.policy_status;
    let workers = flags
        .concurrent_validating_admission_policy_status_syncs
        .get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        policies.wait_synced().await;
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

/// The generation of a policy whose expressions have not been checked as they are.
fn unobserved(policy: &ValidatingAdmissionPolicy) -> Option<i64> {
    let status = policy.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    let generation = policy.metadata.generation.unwrap_or_default();
    (generation > observed.unwrap_or_default()).then_some(generation)
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(policy) = self.policies.get_key(key) else {
            return Ok(Requeue::No);
        };
        let Some(generation) = unobserved(&policy) else {
            return Ok(Requeue::No);
        };
        let (mut known, new) = self.served.known().await?;
        let mut matched = kinds::matched(&policy, &known.resources);
        if matched.unknown && !new {
            // A resource may have come together with the policy.
            known = self.served.asked_anew().await?;
            matched = kinds::matched(&policy, &known.resources);
        }
        let index = self.served.index().await?;
        let mut documents = Vec::new();
        for gvk in &matched.kinds {
            documents.extend(self.describe(&known, &index, gvk).await);
        }
        let spec = policy.spec.as_ref();
        let params = spec.and_then(|spec| params_kind(spec.param_kind.as_ref()?));
        let params = match &params {
            Some(gvk) => self.describe(&known, &index, gvk).await,
            None => None,
        };
        let described = |(gvk, document)| Described { gvk, document };
        let kinds: Vec<Described<'_>> = documents
            .iter()
            .map(|(gvk, document)| described((*gvk, document.as_ref())))
            .collect();
        let params = params
            .as_ref()
            .map(|(gvk, document)| described((*gvk, document.as_ref())));
        let mark = Timestamp::now().subsec_nanosecond().unsigned_abs();
        let warnings = plan::warnings(&policy, &kinds, params, mark);
        let mut checked = json!({});
        if !warnings.is_empty() {
            checked["expressionWarnings"] = json!(warnings);
        }
        let apply = Patch::Apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": policy.name()},
            "status": {"observedGeneration": generation, "typeChecking": checked},
        }));
        let options = PatchOptions {
            write: WriteOptions {
                field_manager: Some(NAME.to_owned()),
                ..WriteOptions::default()
            },
            force: true,
        };
        match self.api.patch_status(policy.name(), &apply, &options).await {
            // Deleted meanwhile.
            Err(error) if error.is_not_found() => {}
            other => {
                other?;
            }
        }
        Ok(Requeue::No)
    }

    async fn describe<'a>(
        &self,
        known: &Known,
        index: &Index,
        gvk: &'a GroupVersionKind,
    ) -> Option<(&'a GroupVersionKind, Arc<Document>)> {
        let gv = gvk.group_version();
        let document = self.served.document(known, index, &gv).await?;
        Some((gvk, document))
    }
}

fn params_kind(kind: &ParamKind) -> Option<GroupVersionKind> {
    let api_version = kind.api_version.as_deref().unwrap_or_default();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let name = kind.kind.clone().unwrap_or_default();
    let gvk = GroupVersionKind::new(group, version, name);
    // Without a version there is no such kind.
    (!gvk.version.is_empty()).then_some(gvk)
}
