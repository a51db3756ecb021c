//! Client certificates: CN is the user, O are the groups.
//!
//! What must not be here: the server's own certificate (`component`).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use component::aside::aside;
use component::serving::verifier_of;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::service_account::CREDENTIAL_ID;
use super::{AuthenticationError, Clock, User, authenticated};

/// The subject attribute that carries a user's uid.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// How many connections' certificates are remembered per CA bundle.
const REMEMBERED: usize = 4096;
/// For so long a chain stays refused: to look at it again may take a tenth of a second.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("unable to load CA bundle {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("unable to load CA bundle {path}: {reason}")]
    Content { path: PathBuf, reason: String },
}

/// A CA file that may change while the server runs.
pub struct CaBundle {
    path: PathBuf,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    pem: Vec<u8>,
    /// All of the bundle's. Those that are no authorities vouch for nobody but themselves.
    trusted: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Chains that were shown. Goes with the bundle.
    known: Mutex<HashMap<[u8; 32], Arc<Shown>>>,
}

/// What came of a chain, and until when that holds; not there before it is known. Many may ask
/// at the same time: a connection has hundreds of requests.
type Shown = OnceLock<(Verdict, Timestamp)>;

/// The leaf's user, or why the chain is refused.
type Verdict = Result<Subject, AuthenticationError>;

/// What a verified leaf says.
#[derive(Debug, Clone)]
pub struct Subject {
    pub common_name: String,
    /// Absent when there is no common name: such a certificate names no user.
    pub user: Option<Arc<User>>,
    /// When the certificate is not valid any more.
    pub expires: Timestamp,
}

impl CaBundle {
    pub fn load(path: &Path) -> Result<Self, CaError> {
        let pem = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(Loaded::new(path, pem)?),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again; true when it has changed. A broken file changes nothing.
    pub fn refresh(&self) -> Result<bool, CaError> {
        let pem = read(&self.path)?;
        if self.current.load().pem == pem {
            return Ok(false);
        }
        self.current.store(Arc::new(Loaded::new(&self.path, pem)?));
        Ok(true)
    }

    /// The PEM as it is now (for the `extension-apiserver-authentication` config map).
    pub fn pem(&self) -> Vec<u8> {
        self.current.load().pem.clone()
    }

    /// Verifies a chain for client authentication.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        clock: &Clock,
    ) -> Result<Subject, AuthenticationError> {
        let now = clock();
        let loaded = self.current.load();
        let mut hash = Sha256::new();
        for certificate in chain {
            hash.update((certificate.len() as u64).to_be_bytes());
            hash.update(certificate);
        }
        let key: [u8; 32] = hash.finalize().into();
        let shown = loaded.shown(key, now);
        // Anybody may send along keys that take a millisecond each to check.
        let is_long = chain.len() > 1 && shown.get().is_none();
        let (verdict, _) = aside(is_long, || {
            shown.get_or_init(|| match loaded.verify(chain, now) {
                Ok((subject, until)) => (Ok(subject), until),
                Err(refused) => (Err(refused), refused_until(chain, now)),
            })
        });
        verdict.clone()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CaError> {
    std::fs::read(path).map_err(|source| CaError::Read {
        path: path.to_owned(),
        source,
    })
}

impl Loaded {
    fn shown(&self, key: [u8; 32], now: Timestamp) -> Arc<Shown> {
        let mut known = self.known.lock();
        let holds = |shown: &&Arc<Shown>| shown.get().is_none_or(|(_, until)| now < *until);
        if let Some(shown) = known.get(&key).filter(holds) {
            return shown.clone();
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let shown = Arc::default();
        known.insert(key, Arc::clone(&shown));
        shown
    }

    /// The user of a chain, and until when it is theirs.
    fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<(Subject, Timestamp), AuthenticationError> {
        let invalid = |reason: &dyn std::fmt::Display| {
            AuthenticationError(format!("verifying certificate failed: {reason}"))
        };
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(invalid(&"no certificate"));
        };
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            now.as_second().max(0) as u64,
        ));
        let verified = (self.verifier).verify_client_cert(leaf, intermediates, time);
        verified.map_err(|e| invalid(&e))?;

        let mut until = Timestamp::MAX;
        for certificate in chain {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| invalid(&e))?;
            until = until.min(expires(&parsed));
        }
        // Which of the authorities it was is not told: until the first of them expires.
        for authority in &self.trusted {
            let (_, parsed) = X509Certificate::from_der(authority).map_err(|e| invalid(&e))?;
            until = until.min(match expires(&parsed) {
                expired if expired <= now => Timestamp::MAX,
                expires => expires,
            });
        }
        let subject = subject(leaf).map_err(|e| invalid(&e))?;
        Ok((subject, until))
    }

    fn new(path: &Path, pem: Vec<u8>) -> Result<Self, CaError> {
        let bad = |reason: String| CaError::Content {
            path: path.to_owned(),
            reason,
        };
        let trusted: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|e| bad(e.to_string()))?;
        let verifier = verifier_of(&trusted).map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            pem,
            trusted,
            verifier,
            known: Mutex::default(),
        })
    }
}

/// Until when a chain stays refused that is now.
fn refused_until(chain: &[CertificateDer<'_>], now: Timestamp) -> Timestamp {
    let begin = chain.iter().filter_map(|certificate| {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let begin = parsed.validity().not_before.timestamp();
        Timestamp::from_second(begin).ok().filter(|at| *at > now)
    });
    let until = now.saturating_add(REFUSED_FOR).unwrap_or(now);
    begin.fold(until, Timestamp::min)
}

fn expires(certificate: &X509Certificate<'_>) -> Timestamp {
    let end = certificate.validity().not_after.timestamp();
    Timestamp::from_second(end).unwrap_or(if end > 0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    })
}

fn subject(leaf: &CertificateDer<'_>) -> Result<Subject, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
    let name = certificate.subject();
    // Of several common names the last one counts, as in Go.
    let common_name = name
        .iter_common_name()
        .last()
        .and_then(|cn| cn.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut uids = Vec::new();
    for attribute in name.iter_attributes() {
        if attribute.attr_type().to_id_string() == UID_OID {
            uids.push(
                attribute
                    .as_str()
                    .map_err(|_| "unable to parse UID into a string")?,
            );
        }
    }
    let uid = match uids.as_slice() {
        [] => "",
        [""] => return Err("UID cannot be an empty string".into()),
        [one] => one,
        many => return Err(format!("expected 1 UID, but found multiple: {many:?}")),
    };
    let fingerprint =
        Sha256::digest(leaf)
            .iter()
            .fold(String::from("X509SHA256="), |mut hex, byte| {
                use std::fmt::Write as _;
                let _ = write!(hex, "{byte:02x}");
                hex
            });
    let user = (!common_name.is_empty()).then(|| {
        Arc::new(authenticated(User {
            name: common_name.clone(),
            uid: uid.to_owned(),
            groups: name
                .iter_organization()
                .filter_map(|o| o.as_str().ok())
                .map(str::to_owned)
                .collect(),
            extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![fingerprint])]),
        }))
    });
    Ok(Subject {
        common_name,
        user,
        expires: expires(&certificate),
    })
}
