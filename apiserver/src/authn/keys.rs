//! Keys of service account tokens: read from PEM files, named, used to sign and verify.
//!
//! Signatures are made and checked by ring, which rustls brings along; the arithmetic
//! runs in constant time, which matters for a private RSA key that signs on request.
//! What must not be here: claims (`service_account.rs`, `token_issuer.rs`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("data does not contain any valid RSA or ECDSA public keys")]
    NoPublicKey,
    #[error("data does not contain a valid RSA or ECDSA private key")]
    NoPrivateKey,
    #[error("unsupported key: want RSA of 2048 bits or more, or ECDSA on P-256 or P-384")]
    Unsupported,
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// The JWS algorithms of service account tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    /// The name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            Algorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            Algorithm::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Algorithm::Es384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }

    /// Bytes of each of the two integers of an ECDSA signature.
    fn half(self) -> Option<usize> {
        match self {
            Algorithm::Rs256 => None,
            Algorithm::Es256 => Some(32),
            Algorithm::Es384 => Some(48),
        }
    }
}

/// A key that verifies tokens.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// base64url of the SHA-256 of the DER form: names the key without telling it.
    pub id: String,
    pub algorithm: Algorithm,
    /// The JSON Web Key, fields in the order upstream writes them.
    pub jwk: Jwk,
    /// The contents of `subjectPublicKey`.
    bits: Vec<u8>,
}

/// RFC 7517, the members that the API server publishes.
#[derive(Debug, Clone, serde::Serialize, PartialEq, Eq)]
pub struct Jwk {
    #[serde(rename = "use")]
    pub usage: &'static str,
    pub kty: &'static str,
    pub kid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<&'static str>,
    pub alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
}

impl PublicKey {
    /// From a DER `SubjectPublicKeyInfo`.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Unsupported)?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        let mut jwk = Jwk {
            usage: "sig",
            kty: "",
            kid: id.clone(),
            crv: None,
            alg: "",
            n: None,
            e: None,
            x: None,
            y: None,
        };
        let algorithm = match spki.parsed().map_err(|_| KeyError::Unsupported)? {
            Parsed::RSA(rsa) => {
                jwk.kty = "RSA";
                jwk.n = Some(URL_SAFE_NO_PAD.encode(unsigned(rsa.modulus)));
                jwk.e = Some(URL_SAFE_NO_PAD.encode(unsigned(rsa.exponent)));
                Algorithm::Rs256
            }
            Parsed::EC(point) => {
                // 4, x, y: only uncompressed points are met in practice, and ring reads no other.
                let (algorithm, curve) = match point.data().len() {
                    65 => (Algorithm::Es256, "P-256"),
                    97 => (Algorithm::Es384, "P-384"),
                    _ => return Err(KeyError::Unsupported),
                };
                let (x, y) = point.data()[1..].split_at((point.data().len() - 1) / 2);
                jwk.kty = "EC";
                jwk.crv = Some(curve);
                jwk.x = Some(URL_SAFE_NO_PAD.encode(x));
                jwk.y = Some(URL_SAFE_NO_PAD.encode(y));
                algorithm
            }
            _ => return Err(KeyError::Unsupported),
        };
        jwk.alg = algorithm.name();
        Ok(Self {
            id,
            algorithm,
            jwk,
            bits: spki.subject_public_key.data.to_vec(),
        })
    }

    /// Whether the signature, in the form that JWS has it, is this key's on the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let der;
        let signature = match self.algorithm.half() {
            None => signature,
            Some(half) if signature.len() == 2 * half => {
                der = ecdsa_to_der(signature);
                &der
            }
            Some(_) => return false,
        };
        verification(self.algorithm)
            .is_some_and(|v| v.verify_signature(&self.bits, message, signature).is_ok())
    }
}

/// ring's implementation of an algorithm.
fn verification(algorithm: Algorithm) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    rustls::crypto::ring::default_provider()
        .signature_verification_algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == algorithm.scheme())
        .and_then(|(_, implementations)| implementations.first().copied())
}

/// Every key of a `--service-account-key-file`: public keys, certificates, and the public
/// halves of private keys. Other PEM blocks are skipped.
pub fn public_keys(pem: &[u8]) -> Result<Vec<PublicKey>, KeyError> {
    let mut keys = Vec::new();
    for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let Ok((kind, der)) = block else { continue };
        let key = match kind {
            SectionKind::PublicKey => PublicKey::from_spki(&der),
            SectionKind::Certificate => match X509Certificate::from_der(&der) {
                Ok((_, certificate)) => PublicKey::from_spki(certificate.public_key().raw),
                Err(_) => continue,
            },
            _ => match private(kind, der) {
                Some(der) => SigningKey::from_der(der).map(|k| k.public),
                None => continue,
            },
        };
        if let Ok(key) = key {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Err(KeyError::NoPublicKey);
    }
    Ok(keys)
}

fn private(kind: SectionKind, der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
    match kind {
        SectionKind::RsaPrivateKey => Some(PrivateKeyDer::Pkcs1(der.into())),
        SectionKind::EcPrivateKey => Some(PrivateKeyDer::Sec1(der.into())),
        SectionKind::PrivateKey => Some(PrivateKeyDer::Pkcs8(der.into())),
        _ => None,
    }
}

/// The key of `--service-account-signing-key-file`.
#[derive(Debug, Clone)]
pub struct SigningKey {
    inner: Arc<dyn rustls::sign::SigningKey>,
    pub public: PublicKey,
}

impl SigningKey {
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let Ok((kind, der)) = block else { continue };
            // "EC PARAMETERS" and the like may come first.
            if let Some(der) = private(kind, der) {
                return Self::from_der(der);
            }
        }
        Err(KeyError::NoPrivateKey)
    }

    fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let inner = rustls::crypto::ring::sign::any_supported_type(&der)
            .map_err(|_| KeyError::Unsupported)?;
        let public = PublicKey::from_spki(&inner.public_key().ok_or(KeyError::Unsupported)?)?;
        Ok(Self { inner, public })
    }

    /// Signs in the form that JWS wants.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let algorithm = self.public.algorithm;
        let signature = self
            .inner
            .choose_scheme(&[algorithm.scheme()])
            .ok_or(KeyError::Unsupported)?
            .sign(message)
            .map_err(|e| KeyError::Sign(e.to_string()))?;
        match algorithm.half() {
            None => Ok(signature),
            Some(half) => ecdsa_from_der(&signature, half)
                .ok_or_else(|| KeyError::Sign("malformed ECDSA signature".into())),
        }
    }
}

/// DER integers carry a zero byte in front of a set top bit; JWKs and JWS do not.
fn unsigned(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|b| **b == 0).count();
    &integer[zeros..]
}

/// `r ‖ s` of fixed width to `SEQUENCE { r INTEGER, s INTEGER }`.
fn ecdsa_to_der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let mut body = Vec::with_capacity(signature.len() + 8);
    for half in [r, s] {
        let half = unsigned(half);
        let pad = half.first().is_none_or(|b| b & 0x80 != 0);
        body.push(2);
        body.push((half.len() + usize::from(pad)) as u8);
        if pad {
            body.push(0);
        }
        body.extend_from_slice(half);
    }
    // At most 2 * (2 + 1 + 48) bytes: the short form of the length is enough.
    let mut der = vec![0x30, body.len() as u8];
    der.append(&mut body);
    der
}

fn ecdsa_from_der(der: &[u8], half: usize) -> Option<Vec<u8>> {
    let rest = der.strip_prefix(&[0x30])?;
    let (_, mut rest) = rest.split_first()?;
    let mut out = Vec::with_capacity(2 * half);
    for _ in 0..2 {
        rest = rest.strip_prefix(&[2])?;
        let (len, tail) = rest.split_first()?;
        let (integer, tail) = tail.split_at_checked(*len as usize)?;
        let integer = unsigned(integer);
        out.resize(out.len() + half.checked_sub(integer.len())?, 0);
        out.extend_from_slice(integer);
        rest = tail;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies_with_ecdsa() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let key = SigningKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(key.public.algorithm, Algorithm::Es256);
        // Often enough that integers with a set top bit and with leading zeros occur.
        for n in 0..64u8 {
            let signature = key.sign(&[n]).unwrap();
            assert_eq!(signature.len(), 64);
            assert!(key.public.verifies(&[n], &signature));
            assert!(!key.public.verifies(&[n, 0], &signature));
        }
        let published = public_keys(pem.as_bytes()).unwrap();
        assert_eq!(published[0].id, key.public.id);
    }

    #[test]
    fn integers_of_a_signature_keep_their_width() {
        let mut fixed = vec![0u8; 64];
        fixed[2] = 0x90;
        fixed[63] = 1;
        let der = ecdsa_to_der(&fixed);
        assert_eq!(ecdsa_from_der(&der, 32).unwrap(), fixed);
    }

    #[test]
    fn files_without_a_key_are_errors() {
        assert!(matches!(public_keys(b"x"), Err(KeyError::NoPublicKey)));
        assert!(matches!(
            SigningKey::from_pem(b""),
            Err(KeyError::NoPrivateKey)
        ));
    }
}
