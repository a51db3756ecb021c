//! The node's certificates: asked of the API server by CertificateSigningRequests, kept in
//! `--cert-dir` under upstream's names, and renewed while they are in use.
//!
//! [`connect::connect`] makes the kubelet's client, with or without `--bootstrap-kubeconfig`;
//! [`serving::Serving`] is the certificate of the node's API under `serverTLSBootstrap`. Both are
//! kept by a [`manager::Manager`]. What must not be here: who approves and who signs.

mod bootstrap;
pub mod connect;
mod key;
mod kubeconfig;
mod manager;
mod metrics;
mod pair;
mod request;
pub mod serving;
mod store;
mod template;

use std::path::PathBuf;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot {what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("could not convert data from {path} into cert/key pair: {why}")]
    Pair { path: PathBuf, why: String },
    #[error("expected {0:?} to be a symlink but it is a file")]
    NoLink(PathBuf),
    #[error("invalid certificate data: {0}")]
    Certificate(String),
    #[error("invalid private key: {0}")]
    Key(String),
    #[error("unable to generate certificate request: {0}")]
    Request(String),
    #[error("cannot create certificate signing request: {0}")]
    Create(client::Error),
    #[error("cannot retrieve certificate signing request: {0}")]
    Retrieve(client::Error),
    #[error("retrieved csr is not compatible: {0}")]
    Incompatible(String),
    #[error("cannot watch on the certificate signing request: {0}")]
    Refused(String),
    #[error("timed out waiting for the condition")]
    TimedOut,
    #[error("stopped while waiting for a certificate")]
    Stopped,
}

impl CertificateError {
    fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
