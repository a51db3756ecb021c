//! The handshake of a server that verifies client certificates later: who vouches for one
//! is decided per request, with the CA files as they are then, and refused with a status.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Extension, X509Version};

/// The certificate, if it is of X.509 version 1, which knows no extensions: `openssl x509 -req`
/// makes such ones, and rustls does not read them.
fn unextended<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    (parsed.version() == X509Version::V1).then_some(parsed)
}

/// Whether a certificate may vouch for others (RFC 5280, 6.1.4; before version 3 there was no way
/// to say that it may not).
pub fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let says_so = match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => certificate.version() != X509Version::V3,
        Err(_) => false,
    };
    let may_sign = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    let understood = |extension: &X509Extension<'_>| {
        let parsed = extension.parsed_extension();
        !extension.critical || !parsed.unsupported() && parsed.error().is_none()
    };
    says_so && may_sign && certificate.extensions().iter().all(understood)
}

/// Whether a certificate is valid at a time.
fn is_valid(certificate: &X509Certificate<'_>, now: UnixTime) -> bool {
    let now = ASN1Time::from_timestamp(now.as_secs() as i64);
    now.is_ok_and(|now| certificate.validity().is_valid_at(now))
}

/// Whether a certificate may be used by a client, and now.
///
/// # Errors
///
/// Why it may not.
pub fn may_authenticate(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), String> {
    if !is_valid(certificate, now) {
        return Err("certificate has expired or is not yet valid".into());
    }
    let usage = certificate
        .extended_key_usage()
        .map_err(|e| e.to_string())?;
    if usage.is_some_and(|usage| !usage.value.any && !usage.value.client_auth) {
        return Err("certificate specifies an incompatible key usage".into());
    }
    Ok(())
}

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

impl Trusting {
    /// Those who may vouch for clients now: webpki believes its anchors for ever and for anything.
    fn authorities(&self, now: UnixTime) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        let vouching = self.trusted.iter().filter(|certificate| {
            X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
                is_authority(&parsed) && may_authenticate(&parsed, now).is_ok()
            })
        });
        authorities.add_parsable_certificates(vouching.cloned());
        authorities
    }
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
        if self.trusted.contains(end_entity) {
            let (_, parsed) = X509Certificate::from_der(end_entity)
                .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
            may_authenticate(&parsed, now).map_err(rustls::Error::General)?;
            return Ok(ClientCertVerified::assertion());
        }
        let authorities = self.authorities(now);
        if authorities.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let provider = self.handshake.provider.clone();
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_client_cert(end_entity, intermediates, now)
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
