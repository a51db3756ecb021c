//! One pod's life on this node, as a state machine: it runs, it is ended, its remains are cleared
//! away. Pure; the loop starts the work that a worker asks for, at most one piece at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::pod::{PodExt, is_terminal_phase};

/// Where a pod is in its life. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Meant to run.
    Syncing,
    /// Its containers are to be stopped.
    Terminating,
    /// Its containers are stopped; volumes and cgroups go.
    Terminated,
    /// Nothing of it is left but what people may want to look at.
    Finished,
}

/// What a worker wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Bring containers to what the pod asks for.
    Sync,
    /// Stop all containers, with this grace instead of the pod's own.
    Terminate { grace: Option<i64> },
    /// Take volumes and cgroups away, and tell the last status.
    Finish,
}

/// How a piece of work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Synced. `terminal`: no container will be started any more.
    Synced {
        terminal: bool,
        again: Option<Duration>,
    },
    /// Terminated, or finished.
    Completed,
    /// To be tried again, at the latest after this time.
    Failed { again: Option<Duration> },
    /// Given up because the worker wanted something else.
    Cancelled,
}

/// Times between two looks at a pod.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Where all is well.
    pub resync: Duration,
    /// After a first failure; doubles up to `max_retry`.
    pub retry: Duration,
    pub max_retry: Duration,
}

/// The worker of one pod.
#[derive(Debug)]
pub struct Worker {
    /// The newest version of the pod. Of a pod known only from the runtime, no more than its name.
    pub pod: Arc<Pod>,
    /// The pod is known from the runtime only.
    pub orphan: bool,
    /// The source does not have the pod any more.
    pub gone: bool,
    phase: Phase,
    grace: Option<i64>,
    /// The grace that the termination in progress was started with.
    grace_in_use: Option<i64>,
    busy: Option<CancellationToken>,
    /// Something happened since the work in progress began.
    pending: bool,
    due: Option<Instant>,
    failures: u32,
    /// No work has been started yet.
    new: bool,
}

impl Worker {
    pub fn new(pod: Arc<Pod>) -> Self {
        let mut worker = Self {
            pod: pod.clone(),
            orphan: false,
            gone: false,
            phase: Phase::Syncing,
            grace: None,
            grace_in_use: None,
            busy: None,
            pending: true,
            due: None,
            failures: 0,
            new: true,
        };
        worker.update(pod);
        worker
    }

    /// The worker of a pod that the runtime has and nobody asks for.
    pub fn orphan(pod: Arc<Pod>) -> Self {
        let mut worker = Self::new(pod);
        worker.orphan = true;
        worker.gone = true;
        worker.phase = Phase::Terminating;
        worker.grace = Some(1);
        worker
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether no work has been started for it yet.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Whether containers may be running: before they have been seen to be stopped.
    pub fn may_run(&self) -> bool {
        self.phase < Phase::Terminated
    }

    /// The pod is as it says now.
    pub fn update(&mut self, pod: Arc<Pod>) {
        self.pod = pod;
        self.pending = true;
        if self.pod.is_deleting() || is_terminal_phase(self.pod.phase()) && !self.pod.is_static() {
            self.terminate(None);
        }
        self.hurry();
    }

    /// A shorter grace takes effect at once; a longer one never does.
    fn hurry(&self) {
        if let (Phase::Terminating, Some(busy), Some(in_use)) =
            (self.phase, &self.busy, self.grace_in_use)
            && self.effective_grace() < in_use
        {
            busy.cancel();
        }
    }

    /// Something happened to its containers or to what it depends on.
    pub fn poke(&mut self) {
        self.pending = true;
    }

    /// The pod is to end, with this grace instead of its own.
    pub fn terminate(&mut self, grace: Option<i64>) {
        if let Some(grace) = grace {
            self.grace = Some(self.grace.map_or(grace, |known| known.min(grace)));
        }
        if self.phase == Phase::Syncing {
            self.phase = Phase::Terminating;
            self.failures = 0;
            self.pending = true;
            if let Some(busy) = &self.busy {
                busy.cancel();
            }
        }
        self.hurry();
    }

    /// The source does not have the pod any more.
    pub fn remove(&mut self) {
        self.gone = true;
        self.terminate(None);
    }

    fn effective_grace(&self) -> i64 {
        let own = self.pod.pod_spec().termination_grace_period_seconds;
        let given = self.given_grace().or(self.deletion_grace()).or(own);
        given.unwrap_or_default()
    }

    fn deletion_grace(&self) -> Option<i64> {
        self.pod.metadata.deletion_grace_period_seconds
    }

    /// What counts instead of the pod's own, unless it is to be deleted sooner.
    fn given_grace(&self) -> Option<i64> {
        let sooner = |given: i64| self.deletion_grace().map_or(given, |own| own.min(given));
        self.grace.map(sooner)
    }

    /// What to do now, if anything. The token ends the work early.
    pub fn next(&mut self, now: Instant) -> Option<(Work, CancellationToken)> {
        if self.busy.is_some() || self.phase == Phase::Finished {
            return None;
        }
        if !self.pending && self.due.is_none_or(|due| due > now) {
            return None;
        }
        let work = match self.phase {
            Phase::Syncing => Work::Sync,
            Phase::Terminating => {
                self.grace_in_use = Some(self.effective_grace());
                Work::Terminate {
                    grace: self.given_grace(),
                }
            }
            Phase::Terminated => Work::Finish,
            Phase::Finished => return None,
        };
        self.pending = false;
        self.new = false;
        self.due = None;
        let token = CancellationToken::new();
        self.busy = Some(token.clone());
        Some((work, token))
    }

    /// When to ask again, if nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.busy.is_none())
    }

    /// The work in progress has ended. `random` is uniform in 0..1.
    pub fn done(&mut self, outcome: &Outcome, times: &Times, now: Instant, random: f64) {
        self.busy = None;
        match outcome {
            Outcome::Synced { terminal, again } => {
                self.failures = 0;
                if *terminal {
                    self.terminate(None);
                } else {
                    let resync = times.resync.mul_f64(1.0 + random / 2.0);
                    self.due = Some(now + again.map_or(resync, |again| again.min(resync)));
                }
            }
            Outcome::Completed => {
                self.failures = 0;
                self.pending = true;
                self.phase = match self.phase {
                    Phase::Syncing | Phase::Terminating => Phase::Terminated,
                    Phase::Terminated | Phase::Finished => Phase::Finished,
                };
            }
            Outcome::Failed { again } => {
                let retry = times
                    .retry
                    .saturating_mul(1 << self.failures.min(16))
                    .min(times.max_retry);
                self.failures += 1;
                self.due = Some(now + again.map_or(retry, |again| again.min(times.resync)));
                // What just failed would fail again: whatever happened meanwhile waits as well,
                // but for the end of the pod.
                if self.phase == Phase::Syncing && self.failures > 1 && self.pending {
                    self.pending = false;
                    self.due = self.due.map(|due| due.min(now + times.retry));
                }
            }
            Outcome::Cancelled => self.pending = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TIMES: Times = Times {
        resync: Duration::from_secs(60),
        retry: Duration::from_secs(1),
        max_retry: Duration::from_secs(10),
    };

    fn pod(metadata: serde_json::Value, phase: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 30, "containers": []}, "status": {"phase": phase}}))
                .unwrap(),
        )
    }

    fn deleted(grace: i64) -> Arc<Pod> {
        pod(
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}),
            "Running",
        )
    }

    fn work(worker: &mut Worker, now: Instant) -> Option<Work> {
        worker.next(now).map(|(work, _)| work)
    }

    #[test]
    fn a_life() {
        let now = Instant::now();
        let mut w = Worker::new(pod(json!({}), "Pending"));
        assert_eq!(work(&mut w, now), Some(Work::Sync));
        w.poke();
        assert_eq!(work(&mut w, now), None, "one at a time");
        w.done(
            &Outcome::Synced {
                terminal: false,
                again: None,
            },
            &TIMES,
            now,
            0.0,
        );
        assert_eq!(
            work(&mut w, now),
            Some(Work::Sync),
            "what happened meanwhile"
        );
        w.done(
            &Outcome::Synced {
                terminal: false,
                again: None,
            },
            &TIMES,
            now,
            0.0,
        );
        assert_eq!(work(&mut w, now), None);
        assert_eq!(w.due(), Some(now + TIMES.resync));
        assert!(work(&mut w, now + TIMES.resync).is_some());
        w.update(deleted(30));
        w.done(&Outcome::Cancelled, &TIMES, now, 0.0);
        assert_eq!(work(&mut w, now), Some(Work::Terminate { grace: None }));
        assert!(w.may_run());
        w.done(&Outcome::Completed, &TIMES, now, 0.0);
        assert!(!w.may_run());
        assert_eq!(work(&mut w, now), Some(Work::Finish));
        w.done(&Outcome::Completed, &TIMES, now, 0.0);
        assert_eq!((w.phase(), work(&mut w, now)), (Phase::Finished, None));
    }

    #[test]
    fn a_shorter_grace_takes_effect_at_once() {
        let now = Instant::now();
        let mut w = Worker::new(deleted(30));
        let (_, token) = w.next(now).unwrap();
        w.update(deleted(30));
        assert!(!token.is_cancelled());
        w.update(deleted(1));
        assert!(token.is_cancelled());
    }

    #[test]
    fn what_is_to_end_soon_ends_at_once_when_told_so() {
        let now = Instant::now();
        let mut w = Worker::new(deleted(30));
        let (_, token) = w.next(now).unwrap();
        w.terminate(Some(60));
        assert!(!token.is_cancelled());
        w.terminate(Some(1));
        assert!(token.is_cancelled());
        w.done(&Outcome::Cancelled, &TIMES, now, 0.0);
        assert_eq!(work(&mut w, now), Some(Work::Terminate { grace: Some(1) }));
        let mut later = Worker::new(deleted(5));
        later.terminate(Some(60));
        assert_eq!(
            work(&mut later, now),
            Some(Work::Terminate { grace: Some(5) })
        );
    }

    #[test]
    fn deletion_interrupts_a_sync() {
        let mut w = Worker::new(pod(json!({}), "Pending"));
        let (_, token) = w.next(Instant::now()).unwrap();
        w.remove();
        assert!(token.is_cancelled() && w.gone);
    }

    #[test]
    fn failures_back_off() {
        let now = Instant::now();
        let mut w = Worker::new(pod(json!({}), "Pending"));
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert!(w.next(now + Duration::from_secs(1000)).is_some());
            w.done(&Outcome::Failed { again: None }, &TIMES, now, 0.0);
            assert_eq!(w.due(), Some(now + Duration::from_secs(seconds)));
        }
        assert!(w.next(now + Duration::from_secs(1000)).is_some());
        w.done(
            &Outcome::Failed {
                again: Some(Duration::from_secs(3)),
            },
            &TIMES,
            now,
            0.0,
        );
        assert_eq!(w.due(), Some(now + Duration::from_secs(3)));
    }

    #[test]
    fn a_completed_pod_is_cleared_away() {
        let now = Instant::now();
        let mut w = Worker::new(pod(json!({}), "Running"));
        assert_eq!(work(&mut w, now), Some(Work::Sync));
        w.done(
            &Outcome::Synced {
                terminal: true,
                again: None,
            },
            &TIMES,
            now,
            0.0,
        );
        assert_eq!(work(&mut w, now), Some(Work::Terminate { grace: None }));
        let mut restarted = Worker::new(pod(json!({}), "Succeeded"));
        assert_eq!(
            work(&mut restarted, now),
            Some(Work::Terminate { grace: None })
        );
    }
}
