//! How many volumes a driver can attach to the node changes with what else is attached to it: where
//! its object says how often (`nodeAllocatableUpdatePeriodSeconds`, KEP-4876), it is asked again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use client::informer::Store;
use k8s_openapi::api::storage::v1::CSIDriver;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::drivers::Drivers;

/// When drivers were asked last, or became known.
#[derive(Debug, Default)]
struct Asked(HashMap<String, Instant>);

impl Asked {
    /// Who is to be asked now, and when to look again; `None`: not before something changes.
    fn due(
        &mut self,
        periods: &HashMap<String, Duration>,
        now: Instant,
    ) -> (Vec<String>, Option<Duration>) {
        self.0.retain(|driver, _| periods.contains_key(driver));
        let (mut due, mut next) = (Vec::new(), None::<Duration>);
        for (driver, period) in periods {
            let asked = self.0.entry(driver.clone()).or_insert(now);
            if now.saturating_duration_since(*asked) >= *period {
                *asked = now;
                due.push(driver.clone());
            }
            let left = (*asked + *period).saturating_duration_since(now);
            next = Some(next.map_or(left, |next| next.min(left)));
        }
        due.sort();
        (due, next)
    }
}

fn period(kind: &CSIDriver) -> Option<Duration> {
    let seconds = kind.spec.node_allocatable_update_period_seconds?;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs)
}

/// Asks until `stop`.
pub async fn run(drivers: Drivers, kinds: Store<CSIDriver>, stop: CancellationToken) {
    let mut asked = Asked::default();
    loop {
        let known = drivers.names().into_iter();
        let periods = known
            .filter_map(|name| {
                let period = period(kinds.get("", &name)?.as_ref())?;
                Some((name, period))
            })
            .collect();
        let (due, next) = asked.due(&periods, Instant::now());
        for driver in due {
            if let Err(error) = drivers.refresh(&driver).await {
                warn!(driver, error, "cannot bring a driver's limit up to date");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = drivers.changed() => {}
            () = tokio::time::sleep(next.unwrap_or(Duration::MAX)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_at_its_own_pace() {
        let (mut asked, start) = (Asked::default(), Instant::now());
        let seconds = Duration::from_secs;
        let periods = HashMap::from([("a".to_owned(), seconds(10)), ("b".to_owned(), seconds(25))]);
        assert_eq!(asked.due(&periods, start), (vec![], Some(seconds(10))));
        let now = start + seconds(10);
        assert_eq!(
            asked.due(&periods, now),
            (vec!["a".into()], Some(seconds(10)))
        );
        let now = start + seconds(26);
        assert_eq!(
            asked.due(&periods, now),
            (vec!["a".into(), "b".into()], Some(seconds(10)))
        );
        assert_eq!(asked.due(&HashMap::new(), now), (vec![], None));
    }
}
