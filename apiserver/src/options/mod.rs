//! The flags of kube-apiserver, upstream's names and defaults.
//!
//! What must not be here: what they lead to (`server.rs`).

mod validation;

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use component::features::FeatureGates;
use component::flags::{CommaList, GoDuration, StringMap};
use component::zpages::Flags;

/// Everything that can be said on the command line.
#[derive(Debug, Clone, Args)]
#[group(id = "apiserver")]
pub struct Options {
    /// As they were given, for `/flagz`; first, before the others take their values.
    #[command(flatten)]
    pub flags: Flags,
    #[command(flatten)]
    pub etcd: EtcdOptions,
    #[command(flatten)]
    pub serving: ServingOptions,
    #[command(flatten)]
    pub authentication: AuthenticationOptions,
    #[command(flatten)]
    pub authorization: AuthorizationOptions,
    #[command(flatten)]
    pub admission: AdmissionOptions,
    #[command(flatten)]
    pub services: ServiceOptions,
    #[command(flatten)]
    pub kubelet: KubeletOptions,
    #[command(flatten)]
    pub api: ApiOptions,
    #[command(flatten)]
    pub tuning: TuningOptions,
    #[command(flatten)]
    pub unsupported: UnsupportedOptions,
    #[command(flatten)]
    pub logs: component::logs::Options,
}

impl AsRef<component::logs::Options> for Options {
    fn as_ref(&self) -> &component::logs::Options {
        &self.logs
    }
}

/// Where and how objects are stored.
#[derive(Debug, Clone, Args)]
pub struct EtcdOptions {
    #[arg(long, default_value = "")]
    pub etcd_servers: CommaList,
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    #[arg(long, default_value = "5m0s")]
    pub etcd_compaction_interval: GoDuration,
    #[arg(long, default_value = "2s")]
    pub etcd_healthcheck_timeout: GoDuration,
    #[arg(long, default_value = "2s")]
    pub etcd_readycheck_timeout: GoDuration,
    /// Resources that are stored on servers of their own: `group/resource#url;url`.
    #[arg(long, default_value = "")]
    pub etcd_servers_overrides: CommaList,
    /// 0: objects are not counted. They are counted as they come and go, whatever the period.
    #[arg(long, default_value = "1m0s")]
    pub etcd_count_metric_poll_period: GoDuration,
    /// 0: etcd's size is not shown.
    #[arg(long, default_value = "30s")]
    pub etcd_db_metric_poll_interval: GoDuration,
    #[arg(long, default_value = "application/vnd.kubernetes.protobuf")]
    pub storage_media_type: String,
    #[arg(long, default_value = "1h0m0s")]
    pub event_ttl: GoDuration,
}

/// Where and how requests are served.
#[derive(Debug, Clone, Args)]
pub struct ServingOptions {
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    #[arg(long, default_value = "6443")]
    pub secure_port: u16,
    /// What `kubernetes.default` leads to; the bind address by default.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Where other API servers reach this one (KEP-4020), together with the port; the advertised
    /// address by default.
    #[arg(long)]
    pub peer_advertise_ip: Option<IpAddr>,
    #[arg(long)]
    pub peer_advertise_port: Option<u16>,
    #[arg(long)]
    pub external_hostname: Option<String>,
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    #[arg(long)]
    pub tls_sni_cert_key: Vec<String>,
    #[arg(long, default_value = "VersionTLS12")]
    pub tls_min_version: String,
    #[arg(long, default_value = "")]
    pub tls_cipher_suites: CommaList,
    /// Go's `tls.CurveID`s.
    #[arg(long, default_value = "")]
    pub tls_curve_preferences: CommaList,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub disable_http2_serving: bool,
    /// RFC 6797; empty: the header is not sent.
    #[arg(long, default_value = "")]
    pub strict_transport_security_directives: CommaList,
    /// 0: as many as the server thinks right.
    #[arg(long, default_value = "0")]
    pub http2_max_streams_per_connection: u32,
    #[arg(long, default_value = "400")]
    pub max_requests_inflight: usize,
    #[arg(long, default_value = "200")]
    pub max_mutating_requests_inflight: usize,
    #[arg(long, default_value = "1m0s")]
    pub request_timeout: GoDuration,
    /// Seconds.
    #[arg(long, default_value = "1800")]
    pub min_request_timeout: u64,
    #[arg(long, default_value = "0s")]
    pub shutdown_delay_duration: GoDuration,
    #[arg(long, default_value = "0s")]
    pub shutdown_watch_termination_grace_period: GoDuration,
    #[arg(long, default_value = "0s")]
    pub livez_grace_period: GoDuration,
}

/// Who asks.
#[derive(Debug, Clone, Args)]
pub struct AuthenticationOptions {
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub anonymous_auth: bool,
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_bootstrap_token_auth: bool,
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    #[arg(long, default_value = "")]
    pub requestheader_allowed_names: CommaList,
    #[arg(long, default_value = "")]
    pub requestheader_username_headers: CommaList,
    #[arg(long, default_value = "")]
    pub requestheader_group_headers: CommaList,
    #[arg(long, default_value = "")]
    pub requestheader_uid_headers: CommaList,
    #[arg(long, default_value = "")]
    pub requestheader_extra_headers_prefix: CommaList,
    #[arg(long, default_value = "")]
    pub api_audiences: CommaList,
    /// The first issues; all are accepted.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    #[arg(long)]
    pub service_account_key_file: Vec<String>,
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    #[arg(long)]
    pub service_account_jwks_uri: Option<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub service_account_lookup: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub service_account_extend_token_expiration: bool,
    #[arg(long, default_value = "0s")]
    pub service_account_max_token_expiration: GoDuration,
}

/// What they may do.
#[derive(Debug, Clone, Args)]
pub struct AuthorizationOptions {
    #[arg(long, default_value = "AlwaysAllow")]
    pub authorization_mode: CommaList,
}

/// What is let in.
#[derive(Debug, Clone, Args)]
pub struct AdmissionOptions {
    #[arg(long, default_value = "")]
    pub enable_admission_plugins: CommaList,
    #[arg(long, default_value = "")]
    pub disable_admission_plugins: CommaList,
    #[arg(long, default_value = "")]
    pub admission_control: CommaList,
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    #[arg(long, default_value = "300")]
    pub default_not_ready_toleration_seconds: i64,
    #[arg(long, default_value = "300")]
    pub default_unreachable_toleration_seconds: i64,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub allow_privileged: bool,
}

/// Addresses and ports of Services.
#[derive(Debug, Clone, Args)]
pub struct ServiceOptions {
    /// One range, or one per IP family, with commas between; read with [`ServiceOptions::ranges`].
    /// Upstream's is no list: given again, it is replaced.
    #[arg(long, default_value = "")]
    pub service_cluster_ip_range: String,
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: PortRange,
    #[arg(long, default_value = "0")]
    pub kubernetes_service_node_port: u16,
    #[arg(long, default_value = "lease")]
    pub endpoint_reconciler_type: String,
}

/// How kubelets are reached.
#[derive(Debug, Clone, Args)]
pub struct KubeletOptions {
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    #[arg(
        long,
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: CommaList,
    #[arg(long, default_value = "5s")]
    pub kubelet_timeout: GoDuration,
}

/// Which APIs there are.
#[derive(Debug, Clone, Args)]
pub struct ApiOptions {
    #[arg(long, default_value = "")]
    pub runtime_config: StringMap,
    #[arg(long, default_value = "")]
    pub feature_gates: FeatureGates,
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_aggregator_routing: bool,
}

/// Flags that tune how upstream is built inside. They are accepted so that a command line carries over; of them
/// `delete_collection_workers`, `profiling`, `disabled_metrics` and `goaway_chance` mean something here.
#[derive(Debug, Clone, Args)]
pub struct TuningOptions {
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub aggregator_reject_forwarding_redirect: bool,
    #[arg(long, default_value = "")]
    pub allow_metric_labels: CommaList,
    #[arg(long)]
    pub allow_metric_labels_manifest: Option<String>,
    /// Of a reconciler that is no more.
    #[arg(long, default_value = "1")]
    pub apiserver_count: i64,
    #[arg(long, default_value = "10000")]
    pub audit_log_batch_buffer_size: i64,
    #[arg(long, default_value = "1")]
    pub audit_log_batch_max_size: i64,
    #[arg(long, default_value = "0s")]
    pub audit_log_batch_max_wait: GoDuration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub contention_profiling: bool,
    #[arg(long, default_value = "15s")]
    pub coordinated_leadership_lease_duration: GoDuration,
    #[arg(long, default_value = "10s")]
    pub coordinated_leadership_renew_deadline: GoDuration,
    #[arg(long, default_value = "2s")]
    pub coordinated_leadership_retry_period: GoDuration,
    #[arg(long, default_value = "100")]
    pub default_watch_cache_size: i64,
    #[arg(long, default_value = "1")]
    pub delete_collection_workers: i64,
    #[arg(long, default_value = "")]
    pub disabled_metrics: CommaList,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub enable_garbage_collector: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_logs_handler: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub enable_priority_and_fairness: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub emulation_forward_compatible: bool,
    #[arg(long, default_value = "")]
    pub emulated_version: CommaList,
    #[arg(long, default_value = "")]
    pub min_compatibility_version: CommaList,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub runtime_config_emulation_forward_compatible: bool,
    #[arg(long, default_value = "0")]
    pub goaway_chance: f64,
    #[arg(long, default_value = "60")]
    pub lease_reuse_duration_seconds: i64,
    #[arg(long, default_value = "0")]
    pub max_connection_bytes_per_sec: i64,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub permit_address_sharing: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub permit_port_sharing: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub profiling: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub send_retry_after_while_not_ready_once: bool,
    #[arg(long)]
    pub show_hidden_metrics_for_version: Option<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub shutdown_send_retry_after: bool,
    #[arg(long, default_value = "etcd3")]
    pub storage_backend: String,
    #[arg(long, default_value = "1m0s")]
    pub storage_initialization_timeout: GoDuration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub watch_cache: bool,
    #[arg(long, default_value = "")]
    pub watch_cache_sizes: CommaList,
}

/// Flags whose function is not there yet. They are known, and refused when they are set:
/// to start without what they ask for (an audit log, encryption) would be worse.
#[derive(Debug, Clone, Args)]
pub struct UnsupportedOptions {
    #[arg(long)]
    pub audit_policy_file: Option<String>,
    #[arg(long)]
    pub audit_log_path: Option<String>,
    #[arg(long)]
    pub audit_webhook_config_file: Option<String>,
    #[arg(long)]
    pub authentication_config: Option<String>,
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<String>,
    #[arg(long)]
    pub authorization_config: Option<String>,
    #[arg(long)]
    pub authorization_policy_file: Option<String>,
    #[arg(long)]
    pub authorization_webhook_config_file: Option<String>,
    #[arg(long)]
    pub cors_allowed_origins: Option<String>,
    #[arg(long)]
    pub debug_socket_path: Option<String>,
    #[arg(long)]
    pub egress_selector_config_file: Option<String>,
    #[arg(long)]
    pub encryption_provider_config: Option<String>,
    #[arg(long)]
    pub oidc_issuer_url: Option<String>,
    #[arg(long)]
    pub oidc_client_id: Option<String>,
    #[arg(long)]
    pub peer_ca_file: Option<String>,
    #[arg(long)]
    pub service_account_signing_endpoint: Option<String>,
    #[arg(long)]
    pub tracing_config_file: Option<String>,
}

impl UnsupportedOptions {
    /// The flags that are set.
    pub fn given(&self) -> Vec<String> {
        let UnsupportedOptions {
            audit_policy_file,
            audit_log_path,
            audit_webhook_config_file,
            authentication_config,
            authentication_token_webhook_config_file,
            authorization_config,
            authorization_policy_file,
            authorization_webhook_config_file,
            cors_allowed_origins,
            debug_socket_path,
            egress_selector_config_file,
            encryption_provider_config,
            oidc_issuer_url,
            oidc_client_id,
            peer_ca_file,
            service_account_signing_endpoint,
            tracing_config_file,
        } = self;
        [
            ("audit-policy-file", audit_policy_file),
            ("audit-log-path", audit_log_path),
            ("audit-webhook-config-file", audit_webhook_config_file),
            ("authentication-config", authentication_config),
            (
                "authentication-token-webhook-config-file",
                authentication_token_webhook_config_file,
            ),
            ("authorization-config", authorization_config),
            ("authorization-policy-file", authorization_policy_file),
            (
                "authorization-webhook-config-file",
                authorization_webhook_config_file,
            ),
            ("cors-allowed-origins", cors_allowed_origins),
            ("debug-socket-path", debug_socket_path),
            ("egress-selector-config-file", egress_selector_config_file),
            ("encryption-provider-config", encryption_provider_config),
            ("oidc-issuer-url", oidc_issuer_url),
            ("oidc-client-id", oidc_client_id),
            ("peer-ca-file", peer_ca_file),
            (
                "service-account-signing-endpoint",
                service_account_signing_endpoint,
            ),
            ("tracing-config-file", tracing_config_file),
        ]
        .into_iter()
        .filter(|(_, value)| value.as_deref().is_some_and(|v| !v.is_empty()))
        .map(|(name, _)| format!("--{name}"))
        .collect()
    }
}

/// `30000-32767`; also `30000+2767`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub size: u16,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of ports; write it as 30000-32767")]
pub struct PortRangeError(String);

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || PortRangeError(text.to_owned());
        let (first, rest, counted) = match (text.split_once('-'), text.split_once('+')) {
            (Some((first, last)), _) => (first, last, false),
            (None, Some((first, size))) => (first, size, true),
            (None, None) => (text, "0", true),
        };
        let first: u16 = first.trim().parse().map_err(|_| error())?;
        let rest: u16 = rest.trim().parse().map_err(|_| error())?;
        let last = if counted {
            first.checked_add(rest).ok_or_else(error)?
        } else {
            rest
        };
        let size = last.checked_sub(first).ok_or_else(error)?;
        Ok(PortRange {
            first,
            size: size.saturating_add(1),
        })
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.first + (self.size - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        let range: PortRange = "30000-32767".parse().unwrap();
        assert_eq!((range.first, range.size), (30000, 2768));
        assert_eq!(range.to_string(), "30000-32767");
        assert_eq!("30000+10".parse::<PortRange>().unwrap().size, 11);
        assert!("3-2".parse::<PortRange>().is_err());
        assert!("x".parse::<PortRange>().is_err());
    }

    fn parse(args: &[&str]) -> Result<Options, component::flags::Exit> {
        let args = ["kube-apiserver"].iter().chain(args);
        component::flags::parse("kube-apiserver", args.map(Into::into))
    }

    #[test]
    fn kubeadms_command_line_is_understood() {
        let options = parse(&[
            "--advertise-address=10.0.0.1",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--etcd-servers=https://127.0.0.1:2379",
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--service-account-issuer=https://a",
            "--service-account-issuer=https://b",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--v=2",
        ])
        .unwrap();
        assert_eq!(options.authorization.authorization_mode.0, ["Node", "RBAC"]);
        assert_eq!(
            options.authentication.service_account_issuer,
            ["https://a", "https://b"]
        );
        assert!(options.admission.allow_privileged);
        assert!(options.unsupported.given().is_empty());
    }

    #[test]
    fn what_is_not_there_yet_is_named() {
        let options = parse(&["--audit-log-path=/x", "--encryption-provider-config=y"]).unwrap();
        assert_eq!(
            options.unsupported.given(),
            ["--audit-log-path", "--encryption-provider-config"]
        );
        assert!(parse(&["--no-such-flag"]).is_err());
    }
}
