//! Delegated authentication and authorization: who asks a daemon's own port, and may they?
//! The API server knows (`TokenReview`, `SubjectAccessReview`); its answers are kept for a
//! few seconds.
//!
//! What must not be here: policy of our own. An unanswered question is a no.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

use client::{Api, Client};
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use meta::GroupResource;
use meta::Status;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::flags::common::DelegatedAuthFlags;
use crate::serving::Peer;

/// Who asks (`user.Info`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// What the authenticator knows besides; the authorizer may ask for it.
    pub extra: BTreeMap<String, Vec<String>>,
}

const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// What is asked for: a path that names no resource, such as `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: String,
    pub path: String,
}

/// How long answers are kept.
#[derive(Debug, Clone, Copy)]
pub struct CacheTimes {
    pub token: Duration,
    pub allowed: Duration,
    pub denied: Duration,
}

/// Asks the API server.
pub struct Delegated {
    tokens: Option<Api<TokenReview>>,
    access: Option<Api<SubjectAccessReview>>,
    times: CacheTimes,
    keys: (RandomState, RandomState),
    users: Cache<Option<User>>,
    decisions: Cache<Result<(), String>>,
}

impl Delegated {
    /// Without a client for a question its answer is no.
    pub fn new(tokens: Option<&Client>, access: Option<&Client>, times: CacheTimes) -> Self {
        Self {
            tokens: tokens.map(Api::all),
            access: access.map(Api::all),
            times,
            keys: Default::default(),
            users: Cache::default(),
            decisions: Cache::default(),
        }
    }

    /// From the flags of scheduler and controller managers.
    pub fn from_flags(
        flags: &DelegatedAuthFlags,
        component: &str,
    ) -> Result<Self, client::ConfigError> {
        let client = |path: &Option<std::path::PathBuf>| match path {
            None => Ok(None),
            Some(path) => {
                let config = client::Config::from_kubeconfig(path)?.user_agent(component);
                Client::new(config).map(Some)
            }
        };
        let tokens = client(&flags.authentication_kubeconfig)?;
        let access = client(&flags.authorization_kubeconfig)?;
        let times = CacheTimes {
            token: flags.authentication_token_webhook_cache_ttl.get(),
            allowed: flags.authorization_webhook_cache_authorized_ttl.get(),
            denied: flags.authorization_webhook_cache_unauthorized_ttl.get(),
        };
        Ok(Self::new(tokens.as_ref(), access.as_ref(), times))
    }

    /// Who asks: by the client certificate that TLS has verified, or by bearer token. Who has
    /// neither is `system:anonymous`, who may do what the API server's authorizer says, which is
    /// nothing unless somebody has allowed it.
    ///
    /// # Errors
    ///
    /// 401 for a token that is none.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Result<User, Status> {
        if let Some(user) = peer
            .certificates
            .first()
            .and_then(|der| certificate_user(der))
        {
            return Ok(user);
        }
        if let Some(token) = bearer(headers) {
            let known = self.review(token).await?;
            return known.ok_or_else(|| Status::unauthorized("Unauthorized"));
        }
        Ok(User {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..User::default()
        })
    }

    /// A cache must not be a list of tokens, so it is keyed by hashes; by secret ones, so that
    /// nobody can make a token that falls on another's.
    fn key(&self, value: &impl Hash) -> (u64, u64) {
        (self.keys.0.hash_one(value), self.keys.1.hash_one(value))
    }

    async fn review(&self, token: &str) -> Result<Option<User>, Status> {
        let Some(api) = &self.tokens else {
            return Ok(None);
        };
        let key = self.key(&token);
        if let Some(user) = self.users.get(key) {
            return Ok(user);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let review = api.create(&review).await.map_err(Status::internal)?;
        let status = review.status.unwrap_or_default();
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|user| User {
                name: user.username.unwrap_or_default(),
                uid: user.uid.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            });
        self.users.put(key, user.clone(), self.times.token);
        Ok(user)
    }

    /// May they?
    ///
    /// # Errors
    ///
    /// 403 when not; 500 when the API server does not say.
    pub async fn authorize(&self, user: &User, attributes: &Attributes) -> Result<(), Status> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let key = self.key(&(user, attributes));
        let known = self.decisions.get(key);
        let decision = match known {
            Some(decision) => decision,
            None => {
                let decision = self.ask(user, attributes).await?;
                let time = if decision.is_ok() {
                    self.times.allowed
                } else {
                    self.times.denied
                };
                self.decisions.put(key, decision.clone(), time);
                decision
            }
        };
        decision.map_err(|why| Status::forbidden(&GroupResource::default(), "", why))
    }

    async fn ask(
        &self,
        user: &User,
        attributes: &Attributes,
    ) -> Result<Result<(), String>, Status> {
        let Attributes { verb, path } = attributes;
        let no = || format!("User {:?} cannot {verb} path {path:?}", user.name);
        let Some(api) = &self.access else {
            return Ok(Err(no()));
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            non_resource_attributes: Some(NonResourceAttributes {
                verb: Some(verb.clone()),
                path: Some(path.clone()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let review = api.create(&review).await.map_err(Status::internal)?;
        let status = review.status.unwrap_or_default();
        Ok(if status.allowed { Ok(()) } else { Err(no()) })
    }
}

/// The user that a client certificate names: common name and organizations.
pub fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok().map(str::to_owned))
        .collect();
    groups.push(AUTHENTICATED.to_owned());
    (!name.is_empty()).then(|| User {
        name,
        groups,
        ..User::default()
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Answers for a while. A full cache starts afresh, which costs a few questions.
#[derive(Debug)]
struct Cache<T>(Mutex<HashMap<(u64, u64), (Instant, T)>>);

/// More different questions within seconds are not a daemon's usual clients.
const MOST: usize = 1024;

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Cache<T> {
    fn get(&self, key: (u64, u64)) -> Option<T> {
        let entries = self.0.lock();
        entries
            .get(&key)
            .filter(|(until, _)| *until > Instant::now())
            .map(|(_, v)| v.clone())
    }

    fn put(&self, key: (u64, u64), value: T, time: Duration) {
        if time.is_zero() {
            return;
        }
        let mut entries = self.0.lock();
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(key, (Instant::now() + time, value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn delegated() -> Delegated {
        let time = Duration::from_secs(10);
        Delegated::new(
            None,
            None,
            CacheTimes {
                token: time,
                allowed: time,
                denied: time,
            },
        )
    }

    fn peer(certificates: Vec<rustls_pki_types::CertificateDer<'static>>) -> Peer {
        let address = "127.0.0.1:1".parse().unwrap();
        Peer {
            address,
            certificates: Arc::from(certificates),
        }
    }

    fn certificate(name: &str, organization: &str) -> rustls_pki_types::CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, organization);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[tokio::test]
    async fn a_certificate_names_its_user() {
        let peer = peer(vec![certificate("alice", MASTERS)]);
        let user = delegated()
            .authenticate(&peer, &HeaderMap::new())
            .await
            .unwrap();
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, [MASTERS, AUTHENTICATED]);
        let path = Attributes {
            verb: "get".into(),
            path: "/metrics".into(),
        };
        assert_eq!(delegated().authorize(&user, &path).await, Ok(()));
    }

    #[tokio::test]
    async fn nobody_else_gets_in_without_an_api_server() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer x".parse().unwrap());
        let refused = delegated().authenticate(&peer(vec![]), &headers).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, 401, "a wrong token is not anonymous");
        let anonymous = delegated()
            .authenticate(&peer(vec![]), &HeaderMap::new())
            .await
            .unwrap();
        assert_eq!(anonymous.name, "system:anonymous");
        let path = Attributes {
            verb: "get".into(),
            path: "/metrics".into(),
        };
        let refused = delegated().authorize(&anonymous, &path).await;
        assert_eq!(
            refused.unwrap_err().message,
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
        );
    }
}
