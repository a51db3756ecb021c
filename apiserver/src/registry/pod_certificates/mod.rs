//! Requests for pods' certificates (KEP-4317): that who asks has the key, that what is issued is
//! a certificate of it, and that who issues may sign for that signer. A refusal comes together
//! with whatever else is wrong with the object.
//!
//! What must not be here: which fields a request has and how it may end (`api::validation`).

mod issued;
mod keys;

use std::sync::Arc;

use api::validation;
use base64::prelude::{BASE64_STANDARD, Engine};
use futures::future::BoxFuture;
use meta::field::ErrorType;
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::Value;

use super::generic::{META_BUT_FOR_STATUS, keep_all_but_status, keep_meta};
use super::object_meta::meta;
use super::strategy::{Context, Hooks, Undo};
use crate::authz::{Authorizer, may_for_signer};
use keys::PublicKey;

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "PodCertificateRequest";

/// Watches over the requests.
pub struct PodCertificates {
    pub authorizer: Arc<dyn Authorizer>,
}

fn refuse(request: &Value, errors: &ErrorList) -> Result<Option<Undo>, Status> {
    if errors.is_empty() {
        return Ok(None);
    }
    let kind = GroupKind::new(GROUP, KIND);
    Err(Status::invalid(&kind, meta(request).name(), errors))
}

/// A field of bytes, which is empty where there is none.
fn bytes(spec: &Value, field: &str) -> Vec<u8> {
    let text = spec[field].as_str().unwrap_or_default();
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

/// The key that the request is for, in whichever of two ways it says so, or what is wrong: that
/// must be proven to be the asker's own.
fn key_of(spec: &Value) -> Result<PublicKey, FieldError> {
    let path = |field: &'static str| Path::new("spec").child(field);
    let stub = bytes(spec, "stubPKCS10Request");
    if !stub.is_empty() {
        let path = path("stubPKCS10Request");
        return keys::of_request(&stub).map_err(|why| FieldError::invalid(&path, "", why));
    }
    let key = PublicKey::parse(&bytes(spec, "pkixPublicKey"))
        .map_err(|why| FieldError::invalid(&path("pkixPublicKey"), "", why))?;
    let said = spec["podUID"].as_str().unwrap_or_default();
    match key.has_signed(said.as_bytes(), &bytes(spec, "proofOfPossession")) {
        true => Ok(key),
        false => Err(FieldError::invalid(
            &path("proofOfPossession"),
            "",
            "could not verify proof-of-possession signature",
        )),
    }
}

/// Whether validation has nothing to say about the form in which the request brings its key.
fn brings_a_key(errors: &ErrorList) -> bool {
    !errors.iter().any(|error| match error.field.as_str() {
        "spec" | "spec.stubPKCS10Request" | "spec.pkixPublicKey" | "spec.proofOfPossession" => true,
        // Upstream looks no further without a life, but does where it is out of range.
        "spec.maxExpirationSeconds" => error.ty == ErrorType::Required,
        _ => false,
    })
}

impl Hooks for PodCertificates {
    fn begin_create<'a>(
        &'a self,
        _cx: &'a Context<'a>,
        request: &'a mut Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            let mut errors = validation::create(GROUP, KIND, true, request);
            if brings_a_key(&errors)
                && let Err(error) = key_of(&request["spec"])
            {
                errors.push(error);
            }
            refuse(request, &errors)
        })
    }

    fn begin_update<'a>(
        &'a self,
        cx: &'a Context<'a>,
        request: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            if cx.subresource != "status" {
                return Ok(None);
            }
            // As the strategy will have it.
            keep_all_but_status(request, old);
            keep_meta(request, old, META_BUT_FOR_STATUS);
            if request["status"] == old["status"] {
                return Ok(None);
            }
            let mut errors = validation::update_status(GROUP, KIND, request, old);
            if errors.is_empty() && issued::is_issued(request) {
                errors = issued::faults(request, cx.now);
            }
            let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
            if errors.is_empty() && !may_for_signer(&*self.authorizer, cx.user, "sign", signer) {
                let user = &cx.user.name;
                errors.push(FieldError::forbidden(
                    &Path::new("spec").child("signerName"),
                    format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}"),
                ));
            }
            refuse(request, &errors)
        })
    }
}
