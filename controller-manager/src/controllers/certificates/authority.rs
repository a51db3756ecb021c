//! The certificate authority: makes certificates of requests. Pure but for the files of its
//! certificate and key, and for the serial number, which is passed in.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::request::Request;
use crate::pki::{ReadError, der, read_key};

/// A certificate is valid since a little before it was made: clocks differ.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// A certificate that is not valid for so long ends as late as was asked for nonetheless.
const SHORT: SignedDuration = SignedDuration::from_hours(8);

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    File(#[from] ReadError),
    #[error("unrecognized usage: {0:?}")]
    Usage(String),
    #[error("the signer has expired: NotAfter={0}")]
    Expired(Timestamp),
    #[error("cannot sign: {0}")]
    Key(String),
}

/// A certificate and its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    pub fn read(certificate: &str, key: &str) -> Result<Self, SignError> {
        let read = CertificateDer::from_pem_file(Path::new(certificate));
        let read = read.map_err(|e| ReadError {
            file: certificate.to_owned(),
            message: e.to_string(),
        })?;
        Ok(Self {
            certificate: read,
            key: read_key(key)?,
        })
    }

    /// Makes a certificate; as DER. The serial number is random.
    pub fn sign(
        &self,
        request: &Request<'_>,
        usages: &[String],
        duration: SignedDuration,
        serial: [u8; 16],
        now: Timestamp,
    ) -> Result<Vec<u8>, SignError> {
        let parsed = X509Certificate::from_der(&self.certificate);
        let (_, own) = parsed.map_err(|e| SignError::Key(e.to_string()))?;
        let own_end = own.validity().not_after.timestamp();
        let own_end = Timestamp::from_second(own_end).unwrap_or(Timestamp::MAX);
        if now >= own_end {
            return Err(SignError::Expired(own_end));
        }
        let later = |span| now.saturating_add(span).unwrap_or(Timestamp::MAX);
        let end = match duration < SHORT {
            true => later(duration),
            false => later(duration - BACKDATE),
        };
        let validity = der::element(
            der::SEQUENCE,
            &[&time(later(-BACKDATE)), &time(end.min(own_end))],
        );
        let own_id = own
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
                _ => None,
            });
        let extensions = extensions(request, usages, own_id)?;
        let extensions = der::element(der::SEQUENCE, &[&extensions.concat()]);
        let algorithm = self.algorithm()?;
        let version = der::element(der::CONTEXT_PARTS, &[&der::integer(&[2])]);
        let body = der::element(
            der::SEQUENCE,
            &[
                &version,
                &der::integer(&serial),
                &algorithm,
                own.subject().as_raw(),
                &validity,
                request.subject(),
                request.public_key(),
                &der::element(der::CONTEXT_PARTS | 3, &[&extensions]),
            ],
        );
        let signature = self
            .key
            .sign(&body)
            .map_err(|e| SignError::Key(e.to_string()))?;
        Ok(der::element(
            der::SEQUENCE,
            &[&body, &algorithm, &der::bit_string(&signature)],
        ))
    }

    /// How we sign, as certificates name it.
    fn algorithm(&self) -> Result<Vec<u8>, SignError> {
        let used = self.key.algorithm();
        let null: &[u8] = &[der::NULL, 0];
        let (oid, parameters): (&[u64], &[u8]) = if used == &rcgen::PKCS_RSA_SHA256 {
            (&[1, 2, 840, 113_549, 1, 1, 11], null)
        } else if used == &rcgen::PKCS_ECDSA_P256_SHA256 {
            (&[1, 2, 840, 10_045, 4, 3, 2], &[])
        } else if used == &rcgen::PKCS_ECDSA_P384_SHA384 {
            (&[1, 2, 840, 10_045, 4, 3, 3], &[])
        } else if used == &rcgen::PKCS_ED25519 {
            (&[1, 3, 101, 112], &[])
        } else {
            return Err(SignError::Key("the key's type is not supported".to_owned()));
        };
        Ok(der::element(der::SEQUENCE, &[&der::oid(oid), parameters]))
    }
}

/// RFC 5280 4.1.2.5: two digits of the year until 2049.
fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    match at.year() < 2050 {
        true => der::element(
            der::UTC_TIME,
            &[at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()],
        ),
        false => der::element(
            der::GENERALIZED_TIME,
            &[at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()],
        ),
    }
}

fn extension(number: u64, critical: bool, value: &[u8]) -> Vec<u8> {
    let oid = der::oid(&[2, 5, 29, number]);
    let critical = match critical {
        true => der::element(der::BOOLEAN, &[&[0xff]]),
        false => Vec::new(),
    };
    let value = der::element(der::OCTET_STRING, &[value]);
    der::element(der::SEQUENCE, &[&oid, &critical, &value])
}

/// Key usages by their bit, and what a key may be used for by its identifier.
fn extensions(
    request: &Request<'_>,
    usages: &[String],
    authority: Option<&[u8]>,
) -> Result<Vec<Vec<u8>>, SignError> {
    const PURPOSES: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3];
    const MICROSOFT: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3];
    const NETSCAPE: &[u64] = &[2, 16, 840, 1, 113_730, 4, 1];
    let mut bits = 0_u16;
    let mut purposes: Vec<(u64, Vec<u8>)> = Vec::new();
    for usage in usages {
        let bit = match usage.as_str() {
            "signing" | "digital signature" => 0,
            "content commitment" => 1,
            "key encipherment" => 2,
            "data encipherment" => 3,
            "key agreement" => 4,
            "cert sign" => 5,
            "crl sign" => 6,
            "encipher only" => 7,
            "decipher only" => 8,
            other => {
                // In the order in which Go has them.
                let (place, oid) = match other {
                    "any" => (0, der::oid(&[2, 5, 29, 37, 0])),
                    "microsoft sgc" => (10, der::oid(MICROSOFT)),
                    "netscape sgc" => (11, der::oid(NETSCAPE)),
                    other => {
                        let number = match other {
                            "server auth" => 1,
                            "client auth" => 2,
                            "code signing" => 3,
                            "email protection" | "s/mime" => 4,
                            "ipsec end system" => 5,
                            "ipsec tunnel" => 6,
                            "ipsec user" => 7,
                            "timestamping" => 8,
                            "ocsp signing" => 9,
                            other => return Err(SignError::Usage(other.to_owned())),
                        };
                        (number, der::oid(&[PURPOSES, &[number]].concat()))
                    }
                };
                purposes.push((place, oid));
                continue;
            }
        };
        bits |= 1 << bit;
    }
    purposes.sort();
    purposes.dedup();
    let mut all = Vec::new();
    if bits != 0 {
        all.push(extension(15, true, &der::named_bits(bits)));
    }
    if !purposes.is_empty() {
        let oids: Vec<u8> = purposes.into_iter().flat_map(|(_, oid)| oid).collect();
        all.push(extension(37, false, &der::element(der::SEQUENCE, &[&oids])));
    }
    // No authority itself.
    all.push(extension(19, true, &der::element(der::SEQUENCE, &[])));
    if let Some(id) = authority {
        let id = der::element(der::CONTEXT, &[id]);
        all.push(extension(35, false, &der::element(der::SEQUENCE, &[&id])));
    }
    let names = request.alternative_names();
    if !names.is_empty() {
        let critical = request.subject_is_empty();
        all.push(extension(
            17,
            critical,
            &der::element(der::SEQUENCE, &[&names]),
        ));
    }
    Ok(all)
}
