//! Columns of services, endpoints, ingresses and their kin.

use serde_json::Value;

use super::format::{self, NONE, UNKNOWN, UNSET};
use super::{AGE, Column, Kinds, NAME, Row, column, wide};

pub(super) const KINDS: Kinds = &[
    ("", "Service", SERVICE),
    ("", "Endpoints", ENDPOINTS),
    ("discovery.k8s.io", "EndpointSlice", SLICE),
    ("networking.k8s.io", "Ingress", INGRESS),
    ("networking.k8s.io", "IngressClass", INGRESS_CLASS),
    ("networking.k8s.io", "NetworkPolicy", POLICY),
    ("networking.k8s.io", "ServiceCIDR", SERVICE_CIDR),
    ("networking.k8s.io", "IPAddress", IP_ADDRESS),
];

const SERVICE: &[Column] = &[
    NAME,
    column("Type", "string", |row| row.text("/spec/type").into()),
    column("Cluster-IP", "string", |row| {
        row.text_or("/spec/clusterIPs/0", NONE)
    }),
    column("External-IP", "string", |row| external_ip(row).into()),
    column("Port(s)", "string", |row| {
        let ports: Vec<String> = row
            .list("/spec/ports")
            .iter()
            .map(|port| {
                let (number, protocol) =
                    (&port["port"], port["protocol"].as_str().unwrap_or("TCP"));
                match port["nodePort"].as_i64().unwrap_or(0) {
                    0 => format!("{number}/{protocol}"),
                    node_port => format!("{number}:{node_port}/{protocol}"),
                }
            })
            .collect();
        format::or_none(ports.join(",")).into()
    }),
    AGE,
    wide("Selector", "string", |row| {
        format::labels(row.at("/spec/selector")).into()
    }),
];

fn external_ip(row: &Row<'_>) -> String {
    let declared = format::texts(row.list("/spec/externalIPs"));
    match row.text("/spec/type") {
        "ClusterIP" | "NodePort" => format::or_none(declared),
        "LoadBalancer" => match (ingress(row), declared) {
            (given, declared) if given.is_empty() && declared.is_empty() => "<pending>".to_owned(),
            (given, declared) if given.is_empty() => declared,
            (given, declared) if declared.is_empty() => given,
            (given, declared) => format!("{given},{declared}"),
        },
        "ExternalName" => row.text("/spec/externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// Addresses or host names that a load balancer gave.
fn ingress(row: &Row<'_>) -> String {
    let mut given: Vec<&str> = row
        .list("/status/loadBalancer/ingress")
        .iter()
        .filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str()))
        .collect();
    given.sort_unstable();
    given.dedup();
    given.join(",")
}

/// As many are shown of what may be many.
const SHOWN: usize = 3;

fn few(items: &[String], count: usize) -> String {
    let shown = items
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    if count > SHOWN {
        format!("{shown} + {} more...", count - SHOWN)
    } else {
        shown
    }
}

fn host_port(host: &str, port: &Value) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

const ENDPOINTS: &[Column] = &[
    NAME,
    column("Endpoints", "string", |row| {
        // Every address has every port: there may be many more pairs than an object has bytes.
        let (mut shown, mut count) = (Vec::new(), 0);
        let subsets = row.list("/subsets");
        if subsets.is_empty() {
            return NONE.into();
        }
        for subset in subsets {
            let items = |field: &str| {
                let items = subset[field].as_array().map(Vec::as_slice);
                items.unwrap_or_default()
            };
            let (addresses, ports) = (items("addresses"), items("ports"));
            let ips = addresses.iter().filter_map(|a| a["ip"].as_str());
            count += ips.clone().count() * ports.len().max(1);
            let missing = SHOWN.saturating_sub(shown.len());
            if ports.is_empty() {
                shown.extend(ips.map(str::to_owned).take(missing));
            } else {
                let pairs = ports.iter().flat_map(|port| {
                    let ips = ips.clone();
                    ips.map(move |ip| host_port(ip, &port["port"]))
                });
                shown.extend(pairs.take(missing));
            }
        }
        few(&shown, count).into()
    }),
    AGE,
];

const SLICE: &[Column] = &[
    NAME,
    column("AddressType", "string", |row| {
        row.text("/addressType").into()
    }),
    column("Ports", "string", |row| {
        let ports: Vec<String> = row
            .list("/ports")
            .iter()
            .map(|port| match (&port["port"], port["name"].as_str()) {
                (Value::Null, name) => name.unwrap_or("*").to_owned(),
                (number, _) => number.to_string(),
            })
            .collect();
        if ports.is_empty() {
            UNSET.into()
        } else {
            few(&ports, ports.len()).into()
        }
    }),
    column("Endpoints", "string", |row| {
        let endpoints = row.list("/endpoints");
        let all: Vec<String> = endpoints
            .iter()
            .flat_map(|e| {
                e["addresses"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default()
            })
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        if all.is_empty() {
            UNSET.into()
        } else {
            few(&all, all.len()).into()
        }
    }),
    AGE,
];

const INGRESS: &[Column] = &[
    NAME,
    column("Class", "string", |row| {
        row.text_or("/spec/ingressClassName", NONE)
    }),
    column("Hosts", "string", |row| {
        let hosts: Vec<String> = row
            .list("/spec/rules")
            .iter()
            .filter_map(|r| {
                r["host"]
                    .as_str()
                    .filter(|h| !h.is_empty())
                    .map(str::to_owned)
            })
            .collect();
        if hosts.is_empty() {
            "*".into()
        } else {
            few(&hosts, hosts.len()).into()
        }
    }),
    column("Address", "string", |row| ingress(row).into()),
    column("Ports", "string", |row| {
        if row.list("/spec/tls").is_empty() {
            "80"
        } else {
            "80, 443"
        }
        .into()
    }),
    AGE,
];

const INGRESS_CLASS: &[Column] = &[
    NAME,
    column("Controller", "string", |row| {
        row.text("/spec/controller").into()
    }),
    column("Parameters", "string", |row| {
        let kind = row.text("/spec/parameters/kind");
        if kind.is_empty() {
            return NONE.into();
        }
        let group = match row.text("/spec/parameters/apiGroup") {
            "" => String::new(),
            group => format!(".{group}"),
        };
        format!("{kind}{group}/{}", row.text("/spec/parameters/name")).into()
    }),
    AGE,
];

const POLICY: &[Column] = &[
    NAME,
    column("Pod-Selector", "string", |row| {
        format::selector(row.at("/spec/podSelector")).into()
    }),
    AGE,
];

const SERVICE_CIDR: &[Column] = &[
    NAME,
    column("CIDRs", "string", |row| {
        format::texts(row.list("/spec/cidrs")).into()
    }),
    AGE,
];

const IP_ADDRESS: &[Column] = &[
    NAME,
    column("ParentRef", "string", |row| {
        let part = |name: &str| row.text(&format!("/spec/parentRef/{name}")).to_owned();
        let parts = [
            part("resource"),
            part("group"),
            part("namespace"),
            part("name"),
        ];
        let [resource, group, namespace, name] = parts;
        let resource = if group.is_empty() {
            resource
        } else {
            format!("{resource}.{group}")
        };
        let place = [namespace, name].into_iter().filter(|p| !p.is_empty());
        std::iter::once(resource)
            .chain(place)
            .collect::<Vec<_>>()
            .join("/")
            .into()
    }),
    // Upstream has the cell and forgets to define its column.
    Column { name: "", ..AGE },
];
