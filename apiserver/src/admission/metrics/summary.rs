//! Summaries of durations: quantiles over the last hours, as Prometheus' Go client tells them.
//!
//! A duration is counted in one of buckets that are a sixteenth of a power of two wide, so that
//! a quantile is known to 6 % of itself, and counting costs an addition. What is old is forgotten
//! by the hour.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary as Proto};

/// Which quantiles are told.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// How long durations are remembered, and in how many steps they are forgotten.
const MAX_AGE: Duration = Duration::from_hours(5);
const AGES: usize = 5;
/// Buckets per power of two: 2 to the power of this.
const FINE: u32 = 4;
/// Nanoseconds up to 2^44, which are five hours.
const BUCKETS: usize = 44 << FINE;

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1 << FINE);
    let power = nanos.ilog2();
    let fine = (nanos >> (power - FINE)) as usize & ((1 << FINE) - 1);
    (((power as usize) << FINE) | fine).min(BUCKETS - 1)
}

/// The middle of a bucket, in seconds.
fn middle(bucket: usize) -> f64 {
    let power = i32::try_from(bucket >> FINE).unwrap_or(i32::MAX);
    let fine = (bucket & ((1 << FINE) - 1)) as f64;
    let width = 1.0 / f64::from(1 << FINE);
    2f64.powi(power) * (1.0 + (fine + 0.5) * width) / 1e9
}

struct Counts {
    /// One table per age; `head` is the one that is counted in.
    ages: [Box<[u32]>; AGES],
    head: usize,
    since: Instant,
    count: u64,
    sum: f64,
}

/// One time series.
pub struct Series(Mutex<Counts>);

impl Series {
    fn new(now: Instant) -> Self {
        let table = || vec![0; BUCKETS].into_boxed_slice();
        Series(Mutex::new(Counts {
            ages: std::array::from_fn(|_| table()),
            head: 0,
            since: now,
            count: 0,
            sum: 0.0,
        }))
    }

    pub fn observe(&self, took: Duration, now: Instant) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut counts = self.0.lock();
        counts.forget(now);
        let head = counts.head;
        let slot = &mut counts.ages[head][bucket(nanos)];
        *slot = slot.saturating_add(1);
        counts.count += 1;
        counts.sum += took.as_secs_f64();
    }

    fn proto(&self, now: Instant) -> Proto {
        let mut counts = self.0.lock();
        counts.forget(now);
        let mut all = vec![0u64; BUCKETS];
        for age in &counts.ages {
            for (sum, count) in all.iter_mut().zip(age) {
                *sum += u64::from(*count);
            }
        }
        let mut proto = Proto::default();
        proto.set_sample_count(counts.count);
        proto.set_sample_sum(counts.sum);
        let quantiles = QUANTILES.map(|at| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(at);
            quantile.set_value(quantile_of(&all, at));
            quantile
        });
        proto.set_quantile(quantiles.into_iter().collect());
        proto
    }
}

impl Counts {
    /// Empties the tables whose time is up.
    fn forget(&mut self, now: Instant) {
        let step = MAX_AGE / AGES as u32;
        for _ in 0..AGES {
            if now.saturating_duration_since(self.since) < step {
                return;
            }
            self.since += step;
            self.head = (self.head + 1) % AGES;
            self.ages[self.head].fill(0);
        }
        self.since = now;
    }
}

/// The quantile of what was counted; no number when nothing was.
fn quantile_of(counts: &[u64], at: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    let rank = (total as f64 * at).ceil() as u64;
    let mut seen = 0;
    counts
        .iter()
        .position(|count| {
            seen += count;
            seen > 0 && seen >= rank
        })
        .map_or(f64::NAN, middle)
}

/// Summaries of one name, by their labels.
#[derive(Clone)]
pub struct SummaryVec {
    desc: Desc,
    labels: &'static [&'static str],
    series: Arc<RwLock<HashMap<Vec<String>, Arc<Series>>>>,
}

impl SummaryVec {
    pub fn new(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        let names = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new());
        SummaryVec {
            desc: desc.expect("name and labels are constants"),
            labels,
            series: Arc::default(),
        }
    }

    /// `values`: one for each label.
    pub fn with_label_values(&self, values: &[&str]) -> Arc<Series> {
        debug_assert_eq!(values.len(), self.labels.len());
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        let mut series = self.series.write();
        let new = || Arc::new(Series::new(Instant::now()));
        series.entry(values).or_insert_with(new).clone()
    }
}

impl Collector for SummaryVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Instant::now();
        let known = self.series.read();
        let metrics = known.iter().map(|(values, series)| {
            let labels = self.labels.iter().zip(values).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.clone());
                pair
            });
            let mut metric = Metric::default();
            metric.set_label(labels.collect());
            metric.set_summary(series.proto(now));
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(series: &Series, now: Instant) -> Vec<f64> {
        let proto = series.proto(now);
        proto.get_quantile().iter().map(Quantile::value).collect()
    }

    #[test]
    fn quantiles_are_near_what_was_observed() {
        let now = Instant::now();
        let series = Series::new(now);
        for micros in 1..=1000 {
            series.observe(Duration::from_micros(micros), now);
        }
        for (value, wanted) in told(&series, now).into_iter().zip([500e-6, 900e-6, 990e-6]) {
            assert!((value / wanted - 1.0).abs() < 0.07, "{value} for {wanted}");
        }
        assert_eq!(series.proto(now).sample_count(), 1000);
    }

    #[test]
    fn what_is_old_is_forgotten_and_still_counted() {
        let start = Instant::now();
        let series = Series::new(start);
        series.observe(Duration::from_secs(1), start);
        let later = start + Duration::from_hours(3);
        series.observe(Duration::from_millis(1), later);
        assert!(told(&series, later)[2] > 0.9);
        let later = start + Duration::from_hours(6);
        assert!(told(&series, later)[2] < 0.002);
        assert!(told(&series, start + Duration::from_hours(60))[0].is_nan());
        assert_eq!(series.proto(later).sample_count(), 2);
    }

    #[test]
    fn every_duration_has_a_bucket() {
        for nanos in [0, 1, 15, 16, 17, 1 << 20, (1 << 20) + 1, u64::MAX] {
            assert!(bucket(nanos) < BUCKETS);
        }
        assert!((middle(bucket(1_000_000)) / 1e-3 - 1.0).abs() < 0.07);
    }
}
