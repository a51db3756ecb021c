//! Public keys that pods' certificates may be for, and proofs that somebody has the private one.

use rustls::SignatureScheme;
use rustls::crypto::ring;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key;
use x509_parser::x509::SubjectPublicKeyInfo;

const ED25519: &str = "1.3.101.112";
const CURVES: [&str; 3] = [
    "1.2.840.10045.3.1.7", // P-256
    "1.3.132.0.34",        // P-384
    "1.3.132.0.35",        // P-521
];
/// Of a modulus, in bits.
const RSA_SIZES: [usize; 2] = [3072, 4096];

/// A key of a kind that a pod may have.
#[derive(Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The whole `SubjectPublicKeyInfo` (RFC 5280), DER.
    der: Vec<u8>,
    /// What is signed by it carries its proof by this scheme.
    scheme: SignatureScheme,
}

impl PublicKey {
    /// # Errors
    /// Says why it is none.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der)
            .map_err(|_| "must be a valid PKIX-serialized public key".to_owned())?;
        if !rest.is_empty() {
            return Err("must be a valid PKIX-serialized public key".to_owned());
        }
        Self::of(&info)
    }

    pub fn of(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, String> {
        const UNKNOWN: &str =
            "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
        let algorithm = &info.algorithm;
        let scheme = match info.parsed() {
            _ if algorithm.algorithm.to_id_string() == ED25519 => SignatureScheme::ED25519,
            Ok(public_key::PublicKey::EC(_)) => {
                let curve = algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
                let known = curve.is_some_and(|c| CURVES.contains(&c.to_id_string().as_str()));
                if !known {
                    let why = "elliptic public keys must use curve P256, P384, or P521";
                    return Err(why.to_owned());
                }
                SignatureScheme::ECDSA_NISTP256_SHA256
            }
            Ok(public_key::PublicKey::RSA(key)) => {
                if !RSA_SIZES.contains(&key.key_size()) {
                    return Err("RSA keys must have modulus size 3072 or 4096".to_owned());
                }
                SignatureScheme::RSA_PSS_SHA256
            }
            _ => return Err(UNKNOWN.to_owned()),
        };
        Ok(Self {
            der: info.raw.to_vec(),
            scheme,
        })
    }

    /// Whether the signature of the message is by the private key of this: ECDSA and RSA (PSS)
    /// over its SHA-256. Those of P-521 cannot be verified, and are none.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok((_, info)) = SubjectPublicKeyInfo::from_der(&self.der) else {
            return false;
        };
        let algorithms = ring::default_provider().signature_verification_algorithms;
        (algorithms.mapping.iter())
            .filter(|(scheme, _)| *scheme == self.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| {
                let key = &info.subject_public_key.data;
                algorithm.verify_signature(key, message, signature).is_ok()
            })
    }
}

/// The key of a certificate request (PKCS #10, RFC 2986) that is signed by it.
///
/// # Errors
/// Says what is wrong with the request.
pub fn of_request(der: &[u8]) -> Result<PublicKey, String> {
    let (rest, request) = X509CertificationRequest::from_der(der)
        .map_err(|_| "must be a valid PKCS#10 CSR".to_owned())?;
    if !rest.is_empty() {
        return Err("must be a valid PKCS#10 CSR".to_owned());
    }
    let key = PublicKey::of(&request.certification_request_info.subject_pki)?;
    match request.verify_signature() {
        Ok(()) => Ok(key),
        Err(_) => Err("invalid signature".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SigningKey as _};

    use super::*;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(algorithm).unwrap()
    }

    #[test]
    fn a_key_proves_itself() {
        for algorithm in [
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ] {
            let pair = pair(algorithm);
            let key = PublicKey::parse(&pair.subject_public_key_info()).unwrap();
            let request = CertificateParams::default()
                .serialize_request(&pair)
                .unwrap();
            assert_eq!(of_request(request.der()).unwrap(), key);
            let mut forged = request.der().to_vec();
            *forged.last_mut().unwrap() ^= 1;
            assert!(of_request(&forged).is_err());
        }
        let pair = pair(&rcgen::PKCS_ED25519);
        let key = PublicKey::parse(&pair.subject_public_key_info()).unwrap();
        let signature = pair.sign(b"uid").unwrap();
        assert!(key.has_signed(b"uid", &signature));
        assert!(!key.has_signed(b"other", &signature));
    }

    #[test]
    fn what_is_no_key_is_none() {
        for der in [&b""[..], b"\x30\x00", b"key"] {
            assert!(PublicKey::parse(der).is_err());
            assert!(of_request(der).is_err());
        }
        let mut more = pair(&rcgen::PKCS_ED25519).subject_public_key_info();
        more.push(0);
        assert!(PublicKey::parse(&more).is_err());
    }
}
