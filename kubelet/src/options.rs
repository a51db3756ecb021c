//! The command line. Two kinds of flags, as upstream's: those that only exist as flags, and those
//! that are an older way to write a field of the configuration file. The latter are one table: a
//! flag, the field it sets, and how its text reads.

mod cadvisor;
mod judge;
mod labels;
mod overlay;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use component::flags::{Exit, is_set, parse_bool};
use component::serving::{PolicyError, TlsPolicy};
use component::zpages::Flags;
use meta::gofmt::Quoted;
use serde_json::json;
use thiserror::Error;

use self::overlay::{not_bool, pairs};
use self::table::{CONFIG_FLAGS, Kind};

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
    /// Plugins that know registries' credentials: their configuration, and where they are.
    pub image_credential_provider_config: Option<PathBuf>,
    pub image_credential_provider_bin_dir: Option<PathBuf>,
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
    ("image-credential-provider-config", ""),
    ("image-credential-provider-bin-dir", ""),
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
        labels::check(&node_labels).map_err(OptionsError::Labels)?;
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
        judge::judge(&config).map_err(OptionsError::Run)?;
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
            image_credential_provider_config: path("image-credential-provider-config"),
            image_credential_provider_bin_dir: path("image-credential-provider-bin-dir"),
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
    overlay::fields(matches, &mut tree)?;
    overlay::logging(matches, &mut tree["logging"])?;
    let decoded = decode(&tree).map_err(|error| OptionsError::Configuration(error.to_string()));
    Ok((decoded?.0, warnings))
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
                "failed to run Kubelet: open /no/such: no such file or directory",
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
