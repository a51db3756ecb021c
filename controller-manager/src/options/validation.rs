//! What is refused at start, in upstream's words.

use std::time::Duration;

use super::{Count, Options};
use crate::registry;

/// What is wrong with the flags.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    #[error("{0:?} is not in the list of known controllers")]
    UnknownController(String),
    #[error("--cluster-cidr: {0:?} is not a CIDR")]
    BadCidr(String),
    #[error("built-in cloud providers are disabled. The ipam {0} is not available")]
    CloudAllocator(String),
    #[error("expected IPv4 and IPv6 CIDRs in --cluster-cidr")]
    NotDualStack,
    #[error("--cluster-cidr is required by --allocate-node-cidrs")]
    NoClusterCidr,
    #[error("usage of --node-cidr-mask-size is not allowed with dual-stack clusters")]
    MaskWithDualStack,
    #[error(
        "usage of --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6 is not allowed if --node-cidr-mask-size is set"
    )]
    MaskTwice,
    #[error(
        "usage of --node-cidr-mask-size-{0} is not allowed for a single-stack cluster of the other family"
    )]
    MaskOfOtherFamily(&'static str),
    #[error("resourceLock value must be \"leases\"")]
    ResourceLock,
    #[error("--cloud-provider: only \"external\" is supported, not {0:?}")]
    CloudProvider(String),
    #[error("--enable-leader-migration is not supported yet")]
    LeaderMigration,
    #[error("--emulated-version: only 1.36 is supported, not {0:?}")]
    EmulatedVersion(String),
    #[error("{flag} must be greater than 0, but got {got}")]
    NotPositive { flag: &'static str, got: Count },
    #[error("{flag} must not be less than {least}, but got {got}")]
    TooFew {
        flag: &'static str,
        least: i32,
        got: Count,
    },
    #[error("{flag} must not be more than {most}, but got {got}")]
    TooMany {
        flag: &'static str,
        most: i32,
        got: Count,
    },
    #[error("concurrent-device-taint-eviction-syncs must be greater than zero, got {0}")]
    TaintEvictionWorkers(Count),
    #[error("concurrent-resourceclaim-syncs must be larger than 0, got {0}")]
    ResourceClaimWorkers(Count),
    #[error("--service-cluster-ip-range can not contain more than two entries")]
    ServiceRanges,
    #[error(
        "duration time must be greater than one second as set via command line option reconcile-sync-loop-period"
    )]
    AttachDetachPeriod,
    #[error(
        "burst is required to be greater than 0 when RateLimiter is not set and QPS is set to greater than 0"
    )]
    NoBurst,
    /// Several at once.
    #[error("[{}]", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<Self>),
}

fn positive(flag: &'static str, got: Count) -> Option<OptionsError> {
    (got.0 < 1).then_some(OptionsError::NotPositive { flag, got })
}

fn between(flag: &'static str, got: Count, least: i32, most: i32) -> Option<OptionsError> {
    if got.0 < least {
        return Some(OptionsError::TooFew { flag, least, got });
    }
    (got.0 > most).then_some(OptionsError::TooMany { flag, most, got })
}

impl Options {
    /// Checks what the flags' own parsers cannot; all that is wrong is said.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let mut errors = self.generic_errors();
        let period = self.attach_detach.attach_detach_reconcile_sync_period;
        if period.get() < Duration::from_secs(1) {
            errors.push(OptionsError::AttachDetachPeriod);
        }
        errors.extend(self.count_errors());
        if self.nodeipam.service_cluster_ip_range.split(',').count() > 2 {
            errors.push(OptionsError::ServiceRanges);
        }
        let allocator = &self.generic.cidr_allocator_type;
        if !matches!(allocator.as_str(), "" | "RangeAllocator") {
            errors.push(OptionsError::CloudAllocator(allocator.clone()));
        } else if let Err(error) = self.node_cidrs() {
            errors.push(error);
        }
        // Upstream finds this when it makes its first client, after all else.
        let (qps, burst) = self.rate_limit();
        if errors.is_empty() && qps > 0.0 && burst == 0 {
            errors.push(OptionsError::NoBurst);
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(OptionsError::Several(errors)),
        }
    }

    fn generic_errors(&self) -> Vec<OptionsError> {
        let mut errors = Vec::new();
        let generic = &self.generic;
        let election = &self.leader_election;
        if election.leader_elect && election.leader_elect_resource_lock != "leases" {
            errors.push(OptionsError::ResourceLock);
        }
        for name in &generic.controllers.0 {
            let plain = name.strip_prefix('-').unwrap_or(name);
            if name != "*" && registry::find(plain).is_none() {
                errors.push(OptionsError::UnknownController(plain.to_owned()));
            }
        }
        if !matches!(generic.cloud_provider.as_str(), "" | "external") {
            errors.push(OptionsError::CloudProvider(generic.cloud_provider.clone()));
        }
        if generic.enable_leader_migration {
            errors.push(OptionsError::LeaderMigration);
        }
        for version in &generic.emulated_version.0 {
            let version = version.strip_prefix("kube=").unwrap_or(version);
            if !matches!(version, "" | "1.36") {
                errors.push(OptionsError::EmulatedVersion(version.to_owned()));
            }
        }
        errors
    }

    /// In upstream's order. Of other numbers upstream takes any.
    fn count_errors(&self) -> impl Iterator<Item = OptionsError> {
        let evictions = self
            .device_taint_eviction
            .concurrent_device_taint_eviction_syncs;
        let claims = self.resource_claim.concurrent_resourceclaim_syncs;
        let (slices, mirroring) = (&self.endpointslice, &self.endpointslicemirroring);
        [
            positive(
                "concurrent-daemonset-syncs",
                self.daemonset.concurrent_daemonset_syncs,
            ),
            (evictions.0 < 1).then_some(OptionsError::TaintEvictionWorkers(evictions)),
            (claims.0 < 1).then_some(OptionsError::ResourceClaimWorkers(claims)),
            positive(
                "concurrent-statefulset-syncs",
                self.statefulset.concurrent_statefulset_syncs,
            ),
            between(
                "concurrent-service-endpoint-syncs",
                slices.concurrent_service_endpoint_syncs,
                1,
                50,
            ),
            between(
                "max-endpoints-per-slice",
                slices.max_endpoints_per_slice,
                1,
                1000,
            ),
            between(
                "mirroring-concurrent-service-endpoint-syncs",
                mirroring.mirroring_concurrent_service_endpoint_syncs,
                1,
                50,
            ),
            between(
                "mirroring-max-endpoints-per-subset",
                mirroring.mirroring_max_endpoints_per_subset,
                1,
                1000,
            ),
            positive(
                "concurrent-ephemeralvolume-syncs",
                self.ephemeral_volume.concurrent_ephemeralvolume_syncs,
            ),
            positive(
                "concurrent-horizontal-pod-autoscaler-syncs",
                self.autoscaler.concurrent_horizontal_pod_autoscaler_syncs,
            ),
            positive("concurrent-job-syncs", self.job.concurrent_job_syncs),
            positive(
                "concurrent-cron-job-syncs",
                self.cronjob.concurrent_cron_job_syncs,
            ),
        ]
        .into_iter()
        .flatten()
    }
}
