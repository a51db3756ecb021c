//! A pod's resolver settings. Pure, given the text of the node's own `resolv.conf`.

use grpc::cri::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::pods::pod::PodExt;

/// What the kernel and common resolvers take at most.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_DOMAIN_CHARS: usize = 253;

/// The kubelet's DNS configuration.
#[derive(Debug, Clone, Default)]
pub struct ClusterDns {
    /// `clusterDNS`: the name server of pods that follow the cluster.
    pub servers: Vec<String>,
    /// `clusterDomain`.
    pub domain: String,
    /// Whether `resolvConf` names a file at all.
    pub has_resolv_conf: bool,
    /// Whether the node's primary address is IPv6.
    pub ipv6: bool,
}

/// A resolver setting, and what had to be left out or done otherwise (one event each: reason, text).
#[derive(Debug, Default)]
pub struct PodDns {
    pub config: DnsConfig,
    pub warnings: Vec<(&'static str, String)>,
}

impl ClusterDns {
    /// Settings of one pod; `host` is the parsed `resolv.conf` of the node.
    pub fn of_pod(&self, pod: &Pod, host: DnsConfig) -> PodDns {
        let mut warnings = Vec::new();
        let mut config = host;
        let spec = pod.pod_spec();
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let follows_cluster = policy == "ClusterFirstWithHostNet"
            || (policy != "Default" && policy != "None" && !pod.host_network());
        if policy == "None" {
            config = DnsConfig::default();
        } else if follows_cluster && !self.servers.is_empty() {
            config.servers.clone_from(&self.servers);
            if !self.domain.is_empty() {
                let own = [
                    format!("{}.svc.{}", pod.namespace(), self.domain),
                    format!("svc.{}", self.domain),
                ];
                let all = own
                    .into_iter()
                    .chain([self.domain.clone()])
                    .chain(config.searches);
                config.searches = without_duplicates(all.collect());
            }
            config.options = vec!["ndots:5".into()];
        } else {
            if follows_cluster {
                warnings.push((
                    "MissingClusterDNS",
                    format!(
                        "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                         \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                        pod.description()
                    ),
                ));
            }
            if !self.has_resolv_conf {
                config
                    .servers
                    .push(if self.ipv6 { "::1" } else { "127.0.0.1" }.into());
                config.searches = vec![".".into()];
            }
        }
        if let Some(more) = &spec.dns_config {
            config
                .servers
                .extend(more.nameservers.iter().flatten().cloned());
            config.servers = without_duplicates(config.servers);
            config
                .searches
                .extend(more.searches.iter().flatten().cloned());
            config.searches = without_duplicates(config.searches);
            for option in more.options.iter().flatten() {
                let name = option.name.as_deref().unwrap_or_default();
                let text = match option.value.as_deref() {
                    Some(value) if !value.is_empty() => format!("{name}:{value}"),
                    _ => name.to_owned(),
                };
                set_option(&mut config.options, text);
            }
        }
        limit(&mut config, &mut warnings);
        PodDns { config, warnings }
    }
}

/// Reads a `resolv.conf`. Lines of `nameserver` add up; of `search` and repeated options the last
/// one counts.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let domains = words.filter(|domain| *domain != ".");
                config.searches = domains
                    .map(|domain| domain.strip_suffix('.').unwrap_or(domain).into())
                    .collect();
            }
            Some("options") => {
                words.for_each(|option| set_option(&mut config.options, option.to_owned()))
            }
            _ => {}
        }
    }
    config
}

fn set_option(options: &mut Vec<String>, option: String) {
    let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
    match options
        .iter_mut()
        .find(|existing| name(existing) == name(&option))
    {
        Some(existing) => *existing = option,
        None => options.push(option),
    }
}

fn without_duplicates(mut list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list
}

fn limit(config: &mut DnsConfig, warnings: &mut Vec<(&'static str, String)>) {
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        warnings.push((
            "DNSConfigForming",
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line \
                 is: {}",
                config.servers.join(" ")
            ),
        ));
    }
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    config
        .searches
        .retain(|domain| domain.len() <= MAX_DOMAIN_CHARS);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < before {
        warnings.push((
            "DNSConfigForming",
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                config.searches.join(" ")
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster() -> ClusterDns {
        ClusterDns {
            servers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            has_resolv_conf: true,
            ipv6: false,
        }
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn policies() {
        let host = || {
            parse_resolv_conf(
                "# x\nnameserver 1.1.1.1\nsearch corp. .\noptions a:1 b\noptions a:2\n",
            )
        };
        assert_eq!(host().options, ["a:2", "b"]);
        let first = cluster()
            .of_pod(&pod(json!({"containers": []})), host())
            .config;
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(
            first.searches,
            [
                "n.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "corp"
            ]
        );
        assert_eq!(first.options, ["ndots:5"]);
        let on_host =
            pod(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst"}));
        assert_eq!(
            cluster().of_pod(&on_host, host()).config.servers,
            ["1.1.1.1"]
        );
        let none = pod(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["9.9.9.9", "9.9.9.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        }}));
        let config = cluster().of_pod(&none, host()).config;
        assert_eq!(
            (config.servers, config.searches),
            (vec!["9.9.9.9".to_owned()], vec!["x".to_owned()])
        );
        assert_eq!(config.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn without_cluster_dns_the_host_serves() {
        let dns = ClusterDns {
            servers: vec![],
            ..cluster()
        }
        .of_pod(
            &pod(json!({"containers": []})),
            parse_resolv_conf("nameserver 1.1.1.1"),
        );
        assert_eq!(dns.config.servers, ["1.1.1.1"]);
        assert_eq!(dns.warnings[0].0, "MissingClusterDNS");
    }

    #[test]
    fn too_much_is_cut_and_said() {
        let servers: String = (1..6).map(|i| format!("nameserver 1.1.1.{i}\n")).collect();
        let search = format!(
            "search {}",
            (0..40).map(|i| format!("d{i} ")).collect::<String>()
        );
        let default = pod(json!({"containers": [], "dnsPolicy": "Default"}));
        let dns = cluster().of_pod(&default, parse_resolv_conf(&(servers + &search)));
        assert_eq!(
            (dns.config.servers.len(), dns.config.searches.len()),
            (3, 32)
        );
        assert_eq!(dns.warnings.len(), 2);
    }
}
