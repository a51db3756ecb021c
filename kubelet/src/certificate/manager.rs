//! Keeps one certificate: asks for it, keeps it in its store, and asks anew late in its life or
//! once it does not say what it should. The old one is in use until it has expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use client::Client;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::CertificateError;
use super::metrics::ManagerMetrics;
use super::pair::Pair;
use super::request::{self, Purpose};
use super::store::Store;
use super::template::{self, Template};

/// How long one request is waited for. Then it is made anew.
const WAIT: Duration = Duration::from_secs(15 * 60);
/// Between attempts that fail; the last goes on for ever.
const RETRIES: [u64; 5] = [2, 4, 8, 16, 32];
/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_secs(1);

/// The certificate in use, for everyone who shows it.
#[derive(Clone, Default)]
pub struct Current(Arc<ArcSwapOption<Pair>>);

impl Current {
    pub fn new(pair: Option<Pair>) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(pair)))
    }

    /// `None`: there is none that is valid.
    pub fn get(&self, now: Timestamp) -> Option<Arc<Pair>> {
        self.0.load_full().filter(|pair| !pair.is_expired(now))
    }
}

/// What the store has that is still valid. Otherwise what was given instead, if anything, which is
/// kept and to be replaced at once.
///
/// # Errors
/// When what is there cannot be read.
pub fn open(
    store: &Store,
    given: Option<(Vec<u8>, Vec<u8>)>,
    now: Timestamp,
) -> Result<(Option<Pair>, bool), CertificateError> {
    if let Some(pair) = store.current()?.filter(|pair| now < pair.leaf.not_after) {
        return Ok((Some(pair), false));
    }
    let Some((chain, key)) = given else {
        return Ok((None, true));
    };
    let pair = Pair::from_pem(&chain, &key).map_err(CertificateError::Certificate)?;
    if let Err(error) = store.update(&chain, &key, now) {
        error!(%error, "Unable to set the cert/key pair to the bootstrap certificate");
    }
    Ok((Some(pair), true))
}

/// Who asks: with the certificate where there is one.
pub struct Clients {
    pub with_certificate: Client,
    pub without: Client,
}

/// What the certificate is to say as of now; `None` while that is not known.
pub type Wanted = Box<dyn Fn() -> Option<Template> + Send + Sync>;

pub struct Manager {
    pub purpose: Purpose,
    pub store: Store,
    pub clients: Clients,
    pub wanted: Wanted,
    pub current: Current,
    pub metrics: ManagerMetrics,
    /// The API server has answered as if all was well with it.
    pub healthy: Arc<AtomicBool>,
    /// The first is to be replaced whatever it says.
    pub renew_first: bool,
}

impl Manager {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let renewing = async {
            let mut asked = None;
            loop {
                self.until_due(asked.as_ref()).await;
                self.renew(&mut asked).await;
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = renewing => {}
        }
    }

    /// Whether the certificate says what it should, as far as that is known. An expired one does.
    fn is_met(&self) -> bool {
        let pair = self.current.0.load();
        let met = |pair: &Arc<Pair>| (self.wanted)().is_none_or(|w| w.is_met_by(&pair.leaf));
        pair.as_ref().is_some_and(met)
    }

    /// Whether something else is wanted than what there is and what was `asked` for.
    fn is_changed(&self, asked: Option<&Template>) -> bool {
        !self.is_met() && (self.wanted)().as_ref() != asked
    }

    /// Waits until the certificate is to be renewed.
    async fn until_due(&mut self, asked: Option<&Template>) {
        if std::mem::take(&mut self.renew_first) || !self.is_met() {
            return;
        }
        let Some(pair) = self.current.0.load_full() else {
            return;
        };
        let (expiration, deadline) = (
            pair.leaf.not_after,
            template::deadline(&pair.leaf, rand::random()),
        );
        info!(signer = self.purpose.signer, %expiration, %deadline, "Certificate rotation deadline determined");
        // By the clock on the wall, which may be set, and in small steps.
        while Timestamp::now() < deadline && !self.is_changed(asked) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks until there is a new certificate; not at all while it is not known what for.
    async fn renew(&self, asked: &mut Option<Template>) {
        let last = RETRIES[RETRIES.len() - 1];
        let mut retries = RETRIES.into_iter();
        while let Some(wanted) = (self.wanted)() {
            match self.attempt(wanted, asked).await {
                Ok(()) => return,
                Err(error) => {
                    error!(%error, signer = self.purpose.signer, "cannot renew the certificate");
                    self.metrics.renew_errors.inc();
                }
            }
            let wait = retries.next().unwrap_or(last) as f64;
            tokio::time::sleep(Duration::from_secs_f64(
                wait * (1.0 + 0.1 * rand::random::<f64>()),
            ))
            .await;
        }
    }

    async fn attempt(
        &self,
        wanted: Template,
        asked: &mut Option<Template>,
    ) -> Result<(), CertificateError> {
        let (key, private) = request::new_key()?;
        let client = match self.current.get(Timestamp::now()) {
            Some(_) => &self.clients.with_certificate,
            None => &self.clients.without,
        };
        let pending = request::submit(client, self.purpose, &wanted, &key, None).await;
        if let Err(CertificateError::Create(error)) = &pending {
            self.healthy.store(is_healthy(error), Ordering::Relaxed);
        }
        let pending = pending?;
        let asked: &Template = asked.insert(wanted);
        let chain = tokio::select! {
            chain = request::issued(client, &pending, WAIT) => chain?,
            () = self.changed(asked) => return Err(CertificateError::TimedOut),
        };
        let now = Timestamp::now();
        let pair = self.store.update(&chain, private.as_bytes(), now)?;
        self.healthy.store(true, Ordering::Relaxed);
        let old = self.current.0.swap(Some(Arc::new(pair)));
        if let (Some(old), Some(ages)) = (old, &self.metrics.rotation_age) {
            ages.observe(now.duration_since(old.leaf.not_before).as_secs_f64());
        }
        Ok(())
    }

    /// Something else is wanted than what was asked for: that need not be waited for.
    async fn changed(&self, asked: &Template) {
        while !self.is_changed(Some(asked)) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Whether a refusal comes from an API server that works, and not from something before it: asking
/// again with the same credentials is in vain then.
fn is_healthy(error: &client::Error) -> bool {
    let causes = error.status().and_then(|status| status.details.as_ref());
    let mut causes = causes.into_iter().flat_map(|details| &details.causes);
    let unexpected = causes.any(|cause| cause.reason == "UnexpectedServerResponse");
    error.is_unauthorized() || (!unexpected && (error.is_not_found() || error.is_forbidden()))
}
