//! Asking for a certificate: a CertificateSigningRequest is made, or found again, and followed
//! until it is issued or refused.

use std::time::Duration;

use client::informer::{Event, Selection};
use client::{Api, Client, Informer};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rcgen::{KeyPair, PublicKeyData as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::pair::{Leaf, certificates};
use super::template::Template;
use super::{CertificateError, key};

/// Who signs, and what for. Our keys are elliptic, which encipher no other keys.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    pub signer: &'static str,
    pub usages: [&'static str; 2],
}

/// To show to the API server.
pub const CLIENT: Purpose = Purpose {
    signer: "kubernetes.io/kube-apiserver-client-kubelet",
    usages: ["digital signature", "client auth"],
};
/// To show to whoever asks the node's API.
pub const SERVING: Purpose = Purpose {
    signer: "kubernetes.io/kubelet-serving",
    usages: ["digital signature", "server auth"],
};

/// A request as the API server has it.
#[derive(Debug)]
pub struct Pending {
    name: String,
    uid: String,
}

/// Makes the request. Under a `name`, one that is there already is as good if it is for the same
/// key; without, it is given one.
///
/// # Errors
/// When the API server does not take it, or has another under that name.
pub async fn submit(
    client: &Client,
    purpose: Purpose,
    template: &Template,
    key: &KeyPair,
    name: Option<&str>,
) -> Result<Pending, CertificateError> {
    let api = Api::<CertificateSigningRequest>::all(client);
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: name.map(str::to_owned),
            generate_name: name.is_none().then(|| "csr-".to_owned()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(template.request(key)?.into_bytes()),
            signer_name: purpose.signer.to_owned(),
            usages: Some(purpose.usages.map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let found = match (api.create(&wanted).await, name) {
        (Err(error), Some(name)) if error.is_already_exists() => {
            info!(csr = name, "csr for this node already exists, reusing");
            let found = api.get(name).await.map_err(CertificateError::Retrieve)?;
            check(&found, purpose, template, key, Timestamp::now())
                .map_err(CertificateError::Incompatible)?;
            found
        }
        (created, _) => created.map_err(CertificateError::Create)?,
    };
    Ok(Pending {
        name: found.metadata.name.unwrap_or_default(),
        uid: found.metadata.uid.unwrap_or_default(),
    })
}

/// Whether a request of another time is for the same, and its certificate not of the past. Pure.
fn check(
    found: &CertificateSigningRequest,
    purpose: Purpose,
    template: &Template,
    key: &KeyPair,
    now: Timestamp,
) -> Result<(), String> {
    let read = |pem: &[u8]| {
        let block = x509_parser::pem::parse_x509_pem(pem).ok().map(|(_, b)| b);
        let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
        block.ok_or("PEM block type must be CERTIFICATE REQUEST")
    };
    let block = read(&found.spec.request.0)?;
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
    let own = read(template.request(key).map_err(|e| e.to_string())?.as_bytes())?;
    let (_, own) = X509CertificationRequest::from_der(&own.contents).map_err(|e| e.to_string())?;
    let subject = |request: &X509CertificationRequest<'_>| {
        request.certification_request_info.subject.to_string()
    };
    let (theirs, ours) = (subject(&request), subject(&own));
    if theirs != ours {
        return Err(format!("csr subjects differ: new: {theirs}, orig: {ours}"));
    }
    if found.spec.signer_name != purpose.signer {
        return Err(format!(
            "csr signerNames differ: new {:?}, orig: {:?}",
            found.spec.signer_name, purpose.signer
        ));
    }
    let public = request.certification_request_info.subject_pki.raw;
    if public != key.subject_public_key_info() || request.verify_signature().is_err() {
        return Err("error validating signature new CSR against old key".into());
    }
    let issued = found.status.as_ref().and_then(|s| s.certificate.as_ref());
    for der in certificates(issued.map_or(&[], |pem| &pem.0))? {
        let leaf = Leaf::of(&der)?;
        if now > leaf.not_after {
            let when = leaf.not_after;
            return Err(format!(
                "one of the certificates for the CSR has expired: {when}"
            ));
        }
    }
    Ok(())
}

/// What has become of a request: its certificate, why there will be none, or nothing yet. Pure.
fn judge(event: &Event<CertificateSigningRequest>, uid: &str) -> Option<Result<Vec<u8>, String>> {
    let request = event.object();
    let name = request.metadata.name.as_deref().unwrap_or_default();
    if event.current().is_none() {
        return Some(Err(format!("csr {name:?} was deleted")));
    }
    if request.metadata.uid.as_deref() != Some(uid) {
        return Some(Err(format!("csr {name:?} changed UIDs")));
    }
    let status = request.status.as_ref()?;
    let mut approved = false;
    for condition in status.conditions.iter().flatten() {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (reason, message) = (text(&condition.reason), text(&condition.message));
        let how = match condition.type_.as_str() {
            "Denied" => "is denied",
            "Failed" => "failed",
            "Approved" => {
                approved = true;
                continue;
            }
            _ => continue,
        };
        return Some(Err(format!(
            "certificate signing request {how}, reason: {reason}, message: {message}"
        )));
    }
    let certificate = status.certificate.as_ref().filter(|c| !c.0.is_empty());
    certificate.filter(|_| approved).map(|c| Ok(c.0.clone()))
}

/// The certificate, once it is issued.
///
/// # Errors
/// When it will not be, or is not in time.
pub async fn issued(
    client: &Client,
    pending: &Pending,
    within: Duration,
) -> Result<Vec<u8>, CertificateError> {
    let following = CancellationToken::new();
    let _end = following.clone().drop_guard();
    let selection = Selection::fields(format!("metadata.name={}", pending.name));
    let requests = Informer::<CertificateSigningRequest>::new(Api::all(client), &selection);
    let (told, mut heard) = mpsc::unbounded_channel();
    let uid = pending.uid.clone();
    requests.add_handler(move |event| {
        if let Some(verdict) = judge(event, &uid) {
            let _ = told.send(verdict);
        }
    });
    requests.start(&following);
    info!(csr = pending.name, "Waiting for certificate to be issued");
    match tokio::time::timeout(within, heard.recv()).await {
        Ok(Some(verdict)) => verdict.map_err(CertificateError::Refused),
        _ => Err(CertificateError::TimedOut),
    }
}

/// A name that whoever asks with the same key for the same gives again: upstream's, so that either
/// kubelet finds what the other has asked for. Pure.
pub fn digested_name(purpose: Purpose, template: &Template, key: &KeyPair) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let public = key.subject_public_key_info();
    let parts = [
        public.as_slice(),
        template.common_name.as_bytes(),
        template.organization.as_bytes(),
    ];
    let usages = purpose.usages.iter().map(|usage| usage.as_bytes());
    let mut hash = sha2::Sha512_256::new();
    for part in parts.into_iter().chain(usages) {
        hash.update(encode(part));
        hash.update(b"|");
    }
    format!("node-csr-{}", encode(&hash.finalize()))
}

/// A request of a new key: what is to be kept when it is issued.
///
/// # Errors
/// When there is no randomness.
pub fn new_key() -> Result<(KeyPair, String), CertificateError> {
    let key = key::generate()?;
    let pem = key::to_pem(&key)?;
    Ok((key, pem))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };

    use super::*;

    /// A key that upstream's kubelet has made, for the node `boot2`.
    const UPSTREAMS: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIIBiYCjwl5R7VGScEWzALbotcVualxCFIMaiVWFzR6jWoAoGCCqGSM49
AwEHoUQDQgAEr8v0oGBUBb23t1wJIsaXNnkL9l2bJ2LtZXJqYHmFXpVbUFLjcu6+
+po1wR+hF1q6H/+t7iDE3IvEfc7+s9OnZA==
-----END EC PRIVATE KEY-----
";

    #[test]
    fn the_name_is_the_one_that_upstream_gives() {
        let key = key::from_pem(UPSTREAMS.as_bytes()).unwrap();
        assert_eq!(key::to_pem(&key).unwrap(), UPSTREAMS);
        let name = digested_name(CLIENT, &Template::node("boot2"), &key);
        let upstreams = "node-csr-hD0wP5jwTZuQ4DEEhZco03g8Cpfio0OA0uEzJfjgiBM";
        assert_eq!(name, upstreams);
    }

    fn request(conditions: &[&str], certificate: &str) -> CertificateSigningRequest {
        let condition = |type_: &&str| CertificateSigningRequestCondition {
            type_: (*type_).to_owned(),
            reason: Some("Why".into()),
            message: Some("text".into()),
            ..Default::default()
        };
        let mut request = CertificateSigningRequest::default();
        request.metadata.name = Some("r".into());
        request.metadata.uid = Some("u".into());
        request.status = Some(CertificateSigningRequestStatus {
            conditions: Some(conditions.iter().map(condition).collect()),
            certificate: Some(ByteString(certificate.as_bytes().to_vec())),
        });
        request
    }

    fn verdict(conditions: &[&str], certificate: &str) -> Option<Result<Vec<u8>, String>> {
        let event = Event::Added(Arc::new(request(conditions, certificate)));
        judge(&event, "u")
    }

    #[test]
    fn a_request_is_issued_or_refused() {
        assert_eq!(verdict(&[], ""), None);
        assert_eq!(verdict(&[], "pem"), None, "not approved");
        assert_eq!(verdict(&["Approved"], ""), None);
        assert_eq!(verdict(&["Approved"], "pem"), Some(Ok(b"pem".to_vec())));
        let denied = verdict(&["Denied"], "").unwrap().unwrap_err();
        assert_eq!(
            denied,
            "certificate signing request is denied, reason: Why, message: text"
        );
        assert!(verdict(&["Approved", "Failed"], "pem").unwrap().is_err());
        let event = Event::Added(Arc::new(request(&[], "")));
        assert!(judge(&event, "other").unwrap().is_err());
    }

    #[test]
    fn a_request_is_found_again_only_for_the_same_key() {
        let (key, _) = new_key().unwrap();
        let template = Template::node("n");
        let mut found = request(&[], "");
        found.spec.signer_name = CLIENT.signer.into();
        found.spec.request = ByteString(template.request(&key).unwrap().into_bytes());
        let now = Timestamp::now();
        let with = |found: &CertificateSigningRequest, name: &str, key: &KeyPair| {
            check(found, CLIENT, &Template::node(name), key, now)
        };
        assert_eq!(with(&found, "n", &key), Ok(()));
        assert!(with(&found, "m", &key).unwrap_err().contains("subjects"));
        let (other, _) = new_key().unwrap();
        assert!(with(&found, "n", &other).unwrap_err().contains("signature"));
        found.spec.signer_name = SERVING.signer.into();
        assert!(with(&found, "n", &key).unwrap_err().contains("signerNames"));
    }
}
