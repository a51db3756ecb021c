//! The handshake of a server that verifies client certificates later: who vouches for one
//! is decided per request, with the CA files as they are then, and refused with a status.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// The certificate, if it is of X.509 version 1, which knows no extensions: `openssl x509 -req`
/// makes such ones, and rustls does not read them.
fn unextended<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    (parsed.version() == X509Version::V1).then_some(parsed)
}

/// Asks for a client certificate, accepts any or none, and verifies only that the client
/// holds its key.
#[derive(Debug)]
pub(super) struct RequestClientCert {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl RequestClientCert {
    /// The authorities' subjects tell clients which of their certificates to show.
    pub fn new(authorities: &RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        let subjects = authorities.roots.iter();
        Self {
            hints: subjects
                .map(|root| DistinguishedName::in_sequence(root.subject.as_ref()))
                .collect(),
            provider,
        }
    }
}

impl ClientCertVerifier for RequestClientCert {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let Some(unextended) = unextended(cert) else {
            return rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms);
        };
        let key = &unextended.public_key().subject_public_key.data;
        let mut of_scheme = (algorithms.mapping.iter())
            .filter(|(scheme, _)| *scheme == dss.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter());
        of_scheme
            .any(|a| a.verify_signature(key, message, dss.signature()).is_ok())
            .then(HandshakeSignatureValid::assertion)
            .ok_or(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match unextended(cert) {
            None => rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms),
            Some(unextended) => {
                let key = unextended.public_key().raw.into();
                rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
