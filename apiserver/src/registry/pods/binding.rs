//! `pods/binding` and the older `bindings`: the scheduler's word on where a pod runs.

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::{ErrorList, FieldError, GroupResource, Path, Status};
use serde_json::Value;

use super::super::conditions;
use super::super::object_meta::{child_mut, meta};
use super::super::rest::{Reply, Rest, Target};
use super::super::store::{Store, Write};

pub struct Bindings {
    pub pods: Arc<Store>,
}

fn validate(binding: &Value) -> Result<(), Status> {
    let mut errs = ErrorList::default();
    let target = Path::new("target");
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errs.push(FieldError::not_supported(
            &target.child("kind"),
            kind,
            &["Node", "<empty>"],
        ));
    }
    if binding["target"]["name"].as_str().is_none_or(str::is_empty) {
        errs.push(FieldError::required(&target.child("name"), ""));
    }
    if errs.is_empty() {
        return Ok(());
    }
    // Upstream forgets to say that the client is at fault.
    Err(Status {
        code: 500,
        message: errs.to_string(),
        ..Status::default()
    })
}

/// Puts a pod on its node, once.
fn assign(pod: &mut Value, binding: &Value, now: jiff::Timestamp) -> Result<(), String> {
    let m = meta(pod);
    let name = m.name().to_owned();
    if m.is_deleting() {
        return Err(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if super::has_scheduling_gates(pod) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    for key in ["annotations", "labels"] {
        if let Some(given) = binding["metadata"][key].as_object() {
            let given = given.clone();
            child_mut(&mut pod["metadata"], key).extend(given);
        }
    }
    conditions::set(pod, "PodScheduled", "True", "", "", now);
    Ok(())
}

impl Rest for Bindings {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut binding: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            let name = meta(&binding).name().to_owned();
            if !target.name.is_empty() && target.name != name {
                return Err(Status::bad_request(
                    "name in URL does not match name in Binding object",
                ));
            }
            if target.name.is_empty() {
                // What is created has no uid yet, and `bindings` are created.
                if let Some(metadata) = binding["metadata"].as_object_mut() {
                    metadata.remove("uid");
                }
            }
            target.check_namespace(&binding)?;
            validate(&binding)?;
            if name.is_empty() {
                return Err(Status::bad_request("Name parameter required."));
            }
            let write = Write {
                user: target.user,
                group: "",
                namespace: target.namespace,
                name: &name,
                subresource: "binding",
                dry_run: target.dry_run,
                warnings: target.warnings,
                fields: None,
            };
            self.pods.admit_subresource(&write, &mut binding).await?;
            let conflict_of = |resource: &'static str, message: String| {
                Status::conflict(&GroupResource::new("", resource), &name, message)
            };
            let unmet = |message: String| conflict_of("pods", message);
            let now = jiff::Timestamp::now();
            self.pods
                .modify(target.namespace, &name, target.dry_run, &|pod| {
                    let wanted = meta(&binding);
                    let found = meta(pod);
                    if !wanted.uid().is_empty() && wanted.uid() != found.uid() {
                        return Err(unmet(format!(
                            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                            wanted.uid(),
                            found.uid()
                        )));
                    }
                    let version = wanted.resource_version();
                    if !version.is_empty() && version != found.resource_version() {
                        return Err(unmet(format!(
                            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                            found.resource_version()
                        )));
                    }
                    assign(pod, &binding, now)
                        .map_err(|message| conflict_of("pods/binding", message))
                })
                .await?;
            let mut status = Status::success();
            status.code = 201;
            Ok(Reply::Status(status))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding =
            json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"name": "n1"}});
        let mut pod =
            json!({"metadata": {"name": "p"}, "spec": {}, "status": {"nominatedNodeName": "n1"}});
        assign(&mut pod, &binding, now()).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(conditions::status(&pod, "PodScheduled"), "True");
        assert!(pod["status"].get("nominatedNodeName").is_none());
        assert_eq!(
            assign(&mut pod, &binding, now()).unwrap_err(),
            "pod p is already assigned to node \"n1\""
        );
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        let binding = json!({"target": {"name": "n1"}});
        let refuse = |mut pod: Value| assign(&mut pod, &binding, now()).unwrap_err();
        let going = json!({"metadata": {"name": "p", "deletionTimestamp": "2024-01-01T00:00:00Z"}});
        assert!(refuse(going).contains("is being deleted"));
        let gated =
            json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}});
        assert!(refuse(gated).contains("schedulingGates"));
        assert_eq!(
            validate(&json!({"target": {"kind": "Pod", "name": ""}}))
                .unwrap_err()
                .code,
            500
        );
    }
}
