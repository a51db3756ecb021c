//! `--bootstrap-kubeconfig` where certificates are not rotated: one is asked for before anything
//! else, and the kubeconfig written once it is there. The key waits in a file of its own, so that
//! a restart finds the request that it has made.

use std::path::Path;
use std::time::Duration;

use client::{Client, Config};
use jiff::Timestamp;
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::request::{self, CLIENT};
use super::store::{Store, write_private};
use super::template::Template;
use super::{CertificateError, key, kubeconfig};

/// Where the key waits, in the certificates' directory.
const WAITING_KEY: &str = "kubelet-client.key.tmp";
/// How long somebody may take to approve the request.
const WAIT: Duration = Duration::from_secs(3600);
/// How long the API server may take to come up before it is asked all the same.
const SERVER_WAIT: Duration = Duration::from_secs(60);

/// Asks with the bootstrap kubeconfig's user, and writes the kubeconfig.
///
/// # Errors
/// When the request is not taken, not approved within an hour, or something cannot be written.
pub async fn obtain(
    bootstrap: &Config,
    path: &Path,
    store: &Store,
    directory: &Path,
    node: &str,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let waiting = directory.join(WAITING_KEY);
    let (key, private) = the_key(store, &waiting)?;
    let client = Client::new(bootstrap.clone())?;
    let asking = async {
        if tokio::time::timeout(SERVER_WAIT, answers(&client))
            .await
            .is_err()
        {
            warn!("timed out waiting to connect to the API server");
        }
        let template = Template::node(node);
        let name = request::digested_name(CLIENT, &template, &key);
        let pending = request::submit(&client, CLIENT, &template, &key, Some(&name)).await?;
        request::issued(&client, &pending, WAIT).await
    };
    let chain = tokio::select! {
        () = stop.cancelled() => return Err(CertificateError::Stopped.into()),
        chain = asking => chain?,
    };
    store.update(&chain, private.as_bytes(), Timestamp::now())?;
    if let Err(error) = std::fs::remove_file(&waiting)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(%error, path = %waiting.display(), "cannot remove the key that waited");
    }
    kubeconfig::write(bootstrap, path, &store.current_path())?;
    Ok(())
}

/// The key of the last certificate, the one that waits, or a new one that waits from now on.
fn the_key(store: &Store, waiting: &Path) -> Result<(KeyPair, String), CertificateError> {
    let last = store.current().ok().flatten();
    if let Some(key) = last.and_then(|pair| key::from_pem(&pair.key).ok())
        && let Ok(pem) = key::to_pem(&key)
    {
        return Ok((key, pem));
    }
    match std::fs::read(waiting) {
        Ok(text) => {
            let key = key::from_pem(&text)?;
            let pem = key::to_pem(&key)?;
            return Ok((key, pem));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(CertificateError::file("read", waiting)(error)),
    }
    info!("making a new private key");
    let (key, pem) = request::new_key()?;
    if let Some(directory) = waiting.parent() {
        std::fs::create_dir_all(directory).map_err(CertificateError::file("create", directory))?;
    }
    write_private(waiting, &[pem.as_bytes()])?;
    Ok((key, pem))
}

async fn answers(client: &Client) {
    let client = client.with_timeout(Duration::from_secs(1));
    while let Err(error) = client.get_text("/healthz").await {
        info!(%error, "Failed to connect to apiserver");
        let wait = 2.0 * (1.0 + 0.2 * rand::random::<f64>());
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_for_its_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "kubelet-client", None).unwrap();
        let waiting = directory.path().join("pki").join(WAITING_KEY);
        let (_, first) = the_key(&store, &waiting).unwrap();
        let (key, again) = the_key(&store, &waiting).unwrap();
        assert_eq!(first, again);

        let params = rcgen::CertificateParams::new(vec!["n".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let now = Timestamp::now();
        store
            .update(chain.as_bytes(), again.as_bytes(), now)
            .unwrap();
        std::fs::remove_file(&waiting).unwrap();
        assert_eq!(the_key(&store, &waiting).unwrap().1, first);
        assert!(!waiting.exists());
    }
}
