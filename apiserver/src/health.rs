//! `/healthz`, `/livez` and `/readyz`: what each of them asks, under upstream's names.
//!
//! A step of the start counts for all three; `/livez` forgives it for `--livez-grace-period`,
//! so that a start that takes long is not cut short.
//!
//! What must not be here: how a check answers over HTTP (`component::health`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use component::health::Checks;
use component::metrics::Slis;

/// The three families of checks. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    pub healthz: Checks,
    pub livez: Checks,
    pub readyz: Checks,
    /// Until then steps of the start that are not done are no reason to be restarted.
    grace_ends: Instant,
}

/// A step of the start that is done once.
#[derive(Clone, Default)]
pub struct Step(Arc<AtomicBool>);

impl Step {
    pub fn done(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), String> {
        match self.0.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("not finished".to_owned()),
        }
    }
}

impl Health {
    pub fn new(slis: &Slis, grace: Duration) -> Health {
        let checks = || {
            let checks = Checks::new();
            checks.report(slis);
            checks
        };
        Health {
            healthz: checks(),
            livez: checks(),
            readyz: checks(),
            grace_ends: Instant::now() + grace,
        }
    }

    /// A check of all three, from the first moment on; see [`Checks::add_to`].
    pub fn always<F>(&self, group: &'static str, name: &str, check: F)
    where
        F: Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
    {
        for checks in [&self.healthz, &self.livez, &self.readyz] {
            checks.add_to(group, name, check.clone());
        }
    }

    /// A hook that runs after the start, and is done when the step is.
    pub fn hook(&self, name: &str) -> Step {
        let step = Step::default();
        let name = format!("poststarthook/{name}");
        for checks in [&self.healthz, &self.readyz] {
            let step = step.clone();
            checks.add(name.as_str(), move || step.check());
        }
        let (late, grace_ends) = (step.clone(), self.grace_ends);
        self.livez.add(name, move || match late.check() {
            Err(_) if Instant::now() < grace_ends => Ok(()),
            found => found,
        });
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_not_cut_short() {
        let slis = Slis::new().unwrap();
        let failing = |health: &Health| -> Vec<u16> {
            [("livez", &health.livez), ("readyz", &health.readyz)]
                .map(|(name, checks)| {
                    let path = format!("/{name}");
                    checks.respond(name, &path, "").status().as_u16()
                })
                .into()
        };
        let patient = Health::new(&slis, Duration::from_secs(3600));
        let step = patient.hook("x");
        assert_eq!(failing(&patient), [200, 500]);
        step.done();
        assert_eq!(failing(&patient), [200, 200]);
        let strict = Health::new(&slis, Duration::ZERO);
        strict.hook("x");
        assert_eq!(failing(&strict), [500, 500]);
    }
}
