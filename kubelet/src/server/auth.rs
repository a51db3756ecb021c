//! Who may use the node's API: client certificates and tokens that the API server vouches for;
//! and what they may do, which the API server decides as for `nodes/<subresource>`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Api, Client};
use component::serving::Peer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tracing::warn;

/// Someone who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The configuration's words on authentication and authorization.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    pub node_name: String,
    pub anonymous: bool,
    /// Tokens are shown to the API server.
    pub token_webhook: bool,
    pub token_ttl: Duration,
    /// Without it everyone who is known may do everything.
    pub authorize: bool,
    pub allowed_ttl: Duration,
    pub denied_ttl: Duration,
}

/// Answers that are good for a while.
struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

/// More than this many answers are not kept: somebody is trying things out.
const CACHE_SIZE: usize = 1024;

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0
            .lock()
            .get(key)
            .filter(|(until, _)| *until > Instant::now())
            .map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.0.lock();
        if entries.len() >= CACHE_SIZE {
            let now = Instant::now();
            entries.retain(|_, (until, _)| *until > now);
            if entries.len() >= CACHE_SIZE {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now() + ttl, value));
    }
}

type TokenDigest = [u8; 32];
type Question = (User, String, &'static str);

/// Decides on requests to the node's API.
pub struct Auth {
    settings: AuthSettings,
    client: Option<Client>,
    tokens: Cache<TokenDigest, Option<User>>,
    decisions: Cache<Question, bool>,
}

/// Why a request is refused: status and text.
pub type Refusal = (http::StatusCode, String);

impl Auth {
    /// Without a client nobody but holders of certificates is known, and nothing is decided.
    pub fn new(settings: AuthSettings, client: Option<Client>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            client,
            tokens: Cache::new(),
            decisions: Cache::new(),
        })
    }

    /// # Errors
    /// 401 for someone unknown, 403 for someone who may not.
    pub async fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        let unauthorized = || (http::StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let user = self
            .authenticate(headers, peer)
            .await
            .ok_or_else(unauthorized)?;
        if !self.settings.authorize {
            return Ok(());
        }
        let verb = verb(method);
        let subresources = subresources(path);
        for subresource in &subresources {
            match self.decide(&user, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let text = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                        user.name
                    );
                    warn!(%error, "{text}");
                    return Err((http::StatusCode::INTERNAL_SERVER_ERROR, text));
                }
            }
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            subresources.join(" ")
        );
        Err((http::StatusCode::FORBIDDEN, text))
    }

    async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Option<User> {
        // TLS has verified the chain.
        if let Some(user) = peer
            .certificates
            .first()
            .and_then(|leaf| certificate_user(leaf))
        {
            return Some(authenticated(user));
        }
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match bearer.map(str::trim).filter(|token| !token.is_empty()) {
            Some(token) => self.token_user(token).await,
            None if self.settings.anonymous => Some(User {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..User::default()
            }),
            None => None,
        }
    }

    async fn token_user(&self, token: &str) -> Option<User> {
        let client = self
            .client
            .as_ref()
            .filter(|_| self.settings.token_webhook)?;
        // The token itself is not kept.
        let key: TokenDigest = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..Default::default()
        };
        let answer = Api::<TokenReview>::all(client).create(&review).await;
        let status = match answer {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => {
                warn!(%error, "cannot review a token");
                return None;
            }
        };
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|user| {
                authenticated(User {
                    name: user.username.unwrap_or_default(),
                    uid: user.uid.unwrap_or_default(),
                    groups: user.groups.unwrap_or_default(),
                    extra: user.extra.unwrap_or_default(),
                })
            });
        self.tokens.put(key, user.clone(), self.settings.token_ttl);
        user
    }

    async fn decide(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &str,
    ) -> Result<bool, String> {
        let key = (user.clone(), subresource.to_owned(), verb);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let client = self.client.as_ref().ok_or("no API server to ask")?;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.settings.node_name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = Api::<SubjectAccessReview>::all(client)
            .create(&review)
            .await
            .map_err(|error| error.to_string())?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        let ttl = if allowed {
            self.settings.allowed_ttl
        } else {
            self.settings.denied_ttl
        };
        self.decisions.put(key, allowed, ttl);
        Ok(allowed)
    }
}

fn authenticated(mut user: User) -> User {
    let group = "system:authenticated".to_owned();
    if !user.groups.contains(&group) {
        user.groups.push(group);
    }
    user
}

/// The common name is the user, organizations are groups.
fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok().map(str::to_owned))
        .collect();
    (!name.is_empty()).then_some(User {
        name,
        groups,
        ..User::default()
    })
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresources of `nodes` that stand for a path; any one that is allowed will do.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |top: &str| {
        path == top
            || path
                .strip_prefix(top)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let own = [
        ("/stats", "stats"),
        ("/metrics", "metrics"),
        ("/logs", "log"),
        ("/checkpoint", "checkpoint"),
        ("/statusz", "statusz"),
        ("/flagz", "configz"),
    ];
    if let Some((_, subresource)) = own.into_iter().find(|(top, _)| below(top)) {
        return vec![subresource];
    }
    let finer = [
        ("/pods", "pods"),
        ("/runningpods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
    ];
    finer
        .into_iter()
        .find(|(top, _)| below(top))
        .map(|(_, finer)| finer)
        .into_iter()
        .chain(["proxy"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_their_subresources() {
        for (path, want) in [
            ("/pods", &["pods", "proxy"][..]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/podsx", &["proxy"]),
            ("/stats/summary", &["stats"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/logs/", &["log"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/healthz/log", &["healthz", "proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
    }

    #[tokio::test]
    async fn strangers_are_refused() {
        let settings = |anonymous, authorize| AuthSettings {
            node_name: "n".into(),
            anonymous,
            token_webhook: true,
            token_ttl: Duration::from_secs(1),
            authorize,
            allowed_ttl: Duration::from_secs(1),
            denied_ttl: Duration::from_secs(1),
        };
        let peer = Peer {
            address: "127.0.0.1:1".parse().unwrap(),
            certificates: Arc::from([]),
        };
        let ask = async |auth: Arc<Auth>| {
            auth.check(&Method::GET, "/pods", &HeaderMap::new(), &peer)
                .await
                .map_err(|(code, _)| code.as_u16())
        };
        assert_eq!(ask(Auth::new(settings(false, true), None)).await, Err(401));
        assert_eq!(ask(Auth::new(settings(true, false), None)).await, Ok(()));
        assert_eq!(ask(Auth::new(settings(true, true), None)).await, Err(500));
    }
}
