//! Requests for pods' certificates (KEP-4317), and the volumes that bring them to a pod.
//!
//! What must not be here: what keys and certificates say (the API server looks into them).

use meta::field::{ErrorList, FieldError, Path};
use meta::validation as format;

use super::at::At;
use super::certificates::{bytes, signer_name};
use super::{conditions, metadata};

/// How a request may end.
const VERDICTS: [&str; 3] = ["Denied", "Failed", "Issued"];
/// Of what stands for the key, in bytes.
const KEY_LIMIT: usize = 10 * 1024;
const UID_LIMIT: usize = 128;
/// The shortest life of a certificate and the longest, in seconds; Kubernetes' own signers make
/// none that live longer than a day.
const LIFE: std::ops::RangeInclusive<i64> = 3600..=91 * 24 * 3600;
const LIFE_OF_OURS: std::ops::RangeInclusive<i64> = 3600..=24 * 3600;
const KEY_TYPES: [&str; 6] = [
    "ECDSAP256",
    "ECDSAP384",
    "ECDSAP521",
    "ED25519",
    "RSA3072",
    "RSA4096",
];

fn life_by(signer: &str) -> std::ops::RangeInclusive<i64> {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    match domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
        true => LIFE_OF_OURS,
        false => LIFE,
    }
}

pub(super) fn created(request: &At<'_>, errors: &mut ErrorList) {
    let spec = request.get("spec");
    let signer = spec.get("signerName");
    signer_name(&signer, errors);
    annotations(&spec.get("unverifiedUserAnnotations"), errors);
    for (name, uid) in [
        ("podName", "podUID"),
        ("serviceAccountName", "serviceAccountUID"),
        ("nodeName", "nodeUID"),
    ] {
        let (name, uid) = (spec.get(name), spec.get(uid));
        name.check(errors, format::dns1123_subdomain(name.text()));
        if !uid.is_given() {
            errors.push(FieldError::invalid(&uid.path, "", "must not be empty"));
        }
        if uid.text().len() > UID_LIMIT {
            errors.push(FieldError::too_long(&uid.path, UID_LIMIT));
        }
    }
    let seconds = spec.get("maxExpirationSeconds");
    let Some(life) = seconds.int() else {
        seconds.required(errors, "must be set");
        return;
    };
    let lives = life_by(signer.text());
    if !lives.contains(&life) {
        let detail = format!("must be in the range [{}, {}]", lives.start(), lives.end());
        seconds.invalid(errors, detail);
    }
    let [stub, key, proof] =
        ["stubPKCS10Request", "pkixPublicKey", "proofOfPossession"].map(|field| spec.get(field));
    match [&stub, &key, &proof].map(At::is_given) {
        [true, false, false] | [false, true, true] => {}
        _ => errors.push(FieldError::invalid(
            &spec.path,
            "",
            "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
        )),
    }
    let long = [stub, key, proof]
        .into_iter()
        .find(|at| bytes(at).len() > KEY_LIMIT);
    if let Some(long) = long {
        errors.push(FieldError::too_long(&long.path, KEY_LIMIT));
    }
}

/// What a pod passes on to the signer, by keys of somebody's domain.
fn annotations(annotations: &At<'_>, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        let lower = key.to_lowercase();
        let mut wrong = format::qualified_name(&lower);
        if key.is_empty() {
            annotations.required(errors, "");
            wrong.clear();
        } else if wrong.is_empty() && !key.contains('/') {
            wrong.push("must be a domain-prefixed key (such as \"acme.io/foo\")".to_owned());
        }
        for message in wrong {
            errors.push(FieldError::invalid(
                &annotations.path,
                lower.as_str(),
                message,
            ));
        }
        size += key.len() + value.text().len();
    }
    if size > metadata::ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(
            &annotations.path,
            metadata::ANNOTATIONS_LIMIT,
        ));
    }
}

/// Whether the request has ended so.
fn has_ended(request: &At<'_>, verdict: &str) -> bool {
    let conditions = request.get("status").get("conditions");
    conditions
        .items()
        .any(|c| c.get("type").text() == verdict && c.get("status").text() == "True")
}

/// A request ends once, and then its status is what it is.
pub(super) fn status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (status, before) = (new.get("status"), old.get("status"));
    let mut wrong = ErrorList::new();
    let mut verdicts = 0;
    for (i, condition) in status.get("conditions").items().enumerate() {
        // Upstream sets the index off by a dot here.
        let path = Path::new("status").child("conditions");
        let path = path.child(format!("[{i}]"));
        let kind = condition.get("type").moved(path.child("type"));
        if !VERDICTS.contains(&kind.text()) {
            kind.one_of(&mut wrong, &VERDICTS);
            continue;
        }
        verdicts += 1;
        if verdicts > 1 {
            kind.invalid(
                &mut wrong,
                "there may be at most one condition of type \"Issued\", \"Denied\" or \"Failed\"",
            );
        }
        let said = condition.get("status").moved(path.child("status"));
        said.one_of(&mut wrong, &["True"]);
    }
    conditions::conditions(&status.get("conditions"), &mut wrong);
    if !wrong.is_empty() {
        errors.extend(wrong.0);
        return;
    }
    let unchanged = status.value() == before.value();
    let fault = if VERDICTS.iter().any(|verdict| has_ended(old, verdict)) {
        (!unchanged).then_some("immutable after PodCertificateRequest is issued, denied, or failed")
    } else if has_ended(new, "Denied") || has_ended(new, "Failed") {
        let more = |(name, value): (&String, _)| name != "conditions" && value != "";
        let more = status.object().is_some_and(|all| all.iter().any(more));
        more.then_some(
            "non-condition status fields must be empty when denying or failing the PodCertificateRequest",
        )
    } else if has_ended(new, "Issued") {
        None
    } else {
        (!unchanged).then_some(
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
        )
    };
    if let Some(fault) = fault {
        errors.push(FieldError::invalid(&status.path, "", fault));
    }
}

/// The certificate in a projected volume.
pub(super) fn projection(source: &At<'_>, errors: &mut ErrorList) {
    let signer = source.get("signerName");
    signer_name(&signer, errors);
    annotations(&source.get("userAnnotations"), errors);
    source.get("keyType").one_of(errors, &KEY_TYPES);
    let seconds = source.get("maxExpirationSeconds");
    let lives = life_by(signer.text());
    match seconds.int() {
        Some(life) if life < *lives.start() => {
            let detail = format!(
                "if provided, maxExpirationSeconds must be >= {}",
                lives.start()
            );
            seconds.invalid(errors, detail);
        }
        Some(life) if life > *lives.end() => {
            let detail = format!(
                "if provided, maxExpirationSeconds must be <= {}",
                lives.end()
            );
            seconds.invalid(errors, detail);
        }
        _ => {}
    }
    if PATHS.iter().all(|path| !source.get(path).is_given()) {
        source.required(
            errors,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
}

/// The files of a [`projection`].
pub(super) const PATHS: [&str; 3] = ["credentialBundlePath", "keyPath", "certificateChainPath"];
