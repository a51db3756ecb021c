//! An APIService for each group version that this server serves by itself, registered when it
//! starts. Those that came of an earlier start and are no longer served go; what somebody else
//! takes care of (no label) is left alone.
//!
//! What must not be here: APIs of other servers (aggregation).

use std::collections::BTreeMap;
use std::sync::Arc;

use meta::Status;
use serde_json::{Value, json};

use super::ControlPlane;
use crate::registry::object_meta::meta;

const GROUP: &str = "apiregistration.k8s.io";
const RESOURCE: &str = "apiservices";
/// Says that a server keeps an APIService; `onstart`: when it starts, and not any more after.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ON_START: &str = "onstart";

/// A group, its priority among groups and those of its versions; higher ones come first.
type Priorities = (&'static str, u32, &'static [(&'static str, u32)]);

const PRIORITIES: &[Priorities] = &[
    ("", 18_000, &[("v1", 1)]),
    (
        "admissionregistration.k8s.io",
        16_700,
        &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)],
    ),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("apps", 17_800, &[("v1", 15)]),
    (
        "authentication.k8s.io",
        17_700,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v2", 30), ("v1", 15)]),
    ("batch", 17_400, &[("v1", 15)]),
    (
        "certificates.k8s.io",
        17_300,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    (
        "coordination.k8s.io",
        16_500,
        &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)],
    ),
    ("discovery.k8s.io", 16_200, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
    ("internal.apiserver.k8s.io", 16_000, &[("v1alpha1", 9)]),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    (
        "resource.k8s.io",
        16_200,
        &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)],
    ),
    ("scheduling.k8s.io", 16_600, &[("v1", 15), ("v1alpha2", 2)]),
    (
        "storage.k8s.io",
        16_800,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    ("storagemigration.k8s.io", 15_800, &[("v1beta1", 9)]),
];

/// What is to be done with one APIService.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Value),
    Update(Value),
    Delete(String),
}

/// The APIServices of what is served.
fn wanted(serves: impl Fn(&str, &str) -> bool) -> Vec<Value> {
    let mut all = Vec::new();
    for (group, group_priority, versions) in PRIORITIES {
        for (version, priority) in versions.iter().filter(|(v, _)| serves(group, v)) {
            let mut spec = json!({
                "version": version,
                "groupPriorityMinimum": group_priority,
                "versionPriority": priority,
            });
            if !group.is_empty() {
                spec["group"] = json!(group);
            }
            all.push(json!({
                "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: ON_START}},
                "spec": spec,
            }));
        }
    }
    all
}

fn plan(there: Vec<Value>, wanted: Vec<Value>) -> Vec<Step> {
    let name = |object: &Value| meta(object).name().to_owned();
    let mut there: BTreeMap<String, Value> = there.into_iter().map(|o| (name(&o), o)).collect();
    let mut steps = Vec::new();
    for new in wanted {
        match there.remove(&name(&new)) {
            None => steps.push(Step::Create(new)),
            Some(mut old) if is_managed(&old) && old["spec"] != new["spec"] => {
                old["spec"] = new["spec"].clone();
                steps.push(Step::Update(old));
            }
            Some(_) => {}
        }
    }
    let gone = there.into_iter().filter(|(_, old)| is_managed(old));
    steps.extend(gone.map(|(name, _)| Step::Delete(name)));
    steps
}

/// Whether servers keep it when they start. Those of custom resources are kept all the time,
/// by the label's other value, which is the work of whoever serves custom resources.
fn is_managed(service: &Value) -> bool {
    service["metadata"]["labels"][MANAGED] == ON_START
}

pub(super) async fn register(cp: Arc<ControlPlane>) -> Result<(), Status> {
    let local = &cp.local;
    let there = local.list(GROUP, RESOURCE, "", "").await?;
    for step in plan(there, wanted(|group, version| local.serves(group, version))) {
        match step {
            Step::Create(service) => local.ensure(GROUP, RESOURCE, "", service).await?,
            Step::Update(service) => {
                local.update(GROUP, RESOURCE, "", service).await?;
            }
            Step::Delete(name) => match local.delete(GROUP, RESOURCE, "", &name).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_version_is_of_the_schema() {
        let known = schema::group_versions();
        for (group, _, versions) in PRIORITIES {
            for (version, _) in *versions {
                let found = known
                    .iter()
                    .any(|gv| (gv.group, gv.version) == (*group, *version));
                assert!(found, "{group}/{version}");
            }
        }
        // Whoever registers APIs is not itself registered.
        for r in schema::resources().iter().filter(|r| r.group != GROUP) {
            let versions = PRIORITIES.iter().find(|(group, _, _)| *group == r.group);
            let found =
                versions.is_some_and(|(_, _, all)| all.iter().any(|(v, _)| *v == r.version));
            assert!(found, "{}/{}", r.group, r.version);
        }
    }

    #[test]
    fn what_is_served_is_registered_and_what_is_not_goes() {
        let served = |group: &str, version: &str| matches!((group, version), ("" | "apps", "v1"));
        let steps = plan(Vec::new(), wanted(served));
        let [Step::Create(core), Step::Create(apps)] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        assert_eq!(core["metadata"]["name"], "v1.");
        assert!(core["spec"].get("group").is_none());
        assert_eq!(apps["spec"]["groupPriorityMinimum"], 17_800);
        assert_eq!(plan(vec![core.clone(), apps.clone()], wanted(served)), []);

        let mut changed = apps.clone();
        changed["spec"]["versionPriority"] = json!(9);
        let beta = json!({"metadata": {"name": "v1beta1.apps", "labels": {MANAGED: ON_START}}});
        let own = json!({"metadata": {"name": "v1.example.com"}});
        let steps = plan(
            vec![core.clone(), changed.clone(), beta, own],
            wanted(served),
        );
        assert_eq!(
            steps,
            [
                Step::Update(apps.clone()),
                Step::Delete("v1beta1.apps".into())
            ]
        );

        changed["metadata"]["labels"] = json!({});
        assert_eq!(plan(vec![core.clone(), changed], wanted(served)), []);
    }
}
