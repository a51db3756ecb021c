//! The kubelet's own kubeconfig: whether it still does, and how it is written once there is a
//! bootstrap kubeconfig to make it from.

use std::io;
use std::path::Path;

use client::Config;
use client::config::Pem;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::warn;

use super::CertificateError;
use super::pair::{Leaf, certificates};
use super::store::write_private;

/// Whether the file is there and says who we are, with a certificate that has not expired.
///
/// # Errors
/// When it cannot be told whether the file is there.
pub fn is_valid(path: &Path, now: Timestamp) -> Result<bool, CertificateError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(CertificateError::file("read", path)(error)),
        Ok(_) => {}
    }
    let valid = Config::from_kubeconfig(path)
        .map_err(|error| error.to_string())
        .and_then(|config| check(&config, now));
    if let Err(why) = &valid {
        warn!(path = %path.display(), why, "the existing kubeconfig is of no use, and made anew");
    }
    Ok(valid.is_ok())
}

fn check(config: &Config, now: Timestamp) -> Result<(), String> {
    let (chain, key) = config.client_certificate.as_ref().ok_or("no certificate")?;
    let read = |pem: &Pem| pem.read().map_err(|error| format!("{error}"));
    let (chain, key) = (read(chain)?, read(key)?);
    super::pair::Pair::from_pem(&chain, &key)?;
    for certificate in certificates(&chain)? {
        let leaf = Leaf::of(&certificate)?;
        if now > leaf.not_after {
            let when = leaf.not_after;
            return Err(format!("part of the client certificate is expired: {when}"));
        }
    }
    Ok(())
}

/// What is written: the bootstrap kubeconfig's server, and the certificate at `pem`. Pure.
fn document(bootstrap: &Config, pem: &Path) -> Value {
    use base64::Engine as _;
    let mut cluster = json!({"server": bootstrap.server});
    match &bootstrap.certificate_authority {
        Some(Pem::File(path)) => cluster["certificate-authority"] = json!(path),
        Some(Pem::Data(data)) => {
            let text = base64::engine::general_purpose::STANDARD.encode(data);
            cluster["certificate-authority-data"] = json!(text);
        }
        None => {}
    }
    if bootstrap.insecure_skip_tls_verify {
        cluster["insecure-skip-tls-verify"] = json!(true);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "users": [{"name": "default-auth", "user": {"client-certificate": pem, "client-key": pem}}],
        "contexts": [{
            "name": "default-context",
            "context": {"cluster": "default-cluster", "user": "default-auth", "namespace": "default"},
        }],
        "current-context": "default-context",
    })
}

/// Writes it, for its owner only.
///
/// # Errors
/// When it cannot be written.
pub fn write(bootstrap: &Config, path: &Path, pem: &Path) -> Result<(), CertificateError> {
    // A string is one line, however long.
    let form = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(&document(bootstrap, pem), form)
        .map_err(|error| CertificateError::Request(error.to_string()))?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(CertificateError::file("create", directory))?;
    }
    write_private(path, &[text.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::super::key;
    use super::*;

    #[test]
    fn what_is_written_is_valid_while_its_certificate_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc/kubeconfig");
        let now = Timestamp::now();
        assert!(!is_valid(&path, now).unwrap());

        let mut bootstrap = Config::new("https://10.0.0.1:6443");
        bootstrap.certificate_authority = Some(Pem::Data(b"ca".to_vec()));
        let pem = directory.path().join("current.pem");
        write(&bootstrap, &path, &pem).unwrap();
        assert!(!is_valid(&path, now).unwrap(), "there is no certificate");

        let pair = key::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["n".to_owned()]).unwrap();
        let made = made.self_signed(&pair).unwrap().pem();
        std::fs::write(&pem, made + &key::to_pem(&pair).unwrap()).unwrap();
        assert!(is_valid(&path, now).unwrap());
        assert!(!is_valid(&path, Timestamp::MAX).unwrap());

        let read = Config::from_kubeconfig(&path).unwrap();
        assert_eq!(read.server, bootstrap.server);
        assert_eq!(read.certificate_authority, bootstrap.certificate_authority);
        assert_eq!(read.namespace, "default");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(!is_valid(&path, now).unwrap());
    }
}
