//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and
//! CertificateSubjectRestriction: who may approve, sign and vouch for which signer, and that nobody becomes a master by a certificate.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::chain::Deps;
use super::*;
use crate::authn::MASTERS;
use crate::authz::{Authorizer, may_for_signer};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Common name and organizations of a `CertificateSigningRequest`'s request (base64 of PEM).
pub fn subject(object: &Value) -> Result<(String, Vec<String>), String> {
    let request = text(object, "/spec/request");
    let pem = STANDARD.decode(request).map_err(|e| e.to_string())?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| e.to_string())?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().last();
    let name = name.and_then(|n| n.as_str().ok()).unwrap_or_default();
    let organizations = subject.iter_organization().filter_map(|o| o.as_str().ok());
    Ok((name.to_owned(), organizations.map(str::to_owned).collect()))
}

pub struct Approval {
    authorizer: Arc<dyn Authorizer>,
}

impl Approval {
    pub fn new(deps: &Deps) -> Self {
        Self {
            authorizer: deps.authorizer.clone(),
        }
    }
}

impl Plugin for Approval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        // The signer of the old object counts: nobody changes it on the way.
        if let Some(old) = a.old
            && a.is_sub(GROUP, RESOURCE, "approval")
        {
            let signer = text(old, "/spec/signerName");
            if !may_for_signer(&*self.authorizer, a.user, "approve", signer) {
                let why =
                    format!("user not permitted to approve requests with signerName {signer:?}");
                return ready(Err(a.forbidden(object, why)));
            }
        }
        ready(Ok(()))
    }
}

pub struct Signing {
    authorizer: Arc<dyn Authorizer>,
}

impl Signing {
    pub fn new(deps: &Deps) -> Self {
        Self {
            authorizer: deps.authorizer.clone(),
        }
    }
}

impl Plugin for Signing {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let (Some(old), Some(new)) = (a.old, object)
            && a.is_sub(GROUP, RESOURCE, "status")
        {
            let unchanged = ["certificate", "conditions"]
                .iter()
                .all(|field| old["status"][*field] == new["status"][*field]);
            let signer = text(old, "/spec/signerName");
            if !unchanged && !may_for_signer(&*self.authorizer, a.user, "sign", signer) {
                let why = format!("user not permitted to sign requests with signerName {signer:?}");
                return ready(Err(a.forbidden(object, why)));
            }
        }
        ready(Ok(()))
    }
}

/// ClusterTrustBundleAttest: who may publish what a signer is trusted by.
pub struct BundleAttest {
    authorizer: Arc<dyn Authorizer>,
}

impl BundleAttest {
    pub fn new(deps: &Deps) -> Self {
        Self {
            authorizer: deps.authorizer.clone(),
        }
    }
}

impl Plugin for BundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(bundle) = object.filter(|_| a.is(GROUP, "clustertrustbundles")) else {
            return ready(Ok(()));
        };
        let signer = text(bundle, "/spec/signerName");
        // Storage migration and garbage collection write what is there already.
        let unchanged = a.old.is_some_and(|old| {
            let labels = |o: &'a Value, field| o["metadata"].get(field);
            old["spec"] == bundle["spec"]
                && labels(old, "labels") == labels(bundle, "labels")
                && labels(old, "annotations") == labels(bundle, "annotations")
        });
        if signer.is_empty()
            || unchanged
            || may_for_signer(&*self.authorizer, a.user, "attest", signer)
        {
            return ready(Ok(()));
        }
        let why = format!("user not permitted to attest for signerName {signer:?}");
        ready(Err(a.forbidden(object, why)))
    }
}

pub struct SubjectRestriction;

impl Plugin for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(request) = object.filter(|_| a.is(GROUP, RESOURCE)) else {
            return ready(Ok(()));
        };
        if text(request, "/spec/signerName") != CLIENT_SIGNER {
            return ready(Ok(()));
        }
        ready(match subject(request) {
            Err(error) => Err(a.forbidden(object, format!("failed to parse CSR: {error}"))),
            Ok((_, organizations)) if organizations.iter().any(|o| o == MASTERS) => {
                let why =
                    format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
                Err(a.forbidden(object, why))
            }
            Ok(_) => Ok(()),
        })
    }
}
