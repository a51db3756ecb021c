//! Who may use the node's API: client certificates of the cluster's authority, and tokens that the
//! API server vouches for; and what they may do, which it decides as for `nodes/<subresource>`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use client::{Api, Client};
use component::serving::Peer;
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tracing::warn;

use super::answer::Refusal;
use super::client_ca::ClientCa;

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
    authority: Option<ClientCa>,
    certificates: Cache<TokenDigest, bool>,
    tokens: Cache<TokenDigest, Option<User>>,
    decisions: Cache<Question, bool>,
}

impl Auth {
    /// Without a client nobody but holders of certificates is known, and nothing is decided.
    pub fn new(
        settings: AuthSettings,
        client: Option<Client>,
        authority: Option<ClientCa>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            client,
            authority,
            certificates: Cache::new(),
            tokens: Cache::new(),
            decisions: Cache::new(),
        })
    }

    /// `path` is decoded: what is asked for is what would answer. A token that came as a subprotocol
    /// is taken out of the headers, so that nobody else sees it.
    ///
    /// # Errors
    /// 401 for someone unknown, 403 for someone who may not.
    pub async fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &mut HeaderMap,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let user = self
            .authenticate(headers, peer)
            .await
            .ok_or_else(unauthorized)?;
        if !self.settings.authorize {
            return Ok(());
        }
        let verb = verb(method, path);
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
                    return Err((StatusCode::INTERNAL_SERVER_ERROR, text));
                }
            }
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            subresources.join(" ")
        );
        Err((StatusCode::FORBIDDEN, text))
    }

    async fn authenticate(&self, headers: &mut HeaderMap, peer: &Peer) -> Option<User> {
        let shown = !peer.certificates.is_empty() && self.authority.is_some();
        if shown
            && self.vouched_for(&peer.certificates)
            && let Some(user) = certificate_user(&peer.certificates[0])
        {
            return Some(authenticated(user));
        }
        if self.settings.token_webhook && self.client.is_some() {
            let (bearer, protocol) = (bearer(headers), protocol_token(headers));
            let has_none = bearer.is_none() && protocol == Token::None;
            if let Some(token) = bearer
                && let Some(user) = self.token_user(&token).await
            {
                return Some(user);
            }
            if let Token::Some(token) = protocol {
                return self.token_user(&token).await;
            }
            if !has_none {
                return None;
            }
        }
        // Who has shown something that is no good is not taken for somebody who has not.
        (self.settings.anonymous && !shown).then(|| User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..User::default()
        })
    }

    /// Whether the authority has issued the certificate. TLS has only seen that it is the client's.
    fn vouched_for(&self, chain: &[CertificateDer<'static>]) -> bool {
        /// A chain may take milliseconds to look at, and a connection has many requests.
        const REMEMBERED: Duration = Duration::from_secs(10);
        let mut digest = Sha256::new();
        for certificate in chain {
            digest.update((certificate.len() as u64).to_be_bytes());
            digest.update(certificate);
        }
        let key: TokenDigest = digest.finalize().into();
        if let Some(known) = self.certificates.get(&key) {
            return known;
        }
        let verdict = self.authority.as_ref().is_some_and(|ca| ca.verifies(chain));
        self.certificates.put(key, verdict, REMEMBERED);
        verdict
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

/// What a WebSocket's protocols say of who opens it.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    None,
    /// One that cannot be a token.
    Bad,
    Some(String),
}

/// A browser cannot set headers on a WebSocket: its token comes as a subprotocol.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

fn bearer(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let mut parts = header.trim().splitn(3, ' ');
    let is_bearer = parts.next()?.eq_ignore_ascii_case("bearer");
    let token = parts.next().filter(|token| is_bearer && !token.is_empty());
    token.map(str::to_owned)
}

fn protocol_token(headers: &mut HeaderMap) -> Token {
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    if !upgrade.is_some_and(|to| to.eq_ignore_ascii_case(b"websocket")) {
        return Token::None;
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let protocols = protocols.filter_map(|value| value.to_str().ok());
    let protocols = protocols.flat_map(|value| value.split(',').map(str::trim));
    let (tokens, others): (Vec<_>, Vec<_>) =
        protocols.partition(|protocol| protocol.starts_with(WEBSOCKET_TOKEN));
    let [token] = tokens[..] else {
        return if tokens.is_empty() {
            Token::None
        } else {
            Token::Bad
        };
    };
    let token = URL_SAFE_NO_PAD.decode(&token[WEBSOCKET_TOKEN.len()..]).ok();
    let Some(token) = token.and_then(|token| String::from_utf8(token).ok()) else {
        return Token::Bad;
    };
    if token.is_empty() {
        return Token::None;
    }
    // There must be a protocol to answer with that is not the token.
    let Some(others) = (!others.is_empty())
        .then(|| HeaderValue::from_str(&others.join(",")).ok())
        .flatten()
    else {
        return Token::Bad;
    };
    headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    Token::Some(token)
}

/// What a method does, in an authorizer's words. To run something in a pod is `create` whatever the
/// method: 1.36.2 takes the GET that begins a WebSocket for `get`, so that who may look at a node's
/// proxy may run commands in its pods.
fn verb(method: &Method, path: &str) -> &'static str {
    let runs = ["/exec", "/attach", "/portForward", "/run"];
    if runs.into_iter().any(|top| is_below(path, top)) {
        return "create";
    }
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn is_below(path: &str, top: &str) -> bool {
    let rest = path.strip_prefix(top);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The subresources of `nodes` that stand for a path; any one that is allowed will do.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |top: &str| is_below(path, top);
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

    #[test]
    fn to_run_something_is_to_create() {
        for (method, path, want) in [
            (Method::GET, "/pods", "get"),
            (Method::GET, "/exec/a/b/c", "create"),
            (Method::GET, "/portForward/a/b", "create"),
            (Method::GET, "/execx", "get"),
            (Method::POST, "/run/a/b/c", "create"),
            (Method::PUT, "/debug/flags/v", "update"),
        ] {
            assert_eq!(verb(&method, path), want, "{method} {path}");
        }
    }

    #[test]
    fn tokens() {
        let headers = |pairs: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                let name: http::HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            headers
        };
        for (header, want) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Bearer  abc", None),
            ("Basic abc", None),
            ("Bearer", None),
        ] {
            let headers = headers(&[("authorization", header)]);
            assert_eq!(bearer(&headers).as_deref(), want, "{header}");
        }
        let some = |text: &str| Token::Some(text.to_owned());
        let socket = |protocols: &str| {
            let pairs = [
                ("upgrade", "websocket"),
                ("sec-websocket-protocol", protocols),
            ];
            let mut headers = headers(&pairs);
            let token = protocol_token(&mut headers);
            let left = headers.get(SEC_WEBSOCKET_PROTOCOL);
            let left = left.map_or("", |v| v.to_str().unwrap()).to_owned();
            (token, left)
        };
        let own = "base64url.bearer.authorization.k8s.io.YWJj";
        let (token, left) = socket(&format!("v5.channel.k8s.io, {own}"));
        assert_eq!((token, left.as_str()), (some("abc"), "v5.channel.k8s.io"));
        assert_eq!(socket(own).0, Token::Bad);
        assert_eq!(socket(&format!("a, {own}, {own}")).0, Token::Bad);
        assert_eq!(socket("v5.channel.k8s.io").0, Token::None);
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
            auth.check(&Method::GET, "/pods", &mut HeaderMap::new(), &peer)
                .await
                .map_err(|(code, _)| code.as_u16())
        };
        assert_eq!(
            ask(Auth::new(settings(false, true), None, None)).await,
            Err(401)
        );
        assert_eq!(
            ask(Auth::new(settings(true, false), None, None)).await,
            Ok(())
        );
        assert_eq!(
            ask(Auth::new(settings(true, true), None, None)).await,
            Err(500)
        );
    }
}
