//! certificatesigningrequest-cleaner-controller and podcertificaterequest-cleaner-controller:
//! requests are of no use once they are answered, or nobody answers them.

use std::time::Duration;

use client::{Api, DeleteOptions, Object as _, optional};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::is_issued;
use crate::context::{Context, Run};

const PERIOD: Duration = Duration::from_secs(60 * 60);
/// After the answer.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
/// Without any.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Of pods' requests, which are answered within seconds.
const POD_PERIOD: Duration = Duration::from_secs(5 * 60);
const POD_AGE: SignedDuration = SignedDuration::from_mins(15);

fn older(at: Option<&Time>, than: SignedDuration, now: Timestamp) -> bool {
    at.is_some_and(|t| now.duration_since(t.0) > than)
}

/// Whether nobody needs the request any more: pure.
fn is_done(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let status = request.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref());
    let conditions = conditions.unwrap_or_default();
    let issued = is_issued(request);
    if conditions.is_empty() {
        return older(request.metadata.creation_timestamp.as_ref(), PENDING, now);
    }
    conditions.iter().any(|c| {
        let since = c.last_update_time.as_ref();
        match c.type_.as_str() {
            "Denied" | "Failed" => older(since, ANSWERED, now),
            "Approved" if issued => older(since, ANSWERED, now) || has_expired(request, now),
            "Approved" => older(since, PENDING, now),
            _ => false,
        }
    })
}

fn has_expired(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    let mut blocks = certificate
        .into_iter()
        .flat_map(|c| x509_parser::pem::Pem::iter_from_buffer(&c.0));
    let Some(Ok(first)) = blocks.next() else {
        return false;
    };
    X509Certificate::from_der(&first.contents)
        .is_ok_and(|(_, c)| now.as_second() > c.validity().not_after.timestamp())
}

/// Sets the cleaner of CertificateSigningRequests up.
pub fn start_cleaner(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("certificate-controller")?;
    let requests = ctx.informer::<CertificateSigningRequest>();
    let api: Api<CertificateSigningRequest> = Api::all(&client);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        requests.wait_synced().await;
        loop {
            let now = Timestamp::now();
            for request in requests.store().filter(|r| is_done(r, now)) {
                tracing::info!(
                    csr = request.name(),
                    "Cleaning CSR as it is done with or too old"
                );
                let options = DeleteOptions::with_uid(request.uid());
                if let Err(e) = optional(api.delete(request.name(), &options).await) {
                    tracing::error!(csr = request.name(), %e, "Error while attempting to clean CSR");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    })))
}

/// Sets the cleaner of PodCertificateRequests up (KEP-4317).
pub fn start_pod_certificate_cleaner(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("podcertificaterequestcleaner")?;
    let requests = ctx.informer::<PodCertificateRequest>();
    let api: Api<PodCertificateRequest> = Api::all(&client);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        requests.wait_synced().await;
        loop {
            let now = Timestamp::now();
            let old = |r: &PodCertificateRequest| {
                older(r.metadata.creation_timestamp.as_ref(), POD_AGE, now)
            };
            for request in requests.store().filter(old) {
                let own = api.within(request.namespace());
                let options = DeleteOptions::with_uid(request.uid());
                if let Err(e) = optional(own.delete(request.name(), &options).await) {
                    tracing::error!(request = %request.key(), %e, "Error while attempting to clean PodCertificateRequest");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POD_PERIOD) => {}
            }
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_requests_go() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        for (created, condition, at, issued, want) in [
            ("2026-01-01T13:00:00Z", None, "", false, false),
            ("2026-01-01T11:00:00Z", None, "", false, true),
            (
                "2026-01-02T09:00:00Z",
                Some("Denied"),
                "2026-01-02T10:00:00Z",
                false,
                true,
            ),
            (
                "2026-01-02T09:00:00Z",
                Some("Failed"),
                "2026-01-02T11:30:00Z",
                false,
                false,
            ),
            (
                "2026-01-02T09:00:00Z",
                Some("Approved"),
                "2026-01-02T10:00:00Z",
                true,
                true,
            ),
            (
                "2026-01-02T09:00:00Z",
                Some("Approved"),
                "2026-01-02T10:00:00Z",
                false,
                false,
            ),
            (
                "2026-01-01T09:00:00Z",
                Some("Approved"),
                "2026-01-01T10:00:00Z",
                false,
                true,
            ),
        ] {
            let conditions: Vec<_> = condition
                .iter()
                .map(|c| json!({"type": c, "status": "True", "lastUpdateTime": at}))
                .collect();
            let request = serde_json::from_value(json!({
                "metadata": {"name": "r", "creationTimestamp": created},
                "spec": {"request": "", "signerName": "x"},
                "status": {"conditions": conditions, "certificate": if issued { "Zm9v" } else { "" }},
            }))
            .unwrap();
            assert_eq!(is_done(&request, now), want, "{created} {condition:?} {at}");
        }
    }
}
