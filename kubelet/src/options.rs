//! The command line. Two kinds of flags, as upstream's: those that only exist as flags, and those
//! that are an older way to write a field of the configuration file. The latter are one table: a
//! flag, the field it sets, and how its text reads.

mod validation;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use component::flags::{Exit, is_set, parse_bool};
use serde_json::{Value, json};
use thiserror::Error;

use crate::config::KubeletConfiguration;
use crate::eviction;

/// Why the kubelet cannot start with these options.
#[derive(Debug, Error)]
pub enum OptionsError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is no KubeletConfiguration of kubelet.config.k8s.io/v1beta1: {why}")]
    Config { path: PathBuf, why: String },
    #[error("invalid argument {value:?} for --{flag}: {why}")]
    Flag {
        flag: &'static str,
        value: String,
        why: String,
    },
    #[error("invalid configuration: {0}")]
    Invalid(String),
}

/// What the kubelet runs with: validated once, here.
#[derive(Debug, Clone)]
pub struct Options {
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub hostname_override: String,
    /// Wanted addresses of the node, the primary first.
    pub node_ips: Vec<std::net::IpAddr>,
    pub cert_dir: PathBuf,
    pub external_cloud_provider: bool,
    pub root_dir: PathBuf,
    pub node_labels: BTreeMap<String, String>,
    pub max_dead_containers_per_container: usize,
    /// `None`: as many as there are.
    pub max_dead_containers: Option<usize>,
    pub logs: component::logs::Options,
    pub config: KubeletConfiguration,
    pub eviction: eviction::Policy,
}

/// How a flag's text becomes a field's value.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bool,
    Int,
    Text,
    List,
    /// `a=b,c=d`
    Map,
    /// `a:b,a:c,d:e`: a name may have several values.
    Multimap,
    /// `a<b,c<d`
    Thresholds,
    /// `A=true,B=false`
    Gates,
    /// `key=value:effect,…`
    Taints,
    /// `node:memory=1Gi,…;…`
    Memory,
}

/// Flags that write a field of the configuration: flag, path of the field, kind.
const CONFIG_FLAGS: &[(&str, &str, Kind)] = &[
    ("enable-server", "enableServer", Kind::Bool),
    ("fail-swap-on", "failSwapOn", Kind::Bool),
    ("fail-cgroupv1", "failCgroupV1", Kind::Bool),
    ("pod-manifest-path", "staticPodPath", Kind::Text),
    ("sync-frequency", "syncFrequency", Kind::Text),
    ("file-check-frequency", "fileCheckFrequency", Kind::Text),
    ("http-check-frequency", "httpCheckFrequency", Kind::Text),
    ("manifest-url", "staticPodURL", Kind::Text),
    ("manifest-url-header", "staticPodURLHeader", Kind::Multimap),
    ("address", "address", Kind::Text),
    ("port", "port", Kind::Int),
    ("read-only-port", "readOnlyPort", Kind::Int),
    (
        "container-runtime-endpoint",
        "containerRuntimeEndpoint",
        Kind::Text,
    ),
    ("image-service-endpoint", "imageServiceEndpoint", Kind::Text),
    (
        "anonymous-auth",
        "authentication.anonymous.enabled",
        Kind::Bool,
    ),
    (
        "authentication-token-webhook",
        "authentication.webhook.enabled",
        Kind::Bool,
    ),
    (
        "authentication-token-webhook-cache-ttl",
        "authentication.webhook.cacheTTL",
        Kind::Text,
    ),
    (
        "client-ca-file",
        "authentication.x509.clientCAFile",
        Kind::Text,
    ),
    ("authorization-mode", "authorization.mode", Kind::Text),
    (
        "authorization-webhook-cache-authorized-ttl",
        "authorization.webhook.cacheAuthorizedTTL",
        Kind::Text,
    ),
    (
        "authorization-webhook-cache-unauthorized-ttl",
        "authorization.webhook.cacheUnauthorizedTTL",
        Kind::Text,
    ),
    ("tls-cert-file", "tlsCertFile", Kind::Text),
    ("tls-private-key-file", "tlsPrivateKeyFile", Kind::Text),
    (
        "rotate-server-certificates",
        "serverTLSBootstrap",
        Kind::Bool,
    ),
    ("tls-cipher-suites", "tlsCipherSuites", Kind::List),
    ("tls-min-version", "tlsMinVersion", Kind::Text),
    ("rotate-certificates", "rotateCertificates", Kind::Bool),
    ("registry-qps", "registryPullQPS", Kind::Int),
    ("registry-burst", "registryBurst", Kind::Int),
    ("event-qps", "eventRecordQPS", Kind::Int),
    ("event-burst", "eventBurst", Kind::Int),
    (
        "enable-debugging-handlers",
        "enableDebuggingHandlers",
        Kind::Bool,
    ),
    ("healthz-port", "healthzPort", Kind::Int),
    ("healthz-bind-address", "healthzBindAddress", Kind::Text),
    ("oom-score-adj", "oomScoreAdj", Kind::Int),
    ("cluster-domain", "clusterDomain", Kind::Text),
    ("volume-plugin-dir", "volumePluginDir", Kind::Text),
    ("cluster-dns", "clusterDNS", Kind::List),
    (
        "streaming-connection-idle-timeout",
        "streamingConnectionIdleTimeout",
        Kind::Text,
    ),
    (
        "node-status-update-frequency",
        "nodeStatusUpdateFrequency",
        Kind::Text,
    ),
    (
        "minimum-image-ttl-duration",
        "imageMinimumGCAge",
        Kind::Text,
    ),
    (
        "image-gc-high-threshold",
        "imageGCHighThresholdPercent",
        Kind::Int,
    ),
    (
        "image-gc-low-threshold",
        "imageGCLowThresholdPercent",
        Kind::Int,
    ),
    (
        "volume-stats-agg-period",
        "volumeStatsAggPeriod",
        Kind::Text,
    ),
    ("feature-gates", "featureGates", Kind::Gates),
    ("provider-id", "providerID", Kind::Text),
    ("cgroups-per-qos", "cgroupsPerQOS", Kind::Bool),
    ("cgroup-driver", "cgroupDriver", Kind::Text),
    ("cgroup-root", "cgroupRoot", Kind::Text),
    ("cpu-manager-policy", "cpuManagerPolicy", Kind::Text),
    (
        "cpu-manager-policy-options",
        "cpuManagerPolicyOptions",
        Kind::Map,
    ),
    (
        "cpu-manager-reconcile-period",
        "cpuManagerReconcilePeriod",
        Kind::Text,
    ),
    (
        "topology-manager-policy",
        "topologyManagerPolicy",
        Kind::Text,
    ),
    ("topology-manager-scope", "topologyManagerScope", Kind::Text),
    (
        "topology-manager-policy-options",
        "topologyManagerPolicyOptions",
        Kind::Map,
    ),
    ("memory-manager-policy", "memoryManagerPolicy", Kind::Text),
    (
        "runtime-request-timeout",
        "runtimeRequestTimeout",
        Kind::Text,
    ),
    ("hairpin-mode", "hairpinMode", Kind::Text),
    ("max-pods", "maxPods", Kind::Int),
    ("pods-per-core", "podsPerCore", Kind::Int),
    ("pod-cidr", "podCIDR", Kind::Text),
    ("pod-max-pids", "podPidsLimit", Kind::Int),
    ("resolv-conf", "resolvConf", Kind::Text),
    ("cpu-cfs-quota", "cpuCFSQuota", Kind::Bool),
    ("cpu-cfs-quota-period", "cpuCFSQuotaPeriod", Kind::Text),
    (
        "enable-controller-attach-detach",
        "enableControllerAttachDetach",
        Kind::Bool,
    ),
    (
        "make-iptables-util-chains",
        "makeIPTablesUtilChains",
        Kind::Bool,
    ),
    ("container-log-max-size", "containerLogMaxSize", Kind::Text),
    ("container-log-max-files", "containerLogMaxFiles", Kind::Int),
    ("allowed-unsafe-sysctls", "allowedUnsafeSysctls", Kind::List),
    ("node-status-max-images", "nodeStatusMaxImages", Kind::Int),
    (
        "local-storage-capacity-isolation",
        "localStorageCapacityIsolation",
        Kind::Bool,
    ),
    ("max-open-files", "maxOpenFiles", Kind::Int),
    ("kube-api-content-type", "contentType", Kind::Text),
    ("kube-api-qps", "kubeAPIQPS", Kind::Int),
    ("kube-api-burst", "kubeAPIBurst", Kind::Int),
    ("serialize-image-pulls", "serializeImagePulls", Kind::Bool),
    ("eviction-hard", "evictionHard", Kind::Thresholds),
    (
        "eviction-pressure-transition-period",
        "evictionPressureTransitionPeriod",
        Kind::Text,
    ),
    ("eviction-soft", "evictionSoft", Kind::Thresholds),
    (
        "eviction-soft-grace-period",
        "evictionSoftGracePeriod",
        Kind::Map,
    ),
    (
        "eviction-max-pod-grace-period",
        "evictionMaxPodGracePeriod",
        Kind::Int,
    ),
    (
        "eviction-minimum-reclaim",
        "evictionMinimumReclaim",
        Kind::Map,
    ),
    (
        "kernel-memcg-notification",
        "kernelMemcgNotification",
        Kind::Bool,
    ),
    (
        "protect-kernel-defaults",
        "protectKernelDefaults",
        Kind::Bool,
    ),
    ("reserved-cpus", "reservedSystemCPUs", Kind::Text),
    ("reserved-memory", "reservedMemory", Kind::Memory),
    ("system-reserved", "systemReserved", Kind::Map),
    ("kube-reserved", "kubeReserved", Kind::Map),
    (
        "enforce-node-allocatable",
        "enforceNodeAllocatable",
        Kind::List,
    ),
    ("register-node", "registerNode", Kind::Bool),
    ("register-with-taints", "registerWithTaints", Kind::Taints),
    ("seccomp-default", "seccompDefault", Kind::Bool),
];

/// Flags that exist only as flags: name and default.
const OWN_FLAGS: &[(&str, &str)] = &[
    ("config", ""),
    ("kubeconfig", ""),
    ("bootstrap-kubeconfig", ""),
    ("hostname-override", ""),
    ("node-ip", ""),
    ("cert-dir", "/var/lib/kubelet/pki"),
    ("cloud-provider", ""),
    ("root-dir", "/var/lib/kubelet"),
    ("node-labels", ""),
    ("maximum-dead-containers-per-container", "1"),
    ("maximum-dead-containers", "-1"),
    ("minimum-container-ttl-duration", "0s"),
    ("experimental-allocatable-ignore-eviction", "false"),
    ("runtime-cgroups", ""),
    ("kubelet-cgroups", ""),
];

fn command() -> Command {
    let about = "The node agent: runs the pods that are bound to its node";
    let mut command = component::logs::Options::augment_args(Command::new("kubelet").about(about));
    for (name, default) in OWN_FLAGS {
        let arg = Arg::new(*name).long(*name).default_value(*default);
        let arg = match *default {
            "false" => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg,
        };
        command = command.arg(arg.action(ArgAction::Set));
    }
    for (name, path, kind) in CONFIG_FLAGS {
        let arg = Arg::new(*name)
            .long(*name)
            .help(format!("sets {path}"))
            .action(ArgAction::Append);
        command = command.arg(match kind {
            // `--flag` alone is `--flag=true`.
            Kind::Bool => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg.allow_hyphen_values(true),
        });
    }
    command
}

impl Options {
    /// Reads a command line, its first word being the program, and the file it names.
    ///
    /// # Errors
    /// For flags that do not exist, and where a value or the file does not make sense; and to end
    /// the process after `--help` and `--version`.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        let matches = component::flags::matches(command(), args)?;
        Self::from_matches(&matches).map_err(Exit::error)
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, OptionsError> {
        let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
        let path = |name: &str| {
            Some(text(name))
                .filter(|text| !text.is_empty())
                .map(PathBuf::from)
        };
        let number = |flag: &'static str| {
            let value = text(flag);
            value.parse::<i64>().map_err(|error| OptionsError::Flag {
                flag,
                value,
                why: error.to_string(),
            })
        };
        let node_ip = text("node-ip");
        let node_ips = node_ip
            .split(',')
            .filter(|ip| !ip.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>();
        let node_ips = node_ips.map_err(|error: std::net::AddrParseError| OptionsError::Flag {
            flag: "node-ip",
            value: node_ip,
            why: error.to_string(),
        })?;
        let cloud_provider = text("cloud-provider");
        if !matches!(cloud_provider.as_str(), "" | "external") {
            return Err(OptionsError::Invalid(format!(
                "unknown cloud provider {cloud_provider:?}: in-tree providers are gone, use \"external\" or none"
            )));
        }

        let (config_path, mut config) = match path("config") {
            Some(path) => {
                let file = read_config(&path)?;
                (path, file)
            }
            None => (PathBuf::from("the command line"), json!({})),
        };
        overlay(matches, &mut config)?;
        let config: KubeletConfiguration =
            serde_json::from_value(config).map_err(|error| OptionsError::Config {
                path: config_path,
                why: error.to_string(),
            })?;

        // The flag says it all; only what the file says is merged with defaults.
        let flagged = is_set(matches, "eviction-hard").then(|| config.eviction_hard.clone());
        let mut config = config.complete();
        if let Some(flagged) = flagged {
            config.eviction_hard = flagged;
        }
        let eviction = eviction::Policy::new(&config);
        let mut eviction = eviction.map_err(|error| OptionsError::Invalid(error.to_string()))?;
        let flag = "experimental-allocatable-ignore-eviction";
        let ignored = parse_bool(&text(flag)).ok_or_else(|| OptionsError::Flag {
            flag,
            value: text(flag),
            why: "not a boolean".into(),
        })?;
        if ignored {
            eviction.leave_allocatable();
        }
        let options = Self {
            eviction,
            kubeconfig: path("kubeconfig"),
            bootstrap_kubeconfig: path("bootstrap-kubeconfig"),
            hostname_override: text("hostname-override"),
            node_ips,
            cert_dir: PathBuf::from(text("cert-dir")),
            external_cloud_provider: cloud_provider == "external",
            root_dir: PathBuf::from(text("root-dir")),
            node_labels: pairs("node-labels", &text("node-labels"), '=')?
                .into_iter()
                .collect(),
            max_dead_containers_per_container: number("maximum-dead-containers-per-container")?
                .try_into()
                .unwrap_or(0),
            max_dead_containers: number("maximum-dead-containers")?.try_into().ok(),
            logs: component::logs::Options::from_arg_matches(matches)
                .map_err(|e| OptionsError::Invalid(e.to_string()))?,
            config,
        };
        options.validate()?;
        Ok(options)
    }

    fn validate(&self) -> Result<(), OptionsError> {
        let c = &self.config;
        let invalid = |why: String| Err(OptionsError::Invalid(why));
        if c.cgroup_driver != "cgroupfs" {
            return invalid(format!(
                "cgroupDriver {:?} is not implemented: set cgroupDriver to cgroupfs, and SystemdCgroup to false in \
                 the runtime's configuration",
                c.cgroup_driver
            ));
        }
        if !matches!(c.authorization.mode.as_str(), "AlwaysAllow" | "Webhook") {
            return invalid(format!(
                "authorization.mode is AlwaysAllow or Webhook, not {:?}",
                c.authorization.mode
            ));
        }
        validation::resources(c).map_err(OptionsError::Invalid)?;
        if c.tls_cert_file.is_empty() != c.tls_private_key_file.is_empty() {
            return invalid("tlsCertFile and tlsPrivateKeyFile go together".into());
        }
        Ok(())
    }
}

fn read_config(path: &PathBuf) -> Result<Value, OptionsError> {
    let text = std::fs::read_to_string(path).map_err(|source| OptionsError::Read {
        path: path.clone(),
        source,
    })?;
    let wrong = |why: String| OptionsError::Config {
        path: path.clone(),
        why,
    };
    let mut value: Value =
        serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let (version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
    if (version, kind)
        != (
            Some("kubelet.config.k8s.io/v1beta1"),
            Some("KubeletConfiguration"),
        )
    {
        return Err(wrong(format!("it is {kind:?} of {version:?}")));
    }
    strip_nulls(&mut value);
    Ok(value)
}

/// `field:` without a value is as if it were not written.
fn strip_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(strip_nulls);
    }
}

fn overlay(matches: &ArgMatches, config: &mut Value) -> Result<(), OptionsError> {
    for (flag, path, kind) in CONFIG_FLAGS {
        if !is_set(matches, flag) {
            continue;
        }
        let given: Vec<&str> = matches
            .get_many::<String>(flag)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let last = given.last().copied().unwrap_or_default();
        let wrong = |why: &str| OptionsError::Flag {
            flag,
            value: last.to_owned(),
            why: why.to_owned(),
        };
        let value = match kind {
            Kind::Bool => json!(parse_bool(last).ok_or_else(|| wrong("not a boolean"))?),
            Kind::Int => json!(last.parse::<i64>().map_err(|_| wrong("not a number"))?),
            Kind::Text => json!(last),
            Kind::List => json!(
                given
                    .iter()
                    .flat_map(|t| t.split(','))
                    .filter(|t| !t.is_empty())
                    .collect::<Vec<_>>()
            ),
            Kind::Map => object(given.iter().map(|t| pairs(flag, t, '=')))?,
            Kind::Multimap => {
                let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for text in &given {
                    for (name, value) in pairs(flag, text, ':')? {
                        all.entry(name).or_default().push(value);
                    }
                }
                json!(all)
            }
            Kind::Thresholds => object(given.iter().map(|t| pairs(flag, t, '<')))?,
            Kind::Gates => {
                let mut gates = serde_json::Map::new();
                for (name, value) in pairs(flag, &given.join(","), '=')? {
                    gates.insert(
                        name,
                        json!(parse_bool(&value).ok_or_else(|| wrong("not a boolean"))?),
                    );
                }
                Value::Object(gates)
            }
            Kind::Memory => {
                let lists = given.iter().map(|t| validation::reserved_memory(t));
                let lists = lists.collect::<Result<Vec<_>, _>>();
                json!(lists.map_err(|why| wrong(&why))?.concat())
            }
            Kind::Taints => {
                let taints = given
                    .iter()
                    .flat_map(|t| t.split(','))
                    .filter(|t| !t.is_empty());
                json!(
                    taints
                        .map(taint)
                        .collect::<Option<Vec<_>>>()
                        .ok_or_else(|| wrong("not <key>=<value>:<effect>"))?
                )
            }
        };
        let mut at = &mut *config;
        for field in path.split('.') {
            at = &mut at[field];
        }
        *at = value;
    }
    Ok(())
}

type Pairs = Vec<(String, String)>;

fn object(lists: impl Iterator<Item = Result<Pairs, OptionsError>>) -> Result<Value, OptionsError> {
    let all: Vec<Pairs> = lists.collect::<Result<_, _>>()?;
    Ok(Value::Object(
        all.into_iter()
            .flatten()
            .map(|(key, value)| (key, json!(value)))
            .collect(),
    ))
}

fn pairs(flag: &'static str, text: &str, separator: char) -> Result<Pairs, OptionsError> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| match item.split_once(separator) {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(OptionsError::Flag {
                flag,
                value: item.to_owned(),
                why: format!("not <key>{separator}<value>"),
            }),
        })
        .collect()
}

fn taint(text: &str) -> Option<Value> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let known = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
    (known && !key.is_empty()).then(|| json!({"key": key, "value": value, "effect": effect}))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(args: &[&str]) -> Result<Options, Exit> {
        let words = std::iter::once(&"kubelet").chain(args).map(OsString::from);
        Options::parse(words)
    }

    #[test]
    fn flags_win_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmergeDefaultEvictionSettings: true\nmaxPods: 5\nclusterDNS: [1.1.1.1]\nevictionHard:\n").unwrap();
        let config = format!("--config={}", file.path().display());
        let options = parse(&[
            &config,
            "--cluster-dns=2.2.2.2,3.3.3.3",
            "--node-ip=10.0.0.1",
            "--register-with-taints=a=b:NoSchedule,c:NoExecute",
            "--node-labels=x=y",
            "--eviction-hard=memory.available<1Gi",
            "--eviction-soft=memory.available<2Gi,nodefs.available<20%",
            "--eviction-soft-grace-period=memory.available=1m30s,nodefs.available=2m",
            "--eviction-minimum-reclaim=nodefs.available=1Gi",
            "--eviction-max-pod-grace-period=-1",
            "--fail-swap-on=false",
            "--cloud-provider=external",
            "--feature-gates=A=true",
            "--cpu-manager-policy=static",
            "--cpu-manager-policy-options=full-pcpus-only=true",
            "--topology-manager-policy-options=prefer-closest-numa-nodes=true",
            "--reserved-memory=0:memory=1Gi;1:memory=2Gi",
            "--reserved-memory=0:hugepages-2Mi=2Mi",
            "--v=2",
        ])
        .unwrap();
        assert_eq!(options.config.max_pods, 5);
        assert_eq!(options.config.cluster_dns, ["2.2.2.2", "3.3.3.3"]);
        assert_eq!(options.config.register_with_taints[1].effect, "NoExecute");
        assert_eq!(
            options.config.eviction_hard.as_ref().unwrap()["memory.available"],
            "1Gi"
        );
        assert_eq!(options.eviction.thresholds.len(), 4);
        assert_eq!(options.eviction.max_pod_grace, -1);
        assert!(!options.config.fail_swap_on && options.external_cloud_provider);
        assert_eq!(options.node_ips[0].to_string(), "10.0.0.1");
        assert_eq!(options.node_labels["x"], "y");
        assert_eq!(options.logs.verbosity, 2);
        let c = &options.config;
        assert_eq!(c.cpu_manager_policy_options["full-pcpus-only"], "true");
        assert_eq!(c.topology_manager_policy_options.len(), 1);
        let nodes: Vec<u32> = c.reserved_memory.iter().map(|r| r.numa_node).collect();
        assert_eq!(nodes, [0, 1, 0]);
        assert!(options.kubeconfig.is_none());
    }

    #[test]
    fn evictions_may_leave_allocatable_alone() {
        let kept = |args: &[&str]| {
            let policy = parse(args).unwrap().eviction;
            (policy.kept.memory.is_some(), policy.thresholds.len())
        };
        assert_eq!(kept(&[]), (true, 6));
        let flag = "--experimental-allocatable-ignore-eviction";
        assert_eq!(kept(&[flag]), (false, 5));
        assert_eq!(kept(&[&format!("{flag}=false")]), (true, 6));
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            &["--cgroup-driver=x"][..],
            &["--max-pods=many"],
            &["--node-ip=host"],
            &["--tls-cert-file=x"],
            &["--config=/does/not/exist"],
            &["--register-with-taints=a"],
            &["--experimental-allocatable-ignore-eviction=maybe"],
            &["--eviction-hard=memory<1Gi"],
            &["--eviction-soft=memory.available<1Gi"],
            &["--eviction-max-pod-grace-period=long"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
