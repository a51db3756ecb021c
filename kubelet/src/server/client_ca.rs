//! The authority for client certificates, which may change while the kubelet runs. TLS takes any
//! certificate: who shows one of another authority may have a token besides.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use component::files::Changes;
use component::serving::verifier_of;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use tracing::warn;

/// How often the file is looked at where the kernel does not tell.
const RELOAD_PERIOD: Duration = Duration::from_secs(10);

type Verifier = Arc<dyn ClientCertVerifier>;

/// Cheap to clone; the file is followed as long as there is one.
#[derive(Clone)]
pub struct ClientCa(Arc<ArcSwap<Verifier>>);

impl ClientCa {
    /// # Errors
    /// When there is nobody in the file who could vouch.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let current = Arc::new(ArcSwap::from_pointee(read(path)?));
        let (weak, path) = (Arc::downgrade(&current), PathBuf::from(path));
        tokio::spawn(async move {
            let mut changes = Changes::of([path.as_path()], RELOAD_PERIOD);
            loop {
                changes.next().await;
                let Some(current) = weak.upgrade() else {
                    return;
                };
                match read(&path) {
                    Ok(verifier) => current.store(Arc::new(verifier)),
                    // The one before holds on.
                    Err(error) => warn!("cannot read the authority of clients: {error:#}"),
                }
            }
        });
        Ok(Self(current))
    }

    /// Whether the chain, leaf first, is of this authority, and for clients.
    pub fn verifies(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((leaf, others)) = chain.split_first() else {
            return false;
        };
        let verifier = self.0.load();
        let now = UnixTime::now();
        verifier.verify_client_cert(leaf, others, now).is_ok()
    }
}

fn read(path: &Path) -> anyhow::Result<Verifier> {
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let trusted: Vec<_> = read.with_context(|| format!("cannot read {shown}"))?;
    verifier_of(&trusted).with_context(|| format!("cannot use {shown}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority() -> (Issuer<'static, KeyPair>, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    }

    fn client(issuer: &Issuer<'static, KeyPair>) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        vec![params.signed_by(&key, issuer).unwrap().der().clone()]
    }

    #[tokio::test]
    async fn a_stranger_is_told_from_a_client() {
        let (own, pem) = authority();
        let (other, _) = authority();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        std::fs::write(&path, pem).unwrap();
        let ca = ClientCa::load(&path).unwrap();
        assert!(ca.verifies(&client(&own)));
        assert!(!ca.verifies(&client(&other)));
        assert!(!ca.verifies(&[]));
    }
}
