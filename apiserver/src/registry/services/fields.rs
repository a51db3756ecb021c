//! Reading and completing a Service's spec: which allocated fields its type needs, which it
//! inherits on update, which it loses with its type.
//!
//! Pure; what must not be here: allocation.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::super::object_meta::child_mut;

fn text<'a>(service: &'a Value, key: &str) -> &'a str {
    service["spec"][key].as_str().unwrap_or_default()
}

pub fn service_type(service: &Value) -> &str {
    match text(service, "type") {
        "" => "ClusterIP",
        ty => ty,
    }
}

pub fn needs_cluster_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

pub fn is_headless(service: &Value) -> bool {
    text(service, "clusterIP") == "None"
        || cluster_ips(service).first().is_some_and(|ip| ip == "None")
}

pub fn has_selector(service: &Value) -> bool {
    service["spec"]["selector"]
        .as_object()
        .is_some_and(|s| !s.is_empty())
}

pub fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Whether a Service of this type may ask for node ports, be it given any or not.
pub fn may_have_node_ports(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

pub fn needs_health_check_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local"
}

fn is_externally_accessible(service: &Value) -> bool {
    may_have_node_ports(service)
        || (service_type(service) == "ClusterIP"
            && service["spec"]["externalIPs"]
                .as_array()
                .is_some_and(|ips| !ips.is_empty()))
}

fn strings(service: &Value, key: &str) -> Vec<String> {
    service["spec"][key]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

pub fn cluster_ips(service: &Value) -> Vec<String> {
    strings(service, "clusterIPs")
}

pub fn families(service: &Value) -> Vec<String> {
    strings(service, "ipFamilies")
}

/// The allocated addresses, without `None`.
pub fn addresses(service: &Value) -> BTreeSet<IpAddr> {
    if !needs_cluster_ip(service) {
        return BTreeSet::new();
    }
    let single = text(service, "clusterIP").to_owned();
    cluster_ips(service)
        .into_iter()
        .chain(std::iter::once(single))
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

pub fn ports(service: &Value) -> &[Value] {
    service["spec"]["ports"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// What is asked for, which need be no port number; 0 asks for any.
pub fn port_number(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or(0)
}

pub fn protocol(port: &Value) -> String {
    port["protocol"].as_str().unwrap_or("TCP").to_owned()
}

/// As [`port_number`].
pub fn health_check_port(service: &Value) -> i64 {
    service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0)
}

/// The node ports of a Service's ports.
fn port_numbers(service: &Value) -> BTreeSet<i64> {
    let numbers = ports(service).iter().map(port_number);
    numbers.filter(|port| *port != 0).collect()
}

/// Every node port of a Service, the one for health checks included.
pub fn node_ports(service: &Value) -> BTreeSet<u16> {
    let mut all = port_numbers(service);
    all.extend(Some(health_check_port(service)).filter(|port| *port != 0));
    let numbers = all.into_iter().map(u16::try_from);
    numbers.filter_map(Result::ok).collect()
}

pub fn spec_mut(service: &mut Value) -> &mut Map<String, Value> {
    child_mut(service, "spec")
}

/// `clusterIP` is the first of `clusterIPs`: whichever was given makes the other.
pub fn normalize_cluster_ips(service: &mut Value, old: Option<&Value>) {
    let ip = text(service, "clusterIP").to_owned();
    let ips = cluster_ips(service);
    let Some(old) = old else {
        if !ip.is_empty() && ips.is_empty() {
            spec_mut(service).insert("clusterIPs".into(), json!([ip]));
        }
        return;
    };
    let (old_ip, old_ips) = (text(old, "clusterIP").to_owned(), cluster_ips(old));
    // Clients that know only the singular field change it and leave the other as it was.
    let same_plural = ips == old_ips;
    if old_ip.is_empty() && !ip.is_empty() && same_plural {
        spec_mut(service).insert("clusterIPs".into(), json!([ip]));
    } else if !old_ip.is_empty() && ip.is_empty() && same_plural {
        spec_mut(service).remove("clusterIPs");
    } else if !old_ip.is_empty() && ip != old_ip && same_plural {
        spec_mut(service).insert("clusterIPs".into(), json!([ip]));
    }
}

/// An update that leaves out what was allocated keeps it.
pub fn patch_allocated(service: &mut Value, old: &Value) {
    if needs_cluster_ip(service) && needs_cluster_ip(old) {
        if text(service, "clusterIP").is_empty() && !text(old, "clusterIP").is_empty() {
            let ip = json!(text(old, "clusterIP"));
            spec_mut(service).insert("clusterIP".into(), ip);
        }
        if cluster_ips(service).is_empty() && !cluster_ips(old).is_empty() {
            spec_mut(service).insert("clusterIPs".into(), json!(cluster_ips(old)));
        }
    }
    if needs_node_ports(old) && needs_node_ports(service) {
        let used = port_numbers(service);
        let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
        let mut before = HashMap::new();
        for port in ports(old) {
            before.entry(name(port)).or_insert(port_number(port));
        }
        if let Some(ports) = service["spec"]["ports"].as_array_mut() {
            for port in ports.iter_mut().filter(|p| port_number(p) == 0) {
                let number = before.get(&name(port)).copied().unwrap_or(0);
                if number != 0 && !used.contains(&number) {
                    port["nodePort"] = json!(number);
                }
            }
        }
    }
    if needs_health_check_port(service)
        && needs_health_check_port(old)
        && health_check_port(service) == 0
    {
        let port = health_check_port(old);
        spec_mut(service).insert("healthCheckNodePort".into(), json!(port));
    }
}

/// What belonged to the old type goes with it, unless the client changed it as well (then
/// validation says that it must not be there).
pub fn drop_type_dependent(service: &mut Value, old: &Value) {
    let same = |service: &Value, key: &str| service["spec"].get(key) == old["spec"].get(key);
    let mut gone: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(service) {
        if same(service, "clusterIP") && same(service, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(
            ["ipFamilies", "ipFamilyPolicy"]
                .into_iter()
                .filter(|k| same(service, k)),
        );
    }
    if needs_health_check_port(old)
        && !needs_health_check_port(service)
        && same(service, "healthCheckNodePort")
    {
        gone.push("healthCheckNodePort");
    }
    if service_type(old) == "LoadBalancer" && service_type(service) != "LoadBalancer" {
        gone.extend(
            ["allocateLoadBalancerNodePorts", "loadBalancerClass"]
                .into_iter()
                .filter(|k| same(service, k)),
        );
    }
    if is_externally_accessible(old)
        && !is_externally_accessible(service)
        && same(service, "externalTrafficPolicy")
    {
        gone.push("externalTrafficPolicy");
    }
    let wipe_ports = may_have_node_ports(old)
        && !may_have_node_ports(service)
        && port_numbers(service).is_subset(&port_numbers(old));
    let not_balanced = service_type(service) != "LoadBalancer";
    let spec = spec_mut(service);
    for key in gone {
        spec.remove(key);
    }
    if wipe_ports && let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) {
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
    if not_balanced && let Some(status) = service["status"].as_object_mut() {
        status.insert("loadBalancer".into(), json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_keep_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"name": "a", "nodePort": 30001}, {"name": "b", "nodePort": 30002}]}});
        let mut new = json!({"spec": {"type": "NodePort",
            "ports": [{"name": "a"}, {"name": "b", "nodePort": 30003}, {"name": "c"}]}});
        patch_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
        assert_eq!(new["spec"]["ports"][1]["nodePort"], 30003);
        assert!(new["spec"]["ports"][2].get("nodePort").is_none());
    }

    #[test]
    fn a_change_of_type_drops_what_belonged_to_the_old_one() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut cluster = old.clone();
        cluster["spec"]["type"] = json!("ClusterIP");
        drop_type_dependent(&mut cluster, &old);
        assert_eq!(cluster["spec"]["ports"], json!([{"port": 80}]));
        assert!(cluster["spec"].get("externalTrafficPolicy").is_none());
        assert_eq!(cluster["spec"]["clusterIP"], "10.0.0.1");

        let mut external = old.clone();
        external["spec"]["type"] = json!("ExternalName");
        drop_type_dependent(&mut external, &old);
        assert!(external["spec"].get("clusterIPs").is_none());
    }

    #[test]
    fn a_load_balancer_that_gives_up_allocation_keeps_its_node_ports() {
        let old =
            json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
        drop_type_dependent(&mut new, &old);
        assert_eq!(new["spec"]["ports"], old["spec"]["ports"]);
    }

    #[test]
    fn node_ports_go_with_the_type_unless_one_is_new() {
        let old = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "healthCheckNodePort": 30009,
            "ports": [{"port": 80, "nodePort": 30001}, {"port": 81, "nodePort": 30002}]}});
        let cluster = |ports: Value| json!({"spec": {"type": "ClusterIP", "ports": ports}});
        let mut fewer = cluster(json!([{"port": 80, "nodePort": 30002}]));
        drop_type_dependent(&mut fewer, &old);
        assert_eq!(fewer["spec"]["ports"], json!([{"port": 80}]));
        let other = cluster(json!([{"port": 80, "nodePort": 30003}]));
        let mut dropped = other.clone();
        drop_type_dependent(&mut dropped, &old);
        assert_eq!(dropped["spec"]["ports"], other["spec"]["ports"]);
    }

    #[test]
    fn either_cluster_ip_field_makes_the_other() {
        let mut new = json!({"spec": {"clusterIP": "None"}});
        normalize_cluster_ips(&mut new, None);
        assert_eq!(new["spec"]["clusterIPs"], json!(["None"]));
        assert!(is_headless(&new));
        let old = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        let mut cleared = json!({"spec": {"clusterIP": "", "clusterIPs": ["10.0.0.1"]}});
        normalize_cluster_ips(&mut cleared, Some(&old));
        assert!(cluster_ips(&cleared).is_empty());
    }
}
