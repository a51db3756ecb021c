//! Whether what a signer says it has issued is what was asked for.

use jiff::{SignedDuration, Timestamp};
use meta::{ErrorList, FieldError, Path};
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use super::key_of;
use super::keys::PublicKey;

/// Of the chain, in bytes.
const CHAIN_LIMIT: usize = 100 * 1024;
/// How far a certificate's beginning may be from now.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
const SHORTEST_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How long after the beginning and before the end of its life a certificate is renewed.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);

pub fn is_issued(request: &Value) -> bool {
    let conditions = request["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Issued" && c["status"] == "True")
}

/// A certificate of the chain.
fn parse(block: &Pem) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(&block.contents) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

fn is_mail_address(address: &str) -> bool {
    let parts = address.rsplit_once('@');
    let word = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace());
    parts.is_some_and(|(who, host)| word(who) && word(host) && !who.contains('@'))
}

fn names(leaf: &X509Certificate<'_>, path: &Path, errors: &mut ErrorList) {
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return;
    };
    let mut wrong = |name: &str, why: &str| errors.push(FieldError::invalid(path, name, why));
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                if name.is_empty() {
                    wrong(name, "leaf certificate should not contain empty DNSName");
                }
                if name.contains("..") {
                    wrong(name, "leaf certificate's DNSName should not contain '..'");
                }
                if name.starts_with('.') || name.ends_with('.') {
                    wrong(
                        name,
                        "leaf certificate's DNSName should not start or end with '.'",
                    );
                }
            }
            GeneralName::RFC822Name(address) if !is_mail_address(address) => {
                wrong(
                    address,
                    "leaf certificate should not contain invalid EmailAddress",
                );
            }
            _ => {}
        }
    }
}

/// What is wrong with the certificate of an issued request and what its status says of it.
pub fn faults(request: &Value, now: Timestamp) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Err(error) = check(request, now, &mut errors) {
        errors.push(error);
    }
    errors
}

/// Goes on as long as what follows can be looked at: what ends it is returned.
fn check(request: &Value, now: Timestamp, errors: &mut ErrorList) -> Result<(), FieldError> {
    let (spec, status) = (&request["spec"], &request["status"]);
    let path = |field: &'static str| Path::new("status").child(field);
    let chain_path = path("certificateChain");
    let chain = status["certificateChain"].as_str().unwrap_or_default();
    let no = |why: &str| Err(FieldError::invalid(&chain_path, "", why));
    if chain.len() > CHAIN_LIMIT {
        return Err(FieldError::too_long(&chain_path, CHAIN_LIMIT));
    }
    let mut blocks = Pem::iter_from_buffer(chain.as_bytes()).map_while(Result::ok);
    let Some(leaf) = blocks.next() else {
        return no("issued certificate chain must contain at least one certificate");
    };
    if leaf.label != "CERTIFICATE" {
        return no("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Some(leaf) = parse(&leaf) else {
        return no("leaf certificate does not parse as valid X.509");
    };
    names(&leaf, &chain_path, errors);
    let asked = key_of(spec)?;
    if PublicKey::of(leaf.public_key()).ok() != Some(asked) {
        return no("leaf certificate was not issued to the requested public key");
    }

    const TIMES: [(&str, &str); 3] = [
        (
            "notBefore",
            "must be present and consistent with the issued certificate",
        ),
        (
            "notAfter",
            "must be present and consistent with the issued certificate",
        ),
        (
            "beginRefreshAt",
            "must be present and in the range [notbefore+10min, notafter-10min]",
        ),
    ];
    let times = TIMES.map(|(field, _)| status[field].as_str().and_then(|t| t.parse().ok()));
    for ((field, why), time) in TIMES.iter().zip(&times) {
        if time.is_none() {
            errors.push(FieldError::required(&path(field), *why));
        }
    }
    let [Some(begin), Some(end), Some(refresh)]: [Option<Timestamp>; 3] = times else {
        return Ok(());
    };
    if !errors.is_empty() {
        return Ok(());
    }
    let wrong = |field, time: Timestamp, why: &str| {
        Err(FieldError::invalid(&path(field), time.to_string(), why))
    };
    let validity = leaf.validity();
    if begin.as_second() != validity.not_before.timestamp() {
        let why = "must be set to the NotBefore time encoded in the leaf certificate";
        return wrong("notBefore", begin, why);
    }
    if begin.duration_since(now).abs() >= SKEW {
        let why = "must be set to within 5 minutes of kube-apiserver's current time";
        return wrong("notBefore", begin, why);
    }
    if end.as_second() != validity.not_after.timestamp() {
        let why = "must be set to the NotAfter time encoded in the leaf certificate";
        return wrong("notAfter", end, why);
    }
    let life = end.duration_since(begin);
    if life < SHORTEST_LIFE {
        return no("leaf certificate lifetime must be >= 1 hour");
    }
    let longest = spec["maxExpirationSeconds"].as_i64().unwrap_or_default();
    if life.as_secs() > longest {
        return no(&format!(
            "leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})"
        ));
    }
    if refresh.duration_since(begin) < MARGIN {
        let why = "must be at least 10 minutes after status.notBefore";
        return wrong("beginRefreshAt", refresh, why);
    }
    if end.duration_since(refresh) < MARGIN {
        let why = "must be at least 10 minutes before status.notAfter";
        return wrong("beginRefreshAt", refresh, why);
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            return no("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
        }
        if parse(&block).is_none() {
            return no("intermediate certificate does not parse as valid X.509");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::prelude::{BASE64_STANDARD, Engine};
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};
    use serde_json::json;

    use super::*;

    /// The fifteenth of January 2027.
    const BEGIN: i64 = 1_799_971_200;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A request of an hour that has been issued, with a certificate of that name.
    fn issued(name: &str, own_key: bool) -> Value {
        let pair = KeyPair::generate().unwrap();
        let other = KeyPair::generate().unwrap();
        let stub = CertificateParams::default().serialize_request(&pair);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(2027, 1, 15);
        params.not_after = params.not_before + Duration::from_secs(3600);
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "ca");
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        let leaf = params.signed_by(if own_key { &pair } else { &other }, &issuer);
        let leaf = leaf.unwrap();
        json!({
            "spec": {"stubPKCS10Request": BASE64_STANDARD.encode(stub.unwrap().der()),
                     "maxExpirationSeconds": 3600},
            "status": {
                "conditions": [{"type": "Issued", "status": "True"}],
                "certificateChain": leaf.pem(),
                "notBefore": at(BEGIN).to_string(),
                "notAfter": at(BEGIN + 3600).to_string(),
                "beginRefreshAt": at(BEGIN + 1800).to_string(),
            },
        })
    }

    fn said(request: &Value, after: i64) -> Vec<String> {
        let faults = faults(request, at(BEGIN + after));
        faults.iter().map(|e| e.field.to_string()).collect()
    }

    #[test]
    fn what_was_asked_for_is_right() {
        let request = issued("a.b", true);
        assert!(is_issued(&request));
        assert_eq!(said(&request, 0), [""; 0]);
    }

    #[test]
    fn anything_else_is_wrong() {
        assert_eq!(said(&issued("a.b", false), 0), ["status.certificateChain"]);
        assert_eq!(said(&issued(".a", true), 0), ["status.certificateChain"]);
        assert_eq!(said(&issued("a.b", true), 300), ["status.notBefore"]);
        let mut request = issued("a.b", true);
        request["spec"]["maxExpirationSeconds"] = json!(3599);
        assert_eq!(said(&request, 0), ["status.certificateChain"]);
        let mut request = issued("a.b", true);
        request["status"]["beginRefreshAt"] = request["status"]["notBefore"].clone();
        assert_eq!(said(&request, 0), ["status.beginRefreshAt"]);
        let mut request = issued("a.b", true);
        request["status"]
            .as_object_mut()
            .unwrap()
            .remove("notAfter");
        assert_eq!(said(&request, 0), ["status.notAfter"]);
        let mut request = issued("a.b", true);
        request["status"]["certificateChain"] = json!("no certificate");
        assert_eq!(said(&request, 0), ["status.certificateChain"]);
    }
}
