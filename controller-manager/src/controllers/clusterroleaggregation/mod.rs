//! clusterrole-aggregation-controller: gives ClusterRoles with an aggregation rule the rules
//! of all ClusterRoles that it selects.

use std::sync::Arc;

use client::informer::Store;
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions, WriteOptions};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use meta::labels::Selector;
use serde_json::json;

use crate::context::{Context, Run, retry_conflicts};

const WORKERS: usize = 5;
const FIELD_MANAGER: &str = "clusterrole-aggregation-controller";

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("clusterrole-aggregation-controller")?;
    let roles = ctx.informer::<ClusterRole>();
    let queue: Queue<ObjectKey> = ctx.queue("ClusterRoleAggregator");
    let store = roles.store().clone();
    let all = queue.clone();
    roles.add_handler(move |change| {
        // Any role may be selected by any other.
        let aggregated = store.filter(|r| r.aggregation_rule.is_some());
        aggregated.iter().for_each(|r| all.add(r.key()));
        if let Some(role) = change.current().filter(|r| r.aggregation_rule.is_some()) {
            all.add(role.key());
        }
    });
    let api: Api<ClusterRole> = Api::all(&client);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        roles.wait_synced().await;
        let store = roles.store().clone();
        queue
            .run(WORKERS, &stop, move |key| {
                let (store, api) = (store.clone(), api.clone());
                async move { retry_conflicts(sync(&store, &api, &key).await) }
            })
            .await;
    })))
}

/// The rules that the role should have; `None` if it does not aggregate, or has them.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role
        .aggregation_rule
        .as_ref()?
        .cluster_role_selectors
        .as_ref();
    let mut roles: Vec<&ClusterRole> = all.iter().map(|r| &**r).collect();
    roles.sort_by_key(|r| r.name());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.into_iter().flatten() {
        let Ok(selector) = Selector::from_label_selector(Some(selector)) else {
            tracing::error!(role = role.name(), "an aggregation selector is invalid");
            return None;
        };
        let selected = roles.iter().filter(|r| {
            r.name() != role.name() && selector.matches_labels(r.metadata.labels.as_ref())
        });
        for rule in selected.flat_map(|r| r.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (rules != role.rules.as_deref().unwrap_or_default()).then_some(rules)
}

async fn sync(
    store: &Store<ClusterRole>,
    api: &Api<ClusterRole>,
    key: &ObjectKey,
) -> Result<Requeue, Error> {
    let Some(role) = store.get_key(key) else {
        return Ok(Requeue::No);
    };
    let Some(rules) = plan(&role, &store.list()) else {
        return Ok(Requeue::No);
    };
    let apply = Patch::Apply(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": role.name()}, "rules": rules,
    }));
    let options = PatchOptions {
        write: WriteOptions {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..WriteOptions::default()
        },
        force: true,
    };
    match api.patch(role.name(), &apply, &options).await {
        // A server without server-side apply.
        Err(e) if e.status().is_some_and(|s| s.code == 415) => {
            let role = ClusterRole {
                rules: Some(rules),
                ..ClusterRole::clone(&role)
            };
            api.replace(&role).await?;
        }
        other => {
            other?;
        }
    }
    Ok(Requeue::No)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(value: serde_json::Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn rules_are_collected_once_and_in_order() {
        let rule = |r: &str| json!({"apiGroups": [""], "resources": [r], "verbs": ["get"]});
        let part = |name: &str, rules: serde_json::Value| {
            role(json!({"metadata": {"name": name, "labels": {"to": "view"}}, "rules": rules}))
        };
        let view = json!({
            "metadata": {"name": "view", "labels": {"to": "view"}}, "rules": [rule("stale")],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]},
        });
        let view = role(view);
        let all = [
            part("b", json!([rule("pods"), rule("nodes")])),
            part("a", json!([rule("pods")])),
            role(json!({"metadata": {"name": "other"}, "rules": [rule("secrets")]})),
            view.clone(),
        ];
        let rules = plan(&view, &all).unwrap();
        assert_eq!(
            serde_json::to_value(&rules).unwrap(),
            json!([rule("pods"), rule("nodes")])
        );
        let right = ClusterRole {
            rules: Some(rules),
            ..ClusterRole::clone(&view)
        };
        assert_eq!(plan(&right, &all), None);
        assert_eq!(plan(&all[0], &all), None);
    }
}
