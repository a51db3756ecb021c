//! The command line. Two kinds of flags, as upstream's: those that only exist as flags, and those
//! that are an older way to write a field of the configuration file. The latter are one table: a
//! flag, the field it sets, and how its text reads.

mod cadvisor;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use component::flags::{Exit, GoDuration, is_set, parse_bool};
use component::serving::{PolicyError, TlsPolicy};
use component::zpages::Flags;
use meta::gofmt::Quoted;
use meta::validation::{label_value, qualified_name};
use serde_json::{Value, json};
use thiserror::Error;

use crate::cgroups::Hierarchy;
use crate::config::file::{self, FileError};
use crate::config::{KubeletConfiguration, decode, unheeded, validation};
use crate::eviction;

/// Why the kubelet cannot start with these options.
#[derive(Debug, Error)]
pub enum OptionsError {
    #[error("failed to validate kubelet flags: {0}")]
    Labels(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("failed to parse kubelet flag: invalid argument {} for \"--{flag}\" flag: {why}", Quoted(.value))]
    Flag {
        flag: &'static str,
        value: String,
        why: String,
    },
    #[error("initialize logging: {0}")]
    Logging(String),
    #[error("failed to validate kubelet configuration, error: {0}")]
    Configuration(String),
    #[error("failed to construct kubelet dependencies: {0}")]
    Tls(#[from] PolicyError),
    #[error("failed to run Kubelet: {0}")]
    Run(String),
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
    /// All of them as they are, for `/flagz`.
    pub flags: Flags,
    pub config: KubeletConfiguration,
    pub tls: TlsPolicy,
    pub eviction: eviction::Policy,
    /// The file that is locked as long as the kubelet runs, and whether it ends when another wants
    /// that lock.
    pub lock_file: Option<PathBuf>,
    pub exit_on_lock_contention: bool,
    /// What was asked for and is not done, or is not as it should be: to be told at start.
    pub warnings: Vec<String>,
}

/// How a flag's text becomes a field's value.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bool,
    Int,
    Text,
    Duration,
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
    ("sync-frequency", "syncFrequency", Kind::Duration),
    ("file-check-frequency", "fileCheckFrequency", Kind::Duration),
    ("http-check-frequency", "httpCheckFrequency", Kind::Duration),
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
        Kind::Duration,
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
        Kind::Duration,
    ),
    (
        "authorization-webhook-cache-unauthorized-ttl",
        "authorization.webhook.cacheUnauthorizedTTL",
        Kind::Duration,
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
        Kind::Duration,
    ),
    (
        "node-status-update-frequency",
        "nodeStatusUpdateFrequency",
        Kind::Duration,
    ),
    (
        "minimum-image-ttl-duration",
        "imageMinimumGCAge",
        Kind::Duration,
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
        Kind::Duration,
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
        Kind::Duration,
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
        Kind::Duration,
    ),
    ("hairpin-mode", "hairpinMode", Kind::Text),
    ("max-pods", "maxPods", Kind::Int),
    ("pods-per-core", "podsPerCore", Kind::Int),
    ("pod-cidr", "podCIDR", Kind::Text),
    ("pod-max-pids", "podPidsLimit", Kind::Int),
    ("resolv-conf", "resolvConf", Kind::Text),
    ("cpu-cfs-quota", "cpuCFSQuota", Kind::Bool),
    ("cpu-cfs-quota-period", "cpuCFSQuotaPeriod", Kind::Duration),
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
        Kind::Duration,
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
    ("system-reserved-cgroup", "systemReservedCgroup", Kind::Text),
    ("kube-reserved-cgroup", "kubeReservedCgroup", Kind::Text),
    ("qos-reserved", "qosReserved", Kind::Map),
    ("kubelet-cgroups", "kubeletCgroups", Kind::Text),
    ("system-cgroups", "systemCgroups", Kind::Text),
    ("runonce", "runOnce", Kind::Bool),
    (
        "contention-profiling",
        "enableContentionProfiling",
        Kind::Bool,
    ),
    ("register-node", "registerNode", Kind::Bool),
    ("register-with-taints", "registerWithTaints", Kind::Taints),
    ("seccomp-default", "seccompDefault", Kind::Bool),
];

/// Flags that exist only as flags: name and default.
const OWN_FLAGS: &[(&str, &str)] = &[
    ("config", ""),
    ("config-dir", ""),
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
    ("experimental-mounter-path", ""),
    ("lock-file", ""),
    ("exit-on-lock-contention", "false"),
];

/// Flags that are taken and do nothing, and what is done instead.
const UNHEEDED: &[(&str, &str)] = &[
    (
        "minimum-container-ttl-duration",
        "ended containers are kept by their number alone",
    ),
    (
        "runtime-cgroups",
        "the runtime stays in the cgroups that it was started in",
    ),
    (
        "experimental-mounter-path",
        "mounts are made by the kubelet",
    ),
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
    for (name, default) in cadvisor::FLAGS {
        let arg = Arg::new(*name).long(*name).hide(true);
        command = command.arg(match *default {
            "true" | "false" => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg.allow_hyphen_values(true),
        });
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
        let cgroup_v1 = matches!(Hierarchy::detect(), Ok(Hierarchy::V1 { .. }));
        Self::parse_on(args, !cgroup_v1)
    }

    /// As [`Options::parse`], on a machine of this version of cgroups.
    fn parse_on(args: impl IntoIterator<Item = OsString>, cgroup_v2: bool) -> Result<Self, Exit> {
        let matches = component::flags::matches(command(), args)?;
        Self::from_matches(&matches, cgroup_v2).map_err(Exit::error)
    }

    fn from_matches(matches: &ArgMatches, cgroup_v2: bool) -> Result<Self, OptionsError> {
        let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
        let path = |name: &str| {
            Some(text(name))
                .filter(|text| !text.is_empty())
                .map(PathBuf::from)
        };
        let wrong = |flag: &'static str, why: String| OptionsError::Flag {
            flag,
            value: text(flag),
            why,
        };
        let number = |flag: &'static str| {
            let parsed = text(flag).parse::<i64>();
            parsed.map_err(|error| wrong(flag, error.to_string()))
        };
        let switch = |flag: &'static str| {
            let parsed = parse_bool(&text(flag));
            parsed.ok_or_else(|| wrong(flag, not_bool(&text(flag))))
        };
        let node_ip = text("node-ip");
        let node_ips = node_ip.split(',').filter(|ip| !ip.is_empty());
        let node_ips = node_ips.map(str::parse).collect::<Result<_, _>>();
        let node_ips = node_ips
            .map_err(|error: std::net::AddrParseError| wrong("node-ip", error.to_string()))?;
        let node_labels = pairs("node-labels", &text("node-labels"), '=')?;
        let node_labels: BTreeMap<_, _> = node_labels.into_iter().collect();
        check_labels(&node_labels).map_err(OptionsError::Labels)?;
        let cloud_provider = text("cloud-provider");
        if !matches!(cloud_provider.as_str(), "" | "external") {
            return Err(OptionsError::Run(format!(
                "unknown cloud provider {cloud_provider:?}: in-tree providers are gone, use \"external\" or none"
            )));
        }

        let (config, mut warnings) = configuration(matches, path("config"), path("config-dir"))?;
        validation::logging(&config).map_err(OptionsError::Logging)?;
        let valid = validation::validate(&config, cgroup_v2);
        valid.map_err(OptionsError::Configuration)?;
        let tls = tls_policy(&config)?;
        judge(&config).map_err(OptionsError::Run)?;
        let eviction = eviction::Policy::new(&config);
        let mut eviction = eviction.map_err(|error| OptionsError::Run(error.to_string()))?;
        if switch("experimental-allocatable-ignore-eviction")? {
            eviction.leave_allocatable();
        }
        warnings.extend(unheeded(&config));
        let (own, kube) = (&config.kubelet_cgroups, &config.kube_reserved_cgroup);
        if !own.is_empty() && !kube.is_empty() && !own.starts_with(kube.as_str()) {
            warnings.push(
                "unsupported configuration:KubeletCgroups is not within KubeReservedCgroup".into(),
            );
        }
        let flags = UNHEEDED.iter().filter(|(flag, _)| is_set(matches, flag));
        warnings.extend(flags.map(|(flag, instead)| format!("--{flag} has no effect: {instead}")));
        warnings.extend(cadvisor::unheeded(|flag| is_set(matches, flag)));
        let (lock_file, exit_on_lock_contention) =
            (path("lock-file"), switch("exit-on-lock-contention")?);
        if exit_on_lock_contention && lock_file.is_none() {
            return Err(OptionsError::Run(
                "cannot exit on lock file contention: no lock file specified".into(),
            ));
        }
        Ok(Self {
            tls,
            eviction,
            lock_file,
            exit_on_lock_contention,
            kubeconfig: path("kubeconfig"),
            bootstrap_kubeconfig: path("bootstrap-kubeconfig"),
            hostname_override: text("hostname-override"),
            node_ips,
            cert_dir: PathBuf::from(text("cert-dir")),
            external_cloud_provider: cloud_provider == "external",
            root_dir: PathBuf::from(text("root-dir")),
            node_labels,
            max_dead_containers_per_container: number("maximum-dead-containers-per-container")?
                .try_into()
                .unwrap_or(0),
            max_dead_containers: number("maximum-dead-containers")?.try_into().ok(),
            flags: Flags::from_arg_matches(matches).unwrap_or_default(),
            logs: logs(&config),
            config,
            warnings,
        })
    }
}

/// The files with their defaults, and what the flags say over them.
fn configuration(
    matches: &ArgMatches,
    file: Option<PathBuf>,
    directory: Option<PathBuf>,
) -> Result<(KubeletConfiguration, Vec<String>), OptionsError> {
    let (mut config, mut warnings) = (KubeletConfiguration::default().complete(), Vec::new());
    if let Some(path) = file {
        let loaded = file::load(&path)?;
        (config, warnings) = (loaded.config, loaded.warnings);
    }
    if let Some(path) = directory {
        let merged = file::merge(&config, &path)?;
        config = merged.config;
        warnings.extend(merged.warnings);
    }
    let mut tree = json!(config);
    overlay(matches, &mut tree)?;
    overlay_logging(matches, &mut tree["logging"])?;
    let decoded = decode(&tree).map_err(|error| OptionsError::Configuration(error.to_string()));
    Ok((decoded?.0, warnings))
}

/// The flags of logs are older than their fields.
fn overlay_logging(matches: &ArgMatches, logging: &mut Value) -> Result<(), OptionsError> {
    let flags = component::logs::Options::from_arg_matches(matches);
    let flags = flags.map_err(|error| OptionsError::Logging(error.to_string()))?;
    let options = &mut logging["options"];
    for (flag, field, value) in [
        (
            "log-text-split-stream",
            "text",
            json!({"splitStream": flags.text_split_stream}),
        ),
        (
            "log-text-info-buffer-size",
            "text",
            json!({"infoBufferSize": flags.text_info_buffer}),
        ),
        (
            "log-json-split-stream",
            "json",
            json!({"splitStream": flags.json_split_stream}),
        ),
        (
            "log-json-info-buffer-size",
            "json",
            json!({"infoBufferSize": flags.json_info_buffer}),
        ),
    ] {
        if let (true, Value::Object(option)) = (is_set(matches, flag), value) {
            for (name, value) in option {
                options[field][name] = value;
            }
        }
    }
    if is_set(matches, "v") {
        logging["verbosity"] = json!(flags.verbosity);
    }
    if is_set(matches, "logging-format") {
        logging["format"] = json!(flags.format);
    }
    if is_set(matches, "log-flush-frequency") {
        logging["flushFrequency"] = duration("log-flush-frequency", &flags.flush_frequency)?;
    }
    if is_set(matches, "vmodule") {
        let modules = pairs("vmodule", &flags.vmodule, '=')?.into_iter();
        let modules = modules.map(|(pattern, level)| match level.parse::<u32>() {
            Ok(level) => Ok(json!({"filePattern": pattern, "verbosity": level})),
            Err(error) => Err(OptionsError::Flag {
                flag: "vmodule",
                value: flags.vmodule.clone(),
                why: error.to_string(),
            }),
        });
        logging["vmodule"] = Value::Array(modules.collect::<Result<_, _>>()?);
    }
    Ok(())
}

fn logs(config: &KubeletConfiguration) -> component::logs::Options {
    let logging = &config.logging;
    component::logs::Options {
        verbosity: u8::try_from(logging.verbosity).unwrap_or(u8::MAX),
        vmodule: logging.vmodule_text(),
        format: logging.format.clone(),
        ..component::logs::Options::default()
    }
}

fn tls_policy(config: &KubeletConfiguration) -> Result<TlsPolicy, PolicyError> {
    let curves = config.tls_curve_preferences.iter();
    let curves: Vec<String> = curves.map(ToString::to_string).collect();
    TlsPolicy::parse(
        &config.tls_min_version,
        &config.tls_cipher_suites,
        &curves,
        false,
    )
}

/// What upstream finds out while it starts.
fn judge(c: &KubeletConfiguration) -> Result<(), String> {
    if c.cgroup_driver != "cgroupfs" {
        return Err(format!(
            "cgroupDriver {:?} is not implemented: set cgroupDriver to cgroupfs, and SystemdCgroup to false in the \
             runtime's configuration",
            c.cgroup_driver
        ));
    }
    let mode = c.authorization.mode.as_str();
    if !matches!(mode, "AlwaysAllow" | "Webhook") {
        return Err(format!("unknown authorization mode {mode}"));
    }
    let strategy = c.config_map_and_secret_change_detection_strategy.as_str();
    if !matches!(strategy, "Watch" | "Cache" | "Get") {
        return Err(format!(
            "unknown configmap and secret manager mode: {strategy}"
        ));
    }
    let ca = &c.authentication.x509.client_ca_file;
    if !ca.is_empty()
        && let Err(error) = std::fs::File::open(ca)
    {
        return Err(format!("unable to load client CA file {ca}: {error}"));
    }
    for (flag, reserved) in [
        ("kube-reserved", &c.kube_reserved),
        ("system-reserved", &c.system_reserved),
    ] {
        let judged = validation::resource_list(reserved);
        judged.map_err(|why| format!("--{flag} value failed to parse: {why}"))?;
    }
    let size = c.container_log_max_size.parse::<meta::Quantity>();
    let size = size.map_err(|error| {
        let size = Quoted(&c.container_log_max_size);
        format!("failed to parse container log max size {size}: {error}")
    })?;
    if size.value() < 0 {
        return Err(format!(
            "invalid negative container log max size {}",
            size.value()
        ));
    }
    if c.tls_cert_file.is_empty() != c.tls_private_key_file.is_empty() {
        return Err("tlsCertFile and tlsPrivateKeyFile go together".into());
    }
    for (field, address) in [
        ("address", &c.address),
        ("healthzBindAddress", &c.healthz_bind_address),
    ] {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("{field} {address:?} is no IP address to serve on"));
        }
    }
    Ok(())
}

/// Labels in Kubernetes' namespaces that a kubelet may give its node (KEP-279).
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let within = |namespace: &str, of: &str| {
        let rest = namespace.strip_suffix(of);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_foreign = |key: &&str| {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|of| within(namespace, of))
            && !OWN_LABELS.contains(key)
            && !OWN_NAMESPACES.iter().any(|of| within(namespace, of))
    };
    let unknown: Vec<&str> = labels
        .keys()
        .map(String::as_str)
        .filter(is_foreign)
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]\n--node-labels in the \
             'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
            unknown.join(" "),
            OWN_NAMESPACES.join(", "),
            OWN_LABELS.join(", ")
        ));
    }
    let judged = labels
        .iter()
        .flat_map(|(key, value)| [(key, qualified_name(key)), (value, label_value(value))]);
    let invalid: Vec<String> = judged
        .filter(|(_, problems)| !problems.is_empty())
        .map(|(text, problems)| format!("'{text}' - {}", problems.join(", ")))
        .collect();
    match invalid[..] {
        [] => Ok(()),
        _ => Err(format!("invalid node labels: {}", invalid.join("; "))),
    }
}

/// In Go's words.
fn not_bool(text: &str) -> String {
    format!(
        "strconv.ParseBool: parsing {}: invalid syntax",
        Quoted(text)
    )
}

fn duration(flag: &'static str, text: &str) -> Result<Value, OptionsError> {
    match text.parse::<GoDuration>() {
        Ok(duration) => Ok(json!(duration)),
        Err(error) => Err(OptionsError::Flag {
            flag,
            value: text.to_owned(),
            why: error.to_string(),
        }),
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
            Kind::Bool => json!(parse_bool(last).ok_or_else(|| wrong(&not_bool(last)))?),
            Kind::Int => json!(last.parse::<i64>().map_err(|_| {
                let last = Quoted(last);
                wrong(&format!("strconv.ParseInt: parsing {last}: invalid syntax"))
            })?),
            Kind::Text => json!(last),
            Kind::Duration => duration(flag, last)?,
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
                // Gates of the file that no flag names stay as they are.
                let mut gates = config["featureGates"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default();
                for (name, value) in pairs(flag, &given.join(","), '=')? {
                    let on = parse_bool(&value).ok_or_else(|| wrong(&not_bool(&value)))?;
                    gates.insert(name, json!(on));
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
        Options::parse_on(words, true)
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
            "--feature-gates=NodeLogQuery=true",
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
    fn flags_are_more_than_defaults() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             featureGates: {{CRIListStreaming: true}}\nlogging: {{format: json, verbosity: 3}}\ntracing: {{}}\n"
        )
        .unwrap();
        let config = format!("--config={}", file.path().display());
        let options = parse(&[
            &config,
            "--feature-gates=CSIVolumeHealth=true",
            "--max-pods=0",
            "--v=4",
            "--logging-format=text",
            "--vmodule=sync_loop=6",
            "--runtime-cgroups=/system",
            "--housekeeping-interval=1s",
            "--system-reserved-cgroup=/system",
            "--enforce-node-allocatable=pods,system-reserved",
        ])
        .unwrap();
        let c = &options.config;
        assert_eq!((c.max_pods, c.feature_gates.len()), (0, 2));
        assert_eq!(
            (options.logs.format.as_str(), options.logs.verbosity),
            ("text", 4)
        );
        assert_eq!(c.logging.vmodule[0].verbosity, 6);
        assert_eq!(c.enforce_node_allocatable.len(), 2);
        let told: Vec<&str> = options
            .warnings
            .iter()
            .map(|w| w.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            told,
            ["tracing", "--runtime-cgroups", "--housekeeping-interval"]
        );
    }

    #[test]
    fn refusals() {
        for (args, message) in [
            (
                &["--max-pods=many"][..],
                "failed to parse kubelet flag: invalid argument \"many\" for \"--max-pods\" flag: strconv.ParseInt: \
                 parsing \"many\": invalid syntax",
            ),
            (
                &["--sync-frequency=x"],
                "invalid argument \"x\" for \"--sync-frequency\" flag: time: invalid duration",
            ),
            (
                &["--node-labels=kubernetes.io/role=x,a.node.kubernetes.io/b=c"],
                "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [kubernetes.io/role]",
            ),
            (
                &["--node-labels=a=b c"],
                "invalid node labels: 'b c' - a valid label must be",
            ),
            (
                &["--exit-on-lock-contention"],
                "cannot exit on lock file contention: no lock file specified",
            ),
            (
                &["--tls-cipher-suites=FOO"],
                "failed to construct kubelet dependencies: Cipher suite FOO not supported or doesn't exist",
            ),
            (
                &["--authorization-mode=Foo"],
                "failed to run Kubelet: unknown authorization mode Foo",
            ),
            (
                &["--client-ca-file=/no/such"],
                "failed to run Kubelet: unable to load client CA file /no/such",
            ),
            (
                &["--system-reserved=foo=1"],
                "failed to run Kubelet: --system-reserved value failed to parse: cannot reserve \"foo\" resource",
            ),
            (
                &["--port=0", "--runonce"],
                "failed to validate kubelet configuration, error: [invalid configuration: port (--port) 0 must be",
            ),
        ] {
            let refused = format!("{:?}", parse(args).unwrap_err());
            assert!(refused.replace("\\\"", "\"").contains(message), "{refused}");
        }
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
