//! Which TLS is spoken: `--tls-min-version`, `--tls-cipher-suites`, `--tls-curve-preferences` and
//! `--disable-http2-serving`, read as upstream reads them (names are those of Go's `crypto/tls`).

use rustls::crypto::CryptoProvider;
use rustls::{NamedGroup, SupportedProtocolVersion};

/// Go's names of suites. Those that are not implemented here (CBC, RC4, 3DES, RSA key exchange)
/// may be named too: they are never agreed on.
const SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];
/// Older names of two suites lack their hash.
const OLD_NAMES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
];
/// RFC 9113, 9.2.2: HTTP/2 over TLS 1.2 needs one of these.
const HTTP2_SUITES: &[&str] = &[
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
];
/// Go's `tls.CurveID`s: P-256, P-384, P-521, X25519 and three with ML-KEM.
const CURVES: &[u16] = &[23, 24, 25, 29, 4587, 4588, 4589];
static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("unknown tls version {0:?}")]
    Version(String),
    #[error("Cipher suite {0} not supported or doesn't exist")]
    Suite(String),
    #[error("invalid --tls-curve-preferences: strconv.ParseInt: parsing {0:?}: invalid syntax")]
    NoCurve(String),
    #[error("curve preference {0} is out of range (must be 1-65535)")]
    CurveRange(i64),
    #[error("duplicate curve preference {0}")]
    CurveTwice(u16),
    #[error("curve preference {0} is not supported by the current Go version")]
    Curve(u16),
    #[error("--tls-curve-preferences names no curve that is implemented: name 23, 24 or 29")]
    Curves,
    #[error(
        "error configuring http2: http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
    )]
    Http2,
}

/// What a server agrees to. The default is everything that is implemented.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsPolicy {
    only_tls13: bool,
    /// Of TLS 1.2; those of 1.3 are not for configuration, as in Go. Empty for all.
    suites: Vec<String>,
    /// Empty for all.
    curves: Vec<u16>,
    only_http1: bool,
}

impl TlsPolicy {
    /// From the values of the flags; empty ones are defaults.
    pub fn parse(
        min_version: &str,
        suites: &[String],
        curves: &[String],
        disable_http2: bool,
    ) -> Result<Self, PolicyError> {
        let suites = suites.iter().map(|name| suite(name));
        let suites: Vec<String> = suites.collect::<Result<_, _>>()?;
        let mut known = Vec::new();
        for text in curves {
            let curve = curve(text)?;
            if known.contains(&curve) {
                return Err(PolicyError::CurveTwice(curve));
            }
            known.push(curve);
        }
        let policy = Self {
            only_tls13: match min_version {
                "VersionTLS13" => true,
                // Older ones than 1.2 are not implemented.
                "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => false,
                other => return Err(PolicyError::Version(other.to_owned())),
            },
            suites,
            curves: known,
            only_http1: disable_http2,
        };
        let suits_http2 = policy.suites.is_empty()
            || HTTP2_SUITES
                .iter()
                .any(|name| policy.suites.iter().any(|suite| suite == name));
        if !policy.only_tls13 && !policy.only_http1 && !suits_http2 {
            return Err(PolicyError::Http2);
        }
        let mut provider = rustls::crypto::ring::default_provider();
        policy.narrow(&mut provider);
        match provider.kx_groups.is_empty() {
            true => Err(PolicyError::Curves),
            false => Ok(policy),
        }
    }

    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.only_tls13 {
            true => ONLY_TLS13,
            false => rustls::ALL_VERSIONS,
        }
    }

    /// What HTTP is offered.
    pub(super) fn protocols(&self) -> Vec<Vec<u8>> {
        let all = [b"h2".to_vec(), b"http/1.1".to_vec()];
        all.into_iter().skip(usize::from(self.only_http1)).collect()
    }

    /// Takes out what is not to be agreed on. The provider's order stays: neither suites nor
    /// curves are put in order by their flags, as in Go.
    pub(super) fn narrow(&self, provider: &mut CryptoProvider) {
        if !self.suites.is_empty() {
            provider.cipher_suites.retain(|suite| {
                let name = suite.suite().as_str();
                suite.tls13().is_some() || self.suites.iter().any(|s| Some(s.as_str()) == name)
            });
        }
        if !self.curves.is_empty() {
            let is_named = |group: NamedGroup| self.curves.contains(&u16::from(group));
            provider.kx_groups.retain(|group| is_named(group.name()));
        }
    }
}

fn suite(name: &str) -> Result<String, PolicyError> {
    if OLD_NAMES.contains(&name) {
        return Ok(format!("{name}_SHA256"));
    }
    match SUITES.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(PolicyError::Suite(name.to_owned())),
    }
}

fn curve(text: &str) -> Result<u16, PolicyError> {
    let id: i64 = text
        .parse()
        .map_err(|_| PolicyError::NoCurve(text.to_owned()))?;
    let curve = u16::try_from(id).ok().filter(|id| *id > 0);
    let curve = curve.ok_or(PolicyError::CurveRange(id))?;
    match CURVES.contains(&curve) {
        true => Ok(curve),
        false => Err(PolicyError::Curve(curve)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(version: &str, suites: &str, curves: &str) -> Result<TlsPolicy, PolicyError> {
        let list = |text: &str| -> Vec<String> {
            let items = text.split(',').filter(|item| !item.is_empty());
            items.map(str::to_owned).collect()
        };
        TlsPolicy::parse(version, &list(suites), &list(curves), false)
    }

    #[test]
    fn what_go_does_not_know_is_refused() {
        for (version, suites, curves, mistake) in [
            ("foo", "", "", r#"unknown tls version "foo""#),
            (
                "",
                "FOO",
                "",
                "Cipher suite FOO not supported or doesn't exist",
            ),
            (
                "",
                "TLS_RSA_WITH_AES_128_CBC_SHA",
                "",
                "error configuring http2",
            ),
            ("", "", "X25519", "strconv.ParseInt: parsing \"X25519\""),
            ("", "", "0", "curve preference 0 is out of range"),
            ("", "", "70000", "curve preference 70000 is out of range"),
            ("", "", "29,29", "duplicate curve preference 29"),
            ("", "", "30", "curve preference 30 is not supported"),
            ("", "", "25", "names no curve that is implemented"),
        ] {
            let found = parse(version, suites, curves).unwrap_err().to_string();
            assert!(found.contains(mistake), "{found}");
        }
    }

    #[test]
    fn what_is_not_named_is_not_agreed_on() {
        let left = |policy: &TlsPolicy| -> (Vec<&str>, Vec<u16>) {
            let mut provider = rustls::crypto::ring::default_provider();
            policy.narrow(&mut provider);
            let suites = provider.cipher_suites.iter();
            let suites = suites.filter(|suite| suite.tls13().is_none());
            let groups = provider.kx_groups.iter().map(|group| group.name().into());
            (
                suites.filter_map(|suite| suite.suite().as_str()).collect(),
                groups.collect(),
            )
        };
        let policy = parse(
            "VersionTLS11",
            "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_RSA_WITH_AES_128_CBC_SHA",
            "4588,24",
        );
        let policy = policy.unwrap();
        let (mut suites, groups) = left(&policy);
        suites.sort_unstable();
        assert_eq!(
            suites,
            [
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
        assert_eq!((groups, policy.versions().len()), (vec![24], 2));
        let (suites, groups) = left(&TlsPolicy::default());
        assert_eq!((suites.len(), groups.len()), (6, 3));
        assert_eq!(parse("VersionTLS13", "", "").unwrap().versions().len(), 1);
        assert_eq!(policy.protocols().len(), 2);
        let http1 = TlsPolicy::parse("", &[], &[], true).unwrap();
        assert_eq!(http1.protocols(), [b"http/1.1".to_vec()]);
    }
}
