//! The `token` subresource of service accounts: turns a `TokenRequest` into a signed token.
//!
//! What must not be here: verifying tokens (`service_account.rs`), storage (the registry
//! calls [`TokenIssuer::create`]).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use meta::{ErrorList, FieldError, GroupKind, GroupResource, Path, Status};
use serde::Serialize;
use serde_json::{Value, json};

use super::Clock;
use super::jwt;
use super::keys::SigningKey;
use super::service_account::{Reference, username};
use crate::lookup::Lookup;

/// What kubelet asks for a pod's default token: such a token lives for a year, so that
/// clients that do not reload it go on working, and warns after this time.
const WARN_ONLY_EXPIRATION: i64 = 60 * 60 + 7;
const EXTENDED_EXPIRATION: i64 = 365 * 24 * 60 * 60;
const MIN_EXPIRATION: i64 = 10 * 60;
/// Applied when a request names no expiration.
pub const DEFAULT_EXPIRATION: i64 = 60 * 60;

/// Issues tokens.
pub struct TokenIssuer {
    pub key: SigningKey,
    /// The first `--service-account-issuer`.
    pub issuer: String,
    /// The API server's own audiences.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration` in seconds; 0: no limit.
    pub max_expiration: i64,
    /// `--service-account-extend-token-expiration`
    pub extend_expiration: bool,
    pub clock: Clock,
    /// A fresh random UUID for `jti`.
    pub new_uuid: Arc<dyn Fn() -> String + Send + Sync>,
}

/// An issued token.
#[derive(Debug)]
pub struct Issued {
    /// The `TokenRequest` with its status.
    pub object: Value,
    pub warnings: Vec<String>,
}

// Fields in alphabetical order, as the Go library writes them.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    aud: &'a [String],
    exp: i64,
    iat: i64,
    iss: &'a str,
    jti: &'a str,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
    nbf: i64,
    sub: String,
}

#[derive(Debug, Serialize)]
struct Kubernetes {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

/// What a token is bound to, found and checked.
#[derive(Debug, Default)]
struct Bound {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

fn kind() -> GroupKind {
    GroupKind::new("authentication.k8s.io", "TokenRequest")
}

fn invalid(name: &str, error: FieldError) -> Status {
    Status::invalid(&kind(), name, &ErrorList::from(error))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: text(object, "/metadata/name").to_owned(),
        uid: text(object, "/metadata/uid").to_owned(),
    }
}

impl TokenIssuer {
    /// Serves `POST …/serviceaccounts/{name}/token`. `request` is the decoded
    /// `TokenRequest`, `admit` runs the validating half of admission on it.
    pub async fn create<F, A>(
        &self,
        lookup: &dyn Lookup,
        namespace: &str,
        name: &str,
        mut request: Value,
        admit: F,
    ) -> Result<Issued, Status>
    where
        F: FnOnce(Value) -> A,
        A: Future<Output = Result<(), Status>>,
    {
        for (field, want, what) in [
            (
                "name",
                name,
                "must match the service account name if specified",
            ),
            (
                "namespace",
                namespace,
                "must match the service account namespace if specified",
            ),
        ] {
            let given = text(&request, &format!("/metadata/{field}"));
            if !given.is_empty() && given != want {
                let path = Path::new("metadata").child(field);
                return Err(invalid(name, FieldError::invalid(&path, given, what)));
            }
        }

        let account = fetch(lookup, "serviceaccounts", namespace, name).await?;
        let account_ref = reference(&account);
        let given_uid = text(&request, "/metadata/uid");
        if !given_uid.is_empty() && given_uid != account_ref.uid {
            let why = format!(
                "the UID in the token request ({given_uid}) does not match the UID of the \
                 service account ({})",
                account_ref.uid
            );
            let resource = GroupResource::new("authentication.k8s.io", "TokenRequest");
            return Err(Status::conflict(&resource, name, why));
        }

        let now = (self.clock)();
        self.complete(&mut request, namespace, &account_ref, now);
        let expiration = expiration(&request)?;
        admit(request.clone()).await?;
        let bound = self.bound(lookup, namespace, name, &request).await?;
        self.issue(namespace, account_ref, bound, request, expiration, now)
    }

    /// Fills in what the client has left to the server.
    fn complete(&self, request: &mut Value, namespace: &str, account: &Reference, now: Timestamp) {
        if !request["spec"].is_object() {
            request["spec"] = json!({});
        }
        let spec = &mut request["spec"];
        if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
            spec["audiences"] = json!(self.audiences);
        }
        if spec["expirationSeconds"].is_null() {
            spec["expirationSeconds"] = DEFAULT_EXPIRATION.into();
        }
        if !request["metadata"].is_object() {
            request["metadata"] = json!({});
        }
        let metadata = &mut request["metadata"];
        metadata["name"] = account.name.clone().into();
        metadata["namespace"] = namespace.into();
        metadata["uid"] = account.uid.clone().into();
        metadata["creationTimestamp"] = rfc3339(now).into();
        request["status"] = json!({"token": "", "expirationTimestamp": null});
    }

    /// Finds the object that the token shall be bound to.
    async fn bound(
        &self,
        lookup: &dyn Lookup,
        namespace: &str,
        account: &str,
        request: &Value,
    ) -> Result<Bound, Status> {
        let object_ref = &request["spec"]["boundObjectRef"];
        if !object_ref.is_object() {
            return Ok(Bound::default());
        }
        let name = text(object_ref, "/name");
        let api_version = text(object_ref, "/apiVersion");
        let kind = text(object_ref, "/kind");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut bound = Bound::default();
        let found = match (group, kind) {
            ("", "Pod") => {
                let pod = fetch(lookup, "pods", namespace, name).await?;
                if text(&pod, "/spec/serviceAccountName") != account {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with \
                         different serviceaccount name."
                    )));
                }
                let node = text(&pod, "/spec/nodeName");
                if !node.is_empty() {
                    // A node that is gone is still named, so that readers of the token know.
                    let found = match lookup.get("", "nodes", "", node) {
                        Some(found) => Some(found),
                        None => lookup.get_fresh("", "nodes", "", node).await?,
                    };
                    bound.node = Some(found.map_or_else(
                        || Reference {
                            name: node.to_owned(),
                            uid: String::new(),
                        },
                        |n| reference(&n),
                    ));
                }
                bound.pod.insert(reference(&pod))
            }
            ("", "Node") => {
                let node = fetch(lookup, "nodes", "", name).await?;
                bound.node.insert(reference(&node))
            }
            ("", "Secret") => {
                let secret = fetch(lookup, "secrets", namespace, name).await?;
                bound.secret.insert(reference(&secret))
            }
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        let asked = text(object_ref, "/uid");
        if !asked.is_empty() && asked != found.uid {
            return Err(Status::conflict(
                &GroupResource::new(group, kind),
                name,
                format!(
                    "the UID in the bound object reference ({asked}) does not match the UID in \
                     record. The object might have been deleted and then recreated"
                ),
            ));
        }
        Ok(bound)
    }

    fn issue(
        &self,
        namespace: &str,
        account: Reference,
        bound: Bound,
        mut request: Value,
        mut expiration: i64,
        now: Timestamp,
    ) -> Result<Issued, Status> {
        let mut warnings = Vec::new();
        if self.max_expiration > 0 && expiration > self.max_expiration {
            warnings.push(format!(
                "requested expiration of {expiration} seconds shortened to {} seconds",
                self.max_expiration
            ));
            expiration = self.max_expiration;
            request["spec"]["expirationSeconds"] = expiration.into();
        }
        let audiences: Vec<String> = request["spec"]["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let extend = self.extend_expiration
            && bound.pod.is_some()
            && expiration == WARN_ONLY_EXPIRATION
            && audiences.iter().all(|a| self.audiences.contains(a));
        let seconds = now.as_second();
        let jti = (self.new_uuid)();
        let claims = Claims {
            aud: &audiences,
            exp: seconds
                + if extend {
                    EXTENDED_EXPIRATION
                } else {
                    expiration
                },
            iat: seconds,
            iss: &self.issuer,
            jti: &jti,
            nbf: seconds,
            sub: username(namespace, &account.name),
            kubernetes: Kubernetes {
                namespace: namespace.to_owned(),
                node: bound.node,
                pod: bound.pod,
                secret: bound.secret,
                serviceaccount: account,
                warnafter: extend.then_some(seconds + expiration),
            },
        };
        let token = jwt::sign(&self.key, &claims)
            .map_err(|e| Status::internal(format!("failed to generate token: {e}")))?;
        request["status"] = json!({
            "token": token,
            "expirationTimestamp": rfc3339(now + SignedDuration::from_secs(expiration)),
        });
        Ok(Issued {
            object: request,
            warnings,
        })
    }
}

fn expiration(request: &Value) -> Result<i64, Status> {
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(0);
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < MIN_EXPIRATION {
        let why = "may not specify a duration less than 10 minutes";
        return Err(invalid("", FieldError::invalid(&path, seconds, why)));
    }
    if seconds > 1 << 32 {
        let why = "may not specify a duration larger than 2^32 seconds";
        return Err(invalid("", FieldError::invalid(&path, seconds, why)));
    }
    Ok(seconds)
}

async fn fetch(
    lookup: &dyn Lookup,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<Value>, Status> {
    lookup
        .get_fresh("", resource, namespace, name)
        .await?
        .ok_or_else(|| Status::not_found(&GroupResource::new("", resource), name))
}

/// As the API writes times: UTC, whole seconds.
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
