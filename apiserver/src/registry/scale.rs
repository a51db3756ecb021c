//! `scale`: the number of replicas of a workload as an `autoscaling/v1` `Scale`.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::{GroupKind, GroupResource, Status, labels};
use serde_json::{Value, json};

use super::convert::api_version;
use super::managed;
use super::object_meta::{meta, meta_mut, set};
use super::rest::{Rest, Target};
use super::store::{Change, Store, Update, Write};

pub struct Scale {
    pub workloads: Arc<Store>,
}

/// The scale of a workload.
fn of(workload: &Value) -> Value {
    let m = meta(workload);
    let mut metadata = json!({
        "name": m.name(),
        "namespace": m.namespace(),
        "uid": m.uid(),
        "resourceVersion": m.resource_version(),
    });
    if let Some(created) = m.get("creationTimestamp") {
        metadata["creationTimestamp"] = created.clone();
    }
    let mut scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": workload["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": workload["status"]["replicas"].as_i64().unwrap_or(0)},
    });
    let selector = selector(&workload["spec"]["selector"]);
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// A workload's selector as text: a label selector, or the plain map of a
/// ReplicationController.
fn selector(value: &Value) -> String {
    let Some(map) = value.as_object() else {
        return String::new();
    };
    let parsed = if map.contains_key("matchLabels") || map.contains_key("matchExpressions") {
        serde_json::from_value::<LabelSelector>(value.clone())
            .ok()
            .and_then(|s| labels::Selector::from_label_selector(Some(&s)).ok())
    } else {
        let set: Vec<(String, String)> = map
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect();
        Some(labels::Selector::from_set(set.iter().map(|(k, v)| (k, v))))
    };
    parsed.map(|s| s.to_string()).unwrap_or_default()
}

/// Its metadata are checked too, though nothing but the resource version and the managers is kept
/// of them.
fn validate(scale: &Value, name: &str) -> Result<(), Status> {
    let (group, kind) = ("autoscaling", "Scale");
    let errors = api::validation::create(group, kind, true, scale);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind::new(group, kind), name, &errors))
}

impl Rest for Scale {
    fn get<'a>(&'a self, target: Target<'a>) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let workload = self
                .workloads
                .get_tree(target.namespace, target.name)
                .await?;
            Ok(of(&workload))
        })
    }

    fn update<'a>(
        &'a self,
        target: Target<'a>,
        change: &'a Change<'a>,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let resource = target.group_resource();
            let now = jiff::Timestamp::now();
            let change = |current: Option<&Value>| {
                let Some(workload) = current else {
                    return Err(Status::not_found(&resource, target.name));
                };
                let mut before = of(workload);
                let entries = managed::scale_entries(workload);
                set(meta_mut(&mut before), "managedFields", entries);
                let mut scale = change(Some(&before))?;
                // The path says it where the object does not.
                if meta(&scale).namespace().is_empty() {
                    set(
                        meta_mut(&mut scale),
                        "namespace",
                        Some(json!(target.namespace)),
                    );
                }
                if !target.apply {
                    target.fields.note(Some(&before), &mut scale, now);
                }
                validate(&scale, target.name)?;
                let asked = meta(&scale);
                if !asked.uid().is_empty() && asked.uid() != meta(workload).uid() {
                    let resource = target.group_resource();
                    let part = format!("{}/scale", resource.resource);
                    return Err(Status::conflict(
                        &GroupResource::new(&resource.group, &part),
                        target.name,
                        format!(
                            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                            asked.uid(),
                            meta(workload).uid()
                        ),
                    ));
                }
                let mut workload = workload.clone();
                workload["spec"]["replicas"] =
                    json!(scale["spec"]["replicas"].as_i64().unwrap_or(0));
                workload["metadata"]["resourceVersion"] = json!(asked.resource_version());
                let entries = managed::workload_entries(
                    &workload,
                    asked.get("managedFields"),
                    &api_version(self.workloads.resource),
                );
                set(meta_mut(&mut workload), "managedFields", entries);
                Ok(workload)
            };
            let write = Write {
                user: target.user,
                group: "",
                namespace: target.namespace,
                name: target.name,
                subresource: "scale",
                dry_run: target.dry_run,
                warnings: target.warnings,
                fields: None,
            };
            let update = Update {
                change: &change,
                verb: "update",
                uid: (!target.uid.is_empty()).then_some(target.uid),
                // The managers of the workload are told from those of the scale.
                noted: true,
                force_create: false,
                may_create: &|| Ok(()),
            };
            let written = self.workloads.update(&write, &update).await?;
            Ok(of(&written.object))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_shown_as_its_scale() {
        let scale = of(&json!({
            "metadata": {"name": "d", "namespace": "ns", "uid": "u", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}},
            "status": {"replicas": 2},
        }));
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b"}));
        assert_eq!(selector(&json!({"a": "b", "c": "d"})), "a=b,c=d");
    }

    #[test]
    fn a_scale_is_checked_with_its_metadata() {
        let checked = |metadata: Value, replicas: i64| {
            let mut scale = json!({"metadata": {"name": "d", "namespace": "ns"},
                "spec": {"replicas": replicas}});
            for (key, value) in metadata.as_object().into_iter().flatten() {
                scale["metadata"][key] = value.clone();
            }
            validate(&scale, "d").map_err(|status| {
                assert_eq!(status.code, 422);
                let causes = status.details.unwrap_or_default().causes;
                causes.into_iter().map(|c| c.field).collect::<Vec<_>>()
            })
        };
        assert_eq!(checked(json!({"labels": {"a": "b"}}), 1), Ok(()));
        assert_eq!(checked(json!({}), -1), Err(vec!["spec.replicas".into()]));
        for (metadata, field) in [
            (json!({"labels": {"a b": ""}}), "metadata.labels"),
            (json!({"annotations": {"a b": ""}}), "metadata.annotations"),
            (json!({"finalizers": ["x"]}), "metadata.finalizers[0]"),
            (json!({"generation": -1}), "metadata.generation"),
            (json!({"generateName": "A_"}), "metadata.generateName"),
        ] {
            assert_eq!(checked(metadata, 0), Err(vec![field.into()]));
        }
    }
}
