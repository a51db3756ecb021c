//! `pods/eviction`: deletes a pod unless a disruption budget forbids it (KEP-85).

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::status::StatusCause;
use meta::{GroupResource, Status, labels};
use serde_json::{Value, json};

use super::super::conditions;
use super::super::managed::FieldManager;
use super::super::object_meta::{child_mut, meta, time};
use super::super::options::DeleteOptions;
use super::super::rest::{Reply, Rest, Target};
use super::super::store::{Store, Write};
use crate::storage::cache::{At, ListQuery, Selector};

const GROUP: &str = "policy";
/// The condition of a budget that says whether pods may go.
const ALLOWED: &str = "DisruptionAllowed";

pub struct Evictions {
    pub pods: Arc<Store>,
    pub budgets: Arc<Store>,
}

/// No budget speaks for a pod that does not run (any more).
fn is_beyond_budgets(pod: &Value) -> bool {
    meta(pod).is_deleting()
        || matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed" | "Pending")
        )
}

fn selects(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = budget["spec"].get("selector") else {
        return false;
    };
    let Ok(selector) = serde_json::from_value::<LabelSelector>(selector.clone()) else {
        return false;
    };
    labels::Selector::from_label_selector(Some(&selector))
        .is_ok_and(|selector| selector.matches(|key| pod["metadata"]["labels"][key].as_str()))
}

/// An unready pod may go without being counted when its application is well without it.
fn goes_uncounted(budget: &Value, pod: &Value) -> bool {
    if conditions::status(pod, "Ready") == "True" {
        return false;
    }
    let status = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (status("currentHealthy") >= status("desiredHealthy") && status("desiredHealthy") > 0)
}

fn refused(cause: String) -> Status {
    let mut status = Status::too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        0,
    );
    status.details_mut().causes = vec![StatusCause {
        reason: "DisruptionBudget".into(),
        message: cause,
        field: String::new(),
    }];
    status
}

/// Takes one disruption of a budget, for this pod.
fn take(budget: &mut Value, pod: &str, now: Timestamp) -> Result<(), Status> {
    let name = meta(budget).name().to_owned();
    let number = |budget: &Value, key: &str| budget["status"][key].as_i64().unwrap_or(0);
    if number(budget, "observedGeneration") < meta(budget).generation() {
        let mut status = refused(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
        status.details_mut().retry_after_seconds = 10;
        return Err(status);
    }
    let allowed = number(budget, "disruptionsAllowed");
    let forbidden = |message: &str| {
        // Upstream says it in the singular.
        Err(Status::forbidden(
            &GroupResource::new(GROUP, "poddisruptionbudget"),
            &name,
            message,
        ))
    };
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = budget["status"]["disruptedPods"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    const MOST: usize = 2000;
    if disrupted > MOST {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        return Err(refused(exhausted(budget)));
    }
    let status = child_mut(budget, "status");
    status.insert("disruptionsAllowed".into(), json!(allowed - 1));
    let pods = status.entry("disruptedPods").or_insert_with(|| json!({}));
    pods[pod] = time(now);
    if allowed == 1 {
        used_up(budget, now);
    }
    Ok(())
}

/// Why a budget allows no disruption. Its numbers are not to be trusted when its controller
/// could not work them out.
fn exhausted(budget: &Value) -> String {
    let name = meta(budget).name();
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    let conditions = budget["status"]["conditions"].as_array();
    let why = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == ALLOWED && c["status"] == "False")
        .map(|c| ["reason", "message"].map(|key| c[key].as_str().unwrap_or_default()))
        .filter(|[_, message]| !message.is_empty());
    match why {
        Some(["SyncFailed", message]) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        ),
        _ if healthy <= desired => format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        ),
        Some([reason, message]) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({reason}): {message}"
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// Says that the budget allows no more.
fn used_up(budget: &mut Value, now: Timestamp) {
    conditions::set(budget, ALLOWED, "False", "InsufficientPods", "", now);
    let observed = budget["status"]["observedGeneration"].clone();
    let conditions = budget["status"]["conditions"].as_array_mut();
    let condition = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == ALLOWED);
    if let Some(condition) = condition.filter(|_| observed.is_i64() && observed != 0) {
        condition["observedGeneration"] = observed;
    }
}

impl Evictions {
    async fn budgets_of(&self, pod: &Value) -> Result<Vec<Value>, Status> {
        let selector = Selector {
            namespace: meta(pod).namespace().to_owned(),
            ..Selector::default()
        };
        let query = ListQuery {
            selector: &selector,
            at: At::Latest,
            limit: 0,
            start: "",
        };
        let list = self
            .budgets
            .cache
            .list(&query)
            .await
            .map_err(Status::internal)?;
        let mut found = Vec::new();
        for object in &list.objects {
            let budget = self.budgets.tree(object.bytes(), object.revision())?;
            if selects(&budget, pod) {
                found.push(budget);
            }
        }
        Ok(found)
    }

    async fn delete(&self, write: &Write<'_>, options: &DeleteOptions) -> Result<(), Status> {
        let mut options = options.clone();
        if !write.dry_run {
            let now = Timestamp::now();
            let marked = self
                .pods
                .modify(write.namespace, write.name, false, &|pod| {
                    super::super::deletion::check_preconditions(pod, &options, "", "Pod")?;
                    conditions::set(
                        pod,
                        "DisruptionTarget",
                        "True",
                        "EvictionByEvictionAPI",
                        "Eviction API: evicting",
                        now,
                    );
                    Ok(())
                })
                .await?;
            if options.preconditions.resource_version.is_some() {
                // It is our own write that moved it.
                options.preconditions.resource_version =
                    Some(meta(&marked).resource_version().to_owned());
            }
        }
        self.pods.delete(write, &options).await.map(drop)
    }

    async fn evict(&self, write: &Write<'_>, asked: &DeleteOptions) -> Result<Status, Status> {
        let pod = self.pods.get_tree(write.namespace, write.name).await?;
        let version = Some(meta(&pod).resource_version().to_owned());
        let mut options = asked.clone();
        let pinned = asked.preconditions.resource_version.is_some();
        if is_beyond_budgets(&pod) {
            // A pending pod may begin to run, and then a budget would speak for it.
            if pod["status"]["phase"] == "Pending" && !meta(&pod).is_deleting() && !pinned {
                options.preconditions.resource_version = version;
            }
            self.delete(write, &options).await?;
            return Ok(Status::success());
        }
        let budgets = self.budgets_of(&pod).await?;
        let budget = match budgets.as_slice() {
            [] => None,
            [budget] => Some(budget),
            _ => {
                return Ok(Status::unknown(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let mut uncounted = false;
        if let Some(budget) = budget {
            uncounted = goes_uncounted(budget, &pod);
            if uncounted {
                if !pinned {
                    options.preconditions.resource_version = version;
                }
            } else {
                let now = Timestamp::now();
                let name = meta(budget).name();
                let manager = FieldManager {
                    subresource: "status",
                    ..FieldManager::server(self.budgets.resource)
                };
                let take = |budget: &mut Value| take(budget, write.name, now);
                self.budgets
                    .modify_as(&manager, write.namespace, name, write.dry_run, &take)
                    .await?;
            }
        }
        match self.delete(write, &options).await {
            Err(e) if e.is_conflict() && uncounted && !pinned => {
                let name = budget.map(|b| meta(b).name()).unwrap_or_default();
                Err(refused(format!(
                    "The disruption budget {name} is still being processed by the server."
                )))
            }
            Err(e) => Err(e),
            Ok(()) => Ok(Status::success()),
        }
    }
}

impl Rest for Evictions {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut eviction: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            target.check_namespace(&eviction)?;
            if meta(&eviction).name() != target.name {
                return Err(Status::bad_request(
                    "name in URL does not match name in Eviction object",
                ));
            }
            let options = match eviction.get("deleteOptions") {
                Some(options) => DeleteOptions::from_value(options.clone())?,
                None => DeleteOptions::default(),
            };
            let options = DeleteOptions {
                dry_run: options.dry_run || target.dry_run,
                ..options
            };
            let write = Write {
                user: target.user,
                group: "",
                namespace: target.namespace,
                name: target.name,
                subresource: "eviction",
                dry_run: options.dry_run,
                warnings: target.warnings,
                fields: None,
            };
            self.pods.admit_subresource(&write, &mut eviction).await?;
            // Deleting is the server's own doing from here on.
            let write = Write {
                subresource: "",
                ..write
            };
            let mut status = self.evict(&write, &options).await?;
            if status.success {
                status.code = 201;
            }
            Ok(Reply::Status(status))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 1},
               "spec": {"selector": {"matchLabels": {"a": "1"}}},
               "status": {"observedGeneration": 1, "disruptionsAllowed": allowed,
                          "desiredHealthy": 2, "currentHealthy": 2}})
    }

    #[test]
    fn a_budget_is_used_up() {
        let mut one = budget(1);
        take(&mut one, "p", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(one["status"]["disruptionsAllowed"], 0);
        assert_eq!(one["status"]["disruptedPods"]["p"], "1970-01-01T00:00:00Z");
        let condition = &one["status"]["conditions"][0];
        assert_eq!(condition["reason"], "InsufficientPods");
        let err = take(&mut one, "q", Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(err.code, 429);
        assert_eq!(
            err.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
        one["status"]["currentHealthy"] = json!(3);
        let but = "The disruption budget b does not allow evicting pods currently";
        assert_eq!(exhausted(&one), but);
        one["status"]["conditions"][0]["message"] = json!("why");
        assert_eq!(exhausted(&one), format!("{but} (InsufficientPods): why"));
        one["status"]["conditions"][0]["reason"] = json!("SyncFailed");
        assert_eq!(
            exhausted(&one),
            format!("{but} because it failed sync: why")
        );
        let mut behind = budget(1);
        behind["status"]["observedGeneration"] = json!(0);
        assert_eq!(
            take(&mut behind, "p", Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .code,
            429
        );
    }

    #[test]
    fn budgets_select_by_label() {
        let pod = |v: &str| json!({"metadata": {"labels": {"a": v}}});
        assert!(selects(&budget(0), &pod("1")));
        assert!(!selects(&budget(0), &pod("2")));
        assert!(goes_uncounted(&budget(0), &pod("1")));
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(!goes_uncounted(&budget(0), &ready));
    }
}
