//! A pod's host name and its `/etc/hosts`. Pure, given the node's own file.

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use meta::validation::dns1123_label;
use thiserror::Error;

use crate::pods::pod::PodExt;

/// Why a pod has no usable host name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HostnameError {
    #[error("pod {field} {name:?} is not a valid DNS label")]
    Invalid { field: &'static str, name: String },
    #[error("hostname for pod {0:?} was invalid")]
    Empty(String),
    #[error("failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({max} characters is the max, {} characters requested)", fqdn.len(), max = KERNEL_MAX)]
    TooLong { fqdn: String },
}

const LABEL_MAX: usize = 63;
/// What the kernel takes as a host name.
const KERNEL_MAX: usize = 64;

/// Short name and domain; the domain is empty unless the pod has a subdomain.
///
/// # Errors
/// When a name in the spec is no DNS label.
pub fn hostname_and_domain(
    pod: &Pod,
    cluster_domain: &str,
) -> Result<(String, String), HostnameError> {
    let spec = pod.pod_spec();
    if let Some(name) = &spec.hostname_override {
        return Ok((truncate(pod, name)?, String::new()));
    }
    let label = |field, name: &Option<String>| match name.as_deref() {
        None | Some("") => Ok(None),
        Some(name) if dns1123_label(name).is_empty() => Ok(Some(name.to_owned())),
        Some(name) => Err(HostnameError::Invalid {
            field,
            name: name.to_owned(),
        }),
    };
    let hostname = label("Hostname", &spec.hostname)?.unwrap_or_else(|| pod.name().to_owned());
    let domain = label("Subdomain", &spec.subdomain)?
        .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()))
        .unwrap_or_default();
    Ok((truncate(pod, &hostname)?, domain))
}

/// The name that the kernel is told: short, or with the domain where `setHostnameAsFQDN`.
///
/// # Errors
/// When the full name is longer than the kernel takes.
pub fn kernel_hostname(pod: &Pod, hostname: &str, domain: &str) -> Result<String, HostnameError> {
    if domain.is_empty() || !pod.pod_spec().set_hostname_as_fqdn.unwrap_or_default() {
        return Ok(hostname.to_owned());
    }
    let fqdn = format!("{hostname}.{domain}");
    if fqdn.len() > KERNEL_MAX {
        Err(HostnameError::TooLong { fqdn })
    } else {
        Ok(fqdn)
    }
}

fn truncate(pod: &Pod, name: &str) -> Result<String, HostnameError> {
    let cut = match name.get(..LABEL_MAX) {
        Some(head) if name.len() > LABEL_MAX => head.trim_end_matches(['-', '.']),
        _ => name,
    };
    if cut.is_empty() {
        Err(HostnameError::Empty(pod.name().to_owned()))
    } else {
        Ok(cut.to_owned())
    }
}

/// `/etc/hosts` of a pod with a network of its own.
pub fn hosts_file(ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        text += &match domain {
            "" => format!("{ip}\t{hostname}\n"),
            _ => format!("{ip}\t{hostname}.{domain}\t{hostname}\n"),
        };
    }
    text + &alias_lines(aliases)
}

/// `/etc/hosts` of a pod on the node's network: the node's own, and the pod's aliases.
pub fn host_network_file(node_file: &[u8], aliases: &[HostAlias]) -> Vec<u8> {
    let head = "# Kubernetes-managed hosts file (host network).\n";
    [head.as_bytes(), node_file, alias_lines(aliases).as_bytes()].concat()
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    let mut text = String::new();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
    }
    for alias in aliases {
        text += &format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.as_deref().unwrap_or_default().join("\t")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn names() {
        let plain = pod("web-0", json!({"containers": []}));
        assert_eq!(
            hostname_and_domain(&plain, "c.l").unwrap(),
            ("web-0".into(), String::new())
        );
        let full = pod(
            "web-0",
            json!({"containers": [], "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
        );
        let (hostname, domain) = hostname_and_domain(&full, "c.l").unwrap();
        assert_eq!((hostname.as_str(), domain.as_str()), ("h", "s.n.svc.c.l"));
        assert_eq!(
            kernel_hostname(&full, &hostname, &domain).unwrap(),
            "h.s.n.svc.c.l"
        );
        let long = pod(&format!("{}-x", "a".repeat(62)), json!({"containers": []}));
        assert_eq!(hostname_and_domain(&long, "c.l").unwrap().0, "a".repeat(62));
        assert!(
            hostname_and_domain(
                &pod("p", json!({"containers": [], "hostname": "A_b"})),
                "c.l"
            )
            .is_err()
        );
    }

    #[test]
    fn hosts() {
        let aliases = [HostAlias {
            ip: "1.2.3.4".into(),
            hostnames: Some(vec!["a".into(), "b".into()]),
        }];
        let file = hosts_file(&["10.0.0.1".into()], "h", "s.n", &aliases);
        assert!(
            file.ends_with(
                "10.0.0.1\th.s.n\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
            )
        );
    }
}
