//! Ingresses, their classes, and network policies.

use std::collections::HashSet;
use std::net::IpAddr;

use meta::field::{ErrorList, FieldError, Path};
use meta::validation as format;
use serde_json::Value;

use super::at::{At, IMMUTABLE};
use super::metadata::{immutable, immutable_message};
use super::volume::named;
use super::{Rules, any_update, anything, job, pod};

const GROUP: &str = "networking.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "Ingress",
        name: format::dns1123_subdomain,
        object: |at, errors| ingress(&at.get("spec"), errors),
        update: any_update,
        status: |new, old, errors| {
            let [status, before] = [new, old].map(|at| at.get("status").get("loadBalancer"));
            load_balancer(&status, &before, false, errors);
        },
    },
    Rules {
        group: GROUP,
        kind: "IngressClass",
        name: format::dns1123_subdomain,
        object: |at, errors| ingress_class(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            immutable(&new.get("controller"), &old.get("controller"), errors);
        },
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "IPAddress",
        name: ip_name,
        object: |at, errors| {
            let parent = at.get("spec").get("parentRef");
            if !parent.is_set() {
                parent.required(errors, "");
                return;
            }
            let group = parent.get("group");
            if group.is_given() {
                group.check(errors, format::dns1123_subdomain(group.text()));
            }
            for field in ["resource", "name", "namespace"] {
                let part = parent.get(field);
                if field == "namespace" && !part.is_given() {
                    continue;
                }
                named(&part, errors);
                part.check(errors, format::path_segment_name(part.text()));
            }
        },
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            immutable_message(
                "io.k8s.api.networking.v1.ParentReference",
                &new.get("parentRef"),
                &old.get("parentRef"),
                errors,
            );
        },
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "ServiceCIDR",
        name: format::dns1123_subdomain,
        object: anything,
        update: |new, old, errors| {
            let (now, before) = (new.get("spec").get("cidrs"), old.get("spec").get("cidrs"));
            // One more, of the other family, may be added.
            let grown = before.len() == 1 && now.len() == 2;
            if now.len() != before.len() && !grown {
                now.invalid(errors, IMMUTABLE);
                return;
            }
            for (now, before) in now.items().zip(before.items()) {
                if now.text() != before.text() {
                    now.invalid(errors, IMMUTABLE);
                }
            }
            if grown {
                cidrs(&now, errors);
            }
        },
        // Upstream looks at no condition, and its controller gives some without a reason.
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "NetworkPolicy",
        name: format::dns1123_subdomain,
        object: |at, errors| network_policy(&at.get("spec"), errors),
        update: any_update,
        status: any_update,
    },
];

/// The networks of a ServiceCIDR: one, or one of each family.
fn cidrs(cidrs: &At<'_>, errors: &mut ErrorList) {
    if cidrs.len() == 0 {
        cidrs.required(errors, "at least one CIDR required");
    }
    if cidrs.len() > 2 {
        cidrs.invalid(errors, "may only hold up to 2 values");
        return;
    }
    let mut six = Vec::new();
    for cidr in cidrs.items() {
        let wrong = format::ip::valid_cidr(&cidr.path, cidr.text()).0;
        six.push(wrong.is_empty().then(|| cidr.text().contains(':')));
        errors.extend(wrong);
    }
    if six.len() == 2 && six[0] == six[1] && six[0].is_some() {
        cidrs.invalid(errors, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}

/// What is there does not change; what is added to it is looked at again.
pub(super) fn service_cidr_created(at: &At<'_>, errors: &mut ErrorList) {
    cidrs(&at.get("spec").get("cidrs"), errors);
}

fn ingress_class(spec: &At<'_>, errors: &mut ErrorList) {
    /// In bytes.
    const CONTROLLER_LIMIT: usize = 250;
    let controller = spec.get("controller");
    if controller.text().len() > CONTROLLER_LIMIT {
        errors.push(FieldError::too_long(&controller.path, CONTROLLER_LIMIT));
    }
    job::domain_prefixed_path(&controller, errors);
    let parameters = spec.get("parameters");
    if !parameters.is_set() {
        return;
    }
    let (group, namespace) = (parameters.get("apiGroup"), parameters.get("namespace"));
    if group.is_set() {
        group.check(errors, format::dns1123_subdomain(group.text()));
    }
    for field in ["kind", "name"] {
        let part = parameters.get(field);
        named(&part, errors);
        part.check(errors, format::path_segment_name(part.text()));
    }
    let scope = parameters.get("scope");
    match scope.text() {
        "" if !scope.is_set() => scope.required(errors, ""),
        "Cluster" if namespace.is_set() => {
            namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        "Namespace" if !namespace.is_set() => {
            namespace.required(errors, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => namespace.check(errors, format::dns1123_label(namespace.text())),
        _ => scope.one_of(errors, &["Cluster", "Namespace"]),
    }
}

/// Where a load balancer takes traffic in, for an ingress or (`modes`) a service. Addresses that
/// were there `before` may be written in any way.
pub(super) fn load_balancer(status: &At<'_>, before: &At<'_>, modes: bool, errors: &mut ErrorList) {
    let were = before.get("ingress");
    let known: HashSet<&str> = were.items().map(|i| i.get("ip").text()).collect();
    for ingress in status.get("ingress").items() {
        let (ip, host) = (ingress.get("ip"), ingress.get("hostname"));
        if ip.is_given() && !known.contains(ip.text()) {
            ip.ip(errors);
        }
        let mode = ingress.get("ipMode");
        if modes && mode.is_set() {
            if !ip.is_given() {
                mode.forbidden(errors, "may not be specified when `ip` is not set");
            } else {
                mode.one_of(errors, &["Proxy", "VIP"]);
            }
        } else if modes && ip.is_given() {
            mode.required(errors, "must be specified when `ip` is set");
        }
        if host.is_given() {
            host.check(errors, format::dns1123_subdomain(host.text()));
            if format::ip::parse_ip_sloppy(host.text()).is_some() {
                host.invalid(errors, "must be a DNS name, not an IP address");
            }
        }
    }
}

/// An address is its own name.
fn ip_name(name: &str) -> Vec<String> {
    let faults = format::ip::valid_ip(&Path::root(), name);
    faults.0.into_iter().map(|fault| fault.detail).collect()
}

fn host(host: &At<'_>, errors: &mut ErrorList) {
    let text = host.text();
    let messages = if text.contains('*') {
        format::wildcard_dns1123_subdomain(text)
    } else {
        format::dns1123_subdomain(text)
    };
    host.check(errors, messages);
}

fn ingress(spec: &At<'_>, errors: &mut ErrorList) {
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.len() == 0 && !default.is_set() {
        errors.push(FieldError::invalid(
            &spec.path,
            meta::field::BadValue::json(&Value::Null),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for rule in rules.items() {
        let name = rule.get("host");
        if name.is_given() {
            if format::ip::parse_ip_sloppy(name.text()).is_some() {
                name.invalid(errors, "must be a DNS name, not an IP address");
            }
            host(&name, errors);
        }
        let http = rule.get("http");
        if !http.is_set() {
            continue;
        }
        if http.get("paths").len() == 0 {
            http.get("paths").required(errors, "");
        }
        for path in http.get("paths").items() {
            http_path(&path, errors);
        }
    }
    for tls in spec.get("tls").items() {
        for name in tls.get("hosts").items() {
            host(&name, errors);
        }
        let secret = tls.get("secretName");
        if secret.is_given() {
            secret.check(errors, format::dns1123_subdomain(secret.text()));
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.check(errors, format::dns1123_subdomain(class.text()));
    }
}

/// The class was an annotation once.
pub(super) fn ingress_created(at: &At<'_>, errors: &mut ErrorList) {
    let key = "kubernetes.io/ingress.class";
    let class = at.get("spec").get("ingressClassName");
    let annotations = at.get("metadata").get("annotations");
    let annotated = annotations.raw(key).and_then(Value::as_str);
    if let Some(annotated) = annotated
        && class.is_set()
        && annotated != class.text()
    {
        let path = Path::new("annotations").child(key);
        errors.push(FieldError::invalid(
            &path,
            annotated,
            "must match `ingressClassName` when both are specified",
        ));
    }
}

fn http_path(at: &At<'_>, errors: &mut ErrorList) {
    const ABSOLUTE: &str = "must be an absolute path";
    /// What a path could leave its prefix by.
    const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    let (kind, path) = (at.get("pathType"), at.get("path"));
    let text = path.text();
    if !kind.is_set() {
        kind.required(errors, "pathType must be specified");
        return;
    }
    match kind.text() {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                invalid_path(&path, ABSOLUTE, errors);
            }
            for sequence in SEQUENCES {
                if text.contains(sequence) {
                    invalid_path(&path, &format!("must not contain '{sequence}'"), errors);
                }
            }
            for suffix in ["/..", "/."] {
                if text.ends_with(suffix) {
                    invalid_path(&path, &format!("cannot end with '{suffix}'"), errors);
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                invalid_path(&path, ABSOLUTE, errors);
            }
        }
        _ => kind.one_of(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&at.get("backend"), errors);
}

/// An absent path is the empty one.
fn invalid_path(path: &At<'_>, detail: &str, errors: &mut ErrorList) {
    errors.push(FieldError::invalid(&path.path, path.text(), detail));
}

fn backend(at: &At<'_>, errors: &mut ErrorList) {
    let (resource, service) = (at.get("resource"), at.get("service"));
    let mut wrong = |detail: &str| errors.push(FieldError::invalid(&at.path, "", detail));
    match (resource.is_set(), service.is_set()) {
        (true, true) => wrong("cannot set both resource and service backends"),
        (false, false) => wrong("resource or service backend is required"),
        (true, false) => {
            let group = resource.get("apiGroup");
            if group.is_set() {
                group.check(errors, format::dns1123_subdomain(group.text()));
            }
            for field in ["kind", "name"] {
                let part = resource.get(field);
                named(&part, errors);
                part.check(errors, format::path_segment_name(part.text()));
            }
        }
        (false, true) => {
            let name = service.get("name");
            if name.is_given() {
                name.check(errors, format::dns1123_label(name.text()));
            } else {
                name.required(errors, "");
            }
            let port = service.get("port");
            let (name, number) = (port.get("name"), port.get("number"));
            match (name.is_given(), number.is_given()) {
                (true, true) => errors.push(FieldError::invalid(
                    &at.path,
                    "",
                    "cannot set both port name & port number",
                )),
                (true, false) => name.check(errors, format::port_name(name.text())),
                (false, true) => {
                    number.check(errors, format::port_number(number.int().unwrap_or(0)));
                }
                (false, false) => at.required(errors, "port name or number is required"),
            }
        }
    }
}

fn network_policy(spec: &At<'_>, errors: &mut ErrorList) {
    pod::label_selector(&spec.get("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, errors);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        types.invalid(errors, "may not specify more than two policyTypes");
        return;
    }
    for ty in types.items() {
        ty.one_of(errors, &["Ingress", "Egress"]);
    }
}

fn policy_port(at: &At<'_>, errors: &mut ErrorList) {
    let (protocol, port, end) = (at.get("protocol"), at.get("port"), at.get("endPort"));
    if protocol.is_set() {
        protocol.one_of(errors, &["TCP", "UDP", "SCTP"]);
    }
    match port.value() {
        None if end.is_set() => {
            end.invalid(errors, "may not be specified when `port` is not specified");
        }
        None => {}
        Some(Value::String(name)) => {
            if end.is_set() {
                end.invalid(errors, "may not be specified when `port` is non-numeric");
            }
            port.check(errors, format::port_name(name));
        }
        Some(_) => {
            let number = port.int().unwrap_or(0);
            port.check(errors, format::port_number(number));
            if let Some(last) = end.int() {
                if last < number {
                    let detail = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(&end.path, port.bad_value(), detail));
                }
                end.check(errors, format::port_number(last));
            }
        }
    }
}

fn policy_peer(peer: &At<'_>, errors: &mut ErrorList) {
    let selectors = ["podSelector", "namespaceSelector"].map(|s| peer.get(s));
    let given = selectors.iter().filter(|s| s.is_set()).count();
    for selector in &selectors {
        pod::label_selector(selector, errors);
    }
    let block = peer.get("ipBlock");
    if block.is_set() {
        ip_block(&block, errors);
        if given > 0 {
            peer.forbidden(errors, "may not specify both ipBlock and another peer");
        }
    } else if given == 0 {
        peer.required(errors, "must specify a peer");
    }
}

/// Of an exception that the block does not contain.
pub(super) const NO_SUBSET: &str = "must be a strict subset of `cidr`";

fn ip_block(block: &At<'_>, errors: &mut ErrorList) {
    let cidr = block.get("cidr");
    if !cidr.is_given() {
        cidr.required(errors, "");
        return;
    }
    cidr.cidr(errors);
    let Some((network, bits)) = format::ip::parse_cidr_sloppy(cidr.text()) else {
        return;
    };
    let within = |(address, length): (IpAddr, u8)| {
        length > bits
            && address.is_ipv4() == network.is_ipv4()
            && format::ip::masked(address, bits) == format::ip::masked(network, bits)
    };
    for except in block.get("except").items() {
        except.cidr(errors);
        if format::ip::parse_cidr_sloppy(except.text()).is_some_and(|e| !within(e)) {
            except.invalid(errors, NO_SUBSET);
        }
    }
}
