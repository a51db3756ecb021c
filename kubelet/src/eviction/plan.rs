//! Whether the node is under pressure, and for which thresholds something must be done now. Pure:
//! what is seen and the time are passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use meta::Quantity;

use super::thresholds::{Resource, Signal, Threshold};

/// The pressures that the node shows, and that keep pods off it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

impl Pressure {
    /// The conditions that show them.
    pub fn conditions(self) -> Vec<&'static str> {
        let all = [
            (self.memory, "MemoryPressure"),
            (self.disk, "DiskPressure"),
            (self.pid, "PIDPressure"),
        ];
        let shown = all.into_iter().filter(|(is, _)| *is);
        shown.map(|(_, condition)| condition).collect()
    }
}

/// What a signal was when it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    pub available: i64,
    pub capacity: i64,
    pub at: Instant,
}

impl Observed {
    /// What is available, as messages write it.
    pub fn shown(&self, signal: Signal) -> Quantity {
        Quantity::new(self.available, signal.resource().format())
    }
}

/// Every signal that could be measured.
pub type Observations = HashMap<Signal, Observed>;

impl Threshold {
    /// Whether less is available than there should be, or than there must be again once it was.
    fn is_met(&self, observed: &Observations, reclaim: bool) -> bool {
        let Some(observed) = observed.get(&self.signal) else {
            return false;
        };
        let mut least = self.value.of(observed.capacity);
        if let Some(more) = self.min_reclaim.as_ref().filter(|_| reclaim) {
            least.add(&more.of(observed.capacity));
        }
        least > observed.shown(self.signal)
    }
}

/// What has been seen so far.
#[derive(Debug)]
pub struct State {
    thresholds: Vec<Watched>,
    /// `evictionPressureTransitionPeriod`.
    transition: Duration,
    memory: Option<Instant>,
    disk: Option<Instant>,
    pid: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    threshold: Threshold,
    /// Since when it has been met without a break.
    since: Option<Instant>,
    /// Something was done for it, and is until enough is free again.
    acted: bool,
}

/// What follows.
#[derive(Debug, PartialEq)]
pub struct Plan {
    pub pressure: Pressure,
    /// The thresholds for which something must be done, the first of them first.
    pub due: Vec<Threshold>,
}

impl State {
    /// `thresholds` in the order in which they are acted upon.
    pub fn new(thresholds: Vec<Threshold>, transition: Duration) -> Self {
        let watched = |threshold| Watched {
            threshold,
            since: None,
            acted: false,
        };
        Self {
            thresholds: thresholds.into_iter().map(watched).collect(),
            transition,
            memory: None,
            disk: None,
            pid: None,
        }
    }

    /// Takes in what is seen now.
    pub fn plan(&mut self, observed: &Observations, now: Instant) -> Plan {
        let mut due = Vec::new();
        for watched in &mut self.thresholds {
            let threshold = &watched.threshold;
            let met = threshold.is_met(observed, false)
                || watched.acted && threshold.is_met(observed, true);
            watched.since = met.then(|| watched.since.unwrap_or(now));
            let held = |since: Instant| now.saturating_duration_since(since) >= threshold.grace;
            watched.acted = watched.since.is_some_and(held);
            if watched.acted {
                due.push(threshold.clone());
            }
            let seen = match threshold.signal.resource() {
                Resource::Memory => &mut self.memory,
                Resource::EphemeralStorage | Resource::Inodes => &mut self.disk,
                Resource::Pids => &mut self.pid,
            };
            if met {
                *seen = Some(now);
            }
        }
        let lasts = |seen: Option<Instant>| {
            seen.is_some_and(|at| now.saturating_duration_since(at) < self.transition)
        };
        let pressure = Pressure {
            memory: lasts(self.memory),
            disk: lasts(self.disk),
            pid: lasts(self.pid),
        };
        Plan { pressure, due }
    }

    /// Whether all is well again, so well that no pod has to go.
    pub fn is_relieved(&self, observed: &Observations) -> bool {
        let mut all = self.thresholds.iter();
        !all.any(|watched| watched.threshold.is_met(observed, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::thresholds::Policy;

    fn state(config: serde_json::Value) -> State {
        let policy = Policy::new(&serde_json::from_value(config).unwrap()).unwrap();
        State::new(policy.thresholds, policy.transition_period)
    }

    /// At which second; what is available; and what follows of it: conditions, and the signals for
    /// which something is due.
    type Step<'a> = (u64, &'a [(Signal, i64)], &'a str);

    /// A life of a node.
    fn follow(state: &mut State, steps: &[Step<'_>]) {
        let start = Instant::now();
        for (second, available, want) in steps {
            let at = start + Duration::from_secs(*second);
            let observed = available.iter().map(|(signal, available)| {
                let observed = Observed {
                    available: *available,
                    capacity: 1000,
                    at,
                };
                (*signal, observed)
            });
            let plan = state.plan(&observed.collect(), at);
            let due = plan.due.iter().map(|t| match t.is_hard() {
                true => format!("{}!", t.signal.name()),
                false => t.signal.name().to_owned(),
            });
            let conditions = plan.pressure.conditions();
            let shown = conditions.into_iter().map(str::to_owned).chain(due);
            let shown: Vec<_> = shown.collect();
            assert_eq!(shown.join(" "), *want, "at {second}");
        }
    }

    use Signal::{
        AllocatableMemoryAvailable as Pods, MemoryAvailable as Memory, NodeFsAvailable as Disk,
        NodeFsInodesFree as Inodes, PidAvailable as Pid,
    };

    #[test]
    fn hard_thresholds_are_due_at_once_and_pressure_stays_for_a_while() {
        let mut state = state(
            serde_json::json!({"evictionPressureTransitionPeriod": "30s",
            "evictionHard": {"memory.available": "100", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "pid.available": "50"}}),
        );
        follow(
            &mut state,
            &[
                (
                    0,
                    &[(Memory, 100), (Disk, 100), (Inodes, 50), (Pid, 50)],
                    "",
                ),
                (10, &[(Memory, 99)], "MemoryPressure memory.available!"),
                (20, &[(Memory, 100)], "MemoryPressure"),
                (39, &[(Memory, 100)], "MemoryPressure"),
                (40, &[(Memory, 100)], ""),
                (
                    50,
                    &[(Pods, 99), (Inodes, 49), (Pid, 49)],
                    "MemoryPressure DiskPressure PIDPressure allocatableMemory.available! nodefs.inodesFree! pid.available!",
                ),
                // What cannot be measured is not met.
                (
                    60,
                    &[(Disk, 99)],
                    "MemoryPressure DiskPressure PIDPressure nodefs.available!",
                ),
            ],
        );
    }

    #[test]
    fn soft_thresholds_are_due_after_their_grace() {
        let mut state = state(
            serde_json::json!({"evictionPressureTransitionPeriod": "5s", "evictionHard": {"memory.available": "50"},
            "evictionSoft": {"memory.available": "100"}, "evictionSoftGracePeriod": {"memory.available": "20s"}}),
        );
        follow(
            &mut state,
            &[
                (0, &[(Memory, 99)], "MemoryPressure"),
                (10, &[(Memory, 99)], "MemoryPressure"),
                // Once it is not met, the time begins anew.
                (15, &[(Memory, 100)], ""),
                (20, &[(Memory, 99)], "MemoryPressure"),
                (39, &[(Memory, 99)], "MemoryPressure"),
                (40, &[(Memory, 99)], "MemoryPressure memory.available"),
                (
                    41,
                    &[(Memory, 49)],
                    "MemoryPressure memory.available! memory.available",
                ),
                (42, &[(Memory, 100)], "MemoryPressure"),
            ],
        );
    }

    #[test]
    fn more_must_be_free_again() {
        let mut state = state(
            serde_json::json!({"evictionPressureTransitionPeriod": "1s", "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "100"}, "evictionMinimumReclaim": {"memory.available": "5%"}}),
        );
        let met = "MemoryPressure memory.available!";
        follow(
            &mut state,
            &[
                (0, &[(Memory, 149)], ""),
                (10, &[(Memory, 99)], met),
                (20, &[(Memory, 149)], met),
                (30, &[(Memory, 150)], ""),
                (40, &[(Memory, 149)], ""),
            ],
        );
        let relieved = |available| {
            let at = Instant::now();
            let observed = Observed {
                available,
                capacity: 1000,
                at,
            };
            state.is_relieved(&[(Memory, observed)].into())
        };
        assert!(!relieved(149) && relieved(150));
    }

    #[test]
    fn without_a_transition_period_nothing_is_shown() {
        let config = serde_json::json!({"evictionHard": {"memory.available": "100"}});
        let mut state = state(config);
        state.transition = Duration::ZERO;
        follow(&mut state, &[(0, &[(Memory, 1)], "memory.available!")]);
    }
}
