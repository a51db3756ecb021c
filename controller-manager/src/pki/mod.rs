//! Private keys and certificates in files, and the encoding that they are in.
//!
//! What must not be here: what is signed, and for whom.

pub mod der;

use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}: {message}")]
pub struct ReadError {
    pub file: String,
    pub message: String,
}

/// Wraps the older forms of private keys into PKCS #8, the one that our signer reads.
fn pkcs8(key: &PrivateKeyDer<'_>) -> Option<PrivatePkcs8KeyDer<'static>> {
    let rsa = || {
        der::element(
            der::SEQUENCE,
            &[&der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), &[der::NULL, 0]],
        )
    };
    let (algorithm, inner) = match key {
        PrivateKeyDer::Pkcs8(whole) => return Some(whole.clone_key()),
        PrivateKeyDer::Pkcs1(inner) => (rsa(), inner.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(inner) => {
            let inner = inner.secret_sec1_der();
            let p256 = der::oid(&[1, 2, 840, 10_045, 3, 1, 7]);
            let p384 = der::oid(&[1, 3, 132, 0, 34]);
            let curve = [p256, p384]
                .into_iter()
                .find(|c| inner.windows(c.len()).any(|w| w == c))?;
            let public = der::oid(&[1, 2, 840, 10_045, 2, 1]);
            (der::element(der::SEQUENCE, &[&public, &curve]), inner)
        }
        _ => return None,
    };
    let version = der::integer(&[0]);
    let inner = der::element(der::OCTET_STRING, &[inner]);
    Some(der::element(der::SEQUENCE, &[&version, &algorithm, &inner]).into())
}

/// Reads a private key, in whichever of the usual forms.
pub fn read_key(file: &str) -> Result<KeyPair, ReadError> {
    let error = |message: String| ReadError {
        file: file.to_owned(),
        message,
    };
    let key = PrivateKeyDer::from_pem_file(Path::new(file)).map_err(|e| error(e.to_string()))?;
    let key = pkcs8(&key).ok_or_else(|| error("the key's type is not supported".to_owned()))?;
    KeyPair::try_from(&key).map_err(|e| error(e.to_string()))
}

/// Text in which there should be certificates.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("data does not contain any valid RSA or ECDSA certificates")]
    None,
    #[error("malformed certificate: {0}")]
    Malformed(String),
}

/// Whether there is a certificate in the PEM blocks of a text, and none that is not one. What
/// else is in the text does not matter.
pub fn check_certificates(pem: &str) -> Result<(), CertificateError> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    let mut found = false;
    for block in blocks.filter(|block| block.label == "CERTIFICATE") {
        X509Certificate::from_der(&block.contents)
            .map_err(|e| CertificateError::Malformed(e.to_string()))?;
        found = true;
    }
    found.then_some(()).ok_or(CertificateError::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_certificates_and_may_have_more() {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        assert_eq!(check_certificates(&certificate), Ok(()));
        let more = format!("# of ours\n{}{certificate}", key.serialize_pem());
        assert_eq!(check_certificates(&more), Ok(()));
        for none in ["", "nothing", &key.serialize_pem()] {
            assert_eq!(check_certificates(none), Err(CertificateError::None));
        }
        let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let torn = check_certificates(&format!("{certificate}{torn}"));
        assert!(matches!(torn, Err(CertificateError::Malformed(_))));
    }
}
