//! Pods: their strategy, and what binds, evicts and measures them.

mod app_armor;
pub mod binding;
pub mod eviction;
mod label_keys;
pub mod qos;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use api::same::By;
use api::validation;
use meta::field::{ErrorList, FieldError, Path};
use serde_json::{Value, json};

use super::conditions;
use super::generic::{META_BUT_FOR_STATUS, keep_all_but_status, keep_meta, spec_changed};
use super::object_meta::{child_mut, keep, meta, set, set_generation};
use super::options::DeleteOptions;
use super::strategy::{Context, Strategy};

#[derive(Debug)]
pub struct Pods;

impl Strategy for Pods {
    fn prepare_create(&self, cx: &Context<'_>, pod: &mut Value) {
        set_generation(pod, 1);
        label_keys::merge(pod);
        for warning in app_armor::from_annotations(pod) {
            if let Some(warnings) = cx.warnings {
                warnings.add(warning);
            }
        }
        pod["status"] = json!({"phase": "Pending", "qosClass": qos::said(pod)});
        if has_scheduling_gates(pod) {
            conditions::set(
                pod,
                "PodScheduled",
                "False",
                "SchedulingGated",
                "Scheduling is blocked due to non-empty scheduling gates",
                cx.now,
            );
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, pod: &Value) -> ErrorList {
        validation::create("", "Pod", true, pod)
    }

    fn prepare_update(&self, cx: &Context<'_>, pod: &mut Value, old: &Value) {
        match cx.subresource {
            "status" => prepare_status(pod, old),
            "ephemeralcontainers" => {
                let added = pod["spec"].get("ephemeralContainers").cloned();
                keep_all_but_meta(pod, old);
                set(child_mut(pod, "spec"), "ephemeralContainers", added);
            }
            "resize" => prepare_resize(pod, old),
            _ => keep(pod, old, "status"),
        }
        if cx.subresource != "status" && spec_changed(message(), pod, old, By::Meaning) {
            set_generation(pod, meta(old).generation() + 1);
        }
    }

    fn validate_update(&self, cx: &Context<'_>, pod: &Value, old: &Value) -> ErrorList {
        match cx.subresource {
            "status" => validation::update_status("", "Pod", pod, old),
            part @ "ephemeralcontainers" => validation::update_part("", "Pod", part, pod, old),
            part @ "resize" => {
                let mut errors = validation::update_part("", "Pod", part, pod, old);
                if qos::class(pod) != qos::said(old) {
                    errors.push(FieldError::invalid(
                        &Path::new("spec"),
                        qos::said(old),
                        "Pod QOS Class may not change as a result of resizing",
                    ));
                }
                errors
            }
            _ => validation::update("", "Pod", pod, old),
        }
    }

    fn is_graceful(&self) -> bool {
        true
    }

    fn grace_period(&self, pod: &Value, options: &DeleteOptions) -> Option<Duration> {
        let asked = options
            .grace_period
            .or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64())
            .unwrap_or(0);
        // Nobody runs it, or it has run: there is nothing to wait for.
        let unscheduled = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
        let over = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        let seconds = match asked {
            _ if unscheduled || over => 0,
            n if n < 0 => 1,
            n => n as u64,
        };
        Some(Duration::from_secs(seconds))
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

fn message() -> &'static schema::Message {
    schema::kind("", "v1", "Pod").expect("the schema has pods")
}

fn has_scheduling_gates(pod: &Value) -> bool {
    pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
}

/// The status and nothing that decides whether and for whom the pod lives.
fn prepare_status(pod: &mut Value, old: &Value) {
    keep_all_but_status(pod, old);
    for key in ["ownerReferences", "deletionTimestamp"] {
        keep(&mut pod["metadata"], &old["metadata"], key);
    }
    keep_observed_generations(pod, old);
    let class = old["status"]["qosClass"].clone();
    let status = child_mut(pod, "status");
    if status
        .get("qosClass")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
        && class.is_string()
    {
        status.insert("qosClass".into(), class);
    }
}

/// Clients that do not know `observedGeneration` must not clear it, neither of the status
/// nor of its conditions (of which several may have one type).
fn keep_observed_generations(pod: &mut Value, old: &Value) {
    const FIELD: &str = "observedGeneration";
    let unset = |of: &serde_json::Map<String, Value>| of.get(FIELD).is_none_or(|g| g == 0);
    let status = child_mut(pod, "status");
    if unset(status) {
        set(status, FIELD, old["status"].get(FIELD).cloned());
    }
    let mut before: HashMap<&Value, VecDeque<&Value>> = HashMap::new();
    for condition in old["status"]["conditions"].as_array().into_iter().flatten() {
        let of_type = before.entry(&condition["type"]).or_default();
        of_type.push_back(condition);
    }
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let of_type = before.get_mut(&condition["type"]);
        let earlier = of_type.and_then(VecDeque::pop_front);
        if let (Some(earlier), Some(condition)) = (earlier, condition.as_object_mut())
            && unset(condition)
        {
            set(condition, FIELD, earlier.get(FIELD).cloned());
        }
    }
}

/// Everything is as it was, but for the metadata that only the server writes.
fn keep_all_but_meta(pod: &mut Value, old: &Value) {
    let metadata = pod["metadata"].take();
    *pod = old.clone();
    pod["metadata"] = metadata;
    keep_meta(pod, old, META_BUT_FOR_STATUS);
}

/// Resources of containers and nothing else. Containers that are added, removed, renamed or
/// put in another order are left for validation to refuse.
fn prepare_resize(pod: &mut Value, old: &Value) {
    let list = |of: &Value, key: &str| of["spec"][key].as_array().cloned().unwrap_or_default();
    let mut resized = Vec::new();
    for key in ["containers", "initContainers"] {
        let (asked, mut containers) = (list(pod, key), list(old, key));
        if asked.len() != containers.len() {
            return;
        }
        let same = containers
            .iter()
            .zip(&asked)
            .all(|(a, b)| a["name"] == b["name"]);
        if same {
            for (container, asked) in containers.iter_mut().zip(&asked) {
                keep(container, asked, "resources");
                keep(container, asked, "resizePolicy");
            }
        } else {
            containers = asked;
        }
        resized.push((key, containers));
    }
    let resources = pod["spec"].get("resources").cloned();
    keep_all_but_meta(pod, old);
    let spec = child_mut(pod, "spec");
    set(spec, "resources", resources);
    for (key, containers) in resized {
        let containers = (!containers.is_empty()).then(|| containers.into());
        set(spec, key, containers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context<'a>(user: &'a crate::authn::User, subresource: &'a str) -> Context<'a> {
        Context {
            group: "",
            verb: "update",
            user,
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
            subresource,
            warnings: None,
        }
    }

    #[test]
    fn a_new_pod_is_pending_and_has_a_class() {
        let user = Default::default();
        let mut pod = json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c"}], "schedulingGates": [{"name": "g"}]},
            "status": {"phase": "Running", "podIP": "1.2.3.4"},
        });
        Pods.prepare_create(&context(&user, ""), &mut pod);
        assert_eq!(pod["status"]["phase"], "Pending");
        assert_eq!(pod["status"]["qosClass"], "BestEffort");
        assert!(pod["status"].get("podIP").is_none());
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        assert_eq!(pod["metadata"]["generation"], 1);
    }

    #[test]
    fn status_updates_leave_the_rest_alone() {
        let user = Default::default();
        let old = json!({"metadata": {"name": "a", "ownerReferences": [{"uid": "u"}]},
                         "spec": {"nodeName": "n"}, "status": {"qosClass": "Burstable"}});
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "other"},
                             "status": {"phase": "Running"}});
        Pods.prepare_update(&context(&user, "status"), &mut pod, &old);
        assert_eq!(pod["spec"], old["spec"]);
        assert_eq!(pod["metadata"], old["metadata"]);
        assert_eq!(
            pod["status"],
            json!({"phase": "Running", "qosClass": "Burstable"})
        );
    }

    #[test]
    fn only_running_pods_are_waited_for() {
        let grace = |pod: Value, asked| {
            let options = DeleteOptions {
                grace_period: asked,
                ..Default::default()
            };
            Pods.grace_period(&pod, &options).unwrap().as_secs()
        };
        let spec = json!({"nodeName": "n", "terminationGracePeriodSeconds": 30});
        assert_eq!(grace(json!({"spec": spec}), None), 30);
        assert_eq!(grace(json!({"spec": spec}), Some(5)), 5);
        assert_eq!(
            grace(json!({"spec": spec, "status": {"phase": "Failed"}}), None),
            0
        );
        assert_eq!(
            grace(json!({"spec": {"terminationGracePeriodSeconds": 30}}), None),
            0
        );
    }

    #[test]
    fn resize_changes_resources_only() {
        let user = Default::default();
        let old = json!({"metadata": {"name": "a", "generation": 1},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}});
        let mut pod = json!({"metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c", "image": "j", "resources": {"requests": {"cpu": "2"}}}]}});
        Pods.prepare_update(&context(&user, "resize"), &mut pod, &old);
        assert_eq!(
            pod["spec"]["containers"][0],
            json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}})
        );
        assert!(pod["metadata"].get("labels").is_none());
        assert_eq!(pod["metadata"]["generation"], 2);
    }
}
