//! LimitRanger: a namespace's limit ranges give containers what they did not ask for, and
//! hold pods and volume claims to a minimum, a maximum, and a ratio of limit to request.

use std::collections::HashSet;
use std::sync::Arc;

use api::resources::{Counting, Pod, ResourceList, resource_list};
use component::aside::aside;
use meta::Quantity;
use serde::Deserialize as _;

use super::chain::Deps;
use super::*;
use crate::authz::node::items;
use crate::lookup::Lookup;

/// Says on a pod what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Larger amounts are compared as whole units, since their thousandths do not fit.
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

/// The lists of containers that limits are for.
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

pub struct LimitRanger {
    lookup: Arc<dyn Lookup>,
}

impl LimitRanger {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    /// The limit ranges that a request must heed; none when it is no business of theirs.
    fn ranges(&self, a: &Attributes<'_>) -> Vec<Arc<Value>> {
        let resize = a.is_sub("", "pods", "resize") && a.operation == Operation::Update;
        // Other updates cannot change what a pod asks for.
        let created = a.is("", "pods") && a.operation == Operation::Create;
        let heeds = resize || created || a.is("", "persistentvolumeclaims");
        let going = a
            .old
            .is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
        if !heeds || going {
            return Vec::new();
        }
        self.lookup.list("", "limitranges", a.namespace)
    }
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(pod) = object
            && a.resource.plural == "pods"
        {
            for range in self.ranges(a) {
                aside(is_long(pod, &range), || give_defaults(pod, &range));
            }
        }
        ready(Ok(()))
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(object) = object else {
            return ready(Ok(()));
        };
        for range in self.ranges(a) {
            let faults = || match a.resource.plural {
                "pods" => aggregate(pod_faults(object, &range)),
                _ => aggregate(claim_faults(object, &range)),
            };
            if let Some(why) = aside(is_long(object, &range), faults) {
                return ready(Err(a.forbidden(Some(object), why)));
            }
        }
        ready(Ok(()))
    }
}

/// Whether it takes long to hold a pod against a range: many resources, for each container.
fn is_long(pod: &Value, range: &Value) -> bool {
    const MANY: usize = 1000;
    let containers = CONTAINERS
        .iter()
        .flat_map(|list| items(&pod["spec"][*list]));
    let bounds = items(&range["spec"]["limits"])
        .flat_map(|limit| limit.as_object().into_iter().flat_map(|l| l.values()))
        .map(|of_limit| of_limit.as_object().map_or(0, serde_json::Map::len));
    containers.count().max(1) * bounds.sum::<usize>() > MANY
}

/// Several errors in one text, each once, as upstream's `Aggregate` writes them.
pub(super) fn aggregate(faults: Vec<String>) -> Option<String> {
    let mut known = HashSet::new();
    let mut unique = faults;
    unique.retain(|fault| known.insert(fault.clone()));
    match unique.len() {
        0 => None,
        1 => unique.pop(),
        _ => Some(format!("[{}]", unique.join(", "))),
    }
}

fn limits_of<'a>(range: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    items(&range["spec"]["limits"]).filter(move |limit| limit["type"] == kind)
}

/// Gives the pod's containers the range's defaults for what they do not say.
fn give_defaults(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (serde_json::Map::new(), serde_json::Map::new());
    for limit in limits_of(range, "Container") {
        for (defaults, field) in [(&mut requests, "defaultRequest"), (&mut limits, "default")] {
            let given = limit[field].as_object().into_iter().flatten();
            defaults.extend(given.map(|(name, quantity)| (name.clone(), quantity.clone())));
        }
    }
    let mut told = Vec::new();
    for (list, what) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        for container in items_mut(&mut pod["spec"], list) {
            for (field, verb, defaults) in [
                ("requests", "request", &requests),
                ("limits", "limit", &limits),
            ] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    let name = text(container, "/name");
                    told.push(format!("{} {verb} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let annotations = &mut pod["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = Value::Object(Default::default());
        }
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
    }
}

/// Adds what is missing; says what that was, in order.
fn fill(
    container: &mut Value,
    field: &str,
    defaults: &serde_json::Map<String, Value>,
) -> Vec<String> {
    let mut set: Vec<String> = defaults
        .keys()
        .filter(|name| container["resources"][field].get(name.as_str()).is_none())
        .cloned()
        .collect();
    set.sort();
    for name in &set {
        for place in ["", field] {
            let at = match place {
                "" => &mut container["resources"],
                field => &mut container["resources"][field],
            };
            if !at.is_object() {
                *at = Value::Object(Default::default());
            }
        }
        container["resources"][field][name] = defaults[name].clone();
    }
    set
}

fn pod_faults(pod: &Value, range: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let containers = CONTAINERS
        .iter()
        .flat_map(|list| items(&pod["spec"][*list]));
    let containers: Vec<Asked> = containers
        .map(|container| Asked {
            of: "Container",
            requests: resource_list(&container["resources"]["requests"]),
            limits: resource_list(&container["resources"]["limits"]),
        })
        .collect();
    for limit in items(&range["spec"]["limits"]) {
        let bounds = Bounds::of(limit);
        match text(limit, "/type") {
            "Container" => {
                for container in &containers {
                    container.check(&bounds, &mut faults);
                }
            }
            "Pod" => {
                let Ok(pod) = Pod::deserialize(pod) else {
                    continue;
                };
                let asked = Asked {
                    of: "Pod",
                    requests: pod.requests(Counting::Asked),
                    limits: pod.limits(Counting::Asked),
                };
                asked.check(&bounds, &mut faults);
            }
            _ => {}
        }
    }
    faults
}

/// A claim has requests only; limits of a claim mean nothing.
fn claim_faults(claim: &Value, range: &Value) -> Vec<String> {
    let asked = Asked {
        of: "PersistentVolumeClaim",
        requests: resource_list(&claim["spec"]["resources"]["requests"]),
        limits: ResourceList::new(),
    };
    let mut faults = Vec::new();
    for limit in limits_of(range, "PersistentVolumeClaim") {
        for (name, bound) in resource_list(&limit["min"]) {
            faults.extend(asked.minimum(&name, &bound));
        }
        for (name, bound) in resource_list(&limit["max"]) {
            faults.extend(asked.maximum_request(&name, &bound));
        }
    }
    faults
}

/// What is asked for, to be held against one limit.
struct Asked {
    /// The limit's type, for messages.
    of: &'static str,
    requests: ResourceList,
    limits: ResourceList,
}

/// What one limit allows.
struct Bounds {
    least: ResourceList,
    most: ResourceList,
    /// Of a limit to its request.
    ratio: ResourceList,
}

impl Bounds {
    fn of(limit: &Value) -> Self {
        Self {
            least: resource_list(&limit["min"]),
            most: resource_list(&limit["max"]),
            ratio: resource_list(&limit["maxLimitRequestRatio"]),
        }
    }
}

/// Amounts as whole numbers of one unit: thousandths, if they fit.
fn comparable<const N: usize>(quantities: [Option<&Quantity>; N]) -> [i64; N] {
    let zero = Quantity::ZERO;
    let all = quantities.map(|q| q.unwrap_or(&zero).clone());
    if all.iter().all(|q| q.value() <= MAX_MILLI_VALUE) {
        all.map(|q| q.milli_value())
    } else {
        all.map(|q| q.value())
    }
}

impl Asked {
    fn check(&self, bounds: &Bounds, faults: &mut Vec<String>) {
        for (name, bound) in &bounds.least {
            faults.extend(self.minimum(name, bound));
        }
        for (name, bound) in &bounds.most {
            faults.extend(self.maximum(name, bound));
        }
        for (name, bound) in &bounds.ratio {
            faults.extend(self.ratio(name, bound));
        }
    }

    fn minimum(&self, name: &str, bound: &Quantity) -> Option<String> {
        let (request, limit) = (self.requests.get(name), self.limits.get(name));
        let [asked, limited, least] = comparable([request, limit, Some(bound)]);
        let head = format!("minimum {name} usage per {} is {bound}", self.of);
        match (request, limit) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if asked < least => {
                Some(format!("{head}, but request is {request}"))
            }
            (_, Some(limit)) if limited < least => Some(format!("{head}, but limit is {limit}")),
            _ => None,
        }
    }

    fn maximum(&self, name: &str, bound: &Quantity) -> Option<String> {
        let (request, limit) = (self.requests.get(name), self.limits.get(name));
        let [asked, limited, most] = comparable([request, limit, Some(bound)]);
        let head = format!("maximum {name} usage per {} is {bound}", self.of);
        match (limit, request) {
            (None, _) => Some(format!("{head}.  No limit is specified")),
            (Some(limit), _) if limited > most => Some(format!("{head}, but limit is {limit}")),
            (_, Some(request)) if asked > most => Some(format!("{head}, but request is {request}")),
            _ => None,
        }
    }

    /// For what has no limits.
    fn maximum_request(&self, name: &str, bound: &Quantity) -> Option<String> {
        let request = self.requests.get(name);
        let [asked, most] = comparable([request, Some(bound)]);
        let head = format!("maximum {name} usage per {} is {bound}", self.of);
        match request {
            None => Some(format!("{head}.  No request is specified")),
            Some(request) if asked > most => Some(format!("{head}, but request is {request}")),
            Some(_) => None,
        }
    }

    fn ratio(&self, name: &str, bound: &Quantity) -> Option<String> {
        let (request, limit) = (self.requests.get(name), self.limits.get(name));
        let [asked, limited, _] = comparable([request, limit, Some(bound)]);
        let head = format!(
            "{name} max limit to request ratio per {} is {bound}",
            self.of
        );
        if asked == 0 {
            let why = "but no request is specified or request is 0";
            return Some(format!("{head}, {why}"));
        }
        if limited == 0 {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        }
        let ratio = limited as f64 / asked as f64;
        let exceeded = if bound.value() <= MAX_MILLI_VALUE {
            ratio * 1000.0 > bound.milli_value() as f64
        } else {
            ratio > bound.value() as f64
        };
        exceeded.then(|| format!("{head}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limit: Value) -> Value {
        json!({"spec": {"limits": [limit]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c", "resources": resources}],
            "initContainers": [{"name": "i"}],
        }})
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = range(json!({"type": "Container",
            "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}));
        let mut pod = pod(json!({"limits": {"cpu": "2"}}));
        give_defaults(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c; \
             cpu request for init container i; cpu, memory limit for init container i"
        );
        let full = pod.clone();
        give_defaults(&mut pod, &range);
        assert_eq!(pod, full);
    }

    #[test]
    fn bounds_are_told_as_upstream_tells_them() {
        let told = |limit: Value, resources: Value| {
            let mut pod = pod(resources);
            pod["spec"]["initContainers"] = json!([]);
            aggregate(pod_faults(&pod, &range(limit))).unwrap_or_default()
        };
        let least = json!({"type": "Container", "min": {"cpu": "100m"}});
        assert_eq!(
            told(least.clone(), json!({})),
            "minimum cpu usage per Container is 100m.  No request is specified"
        );
        assert_eq!(
            told(least.clone(), json!({"requests": {"cpu": "50m"}})),
            "minimum cpu usage per Container is 100m, but request is 50m"
        );
        assert_eq!(told(least, json!({"requests": {"cpu": "100m"}})), "");
        let most = json!({"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(
            told(
                most,
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}})
            ),
            "[maximum cpu usage per Pod is 1, but limit is 2, \
             maximum memory usage per Pod is 1Gi.  No limit is specified]"
        );
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1500m"}});
        assert_eq!(
            told(
                ratio,
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}})
            ),
            "cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"
        );
    }

    #[test]
    fn claims_are_held_to_their_requests() {
        let range = range(json!({"type": "PersistentVolumeClaim",
            "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let told = |size: &str| {
            let claim = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            aggregate(claim_faults(&claim, &range)).unwrap_or_default()
        };
        assert_eq!(told("1Gi"), "");
        assert_eq!(
            told("3Gi"),
            "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
        );
        assert_eq!(
            told("1Mi"),
            "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"
        );
    }
}
