//! A certificate with its key, and what it says.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertificateError, key};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
}

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Pair {
    pub leaf: Leaf,
    /// As servers show it.
    pub certified: Arc<CertifiedKey>,
    /// PEM text of the chain and of the key.
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

impl Pair {
    /// # Errors
    /// When there is no certificate, no key, or the key of another certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let certificates = certificates(chain)?;
        let first = certificates.first().ok_or("no certificate found")?;
        let leaf = Leaf::of(first)?;
        let private = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
        let private = ring::default_provider()
            .key_provider
            .load_private_key(private);
        let certified = CertifiedKey::new(certificates, private.map_err(|e| e.to_string())?);
        // Certificates of X.509 version 1 are not read by rustls, and are shown all the same.
        let mismatch = TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch);
        if certified.keys_match() == Err(mismatch) {
            return Err("private key does not match public key".into());
        }
        let mut text = String::new();
        for certificate in &certified.cert {
            text.push_str(&key::pem("CERTIFICATE", certificate));
        }
        Ok(Self {
            leaf,
            certified: Arc::new(certified),
            chain: text.into_bytes(),
            key: key.to_vec(),
        })
    }

    /// # Errors
    /// As [`Pair::from_pem`], and when a file cannot be read.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let read = |path: &Path| std::fs::read(path).map_err(CertificateError::file("read", path));
        let pair = Self::from_pem(&read(certificate)?, &read(key)?);
        pair.map_err(|why| CertificateError::Pair {
            path: certificate.to_owned(),
            why,
        })
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.leaf.not_after
    }
}

/// The certificates of a text, of which there may be none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

impl Leaf {
    /// # Errors
    /// When it is no certificate.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|error| error.to_string())
        };
        let subject = parsed.subject();
        let texts = |values: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            let texts = values.into_iter().filter_map(|value| value.as_str().ok());
            texts.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut leaf = Self {
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            common_name: texts(subject.iter_common_name().collect())
                .pop()
                .unwrap_or_default(),
            organizations: texts(subject.iter_organization().collect()),
            dns_names: Vec::new(),
            ips: Vec::new(),
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => leaf.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => leaf.ips.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(leaf)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).ok()
}
