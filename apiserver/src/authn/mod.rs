//! Who asks: client certificates, service account tokens, request headers.
//!
//! What must not be here: what the user may do (`authz/`).

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
    ) -> BoxFuture<'a, Result<Option<(Arc<User>, Vec<String>)>, AuthenticationError>>;
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);
