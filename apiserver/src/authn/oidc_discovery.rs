//! The documents that let others verify service account tokens without asking us:
//! `/.well-known/openid-configuration` and `/openid/v1/jwks` (KEP-1393).
//!
//! What must not be here: routing.

use serde::Serialize;

use super::keys::{Jwk, PublicKey};

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const JWKS_PATH: &str = "/openid/v1/jwks";
pub const CONFIGURATION_TYPE: &str = "application/json";
/// RFC 7517, section 8.5.1.
pub const JWKS_TYPE: &str = "application/jwk-set+json";
pub const CACHE_CONTROL: &str = "public, max-age=3600";

/// Both documents, rendered once: keys do not change while the server runs.
#[derive(Debug)]
pub struct Documents {
    pub configuration: Vec<u8>,
    pub jwks: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    #[error("no keys provided for validating keyset")]
    NoKeys,
    #[error("empty issuer URL")]
    NoIssuer,
    #[error("issuer URL must use https scheme, got: {0}")]
    IssuerScheme(String),
    #[error("issuer URL may not include a query or a fragment, got: {0}")]
    IssuerParts(String),
    #[error("jwksURI requires https scheme, parsed as: {0}")]
    JwksScheme(String),
    #[error("either the JWKS URI or the default external address, or both, must be set")]
    NoAddress,
}

#[derive(Serialize)]
struct Configuration<'a> {
    issuer: &'a str,
    jwks_uri: &'a str,
    response_types_supported: [&'a str; 1],
    subject_types_supported: [&'a str; 1],
    id_token_signing_alg_values_supported: Vec<&'a str>,
}

#[derive(Serialize)]
struct KeySet<'a> {
    keys: Vec<&'a Jwk>,
}

impl Documents {
    /// `jwks_uri` is `--service-account-jwks-uri` (may be empty), `external` the
    /// `host:port` under which the server is reached. An error here is to be logged and
    /// the documents left out: the issuer may be no URL at all.
    pub fn render(
        issuer: &str,
        jwks_uri: &str,
        external: &str,
        keys: &[PublicKey],
    ) -> Result<Self, DocumentsError> {
        if issuer.is_empty() {
            return Err(DocumentsError::NoIssuer);
        }
        if jwks_uri.is_empty() && external.is_empty() {
            return Err(DocumentsError::NoAddress);
        }
        if !issuer.starts_with("https:") {
            return Err(DocumentsError::IssuerScheme(issuer.to_owned()));
        }
        if issuer.contains(['?', '#']) {
            return Err(DocumentsError::IssuerParts(issuer.to_owned()));
        }
        if !jwks_uri.is_empty() && !jwks_uri.starts_with("https:") {
            return Err(DocumentsError::JwksScheme(jwks_uri.to_owned()));
        }
        if keys.is_empty() {
            return Err(DocumentsError::NoKeys);
        }
        let jwks_uri = if jwks_uri.is_empty() {
            format!("https://{external}{JWKS_PATH}")
        } else {
            jwks_uri.to_owned()
        };
        let mut algorithms: Vec<&str> = keys.iter().map(|k| k.algorithm.name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let configuration = Configuration {
            issuer,
            jwks_uri: &jwks_uri,
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms,
        };
        let key_set = KeySet {
            keys: keys.iter().map(|k| &k.jwk).collect(),
        };
        let json = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
        Ok(Self {
            configuration: json(serde_json::to_vec(&configuration)),
            jwks: json(serde_json::to_vec(&key_set)),
        })
    }
}
