//! Preemption where extenders have a say: of the nodes that pods could leave they keep some,
//! and may have other pods leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cycle::{PostFilter, Unschedulable};
use crate::extended::AskError;
use crate::extender::{Extender, ExtenderError, MetaVictims, Pods, whole_pod};
use crate::model::PodInfo;
use crate::plugins::default_preemption::{Offer, Preemption};
use crate::scheduler::Scheduler;

impl Scheduler {
    /// What is done for a pod that no node takes: extenders may want to be asked about it.
    pub(crate) fn post_filter(&self, pod: &PodInfo, otherwise: PostFilter) -> PostFilter {
        let mut extenders = self.extenders.iter();
        if otherwise == PostFilter::Run && extenders.any(|e| e.preempts() && e.is_interested(pod)) {
            return PostFilter::Offer;
        }
        otherwise
    }

    /// The verdict, with what its offers have come to.
    pub(crate) async fn preempt_extended(
        &self,
        pod: &PodInfo,
        mut verdict: Unschedulable,
    ) -> Unschedulable {
        let offers = std::mem::take(&mut verdict.offers);
        if offers.is_empty() {
            return verdict;
        }
        verdict.preempted(match self.narrow_down(pod, offers.into()).await {
            Ok(offers) => Preemption::best_of(offers),
            Err(error) => Preemption::Failed(error.to_string()),
        });
        verdict
    }

    /// What extenders leave of offers, one after the other.
    async fn narrow_down(
        &self,
        pod: &PodInfo,
        mut offers: Vec<Offer>,
    ) -> Result<Vec<Offer>, AskError> {
        let client = self.binder.client();
        let extenders = self.extenders.iter();
        let asked: Vec<&Extender> = extenders
            .filter(|e| e.preempts() && e.is_interested(pod))
            .collect();
        let object = whole_pod(client, pod).await?;
        let pods = if asked.iter().any(|e| e.wants_objects()) {
            Pods::of(&offers, client).await?
        } else {
            Pods::default()
        };
        for extender in asked {
            let answer = extender.preempt(&object, &offers, &pods).await;
            match answer.and_then(|answer| self.understood(extender, answer, &offers)) {
                Ok(left) => offers = left,
                Err(error) if extender.is_ignorable() => {
                    tracing::info!("ignored: {error}");
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(offer) = offers.iter().find(|offer| offer.victims.is_empty())
                && !extender.is_ignorable()
            {
                let why = format!("expected at least one victim pod on node {:?}", offer.node);
                return Err(extender.wrong(why).into());
            }
            offers.retain(|offer| !offer.victims.is_empty());
            if offers.is_empty() {
                break;
            }
        }
        Ok(offers)
    }

    /// The pods that an extender means.
    fn understood(
        &self,
        extender: &Extender,
        answer: BTreeMap<String, MetaVictims>,
        offers: &[Offer],
    ) -> Result<Vec<Offer>, ExtenderError> {
        let cache = &self.lock().cache;
        let offer = |(name, meant): (String, MetaVictims)| {
            let offered = offers.iter().find(|offer| *offer.node == *name);
            let node = cache.node_named(&name);
            if offered.is_none() && node.is_none() {
                return Err(extender.wrong(format!("nodeinfo not found for node name {name:?}")));
            }
            // A pod that was offered may have left meanwhile.
            let offered = offered.into_iter().flat_map(|offer| &offer.victims);
            let there: Vec<&Arc<PodInfo>> = offered
                .chain(node.into_iter().flat_map(|node| &node.pods))
                .collect();
            let victims = meant.pods.iter().map(|meant| {
                let victim = there.iter().find(|pod| *pod.uid == *meant.uid);
                victim.map(|pod| Arc::clone(pod)).ok_or_else(|| {
                    extender.wrong(format!(
                        "claims to preempt pod (UID: {}) on node: {name}, but the pod is not \
                         found on that node",
                        meant.uid
                    ))
                })
            });
            Ok(Offer {
                victims: victims.collect::<Result<_, _>>()?,
                violations: usize::try_from(meant.violations).unwrap_or(0),
                node: name.into(),
            })
        };
        answer.into_iter().map(offer).collect()
    }
}
