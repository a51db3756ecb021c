//! PodResizeValidator and NodeDeclaredFeatureValidator: a pod on a node is not given what the
//! node cannot have or do.

use std::sync::Arc;

use api::resources::{Counting, Pod, resource_list};
use meta::Quantity;
use serde::Deserialize as _;

use super::chain::Deps;
use super::*;
use crate::authz::node::items;
use crate::lookup::Lookup;
use meta::status::StatusCause;

pub struct PodResizeValidator {
    lookup: Arc<dyn Lookup>,
}

/// The node of a pod whose spec an update changes; `None` if no node is concerned.
fn node(
    lookup: &Arc<dyn Lookup>,
    a: &Attributes<'_>,
    pod: &Value,
) -> Result<Option<Arc<Value>>, Status> {
    let name = text(pod, "/spec/nodeName");
    let generation = |pod: &Value| pod["metadata"]["generation"].as_i64();
    let same = a.old.is_none_or(|old| generation(old) == generation(pod));
    if name.is_empty() || same {
        return Ok(None);
    }
    match lookup.get("", "nodes", "", name) {
        Some(node) => Ok(Some(node)),
        None => Err(a.forbidden(Some(pod), format!("node {name:?} not found"))),
    }
}

impl PodResizeValidator {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    fn check(&self, a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        let Some(node) = node(&self.lookup, a, pod)? else {
            return Ok(());
        };
        let refused = |why: String, reason: &str| {
            let mut status = a.forbidden(Some(pod), why);
            status.details_mut().causes.push(StatusCause {
                reason: reason.to_owned(),
                ..StatusCause::default()
            });
            Err(status)
        };
        let os = node["metadata"]["labels"]["kubernetes.io/os"].as_str();
        if let Some(os) = os.filter(|os| *os != "linux") {
            let name = text(&node, "/metadata/name");
            return refused(
                format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}"),
                "UnsupportedPlatform",
            );
        }
        let read = Pod::deserialize(pod).map_err(Status::internal)?;
        let mut asked = read.requests(Counting::Asked);
        // The overhead has to fit, too.
        api::resources::add(&mut asked, &read.spec.overhead);
        let allocatable = resource_list(&node["status"]["allocatable"]);
        let zero = Quantity::ZERO;
        type Unit = fn(&Quantity) -> i64;
        let units: [(&str, Unit); 2] =
            [("cpu", Quantity::milli_value), ("memory", Quantity::value)];
        let lacking: Vec<String> = units
            .into_iter()
            .filter_map(|(name, unit)| {
                let asked = asked.get(name).unwrap_or(&zero);
                let has = allocatable.get(name).unwrap_or(&zero);
                let (shown, limit) = (unit(asked), unit(has));
                (asked > has).then(|| format!("{name}, requested: {shown}, allocatable: {limit}"))
            })
            .collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let lacking = lacking.join("; ");
        refused(
            format!("node didn't have enough allocatable resources: {lacking}"),
            "NodeCapacity",
        )
    }
}

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        ready(match object {
            Some(pod) if a.is_sub("", "pods", "resize") => self.check(a, pod),
            _ => Ok(()),
        })
    }
}

/// Nodes say which of the newer features they have (KEP-5328).
pub struct NodeDeclaredFeatureValidator {
    lookup: Arc<dyn Lookup>,
}

impl NodeDeclaredFeatureValidator {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    fn check(&self, a: &Attributes<'_>, old: &Value, pod: &Value) -> Result<(), Status> {
        let Some(node) = node(&self.lookup, a, pod)? else {
            return Ok(());
        };
        let declared = &node["status"]["declaredFeatures"];
        let lacking: Vec<&str> = required(old, pod)
            .into_iter()
            .filter(|feature| !items(declared).any(|d| d == feature))
            .collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let (lacking, name) = (lacking.join(", "), text(&node, "/metadata/name"));
        let why = format!(
            "pod update requires features {lacking} which are not available on node {name:?}"
        );
        Err(a.forbidden(Some(pod), why))
    }
}

/// The features that a node must have for an update of one of its pods.
fn required(old: &Value, pod: &Value) -> Vec<&'static str> {
    let mut features = Vec::new();
    let same = |a: &Value, b: &Value| {
        let lists = ["requests", "limits"];
        lists
            .iter()
            .all(|list| resource_list(&a[*list]) == resource_list(&b[*list]))
    };
    if !same(&old["spec"]["resources"], &pod["spec"]["resources"]) {
        features.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let (before, after) = (
        &old["spec"]["initContainers"],
        &pod["spec"]["initContainers"],
    );
    let resized = items(before)
        .zip(items(after))
        .filter(|(before, _)| before["restartPolicy"] != "Always")
        .any(|(before, after)| !same(&before["resources"], &after["resources"]));
    if resized {
        features.push("InPlacePodVerticalScalingInitContainers");
    }
    features
}

impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let concerned = a.is("", "pods") || a.is_sub("", "pods", "resize");
        ready(match (object, a.old) {
            (Some(pod), Some(old)) if concerned && !required(old, pod).is_empty() => {
                self.check(a, old, pod)
            }
            _ => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_must_be_able_to_do() {
        let pod = |whole: &str, sidecar: &str, init: &str| {
            json!({"spec": {"resources": {"requests": {"cpu": whole}}, "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": sidecar}}},
                {"name": "i", "resources": {"limits": {"cpu": init}}}]}})
        };
        let old = pod("1", "1", "1");
        assert!(required(&old, &pod("1000m", "2", "1")).is_empty());
        assert_eq!(
            required(&old, &pod("2", "1", "2")),
            [
                "InPlacePodLevelResourcesVerticalScaling",
                "InPlacePodVerticalScalingInitContainers"
            ]
        );
    }
}
