//! What flags may say, each by itself and together. All mistakes are told at once.
//!
//! What must not be here: mistakes that only what is built of the flags can tell, as unknown
//! admission plugins.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use component::flags::{CommaList, GoDuration};
use component::serving::{PolicyError, TlsPolicy};
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{
    ApiOptions, AuthenticationOptions, EtcdOptions, Options, ServiceOptions, ServingOptions,
    TuningOptions,
};

/// The range of Services when none is given.
const DEFAULT_SERVICE_RANGE: &str = "10.0.0.0/24";
/// Minor versions of Kubernetes 1 that can be asked for with `--emulated-version`.
const EMULATED: std::ops::RangeInclusive<u32> = 33..=36;
/// Of `--service-account-max-token-expiration`: 2^32 seconds.
const LONGEST_TOKEN: Duration = Duration::from_secs(1 << 32);
const SHORTEST_TOKEN: Duration = Duration::from_secs(3600);

/// The mistakes of a command line: one as it is, several in brackets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .0.as_slice() { [one] => one.clone(), many => format!("[{}]", many.join(", ")) })]
pub struct Invalid(Vec<String>);

/// What is wrong if something is.
#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn when(&mut self, is_wrong: bool, mistake: impl Into<String>) {
        if is_wrong {
            self.add(mistake);
        }
    }

    /// Told once, however often it is made.
    fn add(&mut self, mistake: impl Into<String>) {
        let mistake = mistake.into();
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }
}

impl Options {
    /// Refuses what upstream refuses, before anything is connected to. It reads certificates, to
    /// compare them.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut mistakes = Mistakes::default();
        self.serving.validate(&mut mistakes);
        self.tuning.validate(&mut mistakes);
        self.etcd.validate(&mut mistakes);
        self.api
            .validate(self.tuning.enable_priority_and_fairness, &mut mistakes);
        self.authentication.validate(&mut mistakes);
        let named = [
            &self.admission.enable_admission_plugins,
            &self.admission.disable_admission_plugins,
        ];
        mistakes.when(
            !self.admission.admission_control.0.is_empty() && named.iter().any(|l| !l.0.is_empty()),
            "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive",
        );
        self.authentication.validate_signing(&mut mistakes);
        self.services
            .validate(self.serving.advertised(), &mut mistakes);
        // Without priority and fairness, two zeroes are no limit.
        let limits = [
            self.serving.max_requests_inflight,
            self.serving.max_mutating_requests_inflight,
        ];
        mistakes.when(
            self.tuning.enable_priority_and_fairness && limits == [0, 0],
            "invalid configuration: MaxRequestsInFlight=0 and MaxMutatingRequestsInFlight=0; they must add up to something positive",
        );
        match mistakes.0.is_empty() {
            true => Ok(()),
            false => Err(Invalid(mistakes.0)),
        }
    }
}

impl ServingOptions {
    /// Which TLS is spoken.
    pub fn tls_policy(&self) -> Result<TlsPolicy, PolicyError> {
        TlsPolicy::parse(
            &self.tls_min_version,
            &self.tls_cipher_suites.0,
            &self.tls_curve_preferences.0,
            self.disable_http2_serving,
        )
    }

    /// What `Strict-Transport-Security` says.
    pub fn hsts(&self) -> Result<Option<HeaderValue>, InvalidHeaderValue> {
        match self.strict_transport_security_directives.0.as_slice() {
            [] => Ok(None),
            directives => directives.join("; ").parse().map(Some),
        }
    }

    /// `None`: an address of the machine, of either family.
    fn advertised(&self) -> Option<IpAddr> {
        let given = self.advertise_address.filter(|a| !a.is_unspecified());
        given.or(Some(self.bind_address).filter(|a| !a.is_unspecified()))
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        let negative = |duration: GoDuration| duration.is_negative();
        mistakes.when(
            negative(self.livez_grace_period),
            "--livez-grace-period can not be a negative value",
        );
        mistakes.when(
            negative(self.request_timeout),
            "--request-timeout can not be negative value",
        );
        mistakes.when(
            negative(self.shutdown_delay_duration),
            "--shutdown-delay-duration can not be negative value",
        );
        mistakes.when(
            negative(self.shutdown_watch_termination_grace_period),
            "shutdown-watch-termination-grace-period, if provided, can not be a negative value",
        );
        for directive in &self.strict_transport_security_directives.0 {
            let is_age = directive
                .strip_prefix("max-age=")
                .is_some_and(|age| !age.contains('='));
            if directive.trim().is_empty() {
                mistakes.add("empty value in strict-transport-security-directives");
            } else if !is_age && !matches!(directive.as_str(), "includeSubDomains" | "preload") {
                mistakes.add("--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. see https://tools.ietf.org/html/rfc6797#section-6.1 for more information");
            }
        }
        mistakes.when(
            self.secure_port == 0,
            "--secure-port 0 must be between 1 and 65535, inclusive. It cannot be turned off with 0",
        );
        if let Err(error) = self.tls_policy() {
            mistakes.add(error.to_string());
        }
    }
}

impl TuningOptions {
    fn validate(&self, mistakes: &mut Mistakes) {
        mistakes.when(
            !(0.0..=0.02).contains(&self.goaway_chance),
            "--goaway-chance can not be less than 0 or greater than 0.02",
        );
        mistakes.when(
            self.storage_initialization_timeout.is_negative(),
            "--storage-initialization-timeout can not be negative value",
        );
        self.validate_versions(mistakes);
        mistakes.when(
            self.apiserver_count <= 0,
            format!(
                "--apiserver-count should be a positive number, but value '{}' provided",
                self.apiserver_count
            ),
        );
        mistakes.when(
            !matches!(self.storage_backend.as_str(), "" | "etcd3"),
            "--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'",
        );
        for size in &self.watch_cache_sizes.0 {
            let number = match size.split('#').collect::<Vec<_>>().as_slice() {
                [_, number] => number.parse::<i64>(),
                _ => {
                    mistakes.add(format!("invalid value of watch cache size: {size}"));
                    continue;
                }
            };
            match number {
                Err(_) => mistakes.add(format!("invalid size of watch cache size: {size}")),
                Ok(number) => mistakes.when(
                    number < 0,
                    format!("watch cache size cannot be negative: {size}"),
                ),
            }
        }
        let hidden = self.show_hidden_metrics_for_version.as_deref();
        if let Some(version) = hidden.filter(|version| !matches!(*version, "" | "1.35")) {
            mistakes.add(format!(
                "metrics.showHiddenMetricsForVersion: Invalid value: {version:?}: must be omitted or have the value '1.35'; only the previous minor version is allowed"
            ));
        }
        let labels = self.allow_metric_labels.to_string();
        mistakes.when(
            !labels.is_empty() && !labels.contains('='),
            format!("--allow-metric-labels: {labels} must be formatted as key=value"),
        );
        mistakes.when(
            self.coordinated_leadership_lease_duration
                <= self.coordinated_leadership_renew_deadline,
            "--coordinated-leadership-lease-duration must be greater than --coordinated-leadership-renew-deadline",
        );
        mistakes.when(
            self.coordinated_leadership_renew_deadline <= self.coordinated_leadership_retry_period,
            "--coordinated-leadership-renew-deadline must be greater than --coordinated-leadership-retry-period",
        );
    }

    fn validate_versions(&self, mistakes: &mut Mistakes) {
        let (first, last) = (*EMULATED.start(), *EMULATED.end());
        let versions = minor_version(&self.emulated_version, mistakes)
            .zip(minor_version(&self.min_compatibility_version, mistakes));
        let Some((emulated, compatible)) = versions else {
            return;
        };
        let version = emulated.unwrap_or(last);
        mistakes.when(
            !EMULATED.contains(&version),
            format!("emulation version 1.{version} is not between [1.{first}, 1.{last}.0]"),
        );
        let compatible = compatible.unwrap_or(version.saturating_sub(1).max(first));
        mistakes.when(
            !(first..=version).contains(&compatible),
            format!("minCompatibilityVersion version 1.{compatible} is not between [1.{first}, 1.{version}]"),
        );
        let is_emulated = version != last;
        for (flag, name) in [
            (
                self.emulation_forward_compatible,
                "EmulationForwardCompatible",
            ),
            (
                self.runtime_config_emulation_forward_compatible,
                "RuntimeConfigEmulationForwardCompatible",
            ),
        ] {
            mistakes.when(
                flag && !is_emulated,
                format!("ServerRunOptions.{name} cannot be set to true if the emulation version is the same as the binary version"),
            );
        }
    }
}

/// The minor of `1.35` or `kube=1.35`; `Some(None)` if none is given, `None` after a mistake.
fn minor_version(given: &CommaList, mistakes: &mut Mistakes) -> Option<Option<u32>> {
    let mut found = None;
    for text in &given.0 {
        let (component, version) = text.split_once('=').unwrap_or(("kube", text));
        let (component, version) = (component.trim(), version.trim());
        if component != "kube" {
            mistakes.add(format!("component not registered: {component}"));
            return None;
        }
        let parts = version.strip_prefix('v').unwrap_or(version).split('.');
        let numbers: Result<Vec<u32>, _> = parts.map(str::parse).collect();
        let minor = match numbers.as_deref() {
            Ok([1, minor] | [1, minor, 0]) => *minor,
            Ok([1, _, _]) => {
                mistakes.add(format!("patch version not allowed, got: kube={version}"));
                return None;
            }
            _ => {
                mistakes.add(format!("could not parse {version:?} as version"));
                return None;
            }
        };
        if let Some(before) = found.replace(minor) {
            mistakes.add(format!(
                "duplicate version flag, kube=1.{before} and kube=1.{minor}"
            ));
            return None;
        }
    }
    Some(found)
}

impl EtcdOptions {
    fn validate(&self, mistakes: &mut Mistakes) {
        mistakes.when(
            self.etcd_servers.0.is_empty(),
            "--etcd-servers must be specified",
        );
        let [ca, certificate, key] = [&self.etcd_cafile, &self.etcd_certfile, &self.etcd_keyfile]
            .map(|path| path.as_deref().filter(|path| !path.as_os_str().is_empty()));
        let shown =
            |path: Option<&Path>| path.map_or_else(String::new, |p| p.display().to_string());
        mistakes.when(
            certificate.is_some() != key.is_some(),
            format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                shown(key),
                shown(certificate)
            ),
        );
        for path in [ca, certificate, key].into_iter().flatten() {
            if let Err(error) = std::fs::metadata(path) {
                mistakes.add(format!("open {}: {error}", path.display()));
            }
        }
    }
}

impl ApiOptions {
    fn validate(&self, fair: bool, mistakes: &mut Mistakes) {
        let groups = ["flowcontrol.apiserver.k8s.io/v1", "api/ga", "api/all"];
        let mut said = groups.iter().filter_map(|group| {
            let value = self.runtime_config.0.get(*group)?;
            Some((group, value))
        });
        if let Some((group, value)) = said.next().filter(|_| fair) {
            mistakes.when(
                value == "false",
                format!("--runtime-config={group}=false conflicts with --enable-priority-and-fairness=true"),
            );
        }
        let pair = (&self.proxy_client_cert_file, &self.proxy_client_key_file);
        if let (Some(certificate), Some(key)) = pair {
            for path in [certificate, key] {
                if let Err(error) = std::fs::metadata(path) {
                    mistakes.add(format!("open {}: {error}", path.display()));
                }
            }
        }
    }
}

impl AuthenticationOptions {
    /// Tokens are signed.
    fn validate_signing(&self, mistakes: &mut Mistakes) {
        let is_named = |path: &std::path::PathBuf| !path.as_os_str().is_empty();
        let is_signing = (self.service_account_signing_key_file.as_ref()).is_some_and(is_named);
        let is_issuing = self
            .service_account_issuer
            .first()
            .is_some_and(|i| !i.is_empty())
            || !self.api_audiences.0.is_empty();
        mistakes.when(
            !is_signing,
            match is_issuing {
                true => "--service-account-signing-key-file, --service-account-issuer, and --api-audiences should be specified together",
                false => "--service-account-signing-key-file and --service-account-issuer are required flags",
            },
        );
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        let max = self.service_account_max_token_expiration;
        mistakes.when(
            max.is_negative()
                || !max.is_zero() && !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&max.get()),
            "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
        );
        let mut seen = BTreeSet::new();
        for issuer in &self.service_account_issuer {
            mistakes.when(
                issuer.is_empty(),
                "service-account-issuer should not be an empty string",
            );
            mistakes.when(
                !issuer.is_empty() && !seen.insert(issuer),
                format!("service-account-issuer {issuer:?} is already specified"),
            );
        }
        mistakes.when(
            self.service_account_issuer.is_empty(),
            "service-account-issuer is a required flag",
        );
        mistakes.when(
            self.service_account_key_file.is_empty(),
            "either `--service-account-key-file` or `--service-account-signing-endpoint` must be set",
        );
        if let Some(uri) = self.service_account_jwks_uri.as_deref()
            && !uri.is_empty()
        {
            let scheme = uri.split_once(':').map(|(scheme, _)| scheme);
            mistakes.when(
                !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
                format!("service-account-jwks-uri requires https scheme, parsed as: {uri}"),
            );
        }
        let headers = &self.requestheader_uid_headers.0;
        for (flag, values) in [
            (
                "requestheader-username-headers",
                &self.requestheader_username_headers.0,
            ),
            (
                "requestheader-group-headers",
                &self.requestheader_group_headers.0,
            ),
            (
                "requestheader-extra-headers-prefix",
                &self.requestheader_extra_headers_prefix.0,
            ),
            (
                "requestheader-allowed-names",
                &self.requestheader_allowed_names.0,
            ),
            ("requestheader-uid-headers", headers),
        ] {
            mistakes.when(
                values.iter().any(|value| value.trim().is_empty()),
                format!("empty value in {flag:?}"),
            );
        }
        let is_standard = |header: &String| header.eq_ignore_ascii_case("X-Remote-Uid");
        mistakes.when(
            !headers.is_empty() && !headers.iter().any(is_standard),
            "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API aggregation will not work",
        );
        if let (Some(clients), Some(proxies)) =
            (&self.client_ca_file, &self.requestheader_client_ca_file)
            && self.requestheader_allowed_names.0.is_empty()
            && overlap(clients, proxies)
        {
            mistakes.add("--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; --requestheader-allowed-names must be specified to ensure regular client certificates cannot set authenticating proxy headers for arbitrary users");
        }
    }
}

impl ServiceOptions {
    /// The ranges of addresses, the primary one first.
    pub fn ranges(&self) -> Result<Vec<IpNet>, Invalid> {
        let text = match self.service_cluster_ip_range.as_str() {
            "" => DEFAULT_SERVICE_RANGE,
            given => given,
        };
        let parsed = text.split(',').enumerate().map(|(at, range)| {
            let range: IpNet = range.parse().map_err(|_| {
                Invalid(vec![format!(
                    "service-cluster-ip-range[{at}] is not a valid cidr"
                )])
            })?;
            Ok(range.trunc())
        });
        parsed.collect()
    }

    fn validate(&self, advertised: Option<IpAddr>, mistakes: &mut Mistakes) {
        match self.ranges() {
            Err(Invalid(found)) => mistakes.0.extend(found),
            Ok(ranges) => self.validate_ranges(&ranges, advertised, mistakes),
        }
        let (port, range) = (
            self.kubernetes_service_node_port,
            self.service_node_port_range,
        );
        let last = u32::from(range.first) + u32::from(range.size);
        mistakes.when(
            port > 0 && !(u32::from(range.first)..last).contains(&u32::from(port)),
            format!("kubernetes service node port range {range} doesn't contain {port}"),
        );
        let reconciler = self.endpoint_reconciler_type.as_str();
        mistakes.when(
            !matches!(reconciler, "lease" | "master-count" | "none"),
            format!("Reconciler not implemented: {reconciler}"),
        );
    }

    fn validate_ranges(
        &self,
        ranges: &[IpNet],
        advertised: Option<IpAddr>,
        mistakes: &mut Mistakes,
    ) {
        let is_v4 = |range: &IpNet| matches!(range, IpNet::V4(_));
        let Some(primary) = ranges.first() else {
            return;
        };
        mistakes.when(
            primary.max_prefix_len() - primary.prefix_len() < 3,
            "error determining service IP ranges for primary service cidr: the service cluster IP range must be at least 8 IP addresses",
        );
        mistakes.when(
            ranges.len() > 2,
            "--service-cluster-ip-range must not contain more than two entries",
        );
        mistakes.when(
            ranges.get(1).is_some_and(|other| is_v4(other) == is_v4(primary)),
            "--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family",
        );
        if let Some(address) = advertised.filter(|_| self.endpoint_reconciler_type != "none") {
            mistakes.when(
                address.is_ipv4() != is_v4(primary),
                format!(
                    "service IP family \"{primary}\" must match public address family \"{address}\""
                ),
            );
        }
    }
}

/// Whether two bundles have a certificate in common. One that cannot be read is told where it is
/// used.
fn overlap(one: &Path, other: &Path) -> bool {
    let certificates = |path| -> Option<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_file_iter(path).ok()?;
        found.collect::<Result<_, _>>().ok()
    };
    match (certificates(one), certificates(other)) {
        (Some(one), Some(other)) => one.iter().any(|certificate| other.contains(certificate)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With what must be given.
    fn mistakes(args: &[&str]) -> Vec<String> {
        let base = [
            "kube-apiserver",
            "--advertise-address=192.0.2.1",
            "--etcd-servers=http://127.0.0.1:2379",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=/sa.pub",
            "--service-account-signing-key-file=/sa.key",
        ];
        let args = base.iter().chain(args).map(Into::into);
        let options: Options = component::flags::parse("kube-apiserver", args).unwrap();
        options.validate().err().map_or_else(Vec::new, |e| e.0)
    }

    #[test]
    fn each_mistake_is_told() {
        for (flag, mistake) in [
            (
                "--livez-grace-period=-1s",
                "--livez-grace-period can not be",
            ),
            ("--request-timeout=-1s", "--request-timeout can not be"),
            ("--shutdown-delay-duration=-1s", "--shutdown-delay-duration"),
            ("--goaway-chance=0.5", "--goaway-chance can not be"),
            ("--goaway-chance=-1", "--goaway-chance can not be"),
            (
                "--strict-transport-security-directives=foo",
                "directives invalid",
            ),
            (
                "--strict-transport-security-directives=max-age=1,",
                "empty value in",
            ),
            ("--secure-port=0", "--secure-port 0 must be between 1"),
            ("--tls-min-version=foo", "unknown tls version \"foo\""),
            ("--tls-cipher-suites=FOO", "Cipher suite FOO not supported"),
            ("--tls-curve-preferences=X25519", "strconv.ParseInt"),
            (
                "--etcd-cafile=/nowhere/ca.crt",
                "open /nowhere/ca.crt: No such file",
            ),
            (
                "--etcd-certfile=/dev/null",
                "KeyFile and CertFile must both be present[key: , cert: /dev/null]",
            ),
            ("--storage-backend=etcd2", "--storage-backend invalid"),
            (
                "--watch-cache-sizes=foo",
                "invalid value of watch cache size: foo",
            ),
            (
                "--watch-cache-sizes=pods#x",
                "invalid size of watch cache size: pods#x",
            ),
            (
                "--show-hidden-metrics-for-version=1.20",
                "only the previous minor version",
            ),
            (
                "--allow-metric-labels=foo,bar",
                "foo,bar must be formatted as key=value",
            ),
            (
                "--coordinated-leadership-lease-duration=1s",
                "lease-duration must be greater",
            ),
            (
                "--emulated-version=1.37",
                "emulation version 1.37 is not between [1.33, 1.36.0]",
            ),
            (
                "--emulated-version=kube=1.34,1.35",
                "duplicate version flag",
            ),
            (
                "--emulated-version=other=1.34",
                "component not registered: other",
            ),
            (
                "--min-compatibility-version=1.37",
                "minCompatibilityVersion version 1.37",
            ),
            (
                "--service-account-max-token-expiration=30m",
                "must be between 1 hour",
            ),
            (
                "--service-account-max-token-expiration=-1h",
                "must be between 1 hour",
            ),
            (
                "--service-account-issuer=",
                "service-account-issuer should not be",
            ),
            (
                "--service-account-issuer=https://kubernetes.default.svc",
                "is already specified",
            ),
            (
                "--service-account-signing-key-file=",
                "--service-account-signing-key-file, --service-account-issuer, and --api-audiences should be",
            ),
            (
                "--service-account-jwks-uri=http://x",
                "requires https scheme, parsed as: http://x",
            ),
            (
                "--requestheader-allowed-names=,",
                "empty value in \"requestheader-allowed-names\"",
            ),
            (
                "--requestheader-uid-headers=X-Uid",
                "the standard X-Remote-Uid header",
            ),
            (
                "--endpoint-reconciler-type=foo",
                "Reconciler not implemented: foo",
            ),
            (
                "--kubernetes-service-node-port=80",
                "range 30000-32767 doesn't contain 80",
            ),
            (
                "--service-cluster-ip-range=foo",
                "service-cluster-ip-range[0] is not a valid cidr",
            ),
            (
                "--service-cluster-ip-range=10.0.0.0/30",
                "at least 8 IP addresses",
            ),
            (
                "--service-cluster-ip-range=10.0.0.0/16,10.1.0.0/16",
                "must be of different IP family",
            ),
            (
                "--service-cluster-ip-range=10.0.0.0/16,fd00::/108,10.1.0.0/16",
                "more than two entries",
            ),
            (
                "--service-cluster-ip-range=fd00::/108",
                "service IP family \"fd00::/108\" must match public address family \"192.0.2.1\"",
            ),
            (
                "--runtime-config=api/ga=false",
                "--runtime-config=api/ga=false conflicts with",
            ),
            (
                "--proxy-client-cert-file=/dev/null/none --proxy-client-key-file=/dev/null/none",
                "open /dev/null/none",
            ),
            (
                "--max-requests-inflight=0 --max-mutating-requests-inflight=0",
                "must add up to something positive",
            ),
            (
                "--admission-control=NodeRestriction --enable-admission-plugins=NodeRestriction",
                "mutually exclusive",
            ),
        ] {
            let args: Vec<&str> = flag.split(' ').collect();
            let found = mistakes(&args);
            assert!(
                found.len() == 1 && found[0].contains(mistake),
                "{flag}: {found:?}"
            );
        }
    }

    #[test]
    fn what_upstream_takes_is_taken() {
        for flag in [
            "--goaway-chance=0.02",
            "--request-timeout=0s",
            "--strict-transport-security-directives=max-age=31536000,includeSubDomains,preload",
            "--tls-min-version=VersionTLS10",
            "--tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "--tls-curve-preferences=29,4588",
            "--emulated-version=1.35",
            "--emulated-version=kube=1.33",
            "--min-compatibility-version=1.35",
            "--show-hidden-metrics-for-version=1.35",
            "--allow-metric-labels=metric,label=a,b",
            "--watch-cache-sizes=pods#10,deployments.apps#0",
            "--service-account-max-token-expiration=1h",
            "--service-account-issuer=notaurl",
            "--service-account-jwks-uri=https://x/y",
            "--service-cluster-ip-range=",
            "--service-cluster-ip-range=10.96.0.1/16",
            "--service-cluster-ip-range=10.0.0.0/16,fd00::/108",
            "--service-cluster-ip-range=fd00::/108 --endpoint-reconciler-type=none",
            "--service-cluster-ip-range=fd00::/108 --advertise-address=0.0.0.0",
            "--service-cluster-ip-range=foo --service-cluster-ip-range=10.0.0.0/16",
            "--kubernetes-service-node-port=32767",
            "--endpoint-reconciler-type=master-count",
            "--max-requests-inflight=0 --max-mutating-requests-inflight=0 --enable-priority-and-fairness=false",
        ] {
            let args: Vec<&str> = flag.split(' ').collect();
            assert_eq!(mistakes(&args), [""; 0], "{flag}");
        }
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let options: Options =
            component::flags::parse("kube-apiserver", ["kube-apiserver".into()]).unwrap();
        assert_eq!(
            options.validate().unwrap_err().to_string(),
            "[--etcd-servers must be specified, service-account-issuer is a required flag, either `--service-account-key-file` or `--service-account-signing-endpoint` must be set, --service-account-signing-key-file and --service-account-issuer are required flags]"
        );
    }

    #[test]
    fn authorities_of_clients_may_be_those_of_proxies_only_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = |name: &str, certificates: &[&rcgen::Certificate]| {
            let path = directory.path().join(name);
            let pem: String = certificates.iter().map(|c| c.pem()).collect();
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        let made = || rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        let (a, b) = (made().cert, made().cert);
        let clients = format!("--client-ca-file={}", bundle("a", &[&a]));
        let proxies = |path: &str| format!("--requestheader-client-ca-file={path}");
        let both = proxies(&bundle("both", &[&b, &a]));
        let other = proxies(&bundle("b", &[&b]));
        assert_eq!(mistakes(&[&clients, &other]), [""; 0]);
        let found = mistakes(&[&clients, &both]);
        assert!(found.iter().any(|m| m.contains("overlapping")), "{found:?}");
        let name = "--requestheader-allowed-names=front-proxy-client";
        assert_eq!(mistakes(&[&clients, &both, name]), [""; 0]);
        assert_eq!(mistakes(&[&clients, &proxies("/dev/null/none")]), [""; 0]);
    }
}
