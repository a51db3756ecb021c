//! What endpointslice-controller counts, under upstream's names.

use std::collections::HashMap;

use client::informer::Store;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use prometheus::{Histogram, HistogramVec, IntCounterVec, exponential_buckets};

use super::plan::{self, Plan};
use super::{hints, is_ours, service_key, topology};
use crate::metrics::{Meter, number};

pub struct Metrics {
    added: Histogram,
    removed: Histogram,
    /// By `create`, `update` and `delete`.
    changes: IntCounterVec,
    /// By the Service's topology and traffic distribution.
    changed: HistogramVec,
    /// By `success`, `stale` and `error`.
    syncs: IntCounterVec,
}

fn name(name: &str) -> String {
    format!("endpoint_slice_controller_{name}")
}

impl Metrics {
    pub fn new(meter: &Meter) -> prometheus::Result<Self> {
        let buckets = || exponential_buckets(2.0, 2.0, 15);
        Ok(Self {
            added: meter.histogram(
                &name("endpoints_added_per_sync"),
                "Endpoints that came in a sync.",
                buckets()?,
            )?,
            removed: meter.histogram(
                &name("endpoints_removed_per_sync"),
                "Endpoints that went in a sync.",
                buckets()?,
            )?,
            changes: meter.counters(
                &name("changes"),
                "Changes of EndpointSlices.",
                &["operation"],
            )?,
            changed: meter.histograms(
                &name("endpointslices_changed_per_sync"),
                "EndpointSlices that changed in a sync.",
                prometheus::DEFAULT_BUCKETS.to_vec(),
                &["topology", "traffic_distribution"],
            )?,
            syncs: meter.counters(&name("syncs"), "Syncs of Services.", &["result"])?,
        })
    }

    pub fn changed(&self, operation: &str) {
        self.changes.with_label_values(&[operation]).inc();
    }

    pub fn synced(&self, result: &str) {
        self.syncs.with_label_values(&[result]).inc();
    }

    /// What a plan changes of the slices before.
    #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
    pub fn planned(
        &self,
        service: &Service,
        before: &[std::sync::Arc<EndpointSlice>],
        plan: &Plan,
    ) {
        let known = |name: &str| before.iter().find(|s| client::Object::name(&***s) == name);
        let ids = |slice: &EndpointSlice| -> Vec<plan::EndpointId> {
            plan::endpoints(slice).iter().map(plan::id).collect()
        };
        let mut old: Vec<plan::EndpointId> = Vec::new();
        let mut new: Vec<plan::EndpointId> = Vec::new();
        for slice in &plan.update {
            old.extend(
                known(client::Object::name(slice))
                    .map(|s| ids(s))
                    .into_iter()
                    .flatten(),
            );
            new.extend(ids(slice));
        }
        new.extend(plan.create.iter().flat_map(&ids));
        let gone = plan.delete.iter().filter_map(|name| known(name));
        old.extend(gone.flat_map(|slice| ids(slice)));
        let added = new.iter().filter(|id| !old.contains(id)).count();
        let removed = old.iter().filter(|id| !new.contains(id)).count();
        self.added.observe(added as f64);
        self.removed.observe(removed as f64);
        let topology = match topology::is_wanted(service) {
            true => "Auto",
            false => "Disabled",
        };
        let labels = [topology, hints::distribution(service).unwrap_or_default()];
        let changed = plan.create.len() + plan.update.len() + plan.delete.len();
        self.changed
            .with_label_values(&labels)
            .observe(changed as f64);
    }
}

/// Counts the slices and endpoints that there are whenever it is asked for.
pub fn count_slices(
    meter: &Meter,
    services: &Store<Service>,
    slices: &Store<EndpointSlice>,
    most: usize,
) -> prometheus::Result<()> {
    let endpoints = meter.gauge(&name("endpoints_desired"), "Endpoints that there are.")?;
    let actual = meter.gauge(
        &name("num_endpoint_slices"),
        "EndpointSlices that there are.",
    )?;
    let desired = meter.gauge(
        &name("desired_endpoint_slices"),
        "EndpointSlices that there would be if each was as full as may be.",
    )?;
    let distributions = meter.gauges(
        &name("services_count_by_traffic_distribution"),
        "Services that say where their traffic is to go.",
        &["traffic_distribution"],
    )?;
    let (services, slices) = (services.clone(), slices.clone());
    meter.before_gathering(move || {
        let (mut all, mut count) = (0, 0);
        let mut groups: HashMap<String, usize> = HashMap::new();
        for slice in slices.list().iter().filter(|slice| is_ours(slice)) {
            let Some(service) = service_key(slice) else {
                continue;
            };
            let own = plan::endpoints(slice).len();
            all += own;
            count += 1;
            let group = format!("{service} {} {:?}", slice.address_type, slice.ports);
            *groups.entry(group).or_default() += own;
        }
        let needed = groups.values().map(|own| own.div_ceil(most.max(1)).max(1));
        endpoints.set(number(all));
        actual.set(count);
        desired.set(number(needed.sum()));
        distributions.reset();
        for service in services.list() {
            if let Some(distribution) = hints::distribution(&service) {
                distributions.with_label_values(&[distribution]).inc();
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn topology_comes_before_the_distribution() {
        let metrics = Metrics::new(&Meter::new(&component::metrics::Registry::new())).unwrap();
        let mode = "service.kubernetes.io/topology-mode";
        for annotations in [json!({}), json!({mode: "Auto"})] {
            let service = serde_json::from_value(json!({
                "metadata": {"annotations": annotations},
                "spec": {"trafficDistribution": "PreferClose"},
            }));
            metrics.planned(&service.unwrap(), &[], &Plan::default());
        }
        for (labels, count) in [
            (["Disabled", "PreferClose"], 1),
            (["Auto", ""], 1),
            (["Auto", "PreferClose"], 0),
        ] {
            let changed = metrics.changed.with_label_values(&labels);
            assert_eq!(changed.get_sample_count(), count, "{labels:?}");
        }
    }
}
