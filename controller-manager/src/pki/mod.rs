//! Private keys, and the encoding that they and certificates are in.
//!
//! What must not be here: what is signed, and for whom.

pub mod der;

use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

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
