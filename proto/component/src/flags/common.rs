//! Groups of flags that several daemons share. Flatten them into a daemon's options.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{CommaList, GoDuration};
use crate::serving::{PolicyError, TlsPolicy};

/// How a daemon reaches the API server.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct ClientConnectionFlags {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long)]
    pub master: Option<String>,
    /// Content type of requests sent to apiserver.
    #[arg(long, default_value = "application/vnd.kubernetes.protobuf")]
    pub kube_api_content_type: String,
    /// QPS to use while talking with kubernetes apiserver. The default depends on the daemon.
    #[arg(long)]
    pub kube_api_qps: Option<f32>,
    /// Burst to use while talking with kubernetes apiserver. The default depends on the daemon.
    #[arg(long)]
    pub kube_api_burst: Option<u32>,
}

impl ClientConnectionFlags {
    /// The client configuration that the flags stand for. `qps` and `burst` are the daemon's defaults.
    pub fn config(
        &self,
        component: &str,
        qps: f32,
        burst: u32,
    ) -> Result<client::Config, client::ConfigError> {
        let mut config = client::Config::load(self.kubeconfig.as_deref(), self.master.as_deref())?
            .user_agent(component)
            .rate_limit(
                self.kube_api_qps.unwrap_or(qps),
                self.kube_api_burst.unwrap_or(burst),
            );
        if self.kube_api_content_type == "application/json" {
            config.content_type = client::config::ContentType::Json;
        }
        Ok(config)
    }
}

/// `--leader-elect…`.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct LeaderElectionFlags {
    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,
    /// How long others wait before they take over from a leader that does not renew.
    #[arg(long, default_value = "15s")]
    pub leader_elect_lease_duration: GoDuration,
    /// How long the leader keeps trying to renew before it gives up leading.
    #[arg(long, default_value = "10s")]
    pub leader_elect_renew_deadline: GoDuration,
    /// How long to wait between attempts to acquire or renew.
    #[arg(long, default_value = "2s")]
    pub leader_elect_retry_period: GoDuration,
    /// The type of the lock; only leases are supported.
    #[arg(long, default_value = "leases")]
    pub leader_elect_resource_lock: String,
    /// The name of the lock. The default is the daemon's name.
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// The namespace of the lock.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

/// The HTTPS port of a daemon.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct SecureServingFlags {
    /// The IP address on which to listen.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS. If 0, don't serve HTTPS at all. The default depends on the daemon.
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// The directory where self-signed certificates are kept when no certificate is given.
    #[arg(long, default_value = "")]
    pub cert_dir: String,
    /// File containing the default x509 certificate for HTTPS.
    #[arg(long, default_value = "")]
    pub tls_cert_file: String,
    /// File containing the default x509 private key matching --tls-cert-file.
    #[arg(long, default_value = "")]
    pub tls_private_key_file: String,
    /// Comma-separated list of cipher suites for the server.
    #[arg(long, default_value = "")]
    pub tls_cipher_suites: CommaList,
    /// Comma-separated list of numeric Go crypto/tls CurveID values, as the allowed key exchange mechanisms for the server.
    #[arg(long, default_value = "")]
    pub tls_curve_preferences: CommaList,
    /// Minimum TLS version supported: VersionTLS10, VersionTLS11, VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// A pair of x509 certificate and private key file paths, optionally suffixed with domain patterns.
    #[arg(long)]
    pub tls_sni_cert_key: Vec<String>,
    /// The limit that the server gives to clients for the number of streams in an HTTP/2 connection.
    #[arg(long, default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// Do not offer HTTP/2.
    #[arg(long)]
    pub disable_http2_serving: bool,
    /// Use SO_REUSEPORT when binding the port.
    #[arg(long)]
    pub permit_port_sharing: bool,
    /// Use SO_REUSEADDR when binding the port.
    #[arg(long)]
    pub permit_address_sharing: bool,
}

impl SecureServingFlags {
    /// Which TLS is spoken.
    pub fn tls_policy(&self) -> Result<TlsPolicy, PolicyError> {
        TlsPolicy::parse(
            &self.tls_min_version,
            &self.tls_cipher_suites.0,
            &self.tls_curve_preferences.0,
            self.disable_http2_serving,
        )
    }
}

/// How requests to a daemon's own port are authenticated and authorized by the API server.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct DelegatedAuthFlags {
    /// kubeconfig file pointing at the 'core' kubernetes server with enough rights to create tokenreviews.authentication.k8s.io.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// The duration to cache responses from the webhook token authenticator.
    #[arg(long, default_value = "10s")]
    pub authentication_token_webhook_cache_ttl: GoDuration,
    /// Do not look up missing authentication configuration from the cluster.
    #[arg(long)]
    pub authentication_skip_lookup: bool,
    /// Go on when the authentication configuration cannot be looked up from the cluster.
    #[arg(long)]
    pub authentication_tolerate_lookup_failure: bool,
    /// kubeconfig file pointing at the 'core' kubernetes server with enough rights to create subjectaccessreviews.authorization.k8s.io.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// The duration to cache 'authorized' responses from the webhook authorizer.
    #[arg(long, default_value = "10s")]
    pub authorization_webhook_cache_authorized_ttl: GoDuration,
    /// The duration to cache 'unauthorized' responses from the webhook authorizer.
    #[arg(long, default_value = "10s")]
    pub authorization_webhook_cache_unauthorized_ttl: GoDuration,
    /// HTTP paths to skip during authorization, i.e. these are authorized without contacting the 'core' kubernetes server.
    #[arg(long, default_value = "/healthz,/readyz,/livez")]
    pub authorization_always_allow_paths: CommaList,
    /// Requests presenting a client certificate signed by one of the authorities in this file are authenticated with the identity corresponding to the CommonName of the certificate.
    #[arg(long, default_value = "")]
    pub client_ca_file: String,
    /// Root certificate bundle to verify client certificates of front proxies with.
    #[arg(long, default_value = "")]
    pub requestheader_client_ca_file: String,
    /// Common names of front proxies that may say who the user is; empty for all.
    #[arg(long, default_value = "")]
    pub requestheader_allowed_names: CommaList,
    #[arg(long, default_value = "x-remote-user")]
    pub requestheader_username_headers: CommaList,
    #[arg(long, default_value = "")]
    pub requestheader_uid_headers: CommaList,
    #[arg(long, default_value = "x-remote-group")]
    pub requestheader_group_headers: CommaList,
    #[arg(long, default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: CommaList,
}
