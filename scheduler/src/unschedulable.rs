//! What is done where no node takes a pod: notes in the cache, words for its owner, and other
//! pods that have to leave.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::bind::{Patch, Preemptor};
use crate::cycle::{Nomination, Unschedulable};
use crate::framework::Relief;
use crate::model::PodInfo;
use crate::plugins::default_preemption::displaced;
use crate::profile::Rejectors;
use crate::scheduler::{Scheduler, State};

/// What has to be told after an attempt that found no node.
pub struct Effects {
    message: String,
    pub rejectors: Rejectors,
    /// `status.nominatedNodeName`, if it changes.
    nominated: Option<Box<str>>,
    /// Where the victims are.
    node: Box<str>,
    victims: Vec<Arc<PodInfo>>,
    /// Pods that were nominated for the same node.
    displaced: Vec<Arc<PodInfo>>,
    /// What is done about claims.
    relief: Relief,
}

impl Effects {
    /// Who has to leave for the pod.
    pub fn evictions(&self, pod: &PodInfo) -> Vec<Eviction> {
        let victims = self.victims.iter();
        victims
            .map(|victim| Eviction {
                victim: Arc::clone(victim),
                preemptor: Preemptor::pod(pod, &self.node),
            })
            .collect()
    }
}

/// A pod that has to leave for others.
pub struct Eviction {
    pub victim: Arc<PodInfo>,
    pub preemptor: Preemptor,
}

impl Scheduler {
    /// Notes in the cache that no node takes the pod.
    pub(crate) fn note_unschedulable(
        &self,
        state: &mut State,
        pod: &Arc<PodInfo>,
        verdict: Unschedulable,
        began: Instant,
    ) -> Effects {
        let mut effects = Effects {
            message: verdict.message(),
            rejectors: verdict.rejectors,
            nominated: None,
            node: "".into(),
            victims: Vec::new(),
            displaced: Vec::new(),
            relief: verdict.relief,
        };
        match verdict.nomination {
            Nomination::Keep => {}
            Nomination::Clear => {
                state.cache.denominate(&pod.key);
                effects.nominated = (!pod.nominated.is_empty()).then(|| "".into());
            }
            Nomination::Node(node) => {
                let fresh: Vec<_> = verdict.victims.iter().filter(|v| !v.deleting).collect();
                if !fresh.is_empty() {
                    effects.displaced = displaced(pod, &node, &state.cache);
                    self.metrics.preempts(verdict.victims.len());
                }
                effects.victims = fresh.into_iter().cloned().collect();
                for other in &effects.displaced {
                    state.cache.denominate(&other.key);
                }
                state.cache.nominate(pod, &node);
                effects.nominated = (pod.nominated != node).then(|| node.clone());
                effects.node = node;
            }
        }
        tracing::debug!("pod {} is unschedulable: {}", pod.key, effects.message);
        let elapsed = began.elapsed().as_secs_f64();
        self.metrics
            .attempted(&pod.scheduler_name, "unschedulable", elapsed);
        effects
    }

    /// Tells what came of attempts that found no node, and has others leave for their pods;
    /// these wait until that is done.
    pub(crate) fn tell(
        self: &Arc<Self>,
        waiting: Vec<(Arc<PodInfo>, Effects)>,
        evictions: Vec<Eviction>,
    ) {
        let (this, turn) = (Arc::clone(self), self.turn_to_tell());
        self.courier.carry(async move {
            let told = waiting.iter();
            let told = told.map(|(pod, effects)| this.tell_unschedulable(pod, effects));
            futures::future::join_all(told).await;
            drop(turn);
            let (failed, gone) = this.evict(evictions).await;
            this.told(waiting.iter().map(|(pod, _)| pod), failed, gone);
        });
    }

    /// A failed attempt is to be told of; see [`Scheduler::tellers`].
    pub(crate) fn turn_to_tell(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.tellers).try_acquire_owned().ok()
    }

    /// What came of the last attempts of these pods has been told; see [`Queue::told`].
    ///
    /// [`Queue::told`]: crate::queue::Queue::told
    pub(crate) fn told<'a>(
        &self,
        pods: impl IntoIterator<Item = &'a Arc<PodInfo>>,
        failed: bool,
        gone: bool,
    ) {
        let mut state = self.lock();
        for pod in pods {
            if state.queue.has(pod) {
                state.queue.told(&pod.key, failed, gone, Instant::now());
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Tells the API server what came of an attempt that found no node.
    async fn tell_unschedulable(&self, pod: &PodInfo, effects: &Effects) {
        let patch = Patch {
            reason: "Unschedulable",
            message: &effects.message,
            nominated: effects.nominated.as_deref(),
        };
        if let Err(error) = Box::pin(self.binder.relieve(&effects.relief)).await {
            tracing::warn!("cannot free what pod {} claims: {error}", pod.key);
        }
        Box::pin(self.binder.failed(pod, &patch)).await;
        for other in effects.displaced.iter().filter(|p| !p.nominated.is_empty()) {
            self.binder.nominate(other, None).await;
        }
    }

    /// Has pods leave for others; whether some could not be told to, and whether the last of
    /// them is known to go.
    async fn evict(&self, evictions: Vec<Eviction>) -> (bool, bool) {
        let Some((last, others)) = evictions.split_last() else {
            return (false, true);
        };
        let evict = async |eviction: &Eviction| {
            let victim = &eviction.victim;
            // Of a pod that is not bound yet nobody else knows the node: it need not be deleted.
            let called_off = self.lock().in_pre_bind.call_off(&victim.uid);
            if called_off {
                self.binder.called_off(victim, &eviction.preemptor);
                return true;
            }
            let outcome = self.binder.evict(victim, &eviction.preemptor).await;
            if let Err(error) = &outcome {
                tracing::warn!("cannot preempt pod {}: {error}", victim.key);
            }
            outcome.is_ok()
        };
        let began = Instant::now();
        let mut evicted = futures::future::join_all(others.iter().map(evict))
            .await
            .into_iter()
            .all(|ok| ok);
        evicted = evicted && evict(last).await;
        self.metrics.evicted(evicted, began.elapsed());
        // When it is still there, the event of its going is yet to come, and helps.
        let last = &last.victim;
        let state = self.lock();
        let known = state.cache.pod(&last.key);
        let gone = known.is_none_or(|pod| pod.deleting || pod.uid != last.uid);
        (!evicted, gone)
    }
}
