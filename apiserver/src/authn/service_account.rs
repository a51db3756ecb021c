//! Service account tokens: bound ones (KEP-1205) and those kept in secrets.
//!
//! A signature alone is not enough: the account, and whatever the token is bound to, must
//! still exist under the same uid.
//! What must not be here: issuing (`token_issuer.rs`), keys (`keys.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::validation as format;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::jwt::{Claims, LEEWAY, Unverified};
use super::keys::PublicKey;
use super::{AuthenticationError, Clock, User};
use crate::lookup::Lookup;

/// The issuer of tokens that are kept in secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
pub const USERNAME_PREFIX: &str = "system:serviceaccount:";
pub const ALL_ACCOUNTS_GROUP: &str = "system:serviceaccounts";
/// The day on which a token that is kept in a secret was last used.
pub const LAST_USED_LABEL: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";

pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

pub fn username(namespace: &str, name: &str) -> String {
    format!("{USERNAME_PREFIX}{namespace}:{name}")
}

/// The namespace and name in a service account's user name.
pub fn split_username(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USERNAME_PREFIX)?.split_once(':')?;
    let named = format::dns1123_label(namespace).is_empty();
    (named && format::dns1123_subdomain(name).is_empty()).then_some((namespace, name))
}

/// The user that a service account is.
pub fn user(namespace: &str, name: &str, uid: &str) -> User {
    User {
        name: username(namespace, name),
        uid: uid.to_owned(),
        groups: vec![
            ALL_ACCOUNTS_GROUP.to_owned(),
            format!("{ALL_ACCOUNTS_GROUP}:{namespace}"),
        ],
        extra: BTreeMap::new(),
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

#[derive(Deserialize)]
struct BoundClaims {
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Bound,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
    /// Seconds since the epoch: whoever still uses an extended token then should not.
    warnafter: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LegacyClaims {
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
}

/// Verifies tokens that this cluster's API servers and token controller have issued.
pub struct Verifier {
    pub keys: Vec<PublicKey>,
    pub issuers: Vec<String>,
    pub audiences: Vec<String>,
    /// `--service-account-lookup`: legacy tokens must still be in their secret.
    pub lookup_legacy: bool,
    pub lookup: Arc<dyn Lookup>,
    pub clock: Clock,
    pub metrics: Arc<super::Metrics>,
    /// Is told of secrets whose tokens are used. Where it has more than it can note, what it
    /// misses is used again.
    pub used: Option<mpsc::Sender<UsedSecret>>,
}

/// A secret whose token was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedSecret {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Who a token stands for, and for which of the audiences asked for.
pub type Verified = (User, Vec<String>);

fn error<T>(text: impl Into<String>) -> Result<T, AuthenticationError> {
    Err(AuthenticationError(text.into()))
}

impl Verifier {
    /// `None` when the token is not of an issuer that is ours. `audiences` empty means the
    /// API server's own.
    pub async fn verify(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Verified>, AuthenticationError> {
        let Some(unverified) = Unverified::parse(token) else {
            return Ok(None);
        };
        let Some(issuer) = unverified.claimed_issuer() else {
            return Ok(None);
        };
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.contains(&issuer) {
            return Ok(None);
        }

        self.check_signature(&unverified)?;

        let malformed = |e: serde_json::Error| AuthenticationError(format!("invalid claims: {e}"));
        let claims: Claims = unverified.claims().map_err(malformed)?;
        let wanted = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        // A token that names no audience is for the API server only.
        let held = if claims.aud.0.is_empty() {
            &self.audiences
        } else {
            &claims.aud.0
        };
        let good: Vec<String> = held
            .iter()
            .filter(|a| wanted.contains(a))
            .cloned()
            .collect();
        if good.is_empty() && !self.audiences.is_empty() {
            return error(format!(
                "token audiences {held:?} is invalid for the target audiences {wanted:?}"
            ));
        }

        if claims.aud.0.is_empty() {
            self.metrics.legacy_tokens.inc();
        }
        let user = if legacy {
            let private = unverified.claims().map_err(malformed)?;
            self.legacy(token, &claims, private).await?
        } else {
            let private: BoundClaims = unverified.claims().map_err(malformed)?;
            self.bound(&claims, private.kubernetes).await?
        };
        Ok(Some((user, good)))
    }

    fn check_signature(&self, token: &Unverified<'_>) -> Result<(), AuthenticationError> {
        let mut any = false;
        for key in &self.keys {
            if token.key_id.is_empty() || key.id == token.key_id {
                any = true;
                if token.signed_by(key) {
                    return Ok(());
                }
            }
        }
        error(if any {
            "invalid signature"
        } else {
            "invalid signature, no keys found"
        })
    }

    async fn bound(&self, claims: &Claims, bound: Bound) -> Result<User, AuthenticationError> {
        let now = (self.clock)().as_second();
        claims
            .valid_at(now)
            .map_err(|e| AuthenticationError(e.to_string()))?;

        let Bound {
            namespace,
            serviceaccount: account,
            pod,
            secret,
            node,
            warnafter,
        } = bound;
        let Some(found) = self
            .get("serviceaccounts", &namespace, &account.name)
            .await?
        else {
            return error(format!("serviceaccounts {:?} not found", account.name));
        };
        if uid(&found) != account.uid {
            return error(format!(
                "service account UID ({}) does not match claim ({})",
                uid(&found),
                account.uid
            ));
        }
        if deleted(&found, now) {
            return error(format!(
                "service account {namespace}/{} has been deleted",
                account.name
            ));
        }

        if let Some(secret) = &secret {
            self.still_there("secrets", "secret", &namespace, secret, now)
                .await?;
        }
        if let Some(pod) = &pod {
            self.still_there("pods", "pod", &namespace, pod, now)
                .await?;
        }
        if let (Some(node), None) = (&node, &pod) {
            // A pod's token only mentions the node.
            self.still_there("nodes", "node", "", node, now).await?;
        }

        match warnafter {
            0 => {}
            limit if now > limit => self.metrics.stale_tokens.inc(),
            _ => self.metrics.valid_tokens.inc(),
        }
        let mut user = user(&namespace, &account.name, &account.uid);
        let mut extra = |key: &str, value: String| {
            user.extra.insert(key.to_owned(), vec![value]);
        };
        if let Some(pod) = pod.filter(|p| !p.name.is_empty() && !p.uid.is_empty()) {
            extra(POD_NAME, pod.name);
            extra(POD_UID, pod.uid);
        }
        if !claims.jti.is_empty() {
            extra(CREDENTIAL_ID, format!("JTI={}", claims.jti));
        }
        if let Some(node) = node.filter(|n| !n.name.is_empty()) {
            extra(NODE_NAME, node.name);
            if !node.uid.is_empty() {
                extra(NODE_UID, node.uid);
            }
        }
        Ok(user)
    }

    /// The object that a token is bound to must be there, be the same, and not be long gone.
    async fn still_there(
        &self,
        resource: &str,
        kind: &str,
        namespace: &str,
        claim: &Reference,
        now: i64,
    ) -> Result<(), AuthenticationError> {
        const INVALIDATED: &str = "service account token has been invalidated";
        let Some(found) = self.get(resource, namespace, &claim.name).await? else {
            return error(INVALIDATED);
        };
        if uid(&found) != claim.uid {
            return error(format!(
                "{kind} UID ({}) does not match service account {kind} ref claim ({})",
                uid(&found),
                claim.uid
            ));
        }
        if deleted(&found, now) {
            return error(INVALIDATED);
        }
        Ok(())
    }

    async fn legacy(
        &self,
        token: &str,
        claims: &Claims,
        private: LegacyClaims,
    ) -> Result<User, AuthenticationError> {
        for (claim, name) in [
            (&claims.sub, "sub"),
            (&private.namespace, "namespace"),
            (&private.secret, "secretName"),
            (&private.name, "serviceAccountName"),
            (&private.uid, "serviceAccountUID"),
        ] {
            if claim.is_empty() {
                return error(format!("{name} claim is missing"));
            }
        }
        let LegacyClaims {
            name,
            uid: account_uid,
            secret,
            namespace,
        } = &private;
        if split_username(&claims.sub) != Some((namespace.as_str(), name.as_str())) {
            return error("sub claim is invalid");
        }
        if self.lookup_legacy {
            let found = self.get("secrets", namespace, secret).await?;
            let Some(found) = found.filter(|s| deletion_timestamp(s).is_none()) else {
                return error("Token has been invalidated");
            };
            let stored = found["data"]["token"]
                .as_str()
                .and_then(|t| STANDARD.decode(t).ok())
                .unwrap_or_default();
            if !super::constant_time_eq(&stored, token.as_bytes()) {
                return error("Token does not match server's copy");
            }
            let Some(account) = self.get("serviceaccounts", namespace, name).await? else {
                return error(format!("serviceaccounts {name:?} not found"));
            };
            if deletion_timestamp(&account).is_some() {
                return error(format!(
                    "ServiceAccount {namespace}/{name} has been deleted"
                ));
            }
            if uid(&account) != account_uid {
                return error(format!(
                    "ServiceAccount UID ({}) does not match claim ({account_uid})",
                    uid(&account)
                ));
            }
            if let Some(used) = &self.used {
                let _ = used.try_send(UsedSecret {
                    namespace: namespace.clone(),
                    name: secret.clone(),
                    uid: uid(&found).to_owned(),
                });
            }
            if found["metadata"]["labels"][INVALID_SINCE_LABEL]
                .as_str()
                .is_some_and(|l| !l.is_empty())
            {
                self.metrics.invalid_legacy_tokens.inc();
                return error(format!(
                    "the token in secret {namespace}/{secret} for service account \
                     {namespace}/{name} has been marked invalid. Use tokens from the \
                     TokenRequest API or manually created secret-based tokens, or remove the \
                     '{INVALID_SINCE_LABEL}' label from the secret to temporarily allow use of \
                     this token"
                ));
            }
            let listed = account["secrets"].as_array().into_iter().flatten();
            match listed.into_iter().any(|s| s["name"] == secret.as_str()) {
                true => self.metrics.legacy_auto_tokens.inc(),
                false => self.metrics.legacy_manual_tokens.inc(),
            }
        }
        Ok(user(namespace, name, account_uid))
    }

    /// From the cache; what it has not (yet) is asked of etcd.
    async fn get(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Value>>, AuthenticationError> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(found) = self.lookup.get("", resource, namespace, name) {
            return Ok(Some(found));
        }
        self.lookup
            .get_fresh("", resource, namespace, name)
            .await
            .map_err(|e| AuthenticationError(format!("cannot look up {resource}: {e}")))
    }
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn deletion_timestamp(object: &Value) -> Option<jiff::Timestamp> {
    object["metadata"]["deletionTimestamp"]
        .as_str()?
        .parse()
        .ok()
}

/// Objects that finish gracefully keep their tokens for a minute after their time.
fn deleted(object: &Value, now: i64) -> bool {
    deletion_timestamp(object).is_some_and(|t| t.as_second() < now - LEEWAY)
}
