//! The downward API: a pod's own fields and resources as text, for variables and files alike.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::gofmt::quote;
use thiserror::Error;

use super::requests::{milli_value, value};
use crate::pods::pod::PodExt;

/// Why a field cannot be told.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    #[error("unsupported container resource : {0}")]
    UnsupportedResource(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("no node addresses known yet")]
    NoHostIp,
}

/// What a pod's fields depend on beside the pod itself.
#[derive(Debug, Default, Clone, Copy)]
pub struct FieldContext<'a> {
    /// The pod's addresses, the primary first.
    pub pod_ips: &'a [String],
    /// The node's addresses, the primary first.
    pub host_ips: &'a [String],
    /// What a container without a limit may use at most.
    pub allocatable: Option<&'a BTreeMap<String, Quantity>>,
}

/// The field at `path`, such as `metadata.labels['app']` or `status.podIP`.
///
/// # Errors
/// For a path that the downward API does not know.
pub fn field(pod: &Pod, path: &str, context: &FieldContext<'_>) -> Result<String, FieldError> {
    if let Some((of, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        let map = match of {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(FieldError::UnsupportedField(path.to_owned())),
        };
        return Ok(map
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let spec = pod.pod_spec();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.podIP" => context.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => context.pod_ips.join(","),
        "status.hostIP" => context
            .host_ips
            .first()
            .cloned()
            .ok_or(FieldError::NoHostIp)?,
        "status.hostIPs" if context.host_ips.is_empty() => return Err(FieldError::NoHostIp),
        "status.hostIPs" => context.host_ips.join(","),
        _ => return Err(FieldError::UnsupportedField(path.to_owned())),
    })
}

/// `key="value"` per line, sorted by key, values quoted as Go does.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    lines.join("\n")
}

/// A container's request or limit in units of the selector's divisor, rounded up. A limit that is
/// not set is what the node can give. `own` is the container to look at where none is named.
///
/// # Errors
/// For a resource or container that does not exist.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    context: &FieldContext<'_>,
) -> Result<String, FieldError> {
    let named = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pod
            .containers()
            .iter()
            .chain(pod.init_containers())
            .find(|c| c.name == name),
        None => own,
    }
    .ok_or_else(|| FieldError::NoContainer(named.unwrap_or_default().to_owned()))?;

    let unsupported = || FieldError::UnsupportedResource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let resources = container.resources.as_ref();
    let pod_level = pod.pod_spec().resources.as_ref();
    let quantity = match list {
        "requests" if known => resources.and_then(|r| r.requests.as_ref()?.get(name)),
        "limits" if known => resources
            .and_then(|r| r.limits.as_ref()?.get(name))
            .filter(|quantity| milli_value(quantity) != 0)
            .or_else(|| pod_level.and_then(|r| r.limits.as_ref()?.get(name)))
            .or_else(|| {
                if name.starts_with("hugepages-") {
                    None
                } else {
                    context.allocatable?.get(name)
                }
            }),
        _ => return Err(unsupported()),
    };
    let measure = |quantity: &Quantity| {
        if name == "cpu" {
            milli_value(quantity)
        } else {
            value(quantity)
        }
    };
    let divisor = selector
        .divisor
        .as_ref()
        .map(measure)
        .filter(|divisor| *divisor != 0);
    let divisor = divisor.unwrap_or(if name == "cpu" { 1000 } else { 1 });
    let amount = quantity.map(measure).unwrap_or_default();
    Ok((amount + divisor - 1).div_euclid(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "say \"x\""}},
            "spec": {"containers": [{"name": "c", "resources": {
                "requests": {"cpu": "1500m", "memory": "100Mi"}, "limits": {"memory": "200Mi"},
            }}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_as_text() {
        let context = FieldContext {
            host_ips: &["1.1.1.1".into(), "::1".into()],
            ..Default::default()
        };
        let of = |path: &str| field(&pod(), path, &context);
        assert_eq!(
            of("metadata.labels").unwrap(),
            "a=\"say \\\"x\\\"\"\nb=\"2\""
        );
        assert_eq!(of("metadata.labels['b']").unwrap(), "2");
        assert_eq!(of("metadata.labels['none']").unwrap(), "");
        assert_eq!(of("status.hostIPs").unwrap(), "1.1.1.1,::1");
        assert!(of("spec.hostname").is_err());
    }

    #[test]
    fn resources_round_up() {
        let allocatable = BTreeMap::from([("cpu".to_owned(), Quantity("4".into()))]);
        let context = FieldContext {
            allocatable: Some(&allocatable),
            ..Default::default()
        };
        let of = |resource: &str, divisor: &str| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: Some(Quantity(divisor.into())),
                container_name: Some("c".into()),
            };
            super::resource(&pod(), None, &selector, &context).unwrap()
        };
        assert_eq!(of("requests.cpu", "0"), "2");
        assert_eq!(of("requests.cpu", "1m"), "1500");
        assert_eq!(of("limits.cpu", "1"), "4", "no limit: the node's");
        assert_eq!(of("requests.memory", "1"), "104857600");
        assert_eq!(of("limits.memory", "1Mi"), "200");
        assert_eq!(of("limits.hugepages-2Mi", "1"), "0");
    }
}
