//! A candidate for a lease that the API server hands out (coordinated leader election,
//! KEP-4355): its `LeaseCandidate` says of which version it is, and is renewed when the API
//! server asks who is there.

use std::time::Duration;

use k8s_openapi::api::coordination::v1beta1::{LeaseCandidate, LeaseCandidateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::client::Client;
use crate::error::Error;
use crate::informer::{Informer, Selection};
use crate::object::ObjectKey;
use crate::workqueue::{Queue, Requeue};

/// Candidates are in this namespace, whatever their lease's.
const NAMESPACE: &str = "kube-system";

/// It is renewed so often, asked or not: the API server forgets candidates after half an hour.
const RENEW: Duration = Duration::from_secs(5 * 60);

/// Of the strategies, the one that upstream's daemons ask for: the oldest version that is
/// emulated leads, so that nothing newer is done before all can do it.
const STRATEGY: &str = "OldestEmulationVersion";

/// What is said of a candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// As in the election's [`Config`](super::Config).
    pub identity: String,
    /// The lease's name.
    pub lease: String,
    /// `major.minor.patch`.
    pub binary_version: String,
    pub emulation_version: String,
}

/// A candidate that makes itself known.
pub struct Candidacy {
    candidate: Candidate,
    api: Api<LeaseCandidate>,
    informer: Informer<LeaseCandidate>,
    queue: Queue<ObjectKey>,
}

impl Candidacy {
    pub fn new(client: &Client, candidate: Candidate) -> Self {
        let selection = Selection::name(NAMESPACE, &candidate.identity);
        let informer = Informer::<LeaseCandidate>::new(Api::all(client), &selection);
        let queue = Queue::new();
        let asked = queue.clone();
        informer.add_handler(move |change| {
            let spec = change.current().map(|c| &c.spec);
            if spec.is_some_and(is_asked) {
                asked.add(change.key());
            }
        });
        Self {
            api: Api::namespaced(client, NAMESPACE),
            informer,
            queue,
            candidate,
        }
    }

    /// Whether it is known who stands already.
    pub fn synced(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let informer = self.informer.clone();
        move || informer.has_synced()
    }

    /// Stands until `stop`. What was said stays: it expires.
    pub async fn run(self, stop: CancellationToken) {
        self.informer.start(&stop);
        let synced = stop.run_until_cancelled(self.informer.wait_synced()).await;
        if synced.is_none() {
            return;
        }
        let queue = self.queue.clone();
        queue.add(ObjectKey::new(NAMESPACE, &self.candidate.identity));
        let this = std::sync::Arc::new(self);
        queue
            .run(1, &stop, move |key| {
                let this = std::sync::Arc::clone(&this);
                async move { this.stand(&key).await }
            })
            .await;
    }

    async fn stand(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        match self.informer.store().get_key(key) {
            Some(known) => {
                let mut renewed = LeaseCandidate::clone(&known);
                renewed.spec.renew_time = now;
                self.api.replace(&renewed).await?;
            }
            None => {
                self.api.create(&self.candidate.object(now)).await?;
            }
        }
        Ok(Requeue::After(RENEW))
    }
}

/// Whether the API server waits for an answer.
fn is_asked(spec: &LeaseCandidateSpec) -> bool {
    let time = |t: &Option<MicroTime>| t.as_ref().map(|t| t.0);
    time(&spec.ping_time).is_some_and(|asked| Some(asked) > time(&spec.renew_time))
}

impl Candidate {
    fn object(&self, renew_time: Option<MicroTime>) -> LeaseCandidate {
        LeaseCandidate {
            metadata: ObjectMeta {
                name: Some(self.identity.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: LeaseCandidateSpec {
                lease_name: self.lease.clone(),
                binary_version: self.binary_version.clone(),
                emulation_version: Some(self.emulation_version.clone()),
                strategy: STRATEGY.to_owned(),
                renew_time,
                ping_time: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_due_after_the_question() {
        let at = |second| Some(MicroTime(jiff::Timestamp::from_second(second).unwrap()));
        let asked = |ping, renew| {
            is_asked(&LeaseCandidateSpec {
                ping_time: ping,
                renew_time: renew,
                ..LeaseCandidateSpec::default()
            })
        };
        assert!(!asked(None, at(5)));
        assert!(asked(at(6), at(5)));
        assert!(asked(at(6), None));
        assert!(!asked(at(6), at(6)));
    }
}
