//! Defaults of the core group.

use base64::prelude::{BASE64_STANDARD, Engine};
use meta::quantity::Quantity;
use serde_json::{Value, json};

use super::{
    Defaulter, Fields, image, is_given, is_set, is_zero, object, objects, set_empty, set_unset,
    text,
};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.core.v1.ConfigMapVolumeSource", file_mode),
    ("io.k8s.api.core.v1.Container", container),
    ("io.k8s.api.core.v1.DownwardAPIVolumeSource", file_mode),
    ("io.k8s.api.core.v1.EndpointPort", endpoint_port),
    ("io.k8s.api.core.v1.EphemeralContainer", container),
    ("io.k8s.api.core.v1.EphemeralContainerCommon", container),
    ("io.k8s.api.core.v1.HTTPGetAction", http_get),
    ("io.k8s.api.core.v1.HostPathVolumeSource", host_path),
    ("io.k8s.api.core.v1.LimitRangeItem", limit_range_item),
    ("io.k8s.api.core.v1.Namespace", namespace),
    ("io.k8s.api.core.v1.NamespaceStatus", namespace_status),
    ("io.k8s.api.core.v1.NodeSpec", node_spec),
    ("io.k8s.api.core.v1.NodeStatus", node_status),
    ("io.k8s.api.core.v1.ObjectFieldSelector", field_selector),
    ("io.k8s.api.core.v1.PersistentVolume", persistent_volume),
    ("io.k8s.api.core.v1.PersistentVolumeClaim", volume_claim),
    ("io.k8s.api.core.v1.PersistentVolumeClaimSpec", volume_mode),
    ("io.k8s.api.core.v1.Pod", pod),
    ("io.k8s.api.core.v1.PodSpec", pod_spec),
    ("io.k8s.api.core.v1.PodStatus", pod_status),
    ("io.k8s.api.core.v1.Probe", probe),
    ("io.k8s.api.core.v1.ProjectedVolumeSource", file_mode),
    (
        "io.k8s.api.core.v1.ReplicationController",
        replication_controller,
    ),
    ("io.k8s.api.core.v1.ResourceQuotaSpec", quota_spec),
    ("io.k8s.api.core.v1.ResourceRequirements", resources),
    ("io.k8s.api.core.v1.Secret", secret),
    ("io.k8s.api.core.v1.SecretVolumeSource", file_mode),
    ("io.k8s.api.core.v1.Service", service),
    (
        "io.k8s.api.core.v1.ServiceAccountTokenProjection",
        token_projection,
    ),
    ("io.k8s.api.core.v1.Volume", volume),
];

/// Where one address became several, the old field is the first of the new list; clients
/// that know only the old one have the last word.
fn first_of(fields: &mut Fields, one: &str, many: &str, item: fn(Value) -> Value) {
    let old = fields.get(one).filter(|v| !is_zero(v)).cloned();
    let first = fields.get(many).and_then(|v| v.get(0)).cloned();
    match (old, first) {
        (Some(old), first) => {
            let old_item = item(old);
            if first.as_ref() != Some(&old_item) {
                fields.insert(many.to_owned(), json!([old_item]));
            }
        }
        (None, Some(first)) => {
            let value = first.get("ip").cloned().unwrap_or(first);
            fields.insert(one.to_owned(), value);
        }
        (None, None) => {}
    }
}

fn node_spec(spec: &mut Fields) {
    first_of(spec, "podCIDR", "podCIDRs", |cidr| cidr);
}

fn pod_status(status: &mut Fields) {
    first_of(status, "podIP", "podIPs", |ip| json!({"ip": ip}));
}

/// Sources of volumes whose files are made from API objects.
fn file_mode(source: &mut Fields) {
    set_unset(source, "defaultMode", 0o644);
}

fn container(container: &mut Fields) {
    let policy = image::pull_policy(text(container, "image"));
    set_empty(container, "imagePullPolicy", policy);
    set_empty(container, "terminationMessagePath", "/dev/termination-log");
    set_empty(container, "terminationMessagePolicy", "File");
}

fn endpoint_port(port: &mut Fields) {
    set_empty(port, "protocol", "TCP");
}

fn http_get(action: &mut Fields) {
    set_empty(action, "path", "/");
    set_empty(action, "scheme", "HTTP");
}

fn host_path(source: &mut Fields) {
    set_unset(source, "type", "");
}

fn limit_range_item(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    for (to, from) in [
        ("default", "max"),
        ("defaultRequest", "default"),
        ("defaultRequest", "min"),
    ] {
        let source = item.get(from).and_then(Value::as_object).cloned();
        let target = object(item, to);
        for (resource, quantity) in source.into_iter().flatten() {
            target.entry(resource).or_insert(quantity);
        }
    }
}

fn namespace(namespace: &mut Fields) {
    let metadata = object(namespace, "metadata");
    let name = text(metadata, "name").to_owned();
    if !name.is_empty() {
        object(metadata, "labels").insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

fn namespace_status(status: &mut Fields) {
    set_empty(status, "phase", "Active");
}

fn node_status(status: &mut Fields) {
    round_to_milli(status, "capacity");
    round_to_milli(status, "allocatable");
    if let (false, Some(capacity)) = (is_set(status, "allocatable"), status.get("capacity")) {
        let capacity = capacity.clone();
        status.insert("allocatable".to_owned(), capacity);
    }
}

fn field_selector(selector: &mut Fields) {
    set_empty(selector, "apiVersion", "v1");
}

fn persistent_volume(volume: &mut Fields) {
    set_empty(object(volume, "status"), "phase", "Pending");
    let spec = object(volume, "spec");
    set_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_unset(spec, "volumeMode", "Filesystem");
    round_to_milli(spec, "capacity");
}

fn volume_claim(claim: &mut Fields) {
    set_empty(object(claim, "status"), "phase", "Pending");
}

fn volume_mode(spec: &mut Fields) {
    set_unset(spec, "volumeMode", "Filesystem");
}

fn quota_spec(spec: &mut Fields) {
    round_to_milli(spec, "hard");
}

fn resources(resources: &mut Fields) {
    round_to_milli(resources, "limits");
    round_to_milli(resources, "requests");
}

/// Quantities finer than a thousandth are rounded up.
fn round_to_milli(fields: &mut Fields, name: &str) {
    let quantities = fields.get_mut(name).and_then(Value::as_object_mut);
    for quantity in quantities.into_iter().flat_map(|q| q.values_mut()) {
        let Some(fine) = quantity
            .as_str()
            .filter(|q| q.ends_with(['n', 'u']) || q.contains('.'))
        else {
            continue;
        };
        if let Ok(mut exact) = fine.parse::<Quantity>() {
            *quantity = {
                exact.round_up(-3);
                exact.to_string().into()
            };
        }
    }
}

fn pod(pod: &mut Fields) {
    let spec = object(pod, "spec");
    for list in ["containers", "initContainers"] {
        for container in objects(spec, list) {
            let Some(resources) = container
                .get_mut("resources")
                .and_then(Value::as_object_mut)
            else {
                continue;
            };
            requests_from_limits(resources);
        }
    }
    pod_level_resources(spec);
    // A template keeps what it says.
    let grace = "terminationGracePeriodSeconds";
    if spec
        .get(grace)
        .and_then(Value::as_i64)
        .is_some_and(|seconds| seconds < 0)
    {
        spec.insert(grace.to_owned(), 1.into());
    }
    set_unset(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            for container in objects(spec, list) {
                for port in objects(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        set_empty(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

/// A limit without a request is also the request.
fn requests_from_limits(resources: &mut Fields) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = object(resources, "requests");
    for (resource, quantity) in limits {
        requests.entry(resource).or_insert(quantity);
    }
}

/// The defaults of pod-level requests for a pod whose containers got theirs later (from a
/// LimitRange). Says whether there was anything to default.
pub fn pod_level_requests(pod: &mut Value) -> bool {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return false;
    };
    let before = spec.get("resources").cloned();
    pod_level_resources(spec);
    spec.get("resources") != before.as_ref()
}

/// Pod-level requests (KEP-2837): from the containers' where they can be overcommitted,
/// else from the pod's own limits.
fn pod_level_resources(spec: &mut Fields) {
    let Some(limits) = spec
        .get("resources")
        .and_then(|r| r.get("limits"))
        .and_then(Value::as_object)
        .filter(|limits| !limits.is_empty())
        .map(|limits| {
            let mut limits = limits.clone();
            limits.retain(|name, _| {
                matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-")
            });
            limits
        })
    else {
        return;
    };
    const OVERCOMMITTED: [&str; 2] = ["cpu", "memory"];
    let mut sums: [Option<Quantity>; 2] = [None, None];
    for container in objects(spec, "containers") {
        let requests = container.get("resources").and_then(|r| r.get("requests"));
        for (resource, sum) in OVERCOMMITTED.iter().zip(&mut sums) {
            let quantity = requests.and_then(|r| r.get(resource)?.as_str());
            let Some(Ok(quantity)) = quantity.map(str::parse::<Quantity>) else {
                continue;
            };
            match sum {
                Some(sum) => sum.add(&quantity),
                None => *sum = Some(quantity),
            }
        }
    }
    let requests = object(object(spec, "resources"), "requests");
    for (resource, sum) in OVERCOMMITTED.into_iter().zip(sums) {
        if let Some(sum) = sum {
            requests
                .entry(resource)
                .or_insert_with(|| sum.to_string().into());
        }
    }
    for (resource, quantity) in limits {
        requests.entry(resource).or_insert(quantity);
    }
}

fn pod_spec(spec: &mut Fields) {
    set_empty(spec, "dnsPolicy", "ClusterFirst");
    set_empty(spec, "restartPolicy", "Always");
    set_unset(spec, "securityContext", json!({}));
    set_unset(spec, "terminationGracePeriodSeconds", 30);
    set_empty(spec, "schedulerName", "default-scheduler");
    // The old name of the field is still written beside the new one.
    if is_given(spec, "serviceAccountName") {
        let name = spec["serviceAccountName"].clone();
        spec.insert("serviceAccount".to_owned(), name);
    } else if is_given(spec, "serviceAccount") {
        let name = spec["serviceAccount"].clone();
        spec.insert("serviceAccountName".to_owned(), name);
    }
    round_to_milli(spec, "overhead");
}

fn probe(probe: &mut Fields) {
    set_empty(probe, "timeoutSeconds", 1);
    set_empty(probe, "periodSeconds", 10);
    set_empty(probe, "successThreshold", 1);
    set_empty(probe, "failureThreshold", 3);
}

fn replication_controller(controller: &mut Fields) {
    let labels = controller
        .get("spec")
        .and_then(|s| s.pointer("/template/metadata/labels"))
        .filter(|labels| labels.as_object().is_some_and(|l| !l.is_empty()))
        .cloned();
    let Some(labels) = labels else { return };
    set_empty(object(controller, "spec"), "selector", labels.clone());
    set_empty(object(controller, "metadata"), "labels", labels);
}

fn secret(secret: &mut Fields) {
    set_empty(secret, "type", "Opaque");
    // Written only: what is given as text becomes data.
    if let Some(Value::Object(texts)) = secret.remove("stringData") {
        let data = object(secret, "data");
        for (key, value) in texts {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, BASE64_STANDARD.encode(text).into());
        }
    }
}

fn service(service: &mut Fields) {
    let spec = object(service, "spec");
    set_empty(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "None" {
        spec.remove("sessionAffinityConfig");
    } else {
        let affinity = object(object(spec, "sessionAffinityConfig"), "clientIP");
        set_unset(affinity, "timeoutSeconds", 10800);
    }
    set_empty(spec, "type", "ClusterIP");
    for port in objects(spec, "ports") {
        set_empty(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            set_empty(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && is_given(spec, "externalIPs"));
    if external {
        set_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_unset(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_unset(spec, "allocateLoadBalancerNodePorts", true);
        let balancer = service
            .get_mut("status")
            .and_then(|s| s.get_mut("loadBalancer"));
        if let Some(balancer) = balancer.and_then(Value::as_object_mut) {
            for ingress in objects(balancer, "ingress") {
                if is_given(ingress, "ip") {
                    set_unset(ingress, "ipMode", "VIP");
                }
            }
        }
    }
}

fn token_projection(projection: &mut Fields) {
    set_unset(projection, "expirationSeconds", 3600);
}

fn volume(volume: &mut Fields) {
    let has_source = volume
        .iter()
        .any(|(name, value)| name != "name" && !value.is_null());
    if !has_source {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(Value::Object(image)) = volume.get_mut("image") {
        let policy = image::pull_policy(text(image, "reference"));
        set_empty(image, "pullPolicy", policy);
    }
}
