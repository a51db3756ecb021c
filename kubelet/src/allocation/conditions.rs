//! The two conditions of a pod that tell of its resize: asked for and not granted
//! (`PodResizePending`), granted and not done (`PodResizeInProgress`).

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::pods::pod::{PodExt, PodUid};
use crate::status::conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING};

/// The node cannot grant it now.
pub const DEFERRED: &str = "Deferred";
/// The node can never grant it.
pub const INFEASIBLE: &str = "Infeasible";
/// It was granted, and giving it failed.
pub const ERROR: &str = "Error";

#[derive(Default)]
struct Pair {
    pending: Option<PodCondition>,
    in_progress: Option<PodCondition>,
}

/// The conditions of all pods.
pub struct Conditions {
    pods: Mutex<HashMap<PodUid, Pair>>,
    metrics: Arc<Metrics>,
}

impl Conditions {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            pods: Mutex::default(),
            metrics,
        }
    }

    fn change<T>(&self, uid: &str, change: impl FnOnce(&mut Pair) -> T) -> T {
        let mut pods = self.pods.lock();
        let pair = pods.entry(uid.into()).or_default();
        let before = (pair.pending.is_some(), pair.in_progress.is_some());
        let answer = change(pair);
        let after = (pair.pending.is_some(), pair.in_progress.is_some());
        if after == (false, false) {
            pods.remove(uid);
        }
        if before != after {
            self.count(&pods);
        }
        answer
    }

    fn count(&self, pods: &HashMap<PodUid, Pair>) {
        let metrics = &self.metrics.resizes;
        let started = pods.values().filter(|pair| pair.in_progress.is_some());
        metrics
            .in_progress
            .set(i64::try_from(started.count()).unwrap_or(i64::MAX));
        metrics.pending.reset();
        for condition in pods.values().filter_map(|pair| pair.pending.as_ref()) {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let gauge = metrics
                .pending
                .with_label_values(&[reason.to_lowercase().as_str()]);
            gauge.inc();
        }
    }

    /// Those that hold now.
    pub fn of(&self, uid: &str) -> Vec<PodCondition> {
        let pods = self.pods.lock();
        let pair = pods.get(uid);
        pair.into_iter()
            .flat_map(|pair| [pair.pending.clone(), pair.in_progress.clone()])
            .flatten()
            .collect()
    }

    /// The reason of the pending one, and since when it holds.
    pub fn pending(&self, uid: &str) -> Option<(String, Timestamp)> {
        let pods = self.pods.lock();
        let condition = pods.get(uid)?.pending.as_ref()?;
        let since = condition.last_transition_time.as_ref();
        Some((
            condition.reason.clone().unwrap_or_default(),
            since.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        ))
    }

    /// The resize is not granted. Anything but [`INFEASIBLE`] is shown as [`DEFERRED`]. True where
    /// that is news.
    pub fn set_pending(
        &self,
        uid: &str,
        reason: &str,
        message: &str,
        generation: Option<i64>,
        now: Timestamp,
    ) -> bool {
        let reason = if reason == INFEASIBLE {
            INFEASIBLE
        } else {
            DEFERRED
        };
        self.change(uid, |pair| {
            let old = pair.pending.take();
            let new = condition(
                RESIZE_PENDING,
                old.as_ref(),
                reason,
                message,
                generation,
                now,
            );
            let news = old.is_none_or(|old| {
                old.reason != new.reason || old.observed_generation != new.observed_generation
            });
            pair.pending = Some(new);
            news
        })
    }

    pub fn clear_pending(&self, uid: &str) {
        self.change(uid, |pair| pair.pending = None);
    }

    /// The resize is granted. One that is in progress keeps its generation, and its error until
    /// there is another. True, with that generation, where something changed.
    pub fn set_in_progress(
        &self,
        uid: &str,
        reason: &str,
        message: &str,
        generation: Option<i64>,
        now: Timestamp,
    ) -> (Option<i64>, bool) {
        self.change(uid, |pair| {
            let old = pair.in_progress.take();
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, message, generation) = match &old {
                None => (reason.to_owned(), message.to_owned(), generation),
                Some(old) if reason.is_empty() && message.is_empty() => (
                    text(&old.reason),
                    text(&old.message),
                    old.observed_generation,
                ),
                Some(old) => (reason.into(), message.into(), old.observed_generation),
            };
            let kind = RESIZE_IN_PROGRESS;
            let new = condition(kind, old.as_ref(), &reason, &message, generation, now);
            let changed =
                old.is_none_or(|old| old.reason != new.reason || old.message != new.message);
            pair.in_progress = Some(new);
            (generation, changed)
        })
    }

    /// The resize is done: the generation that it was of, if one was in progress.
    pub fn clear_in_progress(&self, uid: &str) -> Option<Option<i64>> {
        let old = self.change(uid, |pair| pair.in_progress.take());
        old.map(|old| old.observed_generation)
    }

    /// Takes over what the kubelet before has shown.
    pub fn take_over(&self, pod: &Pod) {
        let shown = pod
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        for condition in shown {
            self.change(pod.uid(), |pair| match condition.type_.as_str() {
                RESIZE_PENDING => pair.pending = Some(condition.clone()),
                RESIZE_IN_PROGRESS => pair.in_progress = Some(condition.clone()),
                _ => {}
            });
        }
    }

    pub fn forget(&self, uid: &str) {
        self.change(uid, |pair| *pair = Pair::default());
    }
}

fn condition(
    kind: &str,
    old: Option<&PodCondition>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let same = old.filter(|old| old.reason == some(reason));
    PodCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: some(reason),
        message: some(message),
        observed_generation: generation,
        last_probe_time: Some(Time(now)),
        last_transition_time: same
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(Time(now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_is_deferred_granted_and_done() {
        let metrics = Arc::new(Metrics::new("n", false).unwrap());
        let conditions = Conditions::new(metrics.clone());
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(conditions.set_pending("u", "OutOfcpu", "no room", Some(2), at(1)));
        assert!(!conditions.set_pending("u", "OutOfcpu", "still none", Some(2), at(2)));
        assert_eq!(conditions.pending("u"), Some((DEFERRED.into(), at(1))));
        assert_eq!(
            metrics
                .resizes
                .pending
                .with_label_values(&["deferred"])
                .get(),
            1
        );
        assert!(conditions.set_pending("u", INFEASIBLE, "never", Some(2), at(3)));
        assert_eq!(conditions.pending("u"), Some((INFEASIBLE.into(), at(3))));
        conditions.clear_pending("u");

        assert_eq!(
            conditions.set_in_progress("u", "", "", Some(3), at(4)),
            (Some(3), true)
        );
        assert_eq!(
            conditions.set_in_progress("u", ERROR, "refused", Some(4), at(5)),
            (Some(3), true)
        );
        // What went wrong stays until it is done.
        assert_eq!(
            conditions.set_in_progress("u", "", "", Some(4), at(6)),
            (Some(3), false)
        );
        assert_eq!(conditions.of("u")[0].message.as_deref(), Some("refused"));
        assert_eq!(metrics.resizes.in_progress.get(), 1);
        assert_eq!(conditions.clear_in_progress("u"), Some(Some(3)));
        assert_eq!(conditions.clear_in_progress("u"), None);
        assert_eq!(metrics.resizes.in_progress.get(), 0);
        assert!(conditions.of("u").is_empty());
    }
}
