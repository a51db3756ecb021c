//! A trial: the pods of a group one after the other, each in a cluster where those before it
//! count as placed. It is always taken back; what came of it stays.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::cycle::{Bounds, Decision, Nomination, PostFilter, Unschedulable};
use crate::evaluation::Evaluations;
use crate::framework::{Permit, Rejection};
use crate::groups::placement::Placement;
use crate::model::PodInfo;
use crate::profile::Profile;
use crate::reserve::Promised;

/// What came of one pod.
#[derive(Debug)]
pub enum Outcome {
    Fits {
        node: Box<str>,
        /// Why it may not go there yet.
        waits: Option<String>,
    },
    /// It would fit its nominated node once its victims have gone.
    Preempts {
        verdict: Unschedulable,
        waits: Option<String>,
    },
    Unschedulable(Unschedulable),
    /// There is no verdict, for this reason.
    Failed(String),
}

/// What came of the whole group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Pods that fit may go.
    Schedulable,
    /// It is once victims of its pods have gone.
    AfterPreemption,
    Unschedulable,
    /// There is no verdict, for this reason.
    Failed(String),
}

#[derive(Debug)]
pub struct Trial {
    /// In the order of the pods; fewer of them only where it failed.
    pub outcomes: Vec<Outcome>,
    pub verdict: Verdict,
}

/// What trials need beside the profile.
pub struct Bench<'a> {
    pub cache: &'a mut Cache,
    pub evaluations: &'a mut Evaluations,
    /// Where the search for nodes begins next.
    pub start: &'a mut usize,
    /// Picks one of so many.
    pub draw: &'a mut dyn FnMut(usize) -> usize,
}

/// A pod that counts as placed for the sake of a trial.
struct Assumed {
    pod: Arc<PodInfo>,
    promised: Option<Promised>,
    /// What it was nominated for.
    nominated: Option<Box<str>>,
}

/// A trial that goes on.
#[derive(Default)]
pub struct Running {
    outcomes: Vec<Outcome>,
    assumed: Vec<Assumed>,
    preempts: bool,
    permitted: bool,
    failed: Option<String>,
}

impl Running {
    /// Takes in what was decided for the next pod; false when the trial has failed.
    pub fn note(
        &mut self,
        profile: &Profile,
        cache: &mut Cache,
        pod: &Arc<PodInfo>,
        decision: Decision,
    ) -> bool {
        let outcome = match decision {
            Decision::Unschedulable(verdict) if verdict.failed => {
                Outcome::Failed(verdict.message())
            }
            Decision::Node(node) => match self.assume(profile, cache, pod, &node, true) {
                Ok(waits) => Outcome::Fits { node, waits },
                Err(why) => Outcome::Failed(why),
            },
            Decision::Unschedulable(verdict) => match verdict.nomination.clone() {
                // Its victims stay where they are: those that come after it find less room
                // than there will be, never more.
                Nomination::Node(node) => {
                    self.preempts = true;
                    match self.assume(profile, cache, pod, &node, false) {
                        Ok(waits) => Outcome::Preempts { verdict, waits },
                        Err(why) => Outcome::Failed(why),
                    }
                }
                _ => Outcome::Unschedulable(verdict),
            },
        };
        if let Outcome::Failed(why) = outcome {
            return self.fail(why);
        }
        self.outcomes.push(outcome);
        true
    }

    /// There is no decision for the next pod, for this reason: nothing comes of the trial.
    pub fn fail(&mut self, why: String) -> bool {
        self.failed = Some(format!(
            "failed to schedule other pod from a pod group: {why}"
        ));
        self.outcomes.push(Outcome::Failed(why));
        false
    }

    /// Has the pod count as placed, and asks whether it might go (Reserve and Permit).
    fn assume(
        &mut self,
        profile: &Profile,
        cache: &mut Cache,
        pod: &Arc<PodInfo>,
        node: &str,
        reserve: bool,
    ) -> Result<Option<String>, String> {
        let promised = match reserve {
            true => Some(Promised::make(cache, profile, pod, node)?),
            false => None,
        };
        let nominated = cache.nomination(&pod.key).map(Into::into);
        cache.assume(Arc::clone(pod), node);
        self.assumed.push(Assumed {
            pod: Arc::clone(pod),
            promised,
            nominated,
        });
        let waits = permit(profile, pod, cache)?;
        self.permitted |= waits.is_none();
        Ok(waits)
    }

    /// Takes everything back.
    pub fn finish(self, cache: &mut Cache) -> Trial {
        for assumed in self.assumed.into_iter().rev() {
            if let Some(promised) = &assumed.promised {
                promised.forget(cache);
            }
            // While extenders were asked it may have been deleted, or bound by somebody else.
            if cache.forget(&assumed.pod)
                && let Some(node) = &assumed.nominated
            {
                cache.nominate(&assumed.pod, node);
            }
        }
        Trial {
            outcomes: self.outcomes,
            verdict: match self.failed {
                Some(why) => Verdict::Failed(why),
                None if !self.permitted => Verdict::Unschedulable,
                None if self.preempts => Verdict::AfterPreemption,
                None => Verdict::Schedulable,
            },
        }
    }
}

/// Permit: why the pod may not go to its node yet.
fn permit(profile: &Profile, pod: &PodInfo, cache: &Cache) -> Result<Option<String>, String> {
    let mut waits = None;
    for plugin in &profile.permits {
        match plugin.permit(pod, cache) {
            Permit::Allow => {}
            Permit::Wait(why) => {
                waits = Some(format!(
                    "{why}, one or more plugins asked to wait and no plugin rejected pod"
                ));
            }
            Permit::Fail(why) => {
                return Err(format!("running Permit plugin {:?}: {why}", plugin.name()));
            }
        }
    }
    Ok(waits)
}

/// Tries all pods, within a placement if there is one.
pub fn run(
    profile: &Profile,
    bench: &mut Bench<'_>,
    pods: &[Arc<PodInfo>],
    within: Option<&Placement>,
    post_filter: PostFilter,
) -> Trial {
    let mut running = Running::default();
    for pod in pods {
        let bounds = Bounds {
            excluded: HashMap::<usize, Rejection>::new(),
            within,
            post_filter,
        };
        let decision = profile.schedule_within(
            pod,
            bench.cache,
            bench.evaluations,
            bench.start,
            bounds,
            bench.draw,
        );
        if !running.note(profile, bench.cache, pod, decision) {
            break;
        }
    }
    running.finish(bench.cache)
}
