//! How fast a target may grow and shrink: pure. What was recommended and done lately is
//! remembered per autoscaler; after a restart it begins anew.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Without rules a target grows to at most so many times its size, or to [`GROWTH_FLOOR`].
const GROWTH: f64 = 2.0;
const GROWTH_FLOOR: f64 = 4.0;

/// What is remembered of one autoscaler.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    recommended: Vec<(Timestamp, i32)>,
    /// Pods added and removed.
    grown: Vec<(Timestamp, i32)>,
    shrunk: Vec<(Timestamp, i32)>,
}

/// What is asked for and between what.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub current: i32,
    pub desired: i32,
    pub min: i32,
    pub max: i32,
    pub now: Timestamp,
}

/// A condition: status, reason, message.
pub type Verdict = (bool, &'static str, &'static str);

/// The number of pods after all limits, and what to say in `AbleToScale` and `ScalingLimited`.
#[derive(Debug, PartialEq, Eq)]
pub struct Limited {
    pub replicas: i32,
    pub able: Verdict,
    pub limited: Verdict,
}

const READY: Verdict = (
    true,
    "ReadyForNewScale",
    "recommended size matches current size",
);
const HIGHER: &str = "recent recommendations were higher than current one, applying the highest recent recommendation";
const LOWER: &str =
    "recent recommendations were lower than current one, applying the lowest recent recommendation";
const TOO_FAST: &str = "the desired replica count is increasing faster than the maximum scale rate";
const TOO_MANY: &str = "the desired replica count is more than the maximum replica count";
const TOO_FAST_DOWN: &str =
    "the desired replica count is decreasing faster than the maximum scale rate";
const TOO_FEW: &str = "the desired replica count is less than the minimum replica count";
const IN_RANGE: Verdict = (
    false,
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);

fn ago(now: Timestamp, seconds: i32) -> Timestamp {
    let span = SignedDuration::from_secs(seconds.into());
    now.saturating_sub(span).unwrap_or(Timestamp::MIN)
}

fn window(rules: Option<&HPAScalingRules>, default: i32) -> i32 {
    rules
        .and_then(|r| r.stabilization_window_seconds)
        .unwrap_or(default)
}

/// How far a change may go by the rules.
enum Bound {
    Disabled,
    To(i32),
}

impl Memory {
    /// The first thing that is remembered is the size that was found.
    pub fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, replicas));
        }
    }

    /// Without rules: shrinks to the highest recommendation of the last `window` only.
    pub fn limit(&mut self, wish: Wish, window: SignedDuration) -> Limited {
        let cutoff = wish.now.saturating_sub(window).unwrap_or(Timestamp::MIN);
        self.recommended.retain(|(at, _)| *at >= cutoff);
        let recent = self.recommended.iter().map(|(_, n)| *n);
        let stable = recent.fold(wish.desired, i32::max);
        self.recommended.push((wish.now, wish.desired));
        let able = match stable == wish.desired {
            true => READY,
            false => (true, "ScaleDownStabilized", HIGHER),
        };
        let fastest = (GROWTH * f64::from(wish.current)).max(GROWTH_FLOOR) as i32;
        let (top, why) = match wish.max > fastest {
            true => (fastest, (true, "ScaleUpLimit", TOO_FAST)),
            false => (wish.max, (true, "TooManyReplicas", TOO_MANY)),
        };
        let (replicas, limited) = if stable < wish.min {
            (wish.min, (true, "TooFewReplicas", TOO_FEW))
        } else if stable > top {
            (top, why)
        } else {
            (stable, IN_RANGE)
        };
        Limited {
            replicas,
            able,
            limited,
        }
    }

    /// With rules. `down_window` holds where they say nothing about shrinking.
    pub fn limit_by(
        &mut self,
        rules: &HorizontalPodAutoscalerBehavior,
        wish: Wish,
        down_window: i32,
    ) -> Limited {
        let up = ago(wish.now, window(rules.scale_up.as_ref(), 0));
        let down = ago(wish.now, window(rules.scale_down.as_ref(), down_window));
        let (mut lowest, mut highest) = (wish.desired, wish.desired);
        for (at, n) in &self.recommended {
            if *at > up {
                lowest = lowest.min(*n);
            }
            if *at > down {
                highest = highest.max(*n);
            }
        }
        let stable = wish.current.max(lowest).min(highest);
        self.recommended.retain(|(at, _)| *at >= up || *at >= down);
        self.recommended.push((wish.now, wish.desired));
        let able = if stable == wish.desired {
            READY
        } else if wish.desired >= wish.current {
            (true, "ScaleUpStabilized", LOWER)
        } else {
            (true, "ScaleDownStabilized", HIGHER)
        };
        let (replicas, limited) = self.bounded(
            rules,
            Wish {
                desired: stable,
                ..wish
            },
        );
        Limited {
            replicas,
            able,
            limited,
        }
    }

    fn bounded(&self, rules: &HorizontalPodAutoscalerBehavior, wish: Wish) -> (i32, Verdict) {
        let Wish {
            current, desired, ..
        } = wish;
        if desired > current {
            let fastest = match self.bound(rules.scale_up.as_ref(), wish, true) {
                Bound::Disabled => current,
                Bound::To(n) => n.max(current),
            };
            let (top, why) = match wish.max > fastest {
                true => (fastest, (true, "ScaleUpLimit", TOO_FAST)),
                false => (wish.max, (true, "TooManyReplicas", TOO_MANY)),
            };
            if desired > top {
                return (top, why);
            }
        } else if desired < current {
            let fastest = match self.bound(rules.scale_down.as_ref(), wish, false) {
                Bound::Disabled => current,
                Bound::To(n) => n.min(current),
            };
            let (bottom, why) = match wish.min < fastest {
                true => (fastest, (true, "ScaleDownLimit", TOO_FAST_DOWN)),
                false => (wish.min, (true, "TooFewReplicas", TOO_FEW)),
            };
            if desired < bottom {
                return (bottom, why);
            }
        }
        (desired, IN_RANGE)
    }

    /// How far the policies let the target go from where it was when their period began.
    fn bound(&self, rules: Option<&HPAScalingRules>, wish: Wish, up: bool) -> Bound {
        let select = rules
            .and_then(|r| r.select_policy.as_deref())
            .unwrap_or("Max");
        if select == "Disabled" {
            return Bound::Disabled;
        }
        let policies = rules
            .and_then(|r| r.policies.as_deref())
            .unwrap_or_default();
        let changed = |changes: &[(Timestamp, i32)], seconds| -> i32 {
            let cutoff = ago(wish.now, seconds);
            changes
                .iter()
                .filter(|(at, _)| *at > cutoff)
                .map(|(_, n)| *n)
                .sum()
        };
        let proposals = policies.iter().map(|policy| {
            let grown = changed(&self.grown, policy.period_seconds);
            let shrunk = changed(&self.shrunk, policy.period_seconds);
            let start = wish.current - grown + shrunk;
            let percent = f64::from(policy.value) / 100.0;
            match (policy.type_.as_str(), up) {
                ("Percent", true) => (f64::from(start) * (1.0 + percent)).ceil() as i32,
                ("Percent", false) => (f64::from(start) * (1.0 - percent)) as i32,
                (_, true) => start.saturating_add(policy.value),
                (_, false) => start.saturating_sub(policy.value),
            }
        });
        // The largest change grows to the highest number, and shrinks to the lowest.
        Bound::To(if (select == "Min") == up {
            proposals.min().unwrap_or(i32::MAX)
        } else {
            proposals.max().unwrap_or(i32::MIN)
        })
    }

    /// Remembers a change, if there are rules that will want to know.
    pub fn changed(
        &mut self,
        rules: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Timestamp,
    ) {
        let Some(rules) = rules else { return };
        let (rules, changes) = match to > from {
            true => (rules.scale_up.as_ref(), &mut self.grown),
            false => (rules.scale_down.as_ref(), &mut self.shrunk),
        };
        let policies = rules
            .and_then(|r| r.policies.as_deref())
            .unwrap_or_default();
        let longest = policies.iter().map(|p| p.period_seconds).max().unwrap_or(0);
        let cutoff = ago(now, longest);
        changes.retain(|(at, _)| *at >= cutoff);
        changes.push((now, (to - from).abs()));
    }
}
