//! One probe of one container, as a state machine: when to check, and what a row of outcomes means.
//! Pure; the task around it is in `mod.rs`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};

use super::check::Outcome;
use crate::cri::plan::Health;
use crate::event::ProbeKind;
use crate::pods::pod::{PodExt, is_terminal_phase, restarts_after_exit};
use crate::status::containers::{runtime_id, terminated};

/// What to do at a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing now.
    Wait,
    /// Never again.
    Stop,
    /// Check the container, then call [`Worker::record`].
    Check,
}

/// A verdict to make known: the container's id, and what is known of it. `None` forgets it.
pub type Verdict = (String, Option<Health>);

/// The state of one probe.
#[derive(Debug)]
pub struct Worker {
    kind: ProbeKind,
    container: Container,
    probe: Probe,
    container_id: String,
    last: Option<Health>,
    /// How often in a row `last` came out.
    run: i32,
    /// A verdict that only a new container changes has been given.
    on_hold: bool,
    /// Containers older than this ran under the kubelet before.
    restarted_at: Timestamp,
}

impl Worker {
    /// `restarted_at`: a container that started before was probed by this kubelet's predecessor.
    pub fn new(
        kind: ProbeKind,
        container: Container,
        probe: Probe,
        restarted_at: Timestamp,
    ) -> Self {
        Self {
            kind,
            container,
            probe,
            container_id: String::new(),
            last: None,
            run: 0,
            on_hold: false,
            restarted_at,
        }
    }

    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// What is assumed before the first check: that it lives, and that it is not ready.
    fn initial(&self) -> Health {
        match self.kind {
            ProbeKind::Startup => Health::Unknown,
            ProbeKind::Liveness => Health::Success,
            ProbeKind::Readiness => Health::Failure,
        }
    }

    /// Looks at the pod's status. Verdicts to make known are pushed to `verdicts`.
    pub fn tick(
        &mut self,
        pod: &Pod,
        status: Option<&PodStatus>,
        now: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) -> Step {
        let Some(status) = status else {
            return Step::Wait;
        };
        if status.phase.as_deref().is_some_and(is_terminal_phase) {
            return Step::Stop;
        }
        let Some(seen) = find(status, &self.container.name) else {
            return Step::Wait;
        };
        let id = runtime_id(seen.container_id.as_deref().unwrap_or_default());
        if id.is_empty() {
            return Step::Wait;
        }
        if self.container_id != id {
            self.adopt(id, seen, verdicts);
        }
        if self.on_hold {
            return Step::Wait;
        }
        let Some(running) = seen.state.as_ref().and_then(|state| state.running.as_ref()) else {
            verdicts.push((self.container_id.clone(), Some(Health::Failure)));
            return match terminated(seen) {
                Some(ended)
                    if !restarts_after_exit(&self.container, pod.pod_spec(), ended.exit_code) =>
                {
                    Step::Stop
                }
                _ => Step::Wait,
            };
        };
        // A pod on its way out is not restarted.
        if pod.is_deleting() && self.kind != ProbeKind::Readiness {
            verdicts.push((self.container_id.clone(), Some(Health::Success)));
            return Step::Stop;
        }
        let age = running
            .started_at
            .as_ref()
            .map_or(0, |at| now.as_second() - at.0.as_second());
        if age < i64::from(self.probe.initial_delay_seconds.unwrap_or_default()) {
            return Step::Wait;
        }
        // A startup probe goes before the others, and only until the container has started.
        let started = seen.started == Some(true);
        if started == (self.kind == ProbeKind::Startup) {
            return Step::Wait;
        }
        Step::Check
    }

    fn adopt(&mut self, id: &str, seen: &ContainerStatus, verdicts: &mut Vec<Verdict>) {
        if !self.container_id.is_empty() {
            verdicts.push((std::mem::take(&mut self.container_id), None));
        }
        self.container_id = id.to_owned();
        self.on_hold = false;
        let started_at = seen
            .state
            .as_ref()
            .and_then(|state| state.running.as_ref()?.started_at.as_ref())
            .map(|time| time.0);
        let inherited = started_at.is_some_and(|at| at < self.restarted_at);
        if !inherited {
            verdicts.push((id.to_owned(), Some(self.initial())));
        } else if self.kind == ProbeKind::Startup && seen.started == Some(true) {
            // It has started under this kubelet's predecessor. The plan wants to know.
            verdicts.push((id.to_owned(), Some(Health::Success)));
        }
    }

    /// Takes in an outcome. The verdict changes only after as many in a row as the thresholds say.
    pub fn record(&mut self, outcome: &Outcome, verdicts: &mut Vec<Verdict>) {
        let health = match outcome {
            Outcome::Success | Outcome::Warning(_) => Health::Success,
            Outcome::Failure(_) => Health::Failure,
            Outcome::Error(_) => return,
        };
        if self.last == Some(health) {
            self.run += 1;
        } else {
            self.last = Some(health);
            self.run = 1;
        }
        let threshold = match health {
            Health::Failure => self.probe.failure_threshold.unwrap_or(3),
            _ => self.probe.success_threshold.unwrap_or(1),
        };
        if self.run < threshold {
            return;
        }
        verdicts.push((self.container_id.clone(), Some(health)));
        if self.kind == ProbeKind::Startup
            || (self.kind == ProbeKind::Liveness && health == Health::Failure)
        {
            // It will be restarted, or has started: nothing to find out until there is another.
            self.on_hold = true;
            self.run = 0;
        }
    }
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|container| container.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(
            json!({"spec": {"restartPolicy": "Always", "containers": [{"name": "c"}]}}),
        )
        .unwrap()
    }

    fn worker(kind: ProbeKind) -> Worker {
        let probe = serde_json::from_value(
            json!({"initialDelaySeconds": 5, "failureThreshold": 2, "successThreshold": 1}),
        )
        .unwrap();
        Worker::new(kind, pod().containers()[0].clone(), probe, at(1000))
    }

    fn running(id: &str, since: i64, started: bool) -> PodStatus {
        serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "started": started,
            "containerID": format!("containerd://{id}"), "state": {"running": {"startedAt": at(since).to_string()}}}]}))
        .unwrap()
    }

    fn tick(worker: &mut Worker, status: &PodStatus, now: i64) -> (Step, Vec<Verdict>) {
        let mut verdicts = Vec::new();
        let step = worker.tick(&pod(), Some(status), at(now), &mut verdicts);
        (step, verdicts)
    }

    fn record(worker: &mut Worker, outcome: Outcome) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        worker.record(&outcome, &mut verdicts);
        verdicts
    }

    #[test]
    fn a_container_dies_of_its_liveness_probe() {
        let mut w = worker(ProbeKind::Liveness);
        let first = running("1", 2000, true);
        assert_eq!(
            tick(&mut w, &first, 2001),
            (Step::Wait, vec![("1".into(), Some(Health::Success))])
        );
        assert_eq!(tick(&mut w, &first, 2005), (Step::Check, vec![]));
        assert_eq!(record(&mut w, Outcome::Failure("x".into())), []);
        assert_eq!(record(&mut w, Outcome::Error("x".into())), []);
        assert_eq!(
            record(&mut w, Outcome::Failure("x".into())),
            [("1".into(), Some(Health::Failure))]
        );
        assert_eq!(tick(&mut w, &first, 2010).0, Step::Wait, "on hold");
        let second = running("2", 2020, true);
        assert_eq!(
            tick(&mut w, &second, 2030),
            (
                Step::Check,
                vec![("1".into(), None), ("2".into(), Some(Health::Success))]
            )
        );
    }

    #[test]
    fn startup_goes_first_and_once() {
        let mut startup = worker(ProbeKind::Startup);
        let mut readiness = worker(ProbeKind::Readiness);
        let starting = running("1", 2000, false);
        assert_eq!(tick(&mut startup, &starting, 2010).0, Step::Check);
        assert_eq!(tick(&mut readiness, &starting, 2010).0, Step::Wait);
        assert_eq!(
            record(&mut startup, Outcome::Success),
            [("1".into(), Some(Health::Success))]
        );
        let started = running("1", 2000, true);
        assert_eq!(tick(&mut startup, &started, 2020).0, Step::Wait);
        assert_eq!(tick(&mut readiness, &started, 2020).0, Step::Check);
    }

    #[test]
    fn a_restarted_kubelet_unsettles_nobody() {
        let mut readiness = worker(ProbeKind::Readiness);
        assert_eq!(
            tick(&mut readiness, &running("1", 500, true), 2000),
            (Step::Check, vec![])
        );
        let mut startup = worker(ProbeKind::Startup);
        let verdict = ("1".into(), Some(Health::Success));
        assert_eq!(
            tick(&mut startup, &running("1", 500, true), 2000),
            (Step::Wait, vec![verdict])
        );
    }

    #[test]
    fn it_ends_with_the_pod() {
        let mut w = worker(ProbeKind::Readiness);
        let ended = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
        assert_eq!(tick(&mut w, &ended, 0).0, Step::Stop);
    }
}
