//! What is to be answered, and which requests have been there for long enough: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Object as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::api::resource::v1alpha3::{
    PoolStatus, ResourcePoolStatusRequest, ResourcePoolStatusRequestSpec,
    ResourcePoolStatusRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
/// Pools in an answer, where the request does not say; the API's default.
const LIMIT: i32 = 100;
/// How long a request is kept once it is answered, and how long without an answer.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// A pool of which slices are missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "incomplete pools detected, requeueing: pool {driver}/{pool} is incomplete: observed {observed}/{expected} slices at generation {generation}"
)]
pub struct Incomplete {
    driver: String,
    pool: String,
    observed: usize,
    expected: i64,
    generation: i64,
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The answer to a request.
///
/// # Errors
///
/// When it would be of a pool that is not whole.
pub fn status(
    request: &ResourcePoolStatusRequestSpec,
    slices: &[Arc<ResourceSlice>],
    claims: &[Arc<ResourceClaim>],
    now: Timestamp,
) -> Result<ResourcePoolStatusRequestStatus, Incomplete> {
    let driver = request.driver.as_str();
    let only = request.pool_name.as_deref().filter(|name| !name.is_empty());
    let mut pools: BTreeMap<&str, Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in slices {
        let pool = slice.spec.pool.name.as_str();
        if slice.spec.driver == driver && only.is_none_or(|only| pool == only) {
            pools.entry(pool).or_default().push(slice);
        }
    }
    let mut allocated: BTreeMap<&str, usize> = BTreeMap::new();
    for claim in claims {
        let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
        let devices = allocation.and_then(|a| a.devices.as_ref());
        let results = devices.iter().flat_map(|d| d.results.iter().flatten());
        for result in results.filter(|result| result.driver == driver) {
            *allocated.entry(&result.pool).or_default() += 1;
        }
    }
    let count = pools.len();
    let limit = usize::try_from(request.limit.unwrap_or(LIMIT)).unwrap_or_default();
    let pools = pools.into_iter().take(limit);
    let pools = pools.map(|(name, slices)| {
        let allocated = allocated.get(name).copied().unwrap_or_default();
        pool(driver, name, slices, allocated)
    });
    let pools = pools.collect::<Result<Vec<_>, _>>()?;
    let complete = Condition {
        type_: COMPLETE.to_owned(),
        status: "True".to_owned(),
        reason: "CalculationComplete".to_owned(),
        message: format!("Calculated status for {} pools", pools.len()),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    Ok(ResourcePoolStatusRequestStatus {
        pool_count: number(count),
        pools: (!pools.is_empty()).then_some(pools),
        conditions: Some(vec![complete]),
    })
}

/// One pool, of which there are slices. Those of generations of old do not count.
fn pool(
    driver: &str,
    name: &str,
    mut slices: Vec<&ResourceSlice>,
    allocated: usize,
) -> Result<PoolStatus, Incomplete> {
    let generations = slices.iter().map(|slice| slice.spec.pool.generation);
    let generation = generations.max().unwrap_or_default();
    slices.retain(|slice| slice.spec.pool.generation == generation);
    // They should all say the same; if they do not, let it at least be the same ones that count.
    let first = slices.iter().min_by_key(|slice| slice.name());
    let expected = first.map_or(0, |slice| slice.spec.pool.resource_slice_count);
    let observed = slices.len();
    if i64::from(number(observed)) < expected {
        return Err(Incomplete {
            driver: driver.to_owned(),
            pool: name.to_owned(),
            observed,
            expected,
            generation,
        });
    }
    let devices = slices.iter().flat_map(|slice| slice.spec.devices.iter());
    let total = devices.map(Vec::len).sum::<usize>();
    let node = |slice: &ResourceSlice| slice.spec.node_name.clone().unwrap_or_default();
    let nodes = slices.iter().map(|slice| node(slice));
    let mut nodes: Vec<String> = nodes.collect();
    nodes.sort_unstable();
    nodes.dedup();
    let node = Some(nodes).filter(|nodes| nodes.len() == 1);
    Ok(PoolStatus {
        driver: driver.to_owned(),
        pool_name: name.to_owned(),
        generation,
        node_name: node.and_then(|mut nodes| nodes.pop().filter(|node| !node.is_empty())),
        resource_slice_count: Some(number(observed)),
        total_devices: Some(number(total)),
        allocated_devices: Some(number(allocated)),
        available_devices: Some(number(total.saturating_sub(allocated))),
        // Taints are not looked at.
        unavailable_devices: Some(0),
        validation_error: None,
    })
}

/// Whether a request is to be deleted: some time after it was answered, or when nobody has.
pub fn is_old(request: &ResourcePoolStatusRequest, now: Timestamp) -> bool {
    let created = request.metadata.creation_timestamp.as_ref();
    let Some(status) = &request.status else {
        return older(created, PENDING, now);
    };
    let mut conditions = status.conditions.iter().flatten();
    let last = conditions.find(|c| c.type_ == COMPLETE || c.type_ == FAILED);
    let since = last.map(|c| &c.last_transition_time);
    older(since.or(created), ANSWERED, now)
}

fn older(since: Option<&Time>, age: SignedDuration, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since.0) > age)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-02T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// `pool/slice generation expected devices node`.
    fn slice(line: &str) -> Arc<ResourceSlice> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let (pool, _) = words[0].split_once('/').unwrap();
        let (driver, pool) = match pool.split_once(':') {
            Some((driver, pool)) => (driver, pool),
            None => ("d", pool),
        };
        let devices = (0..number(3)).map(|n| json!({"name": format!("d{n}")}));
        let slice = json!({
            "metadata": {"name": words[0]},
            "spec": {
                "driver": driver, "nodeName": words.get(4),
                "pool": {"name": pool, "generation": number(1), "resourceSliceCount": number(2)},
                "devices": devices.collect::<Vec<_>>(),
            },
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    /// A claim with devices of pools.
    fn claim(pools: &[&str]) -> Arc<ResourceClaim> {
        let results = pools.iter().map(|pool| {
            let (driver, pool) = pool.split_once(':').unwrap_or(("d", pool));
            json!({"driver": driver, "pool": pool, "device": "x", "request": "r"})
        });
        let results: Vec<Value> = results.collect();
        let claim = json!({
            "metadata": {"name": "c"}, "spec": {},
            "status": {"allocation": {"devices": {"results": results}}},
        });
        Arc::new(serde_json::from_value(claim).unwrap())
    }

    /// `pool generation slices total allocated available node`, after how many pools there are.
    fn told(spec: Value, slices: &[&str], claims: &[Arc<ResourceClaim>]) -> Vec<String> {
        let slices: Vec<_> = slices.iter().map(|line| slice(line)).collect();
        let spec = serde_json::from_value(spec).unwrap();
        let status = match status(&spec, &slices, claims, now()) {
            Ok(status) => status,
            Err(incomplete) => return vec![incomplete.to_string()],
        };
        let conditions = status.conditions.unwrap();
        let said = format!("{} of {}", conditions[0].message, status.pool_count);
        let pools = status.pools.into_iter().flatten().map(|pool| {
            assert_eq!(pool.unavailable_devices, Some(0));
            format!(
                "{} {} {} {} {} {} {}",
                pool.pool_name,
                pool.generation,
                pool.resource_slice_count.unwrap(),
                pool.total_devices.unwrap(),
                pool.allocated_devices.unwrap(),
                pool.available_devices.unwrap(),
                pool.node_name.as_deref().unwrap_or("-"),
            )
        });
        std::iter::once(said).chain(pools).collect()
    }

    #[test]
    fn answers() {
        let of = |driver: &str| json!({"driver": driver, "limit": 100});
        let none = "Calculated status for 0 pools of 0";
        let one = "Calculated status for 1 pools of 1";
        let two = "Calculated status for 2 pools of 2";
        let missing = "incomplete pools detected, requeueing: pool d/p is incomplete: observed 1/2 slices at generation 2";
        let halves: &[&str] = &["p/a 1 2 3 n1", "p/b 1 2 1 n1"];
        type Case<'a> = (Value, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let cases: [Case<'_>; 11] = [
            (of("d"), &[], &["p"], &[none]),
            (of("other"), halves, &[], &[none]),
            (of("d"), halves, &[], &[one, "p 1 2 4 0 4 n1"]),
            (
                of("d"),
                halves,
                &["p", "q", "e:p", "p"],
                &[one, "p 1 2 4 2 2 n1"],
            ),
            // More than there are, of a generation that had more.
            (
                of("d"),
                &["p/a 1 1 1"],
                &["p", "p"],
                &[one, "p 1 1 1 2 0 -"],
            ),
            (
                of("d"),
                &["p/a 1 2 1 n1", "p/b 1 2 1 n2"],
                &[],
                &[one, "p 1 2 2 0 2 -"],
            ),
            (
                of("d"),
                &["p/a 1 2 1 n1", "p/b 1 2 1"],
                &[],
                &[one, "p 1 2 2 0 2 -"],
            ),
            // The old slices go when the new ones are there.
            (
                of("d"),
                &["p/a 1 2 9", "p/b 1 2 9", "p/c 2 1 1 n"],
                &[],
                &[one, "p 2 1 1 0 1 n"],
            ),
            (of("d"), &["p/a 1 1 9", "p/c 2 2 1"], &[], &[missing]),
            (
                of("d"),
                &["q/a 1 1 2", "p/a 1 1 0", "e:p/a 1 1 1"],
                &["q"],
                &[two, "p 1 1 0 0 0 -", "q 1 1 2 1 1 -"],
            ),
            (
                json!({"driver": "d", "poolName": "q"}),
                &["q/a 1 1 2", "p/a 1 2 0"],
                &[],
                &[one, "q 1 1 2 0 2 -"],
            ),
        ];
        for (spec, slices, allocated, expected) in cases {
            assert_eq!(
                told(spec, slices, &[claim(allocated)]),
                expected,
                "{slices:?}"
            );
        }
    }

    #[test]
    fn there_may_be_more_pools_than_are_told() {
        let slices = ["a/1 1 1 1", "b/1 1 1 1", "c/1 1 2 1"];
        // That the third is not whole does not matter.
        let spec = json!({"driver": "d", "limit": 2});
        assert_eq!(
            told(spec, &slices, &[]),
            [
                "Calculated status for 2 pools of 3",
                "a 1 1 1 0 1 -",
                "b 1 1 1 0 1 -"
            ]
        );
    }

    #[test]
    fn requests_that_have_been_there_for_long_enough() {
        let complete = |at: &str| {
            json!({"poolCount": 0, "conditions": [
                {"type": "Complete", "status": "True", "reason": "R", "message": "", "lastTransitionTime": at},
            ]})
        };
        let bare = json!({"poolCount": 0});
        let (yesterday, hour, minute) = (
            "2026-01-01T11:59:59Z",
            "2026-01-02T10:59:59Z",
            "2026-01-02T11:00:00Z",
        );
        for (created, status, old) in [
            (yesterday, Value::Null, true),
            ("2026-01-01T12:00:00Z", Value::Null, false),
            (hour, Value::Null, false),
            (yesterday, complete(hour), true),
            (yesterday, complete(minute), false),
            (hour, bare.clone(), true),
            (minute, bare, false),
        ] {
            let request = json!({
                "metadata": {"name": "r", "creationTimestamp": created}, "spec": {"driver": "d"},
                "status": status,
            });
            let request = serde_json::from_value(request).unwrap();
            assert_eq!(is_old(&request, now()), old, "{created}");
        }
    }
}
