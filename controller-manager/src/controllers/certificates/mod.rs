//! The controllers of CertificateSigningRequests: one approves kubelets', one signs what is
//! approved, one deletes what is old.

mod authority;
mod cleaner;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use client::informer::Store;
use client::workqueue::{Queue, Requeue};
use client::{Api, Client, Error, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::cleaner::{start_cleaner, start_pod_certificate_cleaner};

use self::authority::Authority;
use self::request::Request;
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::options::SigningFlags;

const WORKERS: usize = 5;
/// The shortest that a certificate can be asked to be valid.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.is_some_and(|c| !c.0.is_empty())
}

/// Why a request is approved without a human: by whom it may be created says who is trusted.
#[derive(Debug, PartialEq, Eq)]
struct Approval {
    subresource: &'static str,
    message: &'static str,
}

/// What would have to be allowed for the request to be approved: pure. Any of them is enough.
fn approvals(spec: &CertificateSigningRequestSpec, request: &Request<'_>) -> Vec<Approval> {
    let usages = spec.usages.clone().unwrap_or_default();
    let of_node = spec.signer_name == request::KUBELET_CLIENT
        && request.check_kubelet_client(&usages).is_ok();
    let mut approvals = Vec::new();
    if !of_node {
        return approvals;
    }
    if spec.username.as_deref() == Some(request.common_name()) {
        approvals.push(Approval {
            subresource: "selfnodeclient",
            message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
        });
    }
    approvals.push(Approval {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    });
    approvals
}

struct Approver {
    requests: Store<CertificateSigningRequest>,
    api: Api<CertificateSigningRequest>,
    reviews: Api<SubjectAccessReview>,
}

/// Sets the approver up.
pub fn start_approver(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("certificate-controller")?;
    let requests = ctx.informer::<CertificateSigningRequest>();
    let queue: Queue<ObjectKey> = ctx.queue("csrapproving");
    enqueue_all(&requests, &queue);
    let approver = Arc::new(Approver {
        requests: requests.store().clone(),
        api: Api::all(&client),
        reviews: Api::all(&client),
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        requests.wait_synced().await;
        queue
            .run(WORKERS, &stop, move |key| {
                let approver = Arc::clone(&approver);
                async move { retry_conflicts(approver.sync(&key).await) }
            })
            .await;
    })))
}

impl Approver {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(cached) = self.requests.get_key(key) else {
            return Ok(Requeue::No);
        };
        if is_issued(&cached) || has(&cached, "Approved") || has(&cached, "Denied") {
            return Ok(Requeue::No);
        }
        let parsed = request::decode(&cached.spec.request.0);
        let approvals = parsed.and_then(|der| Ok(approvals(&cached.spec, &Request::parse(&der)?)));
        let approvals = match approvals {
            Ok(approvals) => approvals,
            Err(e) => {
                tracing::warn!(csr = %key, error = e, "unable to parse csr");
                return Ok(Requeue::Backoff);
            }
        };
        let recognized = !approvals.is_empty();
        for approval in approvals {
            if !self.is_allowed(&cached.spec, approval.subresource).await? {
                continue;
            }
            let mut request = CertificateSigningRequest::clone(&cached);
            let status = request.status.get_or_insert_default();
            let conditions = status.conditions.get_or_insert_default();
            conditions.push(CertificateSigningRequestCondition {
                type_: "Approved".to_owned(),
                status: "True".to_owned(),
                reason: Some("AutoApproved".to_owned()),
                message: Some(approval.message.to_owned()),
                ..CertificateSigningRequestCondition::default()
            });
            self.api.replace_subresource("approval", &request).await?;
            return Ok(Requeue::No);
        }
        // Whoever asks may be trusted later.
        Ok(if recognized {
            Requeue::Backoff
        } else {
            Requeue::No
        })
    }

    async fn is_allowed(
        &self,
        spec: &CertificateSigningRequestSpec,
        subresource: &str,
    ) -> Result<bool, Error> {
        let text = |t: &str| Some(t.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: text("certificates.k8s.io"),
                    version: text("*"),
                    resource: text("certificatesigningrequests"),
                    subresource: text(subresource),
                    verb: text("create"),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.reviews.create(&review).await?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }
}

/// A signer's name, and the files of its certificate and key.
type Files = (&'static str, String, String);

/// Which signers there are by the flags: one authority for all, or one for each that has files.
fn signers(flags: &SigningFlags) -> anyhow::Result<Vec<Files>> {
    let own = [
        (
            request::KUBELET_SERVING,
            &flags.cluster_signing_kubelet_serving_cert_file,
            &flags.cluster_signing_kubelet_serving_key_file,
        ),
        (
            request::KUBELET_CLIENT,
            &flags.cluster_signing_kubelet_client_cert_file,
            &flags.cluster_signing_kubelet_client_key_file,
        ),
        (
            request::CLIENT,
            &flags.cluster_signing_kube_apiserver_client_cert_file,
            &flags.cluster_signing_kube_apiserver_client_key_file,
        ),
        (
            request::LEGACY_UNKNOWN,
            &flags.cluster_signing_legacy_unknown_cert_file,
            &flags.cluster_signing_legacy_unknown_key_file,
        ),
    ];
    let (certificate, key) = (
        &flags.cluster_signing_cert_file,
        &flags.cluster_signing_key_file,
    );
    let has_common = !certificate.is_empty() && !key.is_empty();
    let has_own = own.iter().any(|(_, c, k)| !c.is_empty() || !k.is_empty());
    if has_common && has_own {
        anyhow::bail!("cannot specify default and per controller certs at the same time");
    }
    let files = own.into_iter().filter_map(|(name, c, k)| {
        let (c, k) = if has_own { (c, k) } else { (certificate, key) };
        (!c.is_empty() || !k.is_empty()).then(|| (name, c.clone(), k.clone()))
    });
    Ok(files.filter(|_| has_common || has_own).collect())
}

struct Signer {
    requests: Store<CertificateSigningRequest>,
    api: Api<CertificateSigningRequest>,
    signers: Vec<Files>,
    /// The longest that certificates are valid.
    longest: SignedDuration,
}

/// Sets the signers up.
pub fn start_signers(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let flags = &ctx.options.signing;
    let signers = signers(flags)?;
    if signers.is_empty() {
        return Ok(None);
    }
    // Wrong files are told at start; they are read again for each certificate, as they may be
    // replaced.
    for (_, certificate, key) in &signers {
        Authority::read(certificate, key)?;
    }
    let client: Client = ctx.client("certificate-controller")?;
    let requests = ctx.informer::<CertificateSigningRequest>();
    let queue: Queue<ObjectKey> = ctx.queue("csrsigning");
    enqueue_all(&requests, &queue);
    let longest = flags.cluster_signing_duration.get();
    let signer = Arc::new(Signer {
        requests: requests.store().clone(),
        api: Api::all(&client),
        signers,
        longest: SignedDuration::try_from(longest).unwrap_or(SignedDuration::MAX),
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        requests.wait_synced().await;
        queue
            .run(WORKERS, &stop, move |key| {
                let signer = Arc::clone(&signer);
                async move { retry_conflicts(signer.sync(&key).await) }
            })
            .await;
    })))
}

impl Signer {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(cached) = self.requests.get_key(key) else {
            return Ok(Requeue::No);
        };
        let signer = self.signers.iter().find(|s| s.0 == cached.spec.signer_name);
        let Some((name, certificate, key_file)) = signer else {
            return Ok(Requeue::No);
        };
        if is_issued(&cached) || !has(&cached, "Approved") || has(&cached, "Failed") {
            return Ok(Requeue::No);
        }
        let wrong = |message: String| Error::Request(format!("csr {:?}: {message}", key.name()));
        let der = request::decode(&cached.spec.request.0).map_err(wrong)?;
        let parsed = Request::parse(&der).map_err(wrong)?;
        let usages = cached.spec.usages.clone().unwrap_or_default();
        let mut request = CertificateSigningRequest::clone(&cached);
        let status = request.status.get_or_insert_default();
        if let Err(message) = parsed.check(name, &usages) {
            let conditions = status.conditions.get_or_insert_default();
            conditions.push(CertificateSigningRequestCondition {
                type_: "Failed".to_owned(),
                status: "True".to_owned(),
                reason: Some("SignerValidationFailure".to_owned()),
                message: Some(message),
                last_update_time: Some(Time(now())),
                ..CertificateSigningRequestCondition::default()
            });
        } else {
            parsed.check_signature().map_err(wrong)?;
            let authority = Authority::read(certificate, key_file);
            let authority = authority.map_err(|e| wrong(e.to_string()))?;
            let duration = self.duration(cached.spec.expiration_seconds);
            let serial: [u8; 16] = rand::random();
            let made = authority.sign(&parsed, &usages, duration, serial, Timestamp::now());
            let made = made.map_err(|e| wrong(format!("error auto signing csr: {e}")))?;
            status.certificate = Some(ByteString(pem(&made).into_bytes()));
        }
        self.api.replace_status(&request).await?;
        Ok(Requeue::No)
    }

    /// What is asked for, within limits.
    fn duration(&self, asked: Option<i32>) -> SignedDuration {
        let Some(asked) = asked else {
            return self.longest;
        };
        let asked = SignedDuration::from_secs(asked.into());
        if asked > self.longest {
            return self.longest;
        }
        asked.max(SHORTEST)
    }
}

/// A certificate as PEM.
fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64);
    let lines: Vec<&str> = lines
        .map(|l| std::str::from_utf8(l).unwrap_or_default())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
