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
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client_chain;

/// What verifies client certificates by a bundle of those that are trusted. rustls would take any
/// of them for an anchor; one that is no authority is for itself only, as in Go.
///
/// # Errors
///
/// When one of them cannot be read, or there is none.
pub fn verifier_of(
    trusted: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone())?;
    }
    if roots.is_empty() {
        return Err(rustls::Error::General("no certificates are trusted".into()));
    }
    Ok(Arc::new(Trusting {
        trusted: trusted.to_vec(),
        handshake: RequestClientCert::new(&roots, provider),
    }))
}

/// Verifies client certificates; none is as good.
#[derive(Debug)]
struct Trusting {
    trusted: Vec<CertificateDer<'static>>,
    handshake: RequestClientCert,
}

impl ClientCertVerifier for Trusting {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.handshake.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let provider = &self.handshake.provider;
        client_chain::verify(end_entity, intermediates, &self.trusted, provider, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.handshake.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.handshake.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.handshake.supported_verify_schemes()
    }
}

/// Asks for a client certificate, accepts any or none, and verifies only that the client
/// holds its key. rustls does not read all certificates (those of X.509 version 1, those with
/// extensions that it does not know), so it is given their keys.
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
        let Ok((_, parsed)) = X509Certificate::from_der(cert) else {
            return rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms);
        };
        let key = &parsed.public_key().subject_public_key.data;
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
        let Ok((_, parsed)) = X509Certificate::from_der(cert) else {
            return rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms);
        };
        let key = parsed.public_key().raw.into();
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
