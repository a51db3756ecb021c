//! A container's environment. Pure: the objects it refers to are looked up through [`Sources`].

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service, ServicePort};
use thiserror::Error;

use super::expansion::expand;
use crate::pods::pod::PodExt;
use crate::resources::downward::{self, FieldContext};

/// Why a container's environment cannot be made. The text ends up in the pod's status.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnvError {
    #[error("{0}")]
    Object(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        key: String,
        kind: &'static str,
        namespace: String,
        name: String,
    },
    #[error(transparent)]
    Field(#[from] downward::FieldError),
}

/// A lookup's answer: the object's data, or why it cannot be had.
pub type Lookup<T> = Result<BTreeMap<String, T>, Missing>;

/// Why an object cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// It does not exist: fine for an optional reference.
    NotFound(String),
    /// It may exist, but could not be read.
    Unavailable(String),
}

/// The objects that an environment refers to, in the pod's namespace.
pub trait Sources {
    fn config_map(&self, name: &str) -> Lookup<String>;
    fn secret(&self, name: &str) -> Lookup<ByteString>;
}

/// Name and value in no particular order but a stable one. `services` are the ones the pod should
/// see (see [`service_variables`]).
///
/// # Errors
/// When a reference that is not optional cannot be resolved.
pub fn environment(
    pod: &Pod,
    container: &Container,
    fields: &FieldContext<'_>,
    services: &BTreeMap<String, String>,
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();

    for from in container.env_from.as_deref().unwrap_or_default() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            if let Some(data) = resolve(sources.config_map(&reference.name), reference.optional)? {
                env.extend(
                    data.into_iter()
                        .map(|(key, value)| (format!("{prefix}{key}"), value)),
                );
            }
        } else if let Some(reference) = &from.secret_ref
            && let Some(data) = resolve(sources.secret(&reference.name), reference.optional)?
        {
            env.extend(
                data.into_iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), text(&value))),
            );
        }
    }

    for variable in container.env.as_deref().unwrap_or_default() {
        let literal = variable.value.as_deref().unwrap_or_default();
        let value = if !literal.is_empty() {
            let lookup = |name: &str| {
                env.get(name)
                    .or_else(|| services.get(name))
                    .map(String::as_str)
            };
            Some(expand(literal, lookup))
        } else if let Some(source) = &variable.value_from {
            from_source(pod, container, source, fields, sources)?
        } else {
            Some(String::new())
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }

    for (name, value) in services {
        env.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(env.into_iter().collect())
}

/// `None`: an optional source that is not there leaves the variable unset.
fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    fields: &FieldContext<'_>,
    sources: &dyn Sources,
) -> Result<Option<String>, EnvError> {
    let missing_key = |key: &str, kind, name: &str| EnvError::MissingKey {
        key: key.to_owned(),
        kind,
        namespace: pod.namespace().to_owned(),
        name: name.to_owned(),
    };
    if let Some(field) = &source.field_ref {
        return Ok(Some(downward::field(pod, &field.field_path, fields)?));
    }
    if let Some(resource) = &source.resource_field_ref {
        return Ok(Some(downward::resource(
            pod,
            Some(container),
            resource,
            fields,
        )?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or_default();
        return match resolve(sources.config_map(&reference.name), reference.optional)? {
            None => Ok(None),
            Some(mut data) => match data.remove(&reference.key) {
                None if !optional => Err(missing_key(&reference.key, "ConfigMap", &reference.name)),
                found => Ok(found),
            },
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or_default();
        return match resolve(sources.secret(&reference.name), reference.optional)? {
            None => Ok(None),
            Some(data) => match data.get(&reference.key) {
                None if !optional => Err(missing_key(&reference.key, "Secret", &reference.name)),
                found => Ok(found.map(text)),
            },
        };
    }
    Ok(Some(String::new()))
}

fn resolve<T>(
    lookup: Lookup<T>,
    optional: Option<bool>,
) -> Result<Option<BTreeMap<String, T>>, EnvError> {
    match lookup {
        Ok(data) => Ok(Some(data)),
        Err(Missing::NotFound(_)) if optional.unwrap_or_default() => Ok(None),
        Err(Missing::NotFound(why) | Missing::Unavailable(why)) => Err(EnvError::Object(why)),
    }
}

fn text(bytes: &ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

/// The variables that tell a pod of `namespace` about services: `default/kubernetes` always, and
/// its own namespace's ones if `links` (`spec.enableServiceLinks`).
pub fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    // The pod's own namespace wins over `default` where both have a service `kubernetes`.
    let mut own = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let service_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        if service_namespace == namespace && links {
            own.push(service);
        } else if service_namespace == "default" && name == "kubernetes" {
            describe(service, &mut variables);
        }
    }
    for service in own {
        describe(service, &mut variables);
    }
    variables
}

fn describe(service: &Service, variables: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let (Some(ip), Some(ports)) = (spec.cluster_ip.as_deref(), spec.ports.as_deref()) else {
        return;
    };
    let Some(first) = ports.first() else { return };
    if ip.is_empty() || ip == "None" {
        return;
    }
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(
                format!("{prefix}_SERVICE_PORT_{}", variable_name(name)),
                port.port.to_string(),
            );
        }
    }
    variables.insert(format!("{prefix}_PORT"), url(ip, first));
    for port in ports {
        let protocol = protocol(port);
        let link = format!("{prefix}_PORT_{}_{protocol}", port.port);
        variables.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{link}_PORT"), port.port.to_string());
        variables.insert(format!("{link}_ADDR"), ip.to_owned());
        variables.insert(link, url(ip, port));
    }
}

fn protocol(port: &ServicePort) -> String {
    port.protocol
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or("TCP")
        .to_uppercase()
}

fn url(ip: &str, port: &ServicePort) -> String {
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port)
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixed;
    impl Sources for Fixed {
        fn config_map(&self, name: &str) -> Lookup<String> {
            match name {
                "cm" => Ok(BTreeMap::from([
                    ("k".into(), "v".into()),
                    ("A".into(), "from-cm".into()),
                ])),
                _ => Err(Missing::NotFound(format!("configmap {name:?} not found"))),
            }
        }
        fn secret(&self, name: &str) -> Lookup<ByteString> {
            match name {
                "s" => Ok(BTreeMap::from([("p".into(), ByteString(b"word".to_vec()))])),
                _ => Err(Missing::Unavailable("failed to sync secret cache".into())),
            }
        }
    }

    fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"l": "x"}},
            "spec": {"nodeName": "node", "containers": [container]},
        }))
        .unwrap();
        let services = BTreeMap::from([("SVC".to_owned(), "svc".to_owned())]);
        let fields = FieldContext {
            pod_ips: &["10.0.0.9".into()],
            host_ips: &["1.2.3.4".into()],
            ..Default::default()
        };
        environment(&pod, &pod.containers()[0], &fields, &services, &Fixed)
    }

    #[test]
    fn later_wins_and_references_expand() {
        let env = run(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"configMapRef": {"name": "cm"}}],
            "env": [
                {"name": "A", "value": "own $(SVC) $(B) $(P_k)"},
                {"name": "B", "value": "b"},
                {"name": "C", "value": "$(A)!"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['l']"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                {"name": "NOKEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "none", "optional": true}}},
            ]}))
        .unwrap();
        let lines: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            lines,
            [
                "A=own svc $(B) v",
                "B=b",
                "C=own svc $(B) v!",
                "IP=10.0.0.9",
                "L=x",
                "P_A=from-cm",
                "P_k=v",
                "S=word",
                "SVC=svc",
                "k=v"
            ]
        );
    }

    #[test]
    fn what_is_not_optional_must_be_there() {
        let key = |key: &str, name: &str| {
            run(json!({"name": "c", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}]}))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(key("k", "none"), "configmap \"none\" not found");
        assert_eq!(
            key("none", "cm"),
            "couldn't find key none in ConfigMap n/cm"
        );
        let optional = json!({"name": "c", "envFrom": [{"secretRef": {"name": "unreadable", "optional": true}}]});
        assert!(
            run(optional).is_err(),
            "optional covers absence, not failure"
        );
    }

    #[test]
    fn services_are_described() {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"},
             "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}},
            {"metadata": {"name": "my-db", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 53, "protocol": "UDP"}]}},
            {"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
            {"metadata": {"name": "other", "namespace": "m"}, "spec": {"clusterIP": "10.96.0.3", "ports": [{"port": 1}]}},
        ]))
        .unwrap();
        let links = service_variables(services.iter(), "n", true);
        assert_eq!(links["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(links["KUBERNETES_PORT_443_TCP"], "tcp://10.96.0.1:443");
        assert_eq!(links["MY_DB_PORT"], "udp://10.96.0.2:53");
        assert_eq!(links["MY_DB_PORT_53_UDP_PROTO"], "udp");
        assert!(
            !links
                .keys()
                .any(|key| key.starts_with("HEADLESS") || key.starts_with("OTHER"))
        );
        let bare = service_variables(services.iter(), "n", false);
        assert!(bare.keys().all(|key| key.starts_with("KUBERNETES")));
    }
}
