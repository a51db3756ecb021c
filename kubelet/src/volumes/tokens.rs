//! Service account tokens bound to a pod, asked for when needed and renewed before they end.

use std::collections::HashMap;
use std::time::Duration;

use client::{Api, Client};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use parking_lot::Mutex;
use thiserror::Error;

use crate::pods::pod::PodExt;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    #[error("cannot use TokenManager when kubelet is in standalone mode")]
    Standalone,
    #[error("failed to fetch token: {0}")]
    Fetch(#[from] client::Error),
    #[error("failed to fetch token: the server gave none")]
    Empty,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    service_account: String,
    audience: String,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: String,
    expires: Timestamp,
    lifetime: Duration,
}

impl Token {
    /// With a fifth of its life left, or a day old: the server has then plenty of time to answer.
    fn wants_renewal(&self, now: Timestamp) -> bool {
        let left = Duration::try_from(self.expires.duration_since(now)).unwrap_or_default();
        let age = self.lifetime.saturating_sub(left);
        left <= self.lifetime / 5 || age >= Duration::from_secs(24 * 3600)
    }
}

/// Tokens of this node's pods.
pub struct Tokens {
    client: Option<Client>,
    held: Mutex<HashMap<Key, Token>>,
}

const DEFAULT_SECONDS: i64 = 3600;

impl Tokens {
    pub fn new(client: Option<Client>) -> Self {
        Self {
            client,
            held: Mutex::default(),
        }
    }

    /// A token for the pod's service account; an empty audience is the API server's own.
    ///
    /// # Errors
    /// When the server gives none, and the one held has ended.
    pub async fn get(
        &self,
        pod: &Pod,
        audience: &str,
        seconds: Option<i64>,
    ) -> Result<String, TokenError> {
        let token = self.get_with_end(pod, audience, seconds).await?;
        Ok(token.0)
    }

    /// As [`Self::get`], and when it ends.
    ///
    /// # Errors
    /// As there.
    pub async fn get_with_end(
        &self,
        pod: &Pod,
        audience: &str,
        seconds: Option<i64>,
    ) -> Result<(String, Timestamp), TokenError> {
        let client = self.client.as_ref().ok_or(TokenError::Standalone)?;
        let service_account = pod
            .pod_spec()
            .service_account_name
            .clone()
            .unwrap_or_default();
        let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
        let key = Key {
            uid: pod.uid().into(),
            service_account,
            audience: audience.into(),
            seconds,
        };
        let held = self.held.lock().get(&key).cloned();
        let now = Timestamp::now();
        if let Some(token) = held.as_ref().filter(|token| !token.wants_renewal(now)) {
            return Ok((token.text.clone(), token.expires));
        }
        match (fetch(client, pod, &key).await, held) {
            (Ok(token), _) => {
                let given = (token.text.clone(), token.expires);
                self.held.lock().insert(key, token);
                Ok(given)
            }
            (Err(error), Some(token)) if token.expires > now => {
                tracing::warn!(pod = %pod.full_name(), %error, "cannot renew a token yet");
                Ok((token.text, token.expires))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets the tokens of a pod.
    pub fn forget(&self, uid: &str) {
        self.held.lock().retain(|key, _| key.uid != uid);
    }
}

async fn fetch(client: &Client, pod: &Pod, key: &Key) -> Result<Token, TokenError> {
    let audiences = Some(key.audience.clone()).filter(|audience| !audience.is_empty());
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audiences.map(|audience| vec![audience]),
            expiration_seconds: Some(key.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name().into()),
                uid: Some(pod.uid().into()),
            }),
        }),
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, pod.namespace());
    let asked = Timestamp::now();
    let answer = accounts
        .create_subresource(&key.service_account, "token", &request)
        .await?;
    let status = answer.status.ok_or(TokenError::Empty)?;
    let expires = status.expiration_timestamp.ok_or(TokenError::Empty)?.0;
    let lifetime = Duration::try_from(expires.duration_since(asked)).unwrap_or_default();
    let text = status.token.ok_or(TokenError::Empty)?;
    Ok(Token {
        text,
        expires,
        lifetime,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let token = |lifetime: i64| Token {
            text: String::new(),
            expires: at(lifetime),
            lifetime: Duration::from_secs(lifetime.unsigned_abs()),
        };
        assert!(!token(3600).wants_renewal(at(2879)));
        assert!(token(3600).wants_renewal(at(2880)));
        assert!(token(10 * 24 * 3600).wants_renewal(at(24 * 3600)));
    }
}
