//! The scheduling cycle where extenders have a say: they are asked over HTTP while the
//! cluster goes on, between finding nodes and choosing one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use component::aside::aside;
use tokio::time::Instant;

use crate::cycle::{Bounds, Candidates, Decision, PostFilter, Unschedulable};
use crate::extender::{Extender, ExtenderError, Nodes, whole_pod};
use crate::framework::Rejection;
use crate::model::PodInfo;
use crate::profile::Profile;
use crate::queue::Taken;
use crate::scheduler::{Scheduler, State, draw};

#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error(transparent)]
    Extender(#[from] ExtenderError),
}

/// Names of nodes with their scores.
pub(crate) type Scored = Vec<(String, i64)>;
/// Names of nodes, and why they are out.
pub(crate) type Excluded = Vec<(Box<str>, Rejection)>;

/// What there is before extenders are asked.
enum Begun {
    /// Nobody to schedule; when the next pod's pause ends.
    Idle(Option<Instant>),
    /// A pod that no profile speaks for.
    Nobodys,
    /// A pod that is scheduled with others.
    Member(Taken),
    Looked(Taken, Result<Scored, Unschedulable>),
}

impl Scheduler {
    /// One scheduling cycle; see `schedule_one`.
    pub(crate) async fn schedule_extended(self: &Arc<Self>) -> (bool, Option<Instant>) {
        let began = Instant::now();
        let (taken, looked) = match self.begin(began) {
            Begun::Idle(deadline) => return (false, deadline),
            Begun::Nobodys => return (true, None),
            Begun::Member(taken) => {
                self.schedule_group_extended(taken).await;
                return (true, None);
            }
            Begun::Looked(taken, looked) => (taken, looked),
        };
        let decision = match looked {
            Err(verdict) => Ok(Some(Decision::Unschedulable(verdict))),
            Ok(named) => (self.ask_extenders(&taken.pod, named).await)
                .map(|(left, excluded)| self.choose(&taken.pod, &left, excluded)),
        };
        match decision {
            Ok(Some(Decision::Unschedulable(verdict))) => {
                let verdict = self.preempt_extended(&taken.pod, verdict).await;
                self.settle(taken, Some(Decision::Unschedulable(verdict)), began);
            }
            Ok(decision) => self.settle(taken, decision, began),
            Err(error) => self.fail(&taken, &error, began),
        }
        (true, None)
    }

    fn begin(&self, now: Instant) -> Begun {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(taken) = state.queue.take(now) else {
            return Begun::Idle(state.queue.next_deadline());
        };
        let Some(profile) = self.profile(&taken.pod) else {
            state.queue.remove(&taken.pod.key);
            return Begun::Nobodys;
        };
        if taken.pod.group.is_some() {
            return Begun::Member(taken);
        }
        let looked = self.survey(state, profile, &taken.pod, HashMap::new());
        let named = looked.map(|candidates| candidates.named(&state.cache));
        Begun::Looked(taken, named)
    }

    /// The best of what is left; `None` when the nodes have changed so that it is better to
    /// look again.
    fn choose(&self, pod: &Arc<PodInfo>, left: &Scored, excluded: Excluded) -> Option<Decision> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let highest = left.iter().map(|(_, total)| *total).max();
        let best: Vec<&str> = left
            .iter()
            .filter(|(name, total)| {
                Some(*total) == highest && state.cache.node_named(name).is_some()
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if !best.is_empty() {
            let drawn = draw(best.len()).min(best.len() - 1);
            return Some(Decision::Node(best[drawn].into()));
        }
        let slots = excluded
            .into_iter()
            .filter_map(|(name, why)| Some((state.cache.node_named(&name)?.slot, why)))
            .collect();
        let profile = self.profile(pod)?;
        self.survey(state, profile, pod, slots)
            .err()
            .map(Decision::Unschedulable)
    }

    fn settle(self: &Arc<Self>, taken: Taken, decision: Option<Decision>, began: Instant) {
        let mut guard = self.lock();
        let state = &mut *guard;
        // It may have been deleted, or bound by somebody else.
        if !state.queue.has(&taken.pod) {
            return;
        }
        match (decision, self.profile(&taken.pod)) {
            (Some(decision), Some(profile)) => {
                self.conclude(state, profile, taken, decision, began);
            }
            _ => {
                state.queue.failed(&taken, Instant::now());
                state
                    .queue
                    .told(&taken.pod.key, false, true, Instant::now());
            }
        }
    }

    fn fail(self: &Arc<Self>, taken: &Taken, error: &AskError, began: Instant) {
        let mut state = self.lock();
        if state.queue.has(&taken.pod) {
            self.no_verdict(&mut state, taken, error.to_string(), began);
        }
    }

    /// What extenders leave of nodes and add to their scores, and why the others are out.
    pub(crate) async fn ask_extenders(
        &self,
        pod: &PodInfo,
        named: Scored,
    ) -> Result<(Scored, Excluded), AskError> {
        let interested: Vec<&Extender> = self
            .extenders
            .iter()
            .filter(|e| e.is_interested(pod))
            .collect();
        if interested.is_empty() {
            return Ok((named, Vec::new()));
        }
        let whole = interested.iter().any(|e| e.wants_objects());
        let names = named.iter().map(|(name, _)| name.clone()).collect();
        let mut nodes = Nodes::new(names, whole, self.binder.client()).await?;
        let object = whole_pod(self.binder.client(), pod).await?;
        let mut excluded: Excluded = Vec::new();
        for extender in interested.iter().filter(|e| e.filters()) {
            if nodes.names.is_empty() {
                break;
            }
            match extender.filter(&object, &mut nodes).await {
                Ok(rejections) => excluded.extend(rejections),
                Err(error) if extender.is_ignorable() => tracing::info!("ignored: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        let (mut left, out): (Scored, Scored) = named
            .into_iter()
            .partition(|(name, _)| nodes.names.contains(name));
        // An extender need not say why it leaves a node out.
        let told: HashSet<Box<str>> = excluded.iter().map(|(name, _)| name.clone()).collect();
        let untold = out
            .into_iter()
            .filter(|(name, _)| !told.contains(name.as_str()));
        excluded.extend(untold.map(|(name, _)| (name.into(), Rejection::wordless())));
        if left.len() > 1 {
            for extender in interested.iter().filter(|e| e.prioritizes()) {
                match extender.prioritize(&object, &nodes).await {
                    Ok(scores) => {
                        for (name, total) in &mut left {
                            *total += scores.get(name).copied().unwrap_or(0);
                        }
                    }
                    // Others may still say which is better.
                    Err(error) => tracing::debug!("ignored: {error}"),
                }
            }
        }
        Ok((left, excluded))
    }

    fn survey(
        &self,
        state: &mut State,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        excluded: HashMap<usize, Rejection>,
    ) -> Result<Candidates, Unschedulable> {
        let bounds = Bounds {
            excluded,
            within: None,
            post_filter: self.post_filter(pod, PostFilter::Run),
        };
        let (evaluations, start) = (&mut state.evaluations, &mut state.start);
        aside(pod.is_own(), || {
            profile.survey(pod, &state.cache, evaluations, start, bounds, &mut draw)
        })
    }
}
