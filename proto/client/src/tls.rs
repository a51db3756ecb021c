//! rustls client configuration out of a [`Config`], and noticing when its files change.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::{Config, ConfigError, Pem};

/// Where Debian and its kin keep the system's authorities in one file.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The PEM texts that a connection is made with. Compared to notice rotation.
#[derive(PartialEq, Eq, Clone)]
pub(crate) struct Material {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            ca: config
                .certificate_authority
                .as_ref()
                .map(Pem::read)
                .transpose()?,
            identity: match (&config.renewed_certificate, &config.client_certificate) {
                (Some(renewed), _) => renewed.get().map(|shown| (*shown).clone()),
                (None, Some((cert, key))) => Some((cert.read()?, key.read()?)),
                (None, None) => None,
            },
        })
    }

    /// Whether the certificate that the program renews is another one by now. Reads no file.
    pub fn is_outdated(&self, config: &Config) -> bool {
        let Some(renewed) = &config.renewed_certificate else {
            return false;
        };
        renewed.get().as_deref() != self.identity.as_ref()
    }

    /// Without ALPN: the connector sets it.
    pub fn client_config(&self, config: &Config) -> Result<ClientConfig, ConfigError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| tls_error("TLS versions", &e))?;
        let builder = if config.insecure_skip_tls_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(&provider))))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let chain = certificates("client certificate", cert)?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|e| tls_error("client key", &e))?;
                let shown = client_certificate(chain, key, &provider)
                    .map_err(|e| tls_error("client certificate and key", &e))?;
                Ok(builder.with_client_cert_resolver(shown))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let pem = match &self.ca {
            Some(pem) => pem.clone(),
            None => std::fs::read(SYSTEM_ROOTS).unwrap_or_default(),
        };
        let mut roots = RootCertStore::empty();
        for cert in certificates("certificate authority", &pem)? {
            roots
                .add(cert)
                .map_err(|e| tls_error("certificate authority", &e))?;
        }
        Ok(roots)
    }
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certs = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| tls_error(what, &e))?;
    if certs.is_empty() {
        return Err(tls_error(what, &"no certificate found"));
    }
    Ok(certs)
}

fn tls_error(what: &str, e: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Tls {
        what: what.to_owned(),
        message: e.to_string(),
    }
}

/// A certificate that a client shows. Its form is its readers' affair: rustls does not read those
/// of X.509 version 1, which `openssl x509 -req` makes and servers in Go take.
///
/// # Errors
///
/// When the key cannot be used, or is not that of a certificate which rustls reads.
pub fn client_certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesClientCert>, rustls::Error> {
    let certified = CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(InconsistentKeys::KeyMismatch.into())
        }
        _ => Ok(Arc::new(SingleCertAndKey::from(certified))),
    }
}

/// Takes any certificate whose key the server holds: for `insecure-skip-tls-verify`, and
/// where nobody vouches for servers (kubelets without an authority, probed containers).
#[derive(Debug)]
pub struct AnyServer(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
