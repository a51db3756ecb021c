//! Services.

use std::collections::HashSet;

use meta::field::{BadValue, ErrorList, FieldError, Path};
use meta::validation as format;
use serde_json::Value;

use super::at::At;
use super::{Rules, container, discovery, metadata, networking};

pub(super) const RULES: &[Rules] = &[Rules {
    group: "",
    kind: "Service",
    // Names of services become DNS labels; they may start with a digit (KEP-5311).
    name: format::dns1123_label,
    object: |at, errors| {
        service(&at.get("spec"), errors);
        source_ranges_of_load_balancers_only(at, errors);
        topology(at, errors);
    },
    update: |new, old, errors| {
        update(&new.get("spec"), &old.get("spec"), errors);
        let [now, before] = [new, old].map(|at| annotated_source_ranges(at).map(|(_, text)| text));
        if now != before {
            created(new, errors);
        }
    },
    status: |new, old, errors| {
        let [status, before] = [new, old].map(|at| at.get("status").get("loadBalancer"));
        let ingress = status.get("ingress");
        if ingress.len() > 0 && new.get("spec").get("type").text() != "LoadBalancer" {
            ingress.forbidden(
                errors,
                "may only be used when `spec.type` is 'LoadBalancer'",
            );
            return;
        }
        networking::load_balancer(&status, &before, true, errors);
    },
}];

fn is_headless(spec: &At<'_>) -> bool {
    spec.get("clusterIP").text() == "None"
}

fn service(spec: &At<'_>, errors: &mut ErrorList) {
    let kind = spec.get("type");
    kind.one_of(
        errors,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    let external_name = kind.text() == "ExternalName";
    let ports = spec.get("ports");
    if ports.len() == 0 && !is_headless(spec) && !external_name {
        ports.required(errors, "");
    }
    match kind.text() {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {} services", kind.text());
            let path = spec.get("clusterIPs").path.index(0);
            errors.push(FieldError::invalid(&path, "None", detail));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.get(field).is_given() {
                    spec.get(field)
                        .forbidden(errors, "may not be set for ExternalName services");
                }
            }
            let name = spec.get("externalName");
            let host = name.text().strip_suffix('.').unwrap_or(name.text());
            if host.is_empty() {
                name.required(errors, "");
            } else {
                name.check(errors, format::dns1123_subdomain(host));
            }
        }
        _ => {}
    }
    check_ports(spec, errors);
    distinct_ports(spec, errors);
    metadata::labels(&spec.get("selector"), errors);
    let affinity = spec.get("sessionAffinity");
    if affinity.is_given() {
        affinity.one_of(errors, &["ClientIP", "None"]);
    } else {
        affinity.required(errors, "");
    }
    session_timeout(spec, errors);
    // Of those that have no addresses nothing more is asked.
    if !external_name {
        cluster_ips(spec, errors);
    }
    for ip in spec.get("externalIPs").items() {
        if ip.ip(errors) {
            discovery::endpoint_ip(&ip, errors);
        }
    }
    traffic_policies(spec, errors);
    if kind.text() != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec.get(field).is_set() {
                spec.get(field)
                    .forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
    let class = spec.get("loadBalancerClass");
    if kind.text() == "LoadBalancer" && class.is_set() {
        class.check(errors, format::qualified_name(class.text()));
    }
    // Upstream spells this field as Go does.
    let ranges = spec
        .get("loadBalancerSourceRanges")
        .renamed("LoadBalancerSourceRanges");
    if ranges.len() > 0 && kind.text() != "LoadBalancer" {
        ranges.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
    }
    for range in ranges.items() {
        range.padded_cidr(errors);
    }
}

/// Before there was a field for them, the sources of a load balancer were an annotation, which
/// counts where the field says nothing.
fn annotated_source_ranges<'a>(at: &At<'a>) -> Option<(Path, &'a str)> {
    const KEY: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let annotations = at.get("metadata").get("annotations");
    let ranges = annotations.raw(KEY).and_then(Value::as_str)?;
    let fielded = at.get("spec").get("loadBalancerSourceRanges").len() > 0;
    (!fielded).then(|| (annotations.path.key(KEY), ranges))
}

fn source_ranges_of_load_balancers_only(at: &At<'_>, errors: &mut ErrorList) {
    if let Some((path, _)) = annotated_source_ranges(at)
        && at.get("spec").get("type").text() != "LoadBalancer"
    {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(&path, detail));
    }
}

/// The networks of the annotation, which are looked at when they are new.
pub(super) fn created(at: &At<'_>, errors: &mut ErrorList) {
    let Some((path, ranges)) = annotated_source_ranges(at) else {
        return;
    };
    let ranges = ranges.trim();
    for range in ranges.split(',').filter(|_| !ranges.is_empty()) {
        let range = Value::from(range.trim());
        At::new(path.clone(), &range).padded_cidr(errors);
    }
}

/// Topology hints have two names, which must not disagree.
fn topology(at: &At<'_>, errors: &mut ErrorList) {
    const NEW: &str = "service.kubernetes.io/topology-mode";
    const OLD: &str = "service.kubernetes.io/topology-aware-hints";
    let annotations = at.get("metadata").get("annotations");
    let text = |key| annotations.raw(key).and_then(Value::as_str);
    if let (Some(new), Some(old)) = (text(NEW), text(OLD))
        && new != old
    {
        let detail = format!("must match annotations[{OLD}] when both are specified");
        errors.push(FieldError::invalid(&annotations.path.key(NEW), new, detail));
    }
}

fn check_ports(spec: &At<'_>, errors: &mut ErrorList) {
    let ports = spec.get("ports");
    let many = ports.len() > 1;
    let mut names = HashSet::new();
    for port in ports.items() {
        let (name, number, protocol) = (port.get("name"), port.get("port"), port.get("protocol"));
        if name.is_given() {
            name.check(errors, format::dns1123_label(name.text()));
            if !names.insert(name.text()) {
                name.duplicate(errors);
            }
        } else if many {
            name.required(errors, "");
        }
        container::port_number(&number, errors);
        container::protocol(&protocol, errors);
        container::port(&port.get("targetPort"), errors);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.check(errors, format::qualified_name(application.text()));
        }
    }
}

/// Node ports, and then ports, are told apart by their protocols.
fn distinct_ports(spec: &At<'_>, errors: &mut ErrorList) {
    let (mut pairs, mut node_ports) = (HashSet::new(), HashSet::new());
    for port in spec.get("ports").items() {
        let (node_port, protocol) = (port.get("nodePort"), port.get("protocol").text());
        if !node_port.is_given() {
            continue;
        }
        if spec.get("type").text() == "ClusterIP" {
            node_port.forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
        if !node_ports.insert((node_port.int(), protocol)) {
            node_port.duplicate(errors);
        }
    }
    for port in spec.get("ports").items() {
        let (number, protocol) = (port.get("port").int(), port.get("protocol").text());
        if !pairs.insert((number, protocol)) {
            // Upstream shows what it compares, a struct of its own.
            let shown = format!(
                r#"{{"Name":"","Protocol":{protocol:?},"AppProtocol":null,"Port":{},"TargetPort":0,"NodePort":0}}"#,
                number.unwrap_or(0),
            );
            errors.push(FieldError::duplicate(&port.path, BadValue::Raw(shown)));
        }
    }
}

fn session_timeout(spec: &At<'_>, errors: &mut ErrorList) {
    const DAY: i64 = 86_400;
    let config = spec.get("sessionAffinityConfig");
    if spec.get("sessionAffinity").text() != "ClientIP" {
        if config.is_set() && spec.get("sessionAffinity").text() == "None" {
            config.forbidden(errors, "must not be set when session affinity is None");
        }
        return;
    }
    let seconds = config.get("clientIP").get("timeoutSeconds");
    if !seconds.int().is_some_and(|s| (1..=DAY).contains(&s)) {
        seconds.invalid(
            errors,
            format!("must be greater than 0 and less than {DAY}"),
        );
    }
}

/// What a Service says of its addresses and families. The server looks at it before it fills in
/// what was left open, too.
pub fn addresses(service: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    let spec = At::root(service).get("spec");
    if spec.get("type").text() != "ExternalName" {
        cluster_ips(&spec, &mut errors);
    }
    errors
}

fn cluster_ips(spec: &At<'_>, errors: &mut ErrorList) {
    let ips = spec.get("clusterIPs");
    let first = spec.get("clusterIP");
    match (first.is_given(), ips.items().next()) {
        (true, None) => ips.required(errors, ""),
        (true, Some(ip)) if ip.text() != first.text() => {
            ips.invalid(errors, "first value must match `clusterIP`");
        }
        (false, Some(_)) => ips.invalid(errors, "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let families = spec.get("ipFamilies");
    let mut seen = HashSet::new();
    for family in families.items() {
        family.one_of(errors, &["IPv4", "IPv6"]);
        if !seen.insert(family.text()) {
            family.duplicate(errors);
        }
    }
    let policy = spec.get("ipFamilyPolicy");
    if policy.is_set() {
        policy.one_of(
            errors,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
    let mut well_formed = true;
    for (i, ip) in ips.items().enumerate() {
        if ip.text() == "None" && i == 0 {
            if ips.len() > 1 {
                ips.invalid(errors, "'None' must be the first and only value");
                well_formed = false;
            }
            continue;
        }
        well_formed &= ip.ip(errors);
    }
    if ips.len() > 2 {
        ips.invalid(errors, "may only hold up to 2 values");
    }
    if !well_formed {
        return;
    }
    let six = |ip: &At<'_>| ip.text().contains(':');
    let stacks: HashSet<bool> = ips.items().map(|ip| six(&ip)).collect();
    if ips.len() > 1 && stacks.len() < 2 {
        ips.invalid(errors, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in ips.items().zip(families.items()).enumerate() {
        let wanted = match (family.text(), six(&ip)) {
            ("IPv4", true) => "an IPv4",
            ("IPv6", false) => "an IPv6",
            _ => continue,
        };
        let detail = format!("expected {wanted} value as indicated by `ipFamilies[{i}]`");
        ip.invalid(errors, detail);
    }
}

fn needs_health_check(spec: &At<'_>) -> bool {
    spec.get("type").text() == "LoadBalancer" && spec.get("externalTrafficPolicy").text() == "Local"
}

fn traffic_policies(spec: &At<'_>, errors: &mut ErrorList) {
    let kind = spec.get("type").text();
    let external = spec.get("externalTrafficPolicy");
    let externally_accessible = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.get("externalIPs").is_given());
    if externally_accessible {
        external.one_of(errors, &["Cluster", "Local"]);
    } else if external.is_given() {
        external.invalid(errors, "may only be set for externally-accessible services");
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.is_set() {
        internal.one_of(errors, &["Cluster", "Local"]);
    }
    let health = spec.get("healthCheckNodePort");
    match (needs_health_check(spec), health.is_given()) {
        (true, false) => health.required(errors, ""),
        (false, true) => health.invalid(
            errors,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        _ => {}
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        distribution.one_of(errors, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
    }
}

/// Whether the first address is of the first family.
fn agree(spec: &At<'_>) -> bool {
    let (ips, families) = (spec.get("clusterIPs"), spec.get("ipFamilies"));
    match (ips.items().next(), families.items().next()) {
        (Some(ip), Some(family)) => {
            ip.text() == "None" || ip.text().contains(':') == (family.text() == "IPv6")
        }
        _ => true,
    }
}

fn update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let external_name = |spec: &At<'_>| spec.get("type").text() == "ExternalName";
    let is_headless = |spec: &At<'_>| {
        let ips = spec.get("clusterIPs");
        ips.len() == 1 && ips.items().all(|ip| ip.text() == "None")
    };
    // The address stays for as long as the service has one.
    if !external_name(new) && !external_name(old) {
        for (field, what) in [
            ("clusterIPs", "primary clusterIP"),
            ("ipFamilies", "primary ipFamily"),
        ] {
            let (now, before) = (new.get(field), old.get(field));
            let (Some(first), Some(was)) = (now.items().next(), before.items().next()) else {
                if before.len() > 0 && field == "clusterIPs" {
                    now.invalid(errors, format!("{what} can not be unset"));
                }
                continue;
            };
            // Addresses of the wrong family have been told of already; without any, families may
            // change.
            let told =
                field == "ipFamilies" && (!agree(new) || is_headless(new) || is_headless(old));
            if first.text() != was.text() && !told {
                first.invalid(errors, "may not change once set");
            }
        }
    }
    let (class, was) = (new.get("loadBalancerClass"), old.get("loadBalancerClass"));
    let both = new.get("type").text() == "LoadBalancer" && old.get("type").text() == "LoadBalancer";
    if both && class.value() != was.value() {
        class.invalid(errors, "may not change once set");
    }
    let (health, was) = (
        new.get("healthCheckNodePort"),
        old.get("healthCheckNodePort"),
    );
    if needs_health_check(new) && needs_health_check(old) && health.int() != was.int() {
        errors.push(FieldError::forbidden(&health.path, "field is immutable"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_told_apart_by_protocol_and_so_are_node_ports() {
        let mut errors = ErrorList::default();
        let object = json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "protocol": "TCP", "nodePort": 30080},
            {"port": 80, "protocol": "UDP", "nodePort": 30080},
            {"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        distinct_ports(&At::root(&object).get("spec"), &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "spec.ports[2].nodePort: Duplicate value: 30080",
                r#"spec.ports[2]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#,
            ]
        );
    }

    #[test]
    fn annotated_source_ranges_are_looked_at_when_they_change() {
        let service = |kind: &str, ranges: &str| {
            json!({
            "metadata": {"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": ranges}},
            "spec": {"type": kind, "ports": [{"port": 80}]}})
        };
        let said = |new: &Value, old: &Value| -> Vec<String> {
            let mut errors = ErrorList::default();
            source_ranges_of_load_balancers_only(&At::root(new), &mut errors);
            (RULES[0].update)(&At::root(new), &At::root(old), &mut errors);
            errors.iter().map(|e| e.detail.to_string()).collect()
        };
        let odd = service("LoadBalancer", "10.0.0.0/8, odd");
        assert_eq!(said(&odd, &odd), [""; 0]);
        assert_eq!(said(&odd, &service("LoadBalancer", " ")).len(), 1);
        let lost = service("ClusterIP", " ");
        assert_eq!(
            said(&lost, &lost),
            ["may only be used when `type` is 'LoadBalancer'"]
        );
    }

    #[test]
    fn addresses_that_make_no_sense_are_told_in_upstreams_words() {
        let said = |spec: Value| -> Vec<String> {
            let errors = addresses(&json!({"spec": spec}));
            errors.iter().map(ToString::to_string).collect()
        };
        let none: [&str; 0] = [];
        assert_eq!(
            said(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
            none
        );
        assert_eq!(said(json!({"ipFamilies": ["IPv4"]})), none);
        assert_eq!(
            said(json!({"clusterIPs": ["None", "x"]})),
            [
                "spec.clusterIPs: Invalid value: [\"None\",\"x\"]: must be empty when `clusterIP` is not specified",
                "spec.clusterIPs: Invalid value: [\"None\",\"x\"]: 'None' must be the first and only value",
                "spec.clusterIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ]
        );
        let two = json!(["10.0.0.1", "10.0.0.2"]);
        assert_eq!(
            said(json!({"clusterIP": "10.0.0.1", "clusterIPs": two})),
            [
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family"
            ]
        );
        assert_eq!(
            said(
                json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"], "ipFamilies": ["IPv4"]})
            ),
            [
                "spec.clusterIPs[0]: Invalid value: \"fd00::1\": expected an IPv4 value as indicated by `ipFamilies[0]`"
            ]
        );
        assert_eq!(
            said(json!({"clusterIP": "10.0.0.1"})),
            ["spec.clusterIPs: Required value"]
        );
    }
}
