//! Every configured method in upstream's order, behind one [`Authenticator`].
//!
//! What must not be here: how a method works.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use jiff::SignedDuration;
use tokio::sync::mpsc;

use super::bootstrap_token::BootstrapTokens;
use super::keys::{KeyError, public_keys};
use super::request_header::{Headers, RequestHeader};
use super::service_account::{UsedSecret, Verifier};
use super::token_cache::TokenCache;
use super::token_file::{self, TokenFileError};
use super::x509::{CaBundle, CaError};
use super::{
    ALL_UNAUTHENTICATED, ANONYMOUS, AuthenticationError, Authenticator, Clock, Credentials,
    Metrics, Reviewed, User, authenticated,
};
use crate::lookup::Lookup;

/// How long a token's user is remembered.
const TOKEN_SUCCESS_TTL: SignedDuration = SignedDuration::from_secs(10);
/// Browsers cannot set headers on a WebSocket: the token comes as a subprotocol.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// The authentication flags, as given.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `--client-ca-file`
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file` and the headers that go with it.
    pub request_header: Option<(PathBuf, Headers)>,
    /// `--token-auth-file`
    pub token_auth_file: Option<PathBuf>,
    pub service_accounts: ServiceAccounts,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap_tokens: bool,
    /// `--anonymous-auth`
    pub anonymous: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ServiceAccounts {
    /// `--service-account-key-file`
    pub key_files: Vec<PathBuf>,
    /// `--service-account-issuer`; the first one issues.
    pub issuers: Vec<String>,
    /// `--api-audiences`; empty: the issuers.
    pub api_audiences: Vec<String>,
    /// `--service-account-lookup`
    pub lookup: bool,
    /// Is told of secrets whose tokens are used.
    pub used: Option<mpsc::Sender<UsedSecret>>,
}

impl ServiceAccounts {
    /// The audiences that stand for this API server.
    pub fn audiences(&self) -> &[String] {
        if self.api_audiences.is_empty() {
            &self.issuers
        } else {
            &self.api_audiences
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("reading {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("service account key file {path}: {source}")]
    Key { path: PathBuf, source: KeyError },
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
}

/// The authenticator of the server, with what the composition needs beside
/// [`Authenticator`].
pub struct Authn {
    client_ca: Option<Arc<CaBundle>>,
    request_header: Option<RequestHeader>,
    static_tokens: HashMap<String, Arc<User>>,
    service_accounts: Option<Verifier>,
    bootstrap_tokens: Option<BootstrapTokens>,
    anonymous: Option<Arc<User>>,
    audiences: Vec<String>,
    cache: TokenCache,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Reads the files and joins the methods. `salt` keeps the token cache's keys secret.
pub fn build(
    config: Config,
    lookup: Arc<dyn Lookup>,
    clock: Clock,
    salt: [u8; 32],
    metrics: Arc<Metrics>,
) -> Result<Arc<Authn>, BuildError> {
    let Config {
        client_ca_file,
        request_header,
        token_auth_file,
        service_accounts,
        bootstrap_tokens,
        anonymous,
    } = config;
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| BuildError::Read {
            path: path.clone(),
            source,
        })
    };

    let client_ca = client_ca_file
        .map(|path| CaBundle::load(&path).map(Arc::new))
        .transpose()?;
    let request_header = request_header
        .map(|(path, headers)| {
            CaBundle::load(&path).map(|ca| RequestHeader {
                ca: Arc::new(ca),
                headers,
            })
        })
        .transpose()?;
    let static_tokens = match token_auth_file {
        Some(path) => token_file::parse(&String::from_utf8_lossy(&read(&path)?))?
            .into_iter()
            .map(|(token, user)| (token, Arc::new(authenticated(user))))
            .collect(),
        None => HashMap::new(),
    };
    let audiences = service_accounts.audiences().to_vec();
    let mut keys = Vec::new();
    for path in &service_accounts.key_files {
        let found = public_keys(&read(path)?).map_err(|source| BuildError::Key {
            path: path.clone(),
            source,
        })?;
        keys.extend(found);
    }
    let service_accounts = (!keys.is_empty()).then(|| Verifier {
        keys,
        issuers: service_accounts.issuers,
        audiences: audiences.clone(),
        lookup_legacy: service_accounts.lookup,
        used: service_accounts.used.clone(),
        lookup: lookup.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    Ok(Arc::new(Authn {
        client_ca,
        request_header,
        static_tokens,
        service_accounts,
        bootstrap_tokens: bootstrap_tokens.then(|| BootstrapTokens {
            lookup,
            clock: clock.clone(),
        }),
        anonymous: anonymous.then(|| {
            Arc::new(User {
                name: ANONYMOUS.to_owned(),
                groups: vec![ALL_UNAUTHENTICATED.to_owned()],
                ..User::default()
            })
        }),
        audiences,
        cache: TokenCache::new(salt, TOKEN_SUCCESS_TTL),
        clock,
        metrics,
    }))
}

impl Authn {
    fn bundles(&self) -> impl Iterator<Item = &CaBundle> {
        let request_header = self.request_header.iter().map(|r| &r.ca);
        self.client_ca.iter().chain(request_header).map(|ca| &**ca)
    }

    /// The files of the CAs that vouch for clients.
    pub fn ca_files(&self) -> impl Iterator<Item = &Path> {
        self.bundles().map(CaBundle::path)
    }

    /// Reads the CA files again; true when one has changed. What cannot be read stays as
    /// it was. Call it every minute and when a file changes.
    pub fn refresh(&self) -> bool {
        let mut changed = false;
        for bundle in self.bundles() {
            match bundle.refresh() {
                Ok(new) => changed |= new,
                Err(error) => tracing::error!(%error, "keeping the CA bundle as it was"),
            }
        }
        changed
    }

    /// The client CA's PEM, for the `extension-apiserver-authentication` config map.
    pub fn client_ca_pem(&self) -> Option<Vec<u8>> {
        self.client_ca.as_ref().map(|ca| ca.pem())
    }

    /// The request-header CA's PEM and the configured headers, for the same.
    pub fn request_header(&self) -> Option<(Vec<u8>, &Headers)> {
        self.request_header
            .as_ref()
            .map(|r| (r.ca.pem(), &r.headers))
    }

    /// The keys that verify service account tokens, for the JWKS document.
    pub fn service_account_keys(&self) -> &[super::keys::PublicKey] {
        self.service_accounts.as_ref().map_or(&[], |v| &v.keys)
    }

    async fn all(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Option<Arc<User>>, AuthenticationError> {
        let mut errors = Vec::new();

        if let Some(method) = &self.request_header {
            match method.authenticate(credentials, &self.clock) {
                Ok(Some(user)) => return Ok(Some(Arc::new(authenticated(user)))),
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        if let Some(ca) = &self.client_ca
            && !credentials.peer_certificates.is_empty()
        {
            match ca.verify(credentials.peer_certificates, &self.clock) {
                Ok(subject) => {
                    let left = subject.expires.as_second() - (self.clock)().as_second();
                    self.metrics.certificate(left);
                    if let Some(user) = subject.user {
                        return Ok(Some(user));
                    }
                }
                Err(error) => errors.push(error.0),
            }
        }
        if self.has_token_method() {
            match token(credentials.headers) {
                Ok(Some(token)) => match self.token(&token, &[]).await {
                    Ok(Some((user, _))) => return Ok(Some(user)),
                    // A token that nobody knows is wrong, not absent: no anonymity for it.
                    Ok(None) => errors.push("invalid bearer token".to_owned()),
                    Err(error) => errors.push(error.0),
                },
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        match errors.as_slice() {
            [] => Ok(self.anonymous.clone()),
            [one] => Err(AuthenticationError(one.clone())),
            many => Err(AuthenticationError(format!("[{}]", many.join(", ")))),
        }
    }

    fn has_token_method(&self) -> bool {
        !self.static_tokens.is_empty()
            || self.service_accounts.is_some()
            || self.bootstrap_tokens.is_some()
    }

    /// One token, through the cache.
    async fn token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(Arc<User>, Arc<[String]>)>, AuthenticationError> {
        let started = std::time::Instant::now();
        let now = (self.clock)();
        let key = self.cache.key(token, audiences);
        if let Some(known) = self.cache.get(&key, now) {
            self.metrics.token(true, started);
            return Ok(Some(known));
        }
        let found = {
            let _active = self.metrics.fetch();
            self.token_methods(token, audiences).await
        };
        self.metrics.fetched(found.is_ok());
        self.metrics.token(false, started);
        let found = found?;
        if let Some((user, audiences)) = &found {
            self.cache.put(key, user.clone(), audiences.clone(), now);
        }
        Ok(found)
    }

    async fn token_methods(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(Arc<User>, Arc<[String]>)>, AuthenticationError> {
        // Methods without audiences of their own are good for the API server's.
        let agnostic = || -> Arc<[String]> {
            if audiences.is_empty() {
                self.audiences.as_slice().into()
            } else {
                let shared = audiences.iter().filter(|a| self.audiences.contains(a));
                shared.cloned().collect()
            }
        };
        let usable = audiences.is_empty()
            || self.audiences.is_empty()
            || audiences.iter().any(|a| self.audiences.contains(a));

        if usable && let Some(user) = self.static_tokens.get(token) {
            return Ok(Some((user.clone(), agnostic())));
        }
        let mut failed = None;
        if let Some(verifier) = &self.service_accounts {
            match verifier.verify(token, audiences).await {
                Ok(Some((user, good))) => {
                    return Ok(Some((Arc::new(authenticated(user)), good.into())));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        if usable
            && let Some(method) = &self.bootstrap_tokens
            && let Some(user) = method.verify(token)
        {
            return Ok(Some((Arc::new(authenticated(user)), agnostic())));
        }
        failed.map_or(Ok(None), Err)
    }
}

impl Authenticator for Authn {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<User>>, AuthenticationError>> {
        Box::pin(self.all(credentials))
    }

    fn scrub(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        Headers::standard().strip(headers);
        if let Some(method) = &self.request_header {
            method.headers.strip(headers);
        }
        let carries_token =
            |v: &http::HeaderValue| v.to_str().is_ok_and(|v| v.contains(WEBSOCKET_TOKEN));
        if headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .any(carries_token)
        {
            let rest: Vec<&str> = protocols(headers)
                .filter(|p| !p.starts_with(WEBSOCKET_TOKEN))
                .collect();
            if let Ok(rest) = rest.join(",").parse() {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
            }
        }
    }

    fn review_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Reviewed>, AuthenticationError>> {
        Box::pin(async move {
            Ok(self
                .token(token, audiences)
                .await?
                .map(|(user, audiences)| (user, audiences.to_vec())))
        })
    }
}

/// The bearer token of a request's head, from the header or from a WebSocket subprotocol.
fn token(headers: &HeaderMap) -> Result<Option<String>, AuthenticationError> {
    if let Some(token) = headers
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(bearer)
    {
        return Ok(Some(token.to_owned()));
    }
    let websocket = headers
        .get(UPGRADE)
        .is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !websocket {
        return Ok(None);
    }
    let error = |text: &str| Err(AuthenticationError(text.to_owned()));
    let mut token = None;
    let mut others = false;
    for protocol in protocols(headers) {
        let Some(encoded) = protocol.strip_prefix(WEBSOCKET_TOKEN) else {
            others = true;
            continue;
        };
        if token.is_some() {
            return error("multiple base64.bearer.authorization tokens specified");
        }
        let Ok(decoded) = URL_SAFE_NO_PAD.decode(encoded) else {
            return error("invalid base64.bearer.authorization token encoding");
        };
        let Ok(decoded) = String::from_utf8(decoded) else {
            return error("invalid base64.bearer.authorization token");
        };
        token = Some(decoded);
    }
    match token {
        Some(t) if t.is_empty() => Ok(None),
        // The server must have a protocol to answer with that is not the token.
        Some(_) if !others => error("missing additional subprotocol"),
        token => Ok(token),
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

fn bearer(header: &str) -> Option<&str> {
    let mut parts = header.trim().splitn(3, ' ');
    let scheme = parts.next()?;
    let token = parts.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What a client is told whose token is passed over.
pub const MISPLACED_TOKEN: &str = "the provided Authorization header contains extra space before the bearer token, and is ignored";

/// Whether blanks stand where the bearer token begins, so that it is none.
pub fn is_token_misplaced(headers: &HeaderMap) -> bool {
    let header = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let mut parts = header.unwrap_or_default().trim().splitn(3, ' ');
    let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("bearer");
    parts.next().is_some_and(is_bearer) && parts.next() == Some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_behind_two_blanks_is_none() {
        let misplaced = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            let misplaced = is_token_misplaced(&headers);
            assert!(!misplaced || token(&headers).unwrap().is_none());
            misplaced
        };
        assert!(misplaced("Bearer  tok") && misplaced("BEARER  tok x"));
        for fine in ["Bearer tok", "Bearer ", "Bearer   ", "Basic  tok"] {
            assert!(!misplaced(fine), "{fine}");
        }
    }
}
