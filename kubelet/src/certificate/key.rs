//! Private keys as upstream's kubelet writes and reads them: P-256, in the form of SEC 1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::CertificateError;

/// The curve, as an object identifier in DER.
const P256: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// `ecPublicKey`, as an object identifier in DER.
const EC_PUBLIC_KEY: [u8; 9] = [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// How an `ECPrivateKey` begins after its header: version 1, and a secret of 32 bytes.
const SECRET: [u8; 5] = [2, 1, 1, 4, 32];

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 4;
const BIT_STRING: u8 = 3;

/// An element of DER with less than 256 bytes.
fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let length = contents.len() as u8;
    let mut out = vec![tag];
    if length >= 0x80 {
        out.push(0x81);
    }
    out.push(length);
    out.extend(contents);
    out
}

/// PEM text with lines of 64 characters, as Go writes it.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    lines + &format!("-----END {label}-----\n")
}

/// A new key on P-256.
///
/// # Errors
/// When the system has no randomness.
pub fn generate() -> Result<KeyPair, CertificateError> {
    KeyPair::generate().map_err(|error| CertificateError::Key(error.to_string()))
}

/// The key as `EC PRIVATE KEY`. The curve is named in it: without, Go does not read it.
///
/// # Errors
/// When it is on another curve.
pub fn to_pem(key: &KeyPair) -> Result<String, CertificateError> {
    let whole = key.serialized_der();
    let at = whole.windows(SECRET.len()).position(|w| w == SECRET);
    let secret = at.and_then(|at| whole.get(at..at + SECRET.len() + 32));
    let public = key.der_bytes();
    let secret = secret.filter(|_| public.len() == 65);
    let secret = secret.ok_or_else(|| CertificateError::Key("it is not on P-256".into()))?;
    let curve = element(0xa0, &[&P256]);
    let public = element(0xa1, &[&element(BIT_STRING, &[&[0], public])]);
    let der = element(SEQUENCE, &[secret, &curve, &public]);
    Ok(pem("EC PRIVATE KEY", &der))
}

/// A key of P-256 in SEC 1, or any that is in PKCS #8.
///
/// # Errors
/// When there is none in the text.
pub fn from_pem(text: &[u8]) -> Result<KeyPair, CertificateError> {
    let wrong = |why: &dyn std::fmt::Display| CertificateError::Key(why.to_string());
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| wrong(&error))?;
    let key = match key {
        PrivateKeyDer::Pkcs8(key) => key,
        PrivateKeyDer::Sec1(key) => {
            let inner = key.secret_sec1_der();
            let is_p256 = inner.windows(P256.len()).any(|w| w == P256);
            if inner.len() > 128 || !is_p256 {
                return Err(wrong(&"it is not on P-256"));
            }
            let algorithm = element(SEQUENCE, &[&EC_PUBLIC_KEY, &P256]);
            let inner = element(OCTET_STRING, &[inner]);
            PrivatePkcs8KeyDer::from(element(SEQUENCE, &[&[2, 1, 0], &algorithm, &inner]))
        }
        _ => return Err(wrong(&"its form is neither SEC 1 nor PKCS #8")),
    };
    KeyPair::try_from(&key).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let key = generate().unwrap();
        let text = to_pem(&key).unwrap();
        assert!(text.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
        let again = from_pem(text.as_bytes()).unwrap();
        assert_eq!(again.der_bytes(), key.der_bytes());
        assert_eq!(to_pem(&again).unwrap(), text);
        let pkcs8 = from_pem(key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(pkcs8.der_bytes(), key.der_bytes());
        assert!(from_pem(b"nothing").is_err());
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(to_pem(&other).is_err());
    }
}
