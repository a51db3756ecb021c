//! The endpoints of `default/kubernetes`: the addresses of all API servers that live, as
//! Endpoints and as an EndpointSlice.

use meta::Status;
use serde_json::{Value, json};

use super::ControlPlane;
use super::service::{NAME, NAMESPACE};
use crate::registry::object_meta::semantically_equal;

/// Says that the slice beside it is made by hand.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const DISCOVERY: &str = "discovery.k8s.io";

pub(super) async fn reconcile(cp: &ControlPlane) -> Result<(), Status> {
    cp.leases.renew(cp.advertise).await?;
    let servers = cp.leases.list().await?;
    if servers.is_empty() {
        // We are one ourselves: this cannot be, so nothing is done because of it.
        return Err(Status::internal(
            "no API server addresses were found in storage; the endpoints stay as they are",
        ));
    }
    write(cp, servers).await
}

/// Leaves the service. The last server leaves no endpoints behind.
pub(super) async fn remove(cp: &ControlPlane) -> Result<(), Status> {
    cp.leases.remove(cp.advertise).await?;
    let servers = cp.leases.list().await?;
    write(cp, servers).await
}

async fn write(cp: &ControlPlane, mut servers: Vec<String>) -> Result<(), Status> {
    servers.sort();
    servers.dedup();
    put(cp, ("", "endpoints"), endpoints(&servers, cp.secure_port)).await?;
    let slice = slice(&servers, cp.secure_port, cp.advertise.is_ipv4());
    put(cp, (DISCOVERY, "endpointslices"), slice).await
}

fn endpoints(servers: &[String], port: u16) -> Value {
    let addresses: Vec<Value> = servers.iter().map(|ip| json!({"ip": ip})).collect();
    let mut object = json!({
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {SKIP_MIRROR: "true"}},
    });
    if !addresses.is_empty() {
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        object["subsets"] = json!([{"addresses": addresses, "ports": ports}]);
    }
    object
}

fn slice(servers: &[String], port: u16, ipv4: bool) -> Value {
    let endpoints: Vec<Value> = servers
        .iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {
            "name": NAME, "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": if ipv4 { "IPv4" } else { "IPv6" },
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// Creates or corrects an object; what is right already is left alone.
async fn put(
    cp: &ControlPlane,
    (group, plural): (&str, &str),
    wanted: Value,
) -> Result<(), Status> {
    let Some(mut found) = cp.local.get(group, plural, NAMESPACE, NAME).await? else {
        return cp.local.ensure(group, plural, NAMESPACE, wanted).await;
    };
    let mut right = true;
    for key in ["subsets", "addressType", "ports", "endpoints"] {
        if !semantically_equal(found.get(key), wanted.get(key)) {
            right = false;
            match wanted.get(key) {
                Some(value) => found[key] = value.clone(),
                None => {
                    if let Some(members) = found.as_object_mut() {
                        members.remove(key);
                    }
                }
            }
        }
    }
    let labels = wanted["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for (key, value) in labels {
        if found["metadata"]["labels"][&key] != value {
            right = false;
            found["metadata"]["labels"][&key] = value;
        }
    }
    if right {
        return Ok(());
    }
    cp.local.update(group, plural, NAMESPACE, found).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_servers_are_behind_the_service() {
        let servers = ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        let e = endpoints(&servers, 6443);
        assert_eq!(e["subsets"][0]["addresses"].as_array().unwrap().len(), 2);
        assert_eq!(e["subsets"][0]["ports"][0]["port"], 6443);
        assert!(endpoints(&[], 6443).get("subsets").is_none());
        let s = slice(&servers, 6443, true);
        assert_eq!(s["endpoints"][1]["addresses"], json!(["10.0.0.2"]));
        assert_eq!(
            s["metadata"]["labels"]["kubernetes.io/service-name"],
            "kubernetes"
        );
    }
}
