//! Who asks: client certificates, tokens, request headers of a front proxy.
//!
//! [`build`] makes one [`Authenticator`] of every configured method, asked in upstream's
//! order; one file per method.
//! What must not be here: what the user may do (`authz/`).

mod bootstrap_token;
mod chain;
pub mod jwt;
pub mod keys;
mod metrics;
pub mod oidc_discovery;
pub mod request_header;
pub mod service_account;
#[cfg(test)]
mod tests;
mod token_cache;
mod token_file;
pub mod token_issuer;
pub mod x509;

pub use chain::{Authn, Config, MISPLACED_TOKEN, ServiceAccounts, build, is_token_misplaced};
pub use metrics::Metrics;
pub use service_account::{LAST_USED_LABEL, UsedSecret};

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

/// The user a request is made for (`user.Info`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

pub const ALL_AUTHENTICATED: &str = "system:authenticated";
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";

/// What a connection and its request's head offer as proof.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The client's certificate chain, leaf first. TLS has verified only that the client
    /// holds the leaf's key; which CA vouches for it is for the authenticator to check
    /// (upstream's `tls.RequestClientCert`), so that a CA can be replaced under a live server.
    pub peer_certificates: &'a [rustls_pki_types::CertificateDer<'static>],
    pub headers: &'a http::HeaderMap,
}

/// Every method that is configured, asked in turn.
pub trait Authenticator: Send + Sync + 'static {
    /// The user; `None` when no method recognises the credentials (401, or anonymous
    /// where the path allows it); an error when they are recognised and wrong (401).
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<User>>, AuthenticationError>>;

    /// Takes out of a request's head what proves who asks, so that nothing behind
    /// (proxied nodes, aggregated servers, logs) ever sees it. Call it once the request is
    /// authenticated.
    fn scrub(&self, headers: &mut http::HeaderMap);

    /// Authenticates one bearer token for a `TokenReview`; also the audiences it is good
    /// for. `audiences` empty means the API server's own.
    fn review_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Reviewed>, AuthenticationError>>;
}

/// Whose a token is, and the audiences that it is good for.
pub type Reviewed = (Arc<User>, Vec<String>);

#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// Whoever is known is also in `system:authenticated`.
fn authenticated(mut user: User) -> User {
    if user.name != ANONYMOUS
        && !user.in_group(ALL_AUTHENTICATED)
        && !user.in_group(ALL_UNAUTHENTICATED)
    {
        user.groups.push(ALL_AUTHENTICATED.to_owned());
    }
    user
}

/// Compares secrets in a time that depends on their lengths only.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}
