//! Secrets with a certificate and a key that nobody could use.
//!
//! Told from their structure alone: a key that keeps its public part to itself (Ed25519, some
//! of elliptic curves) is taken for the right one.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use super::{Warnings, text};
use crate::validation::pem::{self, element};

pub(super) fn secret(warnings: &mut Warnings, secret: &Value) {
    if secret["type"] != "kubernetes.io/tls" {
        return;
    }
    let part = |key: &str| {
        let encoded = text(&secret["data"], key);
        BASE64_STANDARD.decode(encoded).unwrap_or_default()
    };
    if let Err(fault) = pair(&part("tls.crt"), &part("tls.key")) {
        warnings.say(fault);
    }
}

/// Whether these are a pair, as Go's `tls.X509KeyPair` sees it.
fn pair(certificates: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = certificate(certificates)?;
    let key = key_block(key)?;
    let Some(public) = public_key(&certificate) else {
        return Err("x509: malformed certificate".to_owned());
    };
    let Some(private) = private_key(&key) else {
        return Err("tls: failed to parse private key".to_owned());
    };
    let fault = match (public, private) {
        (Key::Other, _) => "tls: unknown public key algorithm",
        (_, Key::Other) => "tls: found unknown private key type in PKCS#8 wrapping",
        (Key::Rsa(a), Key::Rsa(b)) | (Key::Curve(Some(a)), Key::Curve(Some(b))) if a != b => {
            "tls: private key does not match public key"
        }
        (Key::Rsa(_), Key::Rsa(_))
        | (Key::Curve(_), Key::Curve(_))
        | (Key::Ed25519, Key::Ed25519) => return Ok(()),
        _ => "tls: private key type does not match public key type",
    };
    Err(fault.to_owned())
}

/// The first certificate of a text.
fn certificate(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut skipped = Vec::new();
    for block in pem::blocks(text) {
        if block.label == "CERTIFICATE" {
            return Ok(block.body);
        }
        skipped.push(block.label);
    }
    Err(match &skipped[..] {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [only] if only.ends_with("PRIVATE KEY") => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
        all => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", all.join(" ")),
    })
}

/// The first private key of a text.
fn key_block(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut skipped = Vec::new();
    for block in pem::blocks(text) {
        if block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY") {
            return Ok(block.body);
        }
        skipped.push(block.label);
    }
    Err(match &skipped[..] {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [only] if only == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        all => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            all.join(" ")
        ),
    })
}

/// As much of a key as tells it from others.
enum Key<'a> {
    /// The modulus.
    Rsa(&'a [u8]),
    /// The public point, where it is said.
    Curve(Option<&'a [u8]>),
    Ed25519,
    Other,
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// Elements that may be absent: a certificate's version, a curve key's public point.
const VERSION: u8 = 0xa0;
const PUBLIC_POINT: u8 = 0xa1;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Takes the next element off, whatever it is.
fn take<'a>(der: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, content, rest) = element(der)?;
    *der = rest;
    Some((tag, content))
}

/// Takes the next element off, which has to be of this type.
fn expect<'a>(der: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    take(der).and_then(|(tag, content)| (tag == wanted).then_some(content))
}

/// The bits of a string that has no odd ones.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0])
}

/// A certificate's (RFC 5280, 4.1).
fn public_key(mut der: &[u8]) -> Option<Key<'_>> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut signed = expect(&mut certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        take(&mut signed)?;
    }
    expect(&mut signed, INTEGER)?;
    // Algorithm, issuer, validity, subject.
    for _ in 0..4 {
        expect(&mut signed, SEQUENCE)?;
    }
    let mut info = expect(&mut signed, SEQUENCE)?;
    let mut algorithm = expect(&mut info, SEQUENCE)?;
    let mut key = bits(expect(&mut info, BIT_STRING)?)?;
    Some(match expect(&mut algorithm, OBJECT_IDENTIFIER)? {
        RSA => Key::Rsa(expect(&mut expect(&mut key, SEQUENCE)?, INTEGER)?),
        CURVE => Key::Curve(Some(key)),
        ED25519 => Key::Ed25519,
        _ => Key::Other,
    })
}

/// Of PKCS #1 (RFC 8017, A.1.2), PKCS #8 (RFC 5208, 5) or SEC 1 (RFC 5915, 3).
fn private_key(mut der: &[u8]) -> Option<Key<'_>> {
    let mut key = expect(&mut der, SEQUENCE)?;
    expect(&mut key, INTEGER)?;
    match take(&mut key)? {
        (INTEGER, modulus) => Some(Key::Rsa(modulus)),
        (OCTET_STRING, _) => {
            while let Some((tag, mut content)) = take(&mut key) {
                if tag == PUBLIC_POINT {
                    return Some(Key::Curve(bits(expect(&mut content, BIT_STRING)?)));
                }
            }
            Some(Key::Curve(None))
        }
        (SEQUENCE, mut algorithm) => match expect(&mut algorithm, OBJECT_IDENTIFIER)? {
            RSA | CURVE => private_key(expect(&mut key, OCTET_STRING)?),
            ED25519 => Some(Key::Ed25519),
            _ => Some(Key::Other),
        },
        _ => None,
    }
}
