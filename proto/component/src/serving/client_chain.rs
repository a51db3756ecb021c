//! Who vouches for a client's certificate: chains to those that are trusted (RFC 5280, 6.1), as
//! far as Go looks. webpki alone would believe its anchors for ever and for anything, and would
//! refuse clients that Go lets in: authorities themselves, certificates for any use, and those of
//! X.509 version 1.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{
    ASN1Time, FromDer, GeneralName, ParsedExtension, X509Certificate, X509Extension, X509Version,
};

use super::client_policies::{self, Policies};

/// As many signatures are checked for one client before it is given up: what a client sends along
/// may be put together in more ways than anybody should try. Go's number.
const MOST_SIGNATURES: usize = 100;

/// Whether a certificate may vouch for others (RFC 5280, 6.1.4; before version 3 there was no way
/// to say that it may not).
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
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
    says_so && may_sign
}

/// How many others may stand between an authority and the client.
fn most_between(authority: &X509Certificate<'_>) -> usize {
    let constraints = authority.basic_constraints().ok().flatten();
    let length = constraints.and_then(|constraints| constraints.value.path_len_constraint);
    length.map_or(usize::MAX, |length| {
        usize::try_from(length).unwrap_or(usize::MAX)
    })
}

/// Whether an extension is heeded here, or may be passed over: what is critical and nobody heeds
/// makes a certificate void (RFC 5280, 4.2). That it can be read is not enough.
fn is_understood(extension: &X509Extension<'_>) -> bool {
    use x509_parser::oid_registry as oid;
    let (parsed, critical) = (extension.parsed_extension(), extension.critical);
    let heeded = [
        oid::OID_X509_EXT_KEY_USAGE,
        oid::OID_X509_EXT_BASIC_CONSTRAINTS,
        oid::OID_X509_EXT_NAME_CONSTRAINTS,
        oid::OID_X509_EXT_CRL_DISTRIBUTION_POINTS,
        oid::OID_X509_EXT_CERTIFICATE_POLICIES,
        oid::OID_X509_EXT_POLICY_MAPPINGS,
        oid::OID_X509_EXT_POLICY_CONSTRAINTS,
        oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
        oid::OID_X509_EXT_INHIBIT_ANY_POLICY,
    ];
    if heeded.contains(&extension.oid) {
        return parsed.error().is_none() && !parsed.unsupported();
    }
    match parsed {
        ParsedExtension::SubjectAlternativeName(names) => {
            let is_known = |name: &GeneralName<'_>| {
                matches!(
                    name,
                    GeneralName::DNSName(_)
                        | GeneralName::RFC822Name(_)
                        | GeneralName::IPAddress(_)
                        | GeneralName::URI(_)
                )
            };
            !critical || names.general_names.iter().any(is_known)
        }
        _ => !critical,
    }
}

/// Whether a certificate may be used by a client, or to vouch for one, and now.
fn may_authenticate(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), String> {
    if !certificate.extensions().iter().all(is_understood) {
        return Err("unhandled critical extension".into());
    }
    let now = ASN1Time::from_timestamp(now.as_secs() as i64);
    if !now.is_ok_and(|now| certificate.validity().is_valid_at(now)) {
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

/// A certificate, read.
struct Link<'c> {
    der: &'c CertificateDer<'c>,
    parsed: X509Certificate<'c>,
}

impl<'c> Link<'c> {
    fn read(der: &'c CertificateDer<'c>) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        let is_whole = rest.is_empty() && parsed.extensions_map().is_ok();
        is_whole.then_some(Self { der, parsed })
    }
}

/// Verifies a client's certificate and those that it sent along.
///
/// # Errors
///
/// When it may not be used by a client, or nobody of those that are trusted vouches for it.
pub(super) fn verify(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    trusted: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let leaf = Link::read(leaf).ok_or(CertificateError::BadEncoding)?;
    may_authenticate(&leaf.parsed, now).map_err(rustls::Error::General)?;
    if trusted.contains(leaf.der) {
        return Ok(());
    }
    let mut search = Search {
        trusted: &trusted.iter().filter_map(Link::read).collect::<Vec<_>>(),
        between: &between.iter().filter_map(Link::read).collect::<Vec<_>>(),
        provider,
        now,
        signatures: MOST_SIGNATURES,
    };
    match search.ends_in_trust(&mut vec![&leaf]) {
        true => Ok(()),
        false => Err(CertificateError::UnknownIssuer.into()),
    }
}

struct Search<'s> {
    trusted: &'s [Link<'s>],
    between: &'s [Link<'s>],
    provider: &'s Arc<CryptoProvider>,
    now: UnixTime,
    /// Those that may still be checked.
    signatures: usize,
}

impl<'s> Search<'s> {
    /// Whether a chain, which begins with the client, can be continued to one that is trusted.
    fn ends_in_trust(&mut self, chain: &mut Vec<&'s Link<'s>>) -> bool {
        let (trusted, between) = (self.trusted, self.between);
        for root in trusted {
            let policies = || chain.iter().rev().map(|link| Policies::of(&link.parsed));
            if self.issued(root, chain)
                && client_policies::hold(&policies().collect::<Vec<_>>())
                && self.keeps_to_names(chain, root)
            {
                return true;
            }
        }
        for next in between {
            // Of these there is a version 3 since there are extensions that say what they may do.
            let says_so = matches!(next.parsed.basic_constraints(), Ok(Some(c)) if c.value.ca);
            let is_new = chain.iter().all(|link| link.der != next.der);
            if says_so && is_new && self.issued(next, chain) {
                chain.push(next);
                let ends = self.ends_in_trust(chain);
                chain.pop();
                if ends {
                    return true;
                }
            }
        }
        false
    }

    /// Whether the last of a chain is of this issuer, and the issuer's to make.
    fn issued(&mut self, issuer: &Link<'_>, chain: &[&Link<'_>]) -> bool {
        let Some(last) = chain.last() else {
            return false;
        };
        let (issuer, last) = (&issuer.parsed, &last.parsed);
        if issuer.subject().as_raw() != last.issuer().as_raw()
            || !is_authority(issuer)
            || may_authenticate(issuer, self.now).is_err()
            || chain.len() - 1 > most_between(issuer)
        {
            return false;
        }
        // What SHA-1 still proves is little (RFC 6194), and Go takes it no more.
        let algorithm = &last.signature_algorithm;
        let is_weak = [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&algorithm.algorithm);
        if is_weak || *algorithm != last.tbs_certificate.signature {
            return false;
        }
        let Some(left) = self.signatures.checked_sub(1) else {
            return false;
        };
        self.signatures = left;
        last.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// Whether the names in a chain are among those that its authorities may give. This is webpki's
    /// to say, and where there are such limits, it must find the rest in order, too.
    fn keeps_to_names(&self, chain: &[&Link<'_>], root: &Link<'_>) -> bool {
        let is_limited = |link: &Link<'_>| !matches!(link.parsed.name_constraints(), Ok(None));
        let mut authorities = chain.iter().skip(1).copied().chain([root]);
        if !authorities.any(is_limited) {
            return true;
        }
        let mut roots = RootCertStore::empty();
        if roots.add(root.der.clone().into_owned()).is_err() {
            return false;
        }
        let between: Vec<_> = chain.iter().skip(1).map(|link| link.der.clone()).collect();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .is_ok_and(|webpki| {
                let verified = webpki.verify_client_cert(chain[0].der, &between, self.now);
                verified.is_ok()
            })
    }
}
