//! Certificates in files, as upstream's: `<name>-<time>.pem` holds chain and key, and
//! `<name>-current.pem` is a link to the one in use. The link is made aside, as
//! `<name>-updated.pem`, and renamed: whoever is killed in between is made good by the next.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::info;

use super::CertificateError;
use super::pair::Pair;

/// Where one certificate is kept.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// `kubelet-client` or `kubelet-server`.
    name: &'static str,
    /// Files that somebody else has laid down: read while there is nothing of our own.
    given: Option<(PathBuf, PathBuf)>,
}

impl Store {
    /// # Errors
    /// When what was left half done cannot be completed.
    pub fn open(
        directory: &Path,
        name: &'static str,
        given: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self, CertificateError> {
        let store = Self {
            directory: std::path::absolute(directory)
                .map_err(CertificateError::file("find", directory))?,
            name,
            given,
        };
        let (current, updated) = (store.current_path(), store.path("updated"));
        if !current.exists() && is_link(&updated)? {
            fs::rename(&updated, &current).map_err(CertificateError::file("rename", updated))?;
        }
        Ok(store)
    }

    fn path(&self, which: &str) -> PathBuf {
        self.directory.join(format!("{}-{which}.pem", self.name))
    }

    /// The link to the certificate in use.
    pub fn current_path(&self) -> PathBuf {
        self.path("current")
    }

    /// The certificate in use; `None` where there is none.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn current(&self) -> Result<Option<Pair>, CertificateError> {
        let current = self.current_path();
        let own = |extension| self.directory.join(format!("{}.{extension}", self.name));
        let candidates = std::iter::once((current.clone(), current))
            .chain(self.given.clone())
            .chain(std::iter::once((own("crt"), own("key"))));
        for (certificate, key) in candidates {
            if certificate.exists() && key.exists() {
                info!(certificate = %certificate.display(), key = %key.display(), "Loading cert/key pair");
                return Pair::load(&certificate, &key).map(Some);
            }
        }
        Ok(None)
    }

    /// Keeps a new certificate, which is the one in use from then on.
    ///
    /// # Errors
    /// When it is none, its key is another's, or it cannot be written.
    pub fn update(
        &self,
        chain: &[u8],
        key: &[u8],
        now: Timestamp,
    ) -> Result<Pair, CertificateError> {
        let pair = Pair::from_pem(chain, key).map_err(CertificateError::Certificate)?;
        fs::create_dir_all(&self.directory)
            .map_err(CertificateError::file("create", &self.directory))?;
        let time = now.to_zoned(TimeZone::system());
        let path = self.path(&time.strftime("%Y-%m-%d-%H-%M-%S").to_string());
        write_private(&path, &[&pair.chain, key])?;
        self.link(&path)?;
        Ok(pair)
    }

    fn link(&self, path: &Path) -> Result<(), CertificateError> {
        let (current, updated) = (self.current_path(), self.path("updated"));
        is_link(&current)?;
        if is_link(&updated)? {
            fs::remove_file(&updated).map_err(CertificateError::file("remove", &updated))?;
        }
        symlink(path, &updated).map_err(CertificateError::file("link", &updated))?;
        fs::rename(&updated, &current).map_err(CertificateError::file("rename", updated))
    }
}

/// Whether there is a link; a file in its place is somebody else's and stays.
fn is_link(path: &Path) -> Result<bool, CertificateError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Ok(true),
        Ok(_) => Err(CertificateError::NoLink(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CertificateError::file("look at", path)(error)),
    }
}

/// Writes a file that only its owner reads, down to the disk.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, parts: &[&[u8]]) -> Result<(), CertificateError> {
    let written = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()
    };
    written().map_err(CertificateError::file("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::key;
    use super::*;

    fn made(name: &str) -> (String, String) {
        let key = key::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        (certificate, key::to_pem(&key).unwrap())
    }

    #[test]
    fn the_current_one_is_a_link_to_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path().join("pki");
        let given = (
            directory.path().join("given.crt"),
            directory.path().join("given.key"),
        );
        let store = Store::open(&pki, "kubelet-client", Some(given.clone())).unwrap();
        assert!(store.current().unwrap().is_none());

        let (chain, private) = made("given");
        fs::write(&given.0, chain).unwrap();
        fs::write(&given.1, private).unwrap();
        let names = |pair: Option<Pair>| pair.unwrap().leaf.dns_names;
        assert_eq!(names(store.current().unwrap()), ["given"]);

        let time = "2026-01-02T03:04:05Z".parse().unwrap();
        for name in ["first", "second"] {
            let (chain, private) = made(name);
            store
                .update(chain.as_bytes(), private.as_bytes(), time)
                .unwrap();
            assert_eq!(names(store.current().unwrap()), [name]);
        }
        let target = fs::read_link(store.current_path()).unwrap();
        let zoned = time.to_zoned(TimeZone::system()).strftime("%H-%M-%S");
        assert!(target.ends_with(format!("kubelet-client-2026-01-02-{zoned}.pem")));
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let ((chain, _), (_, other)) = (made("a"), made("b"));
        let mixed = store.update(chain.as_bytes(), other.as_bytes(), time);
        assert!(mixed.unwrap_err().to_string().contains("does not match"));
    }

    #[test]
    fn what_was_left_half_done_is_completed_and_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (current, updated) = (
            directory.path().join("kubelet-client-current.pem"),
            directory.path().join("kubelet-client-updated.pem"),
        );
        symlink("/nowhere", &updated).unwrap();
        Store::open(directory.path(), "kubelet-client", None).unwrap();
        assert!(current.is_symlink() && !updated.is_symlink());

        fs::remove_file(&current).unwrap();
        fs::write(&current, "mine").unwrap();
        let store = Store::open(directory.path(), "kubelet-client", None).unwrap();
        let (chain, private) = made("a");
        let refused = store.update(chain.as_bytes(), private.as_bytes(), Timestamp::now());
        assert!(refused.unwrap_err().to_string().contains("symlink"));
        assert_eq!(fs::read_to_string(&current).unwrap(), "mine");
    }
}
