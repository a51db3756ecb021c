//! Endpoint slices and endpoints.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::metadata::immutable;
use super::{Rules, any_update, container};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        name: format::dns1123_subdomain,
        object: slice,
        update: |new, old, errors| {
            immutable(&new.get("addressType"), &old.get("addressType"), errors)
        },
        status: any_update,
    },
    Rules {
        group: "",
        kind: "Endpoints",
        name: format::dns1123_subdomain,
        object: endpoints,
        update: any_update,
        status: any_update,
    },
];

const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 20_000;
const MOST_HINTS: usize = 8;

fn slice(slice: &At<'_>, errors: &mut ErrorList) {
    let kind = slice.get("addressType");
    if kind.is_given() {
        kind.one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    } else {
        kind.required(errors, "");
    }
    let endpoints = slice.get("endpoints");
    if endpoints.len() > MOST_ENDPOINTS {
        errors.push(FieldError::too_many(
            &endpoints.path,
            endpoints.len(),
            MOST_ENDPOINTS,
        ));
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.get("addresses");
        match addresses.len() {
            0 => addresses.required(errors, "must contain at least 1 address"),
            n if n > 100 => errors.push(FieldError::too_many(&addresses.path, n, 100)),
            _ => {}
        }
        for address in addresses.items() {
            match kind.text() {
                "FQDN" if address.text().is_empty() => address.required(errors, ""),
                "FQDN" => address.check(errors, fully_qualified(address.text())),
                family @ ("IPv4" | "IPv6") => ip_of_family(&address, &addresses, family, errors),
                _ => {}
            }
        }
        let node = endpoint.get("nodeName");
        if node.is_set() {
            node.check(errors, format::dns1123_subdomain(node.text()));
        }
        let hostname = endpoint.get("hostname");
        if hostname.is_set() {
            hostname.check(errors, format::dns1123_label(hostname.text()));
        }
        hints(&endpoint.get("hints"), errors);
    }
    let ports = slice.get("ports");
    if ports.len() > MOST_PORTS {
        errors.push(FieldError::too_many(&ports.path, ports.len(), MOST_PORTS));
        return;
    }
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if name.is_given() {
            name.check(errors, format::dns1123_label(name.text()));
        }
        if !names.insert(name.text()) {
            name.duplicate(errors);
        }
        let protocol = port.get("protocol");
        match protocol.is_set() {
            true => protocol.one_of(errors, &["SCTP", "TCP", "UDP"]),
            false => protocol.required(errors, ""),
        }
        let application = port.get("appProtocol");
        if application.is_set() {
            application.check(errors, format::qualified_name(application.text()));
        }
    }
}

/// Where traffic to an endpoint had better come from.
fn hints(hints: &At<'_>, errors: &mut ErrorList) {
    let rules: [(_, fn(&str) -> _); 2] = [
        ("forZones", format::label_value),
        ("forNodes", format::dns1123_subdomain),
    ];
    for (list, rule) in rules {
        let list = hints.get(list);
        if list.len() > MOST_HINTS {
            errors.push(FieldError::too_many(&list.path, list.len(), MOST_HINTS));
            continue;
        }
        let mut seen = HashSet::new();
        for name in list.items().map(|hint| hint.get("name")) {
            if !seen.insert(name.text()) {
                name.duplicate(errors);
            }
            name.check(errors, rule(name.text()));
        }
    }
}

/// A domain name of two labels or more; its trailing dot is no fault.
fn fully_qualified(name: &str) -> Vec<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let faults = format::dns1123_subdomain(name);
    if !faults.is_empty() {
        return faults;
    }
    if !name.contains('.') {
        return vec!["should be a domain with at least two segments separated by dots".to_owned()];
    }
    let mut labels = name.split('.').map(format::dns1123_label);
    labels.find(|faults| !faults.is_empty()).unwrap_or_default()
}

fn ip_of_family(address: &At<'_>, list: &At<'_>, family: &str, errors: &mut ErrorList) {
    // Upstream does not say which address is of the wrong family.
    let of_list = address.moved(list.path.clone());
    let six = address.text().contains(':');
    let found = match family {
        "IPv6" => format::ip::valid_ip(&address.path, address.text()),
        _ => format::ip::valid_ip_for_legacy_field(&address.path, address.text(), true, &[]),
    };
    if !found.is_empty() {
        errors.extend(found.0);
        return;
    }
    if family == "IPv4" && six {
        of_list.invalid(errors, "must be an IPv4 address");
    } else if family == "IPv6" && !six {
        of_list.invalid(errors, "must be an IPv6 address");
    }
    endpoint_ip(address, errors);
}

/// No traffic may be sent to a node's own loopback or to a link's or group's address.
pub(super) fn endpoint_ip(address: &At<'_>, errors: &mut ErrorList) {
    let Ok(ip) = address.text().parse::<std::net::IpAddr>() else {
        return;
    };
    let link_local = match ip {
        std::net::IpAddr::V4(v4) => {
            v4.is_link_local() || (v4.is_multicast() && v4.octets()[..3] == [224, 0, 0])
        }
        std::net::IpAddr::V6(v6) => {
            (v6.segments()[0] & 0xffc0) == 0xfe80 || (v6.segments()[0] & 0xff0f) == 0xff02
        }
    };
    if ip.is_unspecified() {
        address.invalid(errors, "may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        address.invalid(
            errors,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    if link_local {
        let detail = if ip.is_multicast() {
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        } else {
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        };
        address.invalid(errors, detail);
    }
}

fn endpoints(endpoints: &At<'_>, errors: &mut ErrorList) {
    for subset in endpoints.get("subsets").items() {
        let (ready, not_ready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.len() + not_ready.len() == 0 {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(not_ready.items()) {
            let ip = address.get("ip");
            if ip.ip(errors) {
                endpoint_ip(&ip, errors);
            }
            let (host, node) = (address.get("hostname"), address.get("nodeName"));
            if host.is_given() {
                host.check(errors, format::dns1123_label(host.text()));
            }
            if node.is_set() {
                node.check(errors, format::dns1123_subdomain(node.text()));
            }
        }
        let many = subset.get("ports").len() > 1;
        for port in subset.get("ports").items() {
            let name = port.get("name");
            if many && !name.is_given() {
                name.required(errors, "");
            } else if name.is_given() {
                name.check(errors, format::dns1123_label(name.text()));
            }
            container::port_number(&port.get("port"), errors);
            container::protocol(&port.get("protocol"), errors);
            let application = port.get("appProtocol");
            if application.is_set() {
                application.check(errors, format::qualified_name(application.text()));
            }
        }
    }
}
