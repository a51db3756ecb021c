//! TLS towards kubelets and other backends: client certificates that follow their files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use client::AnyServer;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}: {source}", file.display())]
    Pem {
        file: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The files that a client identity and its trust come from.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Without it servers are not verified, as upstream has it.
    pub ca: Option<PathBuf>,
}

type Stamps = Vec<Option<SystemTime>>;

/// A client configuration, made again when a file changes.
pub struct ClientTls {
    files: Files,
    made: Mutex<Option<(Stamps, Arc<ClientConfig>)>>,
}

impl ClientTls {
    pub fn new(files: Files) -> ClientTls {
        ClientTls {
            files,
            made: Mutex::new(None),
        }
    }

    fn stamps(&self) -> Stamps {
        [&self.files.certificate, &self.files.key, &self.files.ca]
            .into_iter()
            .flatten()
            .map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
            .collect()
    }

    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let stamps = self.stamps();
        let mut made = self.made.lock();
        if let Some((before, config)) = made.as_ref()
            && *before == stamps
        {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build()?);
        *made = Some((stamps, config.clone()));
        Ok(config)
    }

    fn build(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.files.ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(ca)?);
                builder.with_root_certificates(roots)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(provider.clone()))),
        };
        let mut config = match (&self.files.certificate, &self.files.key) {
            (Some(certificate), Some(key)) => {
                let key_der =
                    PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
                        file: key.clone(),
                        source,
                    })?;
                let chain = certificates(certificate)?;
                let shown = client::client_certificate(chain, key_der, &provider)?;
                builder.with_client_cert_resolver(shown)
            }
            _ => builder.with_no_client_auth(),
        };
        // Upgrades exist in HTTP/1.1 only.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Pem {
        file: file.to_owned(),
        source,
    };
    CertificateDer::pem_file_iter(file)
        .map_err(error)?
        .collect::<Result<_, _>>()
        .map_err(error)
}
