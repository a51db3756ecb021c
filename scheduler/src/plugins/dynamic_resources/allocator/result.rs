//! What was found, as claims' statuses are to say it.

use std::collections::{HashMap, HashSet};

use client::Object as _;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult,
    DeviceRequestAllocationResult, ResourceClaim,
};

use super::{AllocateError, Search, broken};

impl Search<'_> {
    pub fn results(&self) -> Result<Vec<AllocationResult>, AllocateError> {
        let claims = self.claims.iter().enumerate();
        claims
            .map(|(index, claim)| self.result(index, claim))
            .collect()
    }

    fn result(
        &self,
        index: usize,
        claim: &ResourceClaim,
    ) -> Result<AllocationResult, AllocateError> {
        let given = &self.given[index];
        let bound = self.question.features.binding_conditions;
        let results: Vec<DeviceRequestAllocationResult> = given
            .iter()
            .map(|given| {
                let device = self.device(given.at);
                let request = &self.requests[index][given.request][given.alternative];
                let used = given.share.as_ref().map(|(_, used)| used);
                let used = used.filter(|used| !used.is_empty());
                let tolerations = request.tolerations;
                DeviceRequestAllocationResult {
                    request: request.full_name(),
                    driver: device.id.driver.to_string(),
                    pool: device.id.pool.to_string(),
                    device: device.id.device.to_string(),
                    admin_access: request.admin.then_some(true),
                    tolerations: (!tolerations.is_empty()).then(|| tolerations.to_vec()),
                    share_id: given.share.as_ref().map(|(id, _)| id.clone()),
                    consumed_capacity: used.map(|used| {
                        let used = used.iter();
                        used.map(|(name, q)| (name.clone(), q.into())).collect()
                    }),
                    binding_conditions: device.binding_conditions.clone().filter(|_| bound),
                    binding_failure_conditions: device
                        .binding_failure_conditions
                        .clone()
                        .filter(|_| bound),
                }
            })
            .collect();
        let config = self.config(index, claim);
        Ok(AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult {
                config: (!config.is_empty()).then_some(config),
                results: (!results.is_empty()).then_some(results),
            }),
            node_selector: self.node_selector(index, claim)?,
        })
    }

    /// What drivers are to be told: by the classes, each once, and by the claim.
    fn config(&self, index: usize, claim: &ResourceClaim) -> Vec<DeviceAllocationConfiguration> {
        let mut config: Vec<DeviceAllocationConfiguration> = Vec::new();
        let mut of_class: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
        let taken = |request: usize| {
            let alternative = self.selected[index][request];
            self.requests[index][request].get(alternative)
        };
        for request in (0..self.requests[index].len()).filter_map(taken) {
            if let Some(known) = of_class.get(request.class.name()) {
                for one in &mut config[known.clone()] {
                    one.requests
                        .get_or_insert_default()
                        .push(request.full_name());
                }
                continue;
            }
            let first = config.len();
            for one in request.class.spec.config.iter().flatten() {
                config.push(DeviceAllocationConfiguration {
                    source: "FromClass".to_owned(),
                    requests: Some(vec![request.full_name()]),
                    opaque: one.opaque.clone(),
                });
            }
            of_class.insert(request.class.name(), first..config.len());
        }
        let devices = claim.spec.devices.as_ref();
        for one in devices
            .and_then(|d| d.config.as_ref())
            .into_iter()
            .flatten()
        {
            let about = one.requests.as_deref().unwrap_or_default();
            let names = |name: &str| about.iter().any(|about| about == name);
            let times = if about.is_empty() {
                1
            } else {
                let concerned = (0..self.requests[index].len()).filter_map(taken);
                concerned
                    .filter(|r| names(r.names().0) || (r.parent.is_some() && names(&r.full_name())))
                    .count()
            };
            let one = DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: one.requests.clone(),
                opaque: one.opaque.clone(),
            };
            config.extend(std::iter::repeat_n(one, times));
        }
        config
    }

    /// Which nodes can use what was given; `None` when all can.
    fn node_selector(
        &self,
        index: usize,
        claim: &ResourceClaim,
    ) -> Result<Option<NodeSelector>, AllocateError> {
        let mut term = NodeSelectorTerm::default();
        for given in &self.given[index] {
            let (slice, device) = (self.slice(given.at), self.device(given.at));
            let reach = match slice.per_device {
                Some(true) => &device.reach,
                _ => &slice.reach,
            };
            if reach.node.is_some() || device.binds_to_node {
                let this = NodeSelectorRequirement {
                    key: "metadata.name".to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![self.question.node.name.to_string()]),
                };
                return Ok(Some(NodeSelector {
                    node_selector_terms: vec![NodeSelectorTerm {
                        match_fields: Some(vec![this]),
                        match_expressions: None,
                    }],
                }));
            }
            let terms = reach.selector.iter().flat_map(|s| &s.node_selector_terms);
            let terms: Vec<&NodeSelectorTerm> = terms.collect();
            if let [one] = &*terms {
                extend(&mut term.match_fields, one.match_fields.as_deref());
                extend(
                    &mut term.match_expressions,
                    one.match_expressions.as_deref(),
                );
            } else if terms.len() > 1 {
                return broken(format!(
                    "create NodeSelector for claim {}: unsupported ResourceSlice.NodeSelector with {} terms",
                    claim.name(),
                    terms.len()
                ));
            }
        }
        let some = term.match_fields.is_some() || term.match_expressions.is_some();
        Ok(some.then(|| NodeSelector {
            node_selector_terms: vec![term],
        }))
    }
}

/// Adds requirements that are not there yet.
fn extend(
    all: &mut Option<Vec<NodeSelectorRequirement>>,
    more: Option<&[NodeSelectorRequirement]>,
) {
    let set = |r: &NodeSelectorRequirement| -> HashSet<String> {
        r.values.iter().flatten().cloned().collect()
    };
    for requirement in more.unwrap_or_default() {
        let all = all.get_or_insert_default();
        let known = all.iter().any(|other| {
            other.key == requirement.key
                && other.operator == requirement.operator
                && set(other) == set(requirement)
        });
        if !known {
            all.push(requirement.clone());
        }
    }
}
