//! Certificate signing requests and trust bundles.

use std::collections::{HashMap, HashSet};

use base64::prelude::{BASE64_STANDARD, Engine};
use meta::field::{ErrorList, FieldError};
use meta::validation as format;
use serde_json::Value;

use super::at::At;
use super::metadata::immutable;
use super::pem::{self, Block};
use super::{Rules, any_update, anything, pod_certificates, required};

const GROUP: &str = "certificates.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "CertificateSigningRequest",
        name: format::path_segment_name,
        object: |_, _| {},
        update: |new, old, errors| request_update(new, old, "", errors),
        status: |new, old, errors| request_update(new, old, "status", errors),
    },
    Rules {
        group: GROUP,
        kind: "ClusterTrustBundle",
        // Checked with the signer's name.
        name: |_| Vec::new(),
        object: |_, _| {},
        update: trust_bundle_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "PodCertificateRequest",
        name: format::dns1123_subdomain,
        object: anything,
        update: |new, old, errors| immutable(&new.get("spec"), &old.get("spec"), errors),
        status: pod_certificates::status,
    },
];

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What an object that is there already may go on violating.
#[derive(Default)]
struct Tolerated {
    duplicate_usages: bool,
    unknown_usages: bool,
    legacy_signer: bool,
    both_verdicts: bool,
    duplicate_conditions: bool,
    empty_condition: bool,
    any_certificate: bool,
}

pub(super) fn request_created(at: &At<'_>, errors: &mut ErrorList) {
    request(at, &Tolerated::default(), errors);
}

fn request(at: &At<'_>, tolerated: &Tolerated, errors: &mut ErrorList) {
    let spec = at.get("spec");
    let body = spec.get("request");
    let text = bytes(&body);
    let is_request = pem::first(&text)
        .is_some_and(|block| block.label == "CERTIFICATE REQUEST" && pem::is_der(&block.body));
    if !is_request {
        body.invalid(errors, "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = spec.get("usages");
    if usages.len() == 0 {
        usages.required(errors, "");
    }
    if !tolerated.unknown_usages {
        for usage in usages.items() {
            usage.one_of(errors, &USAGES);
        }
    }
    if !tolerated.duplicate_usages {
        let mut seen = HashSet::new();
        for usage in usages.items() {
            if !seen.insert(usage.text()) {
                usage.duplicate(errors);
            }
        }
    }
    let signer = spec.get("signerName");
    if signer.text() == "kubernetes.io/legacy-unknown" && !tolerated.legacy_signer {
        signer.invalid(
            errors,
            "the legacy signerName is not allowed via this API version",
        );
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid(
            errors,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    let status = at.get("status");
    verdicts(&status.get("conditions"), tolerated, errors);
    let certificate = status.get("certificate");
    if certificate.is_given()
        && !tolerated.any_certificate
        && let Err(fault) = check_certificates(&bytes(&certificate))
    {
        errors.push(FieldError::invalid(
            &certificate.path,
            "<certificate data>",
            fault,
        ));
    }
}

pub(super) fn bytes(field: &At<'_>) -> Vec<u8> {
    BASE64_STANDARD.decode(field.text()).unwrap_or_default()
}

fn check_certificates(text: &[u8]) -> Result<(), String> {
    let mut found = false;
    for block in pem::blocks(text) {
        if block.label != "CERTIFICATE" {
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.label
            ));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        if !pem::is_der(&block.body) {
            return Err("unable to parse the certificate".to_owned());
        }
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err("must contain at least one CERTIFICATE PEM block".to_owned())
    }
}

fn verdicts(conditions: &At<'_>, tolerated: &Tolerated, errors: &mut ErrorList) {
    const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if !tolerated.empty_condition {
            required(&kind, errors);
        }
        let verdict = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        if required(&status, errors) {
            status.one_of(
                errors,
                if verdict {
                    &["True"]
                } else {
                    &["False", "True", "Unknown"]
                },
            );
        }
        let opposite = match kind.text() {
            "Approved" => Some("Denied"),
            "Denied" => Some("Approved"),
            _ => None,
        };
        if !tolerated.both_verdicts && opposite.is_some_and(|o| seen.contains(o)) {
            errors.push(FieldError::invalid(
                &conditions.path,
                kind.text(),
                EXCLUSIVE,
            ));
        }
        if !seen.insert(kind.text()) && !tolerated.duplicate_conditions {
            kind.duplicate(errors);
        }
    }
}

fn of_type<'a>(at: &At<'a>, kind: &str) -> Vec<&'a Value> {
    let conditions = at.get("status").get("conditions");
    conditions
        .items()
        .filter(|c| c.get("type").text() == kind)
        .filter_map(|c| c.value())
        .collect()
}

fn any_duplicate<'a>(items: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = HashSet::new();
    !items.into_iter().all(|item| seen.insert(item))
}

/// An update of the request (`""`), of its `status` or of its `approval`.
pub(super) fn request_update(
    new: &At<'_>,
    old: &At<'_>,
    subresource: &str,
    errors: &mut ErrorList,
) {
    let usages = old.get("spec").get("usages");
    let conditions = old.get("status").get("conditions");
    let kinds: Vec<&str> = conditions.items().map(|c| c.get("type").text()).collect();
    let certificate = |at: &At<'_>| at.get("status").get("certificate").text().to_owned();
    let tolerated = Tolerated {
        duplicate_usages: any_duplicate(usages.items().map(|u| u.text())),
        unknown_usages: usages.items().any(|u| !USAGES.contains(&u.text())),
        legacy_signer: old.get("spec").get("signerName").text() == "kubernetes.io/legacy-unknown",
        both_verdicts: kinds.contains(&"Approved") && kinds.contains(&"Denied"),
        duplicate_conditions: any_duplicate(kinds.iter().copied()),
        empty_condition: kinds.contains(&""),
        any_certificate: certificate(new) == certificate(old),
    };
    request(new, &tolerated, errors);
    let path = new.get("status").get("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            path.forbidden(
                errors,
                format!("updates may not remove a condition of type {kind:?}"),
            );
        }
    }
    if subresource != "approval" {
        for kind in ["Approved", "Denied"] {
            let (now, before) = (of_type(new, kind), of_type(old, kind));
            if now.len() > before.len() {
                path.forbidden(
                    errors,
                    format!("updates may not add a condition of type {kind:?}"),
                );
            } else if now.len() == before.len() && now != before {
                path.forbidden(
                    errors,
                    format!("updates may not modify a condition of type {kind:?}"),
                );
            }
        }
    }
    if certificate(new) != certificate(old) {
        let field = new.get("status").get("certificate");
        if subresource != "status" {
            field.forbidden(errors, "updates may not set certificate content");
        } else if !certificate(old).is_empty() {
            field.forbidden(
                errors,
                "updates may not modify existing certificate content",
            );
        }
    }
}

/// `domain/path`: who signs.
pub(super) fn signer_name(name: &At<'_>, errors: &mut ErrorList) {
    const SUBDOMAIN: usize = format::SUBDOMAIN_MAX_LENGTH;
    /// Namespace, a dot and a resource's name.
    const PATH: usize = SUBDOMAIN + format::LABEL_MAX_LENGTH + 1;
    if !required(name, errors) {
        return;
    }
    let text = name.text();
    let (domain, path) = match text.split('/').collect::<Vec<_>>().as_slice() {
        [domain, path] => (*domain, *path),
        _ => {
            name.invalid(
                errors,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            );
            return;
        }
    };
    for message in format::dns1123_subdomain(domain) {
        name.invalid(errors, format!("validating label {domain:?}: {message}"));
    }
    if domain.split('.').count() < 2 {
        name.invalid(
            errors,
            "should be a domain with at least two segments separated by dots",
        );
    }
    for label in path.split('.') {
        for message in format::dns1123_subdomain(label) {
            name.invalid(errors, format!("validating label {label:?}: {message}"));
        }
    }
    if text.len() > SUBDOMAIN + PATH + 1 {
        errors.push(FieldError::too_long(&name.path, SUBDOMAIN + PATH + 1));
    }
}

pub(super) fn trust_bundle_created(at: &At<'_>, errors: &mut ErrorList) {
    trust_bundle(at, true, errors);
}

fn trust_bundle(at: &At<'_>, parse: bool, errors: &mut ErrorList) {
    let name = at.get("metadata").get("name");
    let signer = at.get("spec").get("signerName");
    if signer.is_given() {
        let prefix = signer.text().replacen('/', ":", 1) + ":";
        match name.text().strip_prefix(&prefix) {
            Some(rest) => name.check(errors, format::dns1123_subdomain(rest)),
            None => name.invalid(
                errors,
                format!(
                    "ClusterTrustBundle for signerName {} must be named with prefix {prefix}",
                    signer.text()
                ),
            ),
        }
        signer_name(&signer, errors);
    } else {
        name.check(errors, format::dns1123_subdomain(name.text()));
    }
    if parse {
        anchors(&at.get("spec").get("trustBundle"), errors);
    }
}

/// The longest trust bundle, in bytes.
const BUNDLE_LIMIT: usize = 1024 * 1024;

fn anchors(bundle: &At<'_>, errors: &mut ErrorList) {
    if bundle.text().len() > BUNDLE_LIMIT {
        errors.push(FieldError::too_long(&bundle.path, BUNDLE_LIMIT));
        return;
    }
    let mut faults = Vec::new();
    let mut seen: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for (i, block) in pem::blocks(bundle.text().as_bytes()).enumerate() {
        match fault_of_anchor(&block) {
            Some(fault) => faults.push(format!("entry {i} {fault}")),
            None => seen.entry(block.body).or_default().push(i),
        }
    }
    if faults.is_empty() {
        if seen.is_empty() {
            faults.push("at least one trust anchor must be provided".to_owned());
        }
        for indices in seen.values().filter(|indices| indices.len() > 1) {
            let list: Vec<String> = indices.iter().map(usize::to_string).collect();
            let list = list.join(" ");
            faults.push(format!("duplicate trust anchor (indices [{list}])"));
        }
    }
    for fault in faults {
        errors.push(FieldError::invalid(&bundle.path, "<value omitted>", fault));
    }
}

fn fault_of_anchor(block: &Block) -> Option<String> {
    if block.label != "CERTIFICATE" {
        return Some(format!("has bad block type: {}", block.label));
    }
    if block.has_headers {
        return Some("has PEM block headers".to_owned());
    }
    if !pem::is_der(&block.body) {
        return Some("does not parse as X.509".to_owned());
    }
    if !pem::is_authority(&block.body) {
        return Some("does not have the CA bit set".to_owned());
    }
    None
}

fn trust_bundle_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let bundle = |at: &At<'_>| at.get("spec").get("trustBundle").text().to_owned();
    trust_bundle(new, bundle(new) != bundle(old), errors);
    immutable(
        &new.get("spec").get("signerName"),
        &old.get("spec").get("signerName"),
        errors,
    );
}
