//! The flags: upstream's, one group per controller, checked once at start.

mod absent;
mod count;
mod node_cidrs;
mod validation;

use clap::{ArgAction, Args};
use component::features::FeatureGates;
use component::flags::common::{
    ClientConnectionFlags, DelegatedAuthFlags, LeaderElectionFlags, SecureServingFlags,
};
use component::flags::{CommaList, GoDuration};
use component::logs;
use component::zpages::Flags;

use crate::registry;

pub use absent::AbsentControllerFlags;
pub use count::Count;
pub use node_cidrs::NodeCidrs;
pub use validation::OptionsError;

/// Requests per second and burst of each client, unless flags say otherwise.
const DEFAULT_QPS: f32 = 20.0;
const DEFAULT_BURST: u32 = 30;

/// All flags.
#[derive(Args, Debug)]
pub struct Options {
    /// All of them, as `/flagz` shows them.
    #[command(flatten)]
    pub flags: Flags,
    #[command(flatten)]
    pub logs: logs::Options,
    #[command(flatten)]
    pub client: ClientConnectionFlags,
    #[command(flatten)]
    pub leader_election: LeaderElectionFlags,
    #[command(flatten)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    pub auth: DelegatedAuthFlags,
    #[command(flatten)]
    pub generic: GenericFlags,
    #[command(flatten)]
    pub deployment: DeploymentFlags,
    #[command(flatten)]
    pub replicaset: ReplicaSetFlags,
    #[command(flatten)]
    pub endpoints: EndpointsFlags,
    #[command(flatten)]
    pub endpointslice: EndpointSliceFlags,
    #[command(flatten)]
    pub endpointslicemirroring: EndpointSliceMirroringFlags,
    #[command(flatten)]
    pub garbagecollector: GarbageCollectorFlags,
    #[command(flatten)]
    pub namespace: NamespaceFlags,
    #[command(flatten)]
    pub nodeipam: NodeIpamFlags,
    #[command(flatten)]
    pub nodelifecycle: NodeLifecycleFlags,
    #[command(flatten)]
    pub serviceaccount: ServiceAccountFlags,
    #[command(flatten)]
    pub daemonset: DaemonSetFlags,
    #[command(flatten)]
    pub statefulset: StatefulSetFlags,
    #[command(flatten)]
    pub job: JobFlags,
    #[command(flatten)]
    pub cronjob: CronJobFlags,
    #[command(flatten)]
    pub ephemeral_volume: EphemeralVolumeFlags,
    #[command(flatten)]
    pub autoscaler: AutoscalerFlags,
    #[command(flatten)]
    pub signing: SigningFlags,
    #[command(flatten)]
    pub binder: BinderFlags,
    #[command(flatten)]
    pub podgc: PodGcFlags,
    #[command(flatten)]
    pub resourcequota: ResourceQuotaFlags,
    #[command(flatten)]
    pub resource_claim: ResourceClaimFlags,
    #[command(flatten)]
    pub device_taint_eviction: DeviceTaintEvictionFlags,
    #[command(flatten)]
    pub attach_detach: AttachDetachFlags,
    #[command(flatten)]
    pub ttl_after_finished: TtlAfterFinishedFlags,
    #[command(flatten)]
    pub policy_status: PolicyStatusFlags,
    #[command(flatten)]
    pub absent: AbsentControllerFlags,
}

impl AsRef<logs::Options> for Options {
    fn as_ref(&self) -> &logs::Options {
        &self.logs
    }
}

/// Flags of the manager itself.
#[derive(Args, Debug)]
#[group(skip)]
pub struct GenericFlags {
    /// A list of controllers to enable. '*' enables all on-by-default controllers, 'foo' enables the controller named 'foo', '-foo' disables the controller named 'foo'.
    #[arg(long, default_value = "*")]
    pub controllers: CommaList,
    /// If true, use individual service account credentials for each controller.
    #[arg(long)]
    pub use_service_account_credentials: bool,
    /// The instance prefix for the cluster.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    /// Should CIDRs for Pods be allocated. Requires --cluster-cidr.
    #[arg(long)]
    pub allocate_node_cidrs: bool,
    /// Type of CIDR allocator to use.
    #[arg(long, default_value = "RangeAllocator")]
    pub cidr_allocator_type: String,
    /// CIDR Range for Pods in cluster; two for dual stack.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Interval between starting controllers.
    #[arg(long, default_value = "0s")]
    pub controller_start_interval: GoDuration,
    /// Time to wait for the controllers to shut down before terminating the executable.
    #[arg(long, default_value = "10s")]
    pub controller_shutdown_timeout: GoDuration,
    /// Resyncs are not needed: informers miss nothing. Accepted for compatibility.
    #[arg(long, default_value = "12h")]
    pub min_resync_period: GoDuration,
    /// The provider for cloud services: empty or "external".
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    #[arg(long, default_value = "")]
    pub cloud_config: String,
    #[arg(long, default_value = "")]
    pub external_cloud_volume_plugin: String,
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub configure_cloud_routes: bool,
    #[arg(long, default_value = "10s")]
    pub route_reconciliation_period: GoDuration,
    /// The period for looking at all nodes' health.
    #[arg(long, default_value = "5s")]
    pub node_monitor_period: GoDuration,
    /// Feature gates, as name=true|false pairs.
    #[arg(long, default_value = "")]
    pub feature_gates: FeatureGates,
    #[arg(long, default_value = "")]
    pub emulated_version: CommaList,
    #[arg(long, default_value = "")]
    pub min_compatibility_version: CommaList,
    #[arg(long)]
    pub unsupported_kube_api_over_localhost: bool,
    #[arg(long)]
    pub enable_leader_migration: bool,
    #[arg(long, default_value = "")]
    pub leader_migration_config: String,
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub profiling: bool,
    #[arg(long)]
    pub contention_profiling: bool,
    #[arg(long, default_value = "")]
    pub show_hidden_metrics_for_version: String,
    #[arg(long, default_value = "")]
    pub disabled_metrics: CommaList,
    #[arg(long, default_value = "")]
    pub allow_metric_labels: String,
    #[arg(long, default_value = "")]
    pub allow_metric_labels_manifest: String,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct DeploymentFlags {
    /// The number of deployment objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_deployment_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct ReplicaSetFlags {
    /// The number of replica sets that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_replicaset_syncs: Count,
    /// The number of replication controllers that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_rc_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct EndpointsFlags {
    /// The number of endpoint syncing operations that will be done concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_endpoint_syncs: Count,
    /// How long pod changes are collected before Endpoints are updated.
    #[arg(long, default_value = "0s")]
    pub endpoint_updates_batch_period: GoDuration,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct EndpointSliceFlags {
    /// The number of service endpoint syncing operations that will be done concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_service_endpoint_syncs: Count,
    /// How long pod changes are collected before EndpointSlices are updated.
    #[arg(long, default_value = "0s")]
    pub endpointslice_updates_batch_period: GoDuration,
    /// The maximum number of endpoints that will be added to an EndpointSlice.
    #[arg(long, default_value_t = Count(100))]
    pub max_endpoints_per_slice: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct EndpointSliceMirroringFlags {
    /// The number of service endpoint syncing operations that will be done concurrently by the endpointslice-mirroring-controller.
    #[arg(long, default_value_t = Count(5))]
    pub mirroring_concurrent_service_endpoint_syncs: Count,
    /// How long changes of slices by others are collected before they are put right.
    #[arg(long, default_value = "0s")]
    pub mirroring_endpointslice_updates_batch_period: GoDuration,
    /// The maximum number of endpoints that will be added to an EndpointSlice by the endpointslice-mirroring-controller.
    #[arg(long, default_value_t = Count(1000))]
    pub mirroring_max_endpoints_per_subset: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct GarbageCollectorFlags {
    /// The number of garbage collector workers that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(20))]
    pub concurrent_gc_syncs: Count,
    /// Enables the generic garbage collector. MUST be synced with the corresponding flag of the kube-apiserver.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub enable_garbage_collector: bool,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct NamespaceFlags {
    /// The number of namespace objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(10))]
    pub concurrent_namespace_syncs: Count,
    /// The period for syncing namespace life-cycle updates; nothing waits for it here.
    #[arg(long, default_value = "5m0s")]
    pub namespace_sync_period: GoDuration,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct NodeIpamFlags {
    /// CIDR Range for Services in cluster; nodes get no addresses out of it.
    #[arg(long, default_value = "")]
    pub service_cluster_ip_range: String,
    /// Mask size for node cidr in cluster. Default is 24 for IPv4 and 64 for IPv6.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size: u8,
    /// Mask size for IPv4 node cidr in dual-stack cluster. Default is 24.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv4: u8,
    /// Mask size for IPv6 node cidr in dual-stack cluster. Default is 64.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv6: u8,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct NodeLifecycleFlags {
    /// Amount of time which we allow running Node to be unresponsive before marking it unhealthy.
    #[arg(long, default_value = "50s")]
    pub node_monitor_grace_period: GoDuration,
    /// Amount of time which we allow starting Node to be unresponsive before marking it unhealthy.
    #[arg(long, default_value = "1m0s")]
    pub node_startup_grace_period: GoDuration,
    /// Number of nodes per second on which pods are deleted in case of node failure when a zone is healthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f32,
    /// Number of nodes per second on which pods are deleted in case of node failure when a zone is unhealthy.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f32,
    /// Number of nodes from which the cluster is large for the eviction logic's purposes.
    #[arg(long, default_value_t = Count(50))]
    pub large_cluster_size_threshold: Count,
    /// Fraction of Nodes in a zone which needs to be not Ready (minimum 3) for zone to be treated as unhealthy.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f32,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct ServiceAccountFlags {
    /// This root certificate authority is published in every namespace.
    #[arg(long, default_value = "")]
    pub root_ca_file: String,
    /// Signs legacy tokens in secrets.
    #[arg(long, default_value = "")]
    pub service_account_private_key_file: String,
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_serviceaccount_token_syncs: Count,
    #[arg(long, default_value = "8760h0m0s")]
    pub legacy_service_account_token_clean_up_period: GoDuration,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct DaemonSetFlags {
    /// The number of daemonset objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(2))]
    pub concurrent_daemonset_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct StatefulSetFlags {
    /// The number of statefulset objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_statefulset_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct JobFlags {
    /// The number of job objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_job_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct CronJobFlags {
    /// The number of cron job objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_cron_job_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct EphemeralVolumeFlags {
    /// The number of ephemeral volume syncing operations that will be done concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_ephemeralvolume_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct AutoscalerFlags {
    /// The number of horizontal pod autoscaler objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_horizontal_pod_autoscaler_syncs: Count,
    /// The period after pod start when CPU samples might be skipped.
    #[arg(long, default_value = "5m0s")]
    pub horizontal_pod_autoscaler_cpu_initialization_period: GoDuration,
    /// The period for which autoscaler will look backwards and not scale down below any recommendation it made during that period.
    #[arg(long, default_value = "5m0s")]
    pub horizontal_pod_autoscaler_downscale_stabilization: GoDuration,
    /// The period after pod start during which readiness changes will be treated as initial readiness.
    #[arg(long, default_value = "30s")]
    pub horizontal_pod_autoscaler_initial_readiness_delay: GoDuration,
    /// The period for syncing the number of pods in horizontal pod autoscaler.
    #[arg(long, default_value = "15s")]
    pub horizontal_pod_autoscaler_sync_period: GoDuration,
    /// The minimum change (from 1.0) in the desired-to-actual metrics ratio for the horizontal pod autoscaler to consider scaling.
    #[arg(long, default_value_t = 0.1)]
    pub horizontal_pod_autoscaler_tolerance: f64,
}

/// Who signs certificates. Files of one signer keep the common ones from being used.
#[derive(Args, Debug)]
#[group(skip)]
pub struct SigningFlags {
    /// The certificate of the authority that signs, unless the signers have their own.
    #[arg(long, default_value = "")]
    pub cluster_signing_cert_file: String,
    /// Its private key.
    #[arg(long, default_value = "")]
    pub cluster_signing_key_file: String,
    /// The longest that certificates are valid; requests may ask for less.
    #[arg(long, default_value = "8760h0m0s")]
    pub cluster_signing_duration: GoDuration,
    #[arg(long, default_value = "")]
    pub cluster_signing_kube_apiserver_client_cert_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_kube_apiserver_client_key_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_kubelet_client_cert_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_kubelet_client_key_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_kubelet_serving_cert_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_kubelet_serving_key_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_legacy_unknown_cert_file: String,
    #[arg(long, default_value = "")]
    pub cluster_signing_legacy_unknown_key_file: String,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct BinderFlags {
    /// Enable dynamic provisioning for environments that support it.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub enable_dynamic_provisioning: bool,
    /// The period for syncing persistent volumes and persistent volume claims.
    #[arg(long, default_value = "15s")]
    pub pvclaimbinder_sync_period: GoDuration,
    #[command(flatten)]
    pub recycler: RecyclerFlags,
}

/// The pods that clean volumes.
#[derive(Args, Debug)]
#[group(skip)]
pub struct RecyclerFlags {
    /// The minimum ActiveDeadlineSeconds to use for a HostPath Recycler pod. This is for development and testing only and will not work in a multi-node cluster.
    #[arg(long, default_value_t = 60)]
    pub pv_recycler_minimum_timeout_hostpath: i32,
    /// The increment of time added per Gi to ActiveDeadlineSeconds for a HostPath scrubber pod.
    #[arg(long, default_value_t = 30)]
    pub pv_recycler_timeout_increment_hostpath: i32,
    /// The minimum ActiveDeadlineSeconds to use for an NFS Recycler pod.
    #[arg(long, default_value_t = 300)]
    pub pv_recycler_minimum_timeout_nfs: i32,
    /// The increment of time added per Gi to ActiveDeadlineSeconds for an NFS scrubber pod.
    #[arg(long, default_value_t = 30)]
    pub pv_recycler_increment_timeout_nfs: i32,
    /// The file path to a pod definition used as a template for HostPath persistent volume recycling.
    #[arg(long, default_value = "")]
    pub pv_recycler_pod_template_filepath_hostpath: String,
    /// The file path to a pod definition used as a template for NFS persistent volume recycling.
    #[arg(long, default_value = "")]
    pub pv_recycler_pod_template_filepath_nfs: String,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct PodGcFlags {
    /// Number of terminated pods that can exist before the terminated pod garbage collector starts deleting terminated pods. If <= 0, the terminated pod garbage collector is disabled.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: i32,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct ResourceQuotaFlags {
    /// The number of resource quotas that are allowed to sync concurrently. Larger number = more responsive quota management, but more CPU (and network) load
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_resource_quota_syncs: Count,
    /// The period for syncing quota usage status in the system
    #[arg(long, default_value = "5m0s")]
    pub resource_quota_sync_period: GoDuration,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct ResourceClaimFlags {
    /// The number of resource claim sync operations that may run concurrently. Larger number = faster resource claim operations, but more CPU (and network) load
    #[arg(long, default_value_t = Count(50))]
    pub concurrent_resourceclaim_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct DeviceTaintEvictionFlags {
    /// Pods that may be evicted at the same time
    #[arg(long, default_value_t = Count(8))]
    pub concurrent_device_taint_eviction_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct AttachDetachFlags {
    /// How often volumes that are wanted and volumes that are attached are compared. At least one second
    #[arg(long, default_value = "1m0s")]
    pub attach_detach_reconcile_sync_period: GoDuration,
    /// Do not compare them; what is attached behind the manager's back is not noticed then
    #[arg(long)]
    pub disable_attach_detach_reconcile_sync: bool,
    /// Never detach a volume from a node that is not ready before the node says that it has unmounted it
    #[arg(long)]
    pub disable_force_detach_on_timeout: bool,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct TtlAfterFinishedFlags {
    /// The number of ttl-after-finished-controller workers that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_ttl_after_finished_syncs: Count,
}

#[derive(Args, Debug)]
#[group(skip)]
pub struct PolicyStatusFlags {
    /// The number of ValidatingAdmissionPolicyStatusController workers that are allowed to sync concurrently.
    #[arg(long, default_value_t = Count(5))]
    pub concurrent_validating_admission_policy_status_syncs: Count,
}

impl Options {
    /// Whether a controller is to run, by its name: an entry of its own wins over `*`.
    pub fn is_enabled(&self, controller: &registry::Descriptor) -> bool {
        let names = [Some(controller.name), controller.alias];
        let listed = |entry: &str| names.iter().flatten().any(|n| *n == entry);
        let mut star = false;
        for entry in &self.generic.controllers.0 {
            if listed(entry) {
                return true;
            }
            if entry.strip_prefix('-').is_some_and(listed) {
                return false;
            }
            star |= entry == "*";
        }
        star && controller.on_by_default
    }

    /// Requests per second and burst of each client.
    pub fn rate_limit(&self) -> (f32, u32) {
        (
            self.client.kube_api_qps.unwrap_or(DEFAULT_QPS),
            self.client.kube_api_burst.unwrap_or(DEFAULT_BURST),
        )
    }

    /// What `/configz` tells, under upstream's names.
    pub fn configz(&self) -> serde_json::Value {
        let election = &self.leader_election;
        let (qps, burst) = self.rate_limit();
        let generic = &self.generic;
        serde_json::json!({"kubecontrollermanager.config.k8s.io": {
            "Generic": {
                "Port": self.serving.secure_port, "Address": self.serving.bind_address,
                "MinResyncPeriod": generic.min_resync_period,
                "ClientConnection": {"QPS": qps, "Burst": burst},
                "ControllerStartInterval": generic.controller_start_interval,
                "LeaderElection": {
                    "LeaderElect": election.leader_elect,
                    "LeaseDuration": election.leader_elect_lease_duration,
                    "RenewDeadline": election.leader_elect_renew_deadline,
                    "RetryPeriod": election.leader_elect_retry_period,
                },
                "Controllers": generic.controllers.0,
            },
            "KubeCloudShared": {
                "AllocateNodeCIDRs": generic.allocate_node_cidrs,
                "ClusterCIDR": generic.cluster_cidr, "ClusterName": generic.cluster_name,
                "CIDRAllocatorType": generic.cidr_allocator_type,
                "NodeMonitorPeriod": generic.node_monitor_period,
                "UseServiceAccountCredentials": generic.use_service_account_credentials,
            },
            "DeploymentController": {"ConcurrentDeploymentSyncs": self.deployment.concurrent_deployment_syncs},
            "ReplicaSetController": {"ConcurrentRSSyncs": self.replicaset.concurrent_replicaset_syncs},
            "EndpointController": {
                "ConcurrentEndpointSyncs": self.endpoints.concurrent_endpoint_syncs,
                "EndpointUpdatesBatchPeriod": self.endpoints.endpoint_updates_batch_period,
            },
            "EndpointSliceController": {
                "ConcurrentServiceEndpointSyncs": self.endpointslice.concurrent_service_endpoint_syncs,
                "MaxEndpointsPerSlice": self.endpointslice.max_endpoints_per_slice,
                "EndpointUpdatesBatchPeriod": self.endpointslice.endpointslice_updates_batch_period,
            },
            "EndpointSliceMirroringController": {
                "MirroringConcurrentServiceEndpointSyncs":
                    self.endpointslicemirroring.mirroring_concurrent_service_endpoint_syncs,
                "MirroringMaxEndpointsPerSubset":
                    self.endpointslicemirroring.mirroring_max_endpoints_per_subset,
                "MirroringEndpointUpdatesBatchPeriod":
                    self.endpointslicemirroring.mirroring_endpointslice_updates_batch_period,
            },
            "StatefulSetController": {"ConcurrentStatefulSetSyncs": self.statefulset.concurrent_statefulset_syncs},
            "EphemeralVolumeController": {
                "ConcurrentEphemeralVolumeSyncs": self.ephemeral_volume.concurrent_ephemeralvolume_syncs,
            },
            "HPAController": {
                "ConcurrentHorizontalPodAutoscalerSyncs":
                    self.autoscaler.concurrent_horizontal_pod_autoscaler_syncs,
                "HorizontalPodAutoscalerSyncPeriod": self.autoscaler.horizontal_pod_autoscaler_sync_period,
                "HorizontalPodAutoscalerDownscaleStabilizationWindow":
                    self.autoscaler.horizontal_pod_autoscaler_downscale_stabilization,
                "HorizontalPodAutoscalerTolerance": self.autoscaler.horizontal_pod_autoscaler_tolerance,
                "HorizontalPodAutoscalerCPUInitializationPeriod":
                    self.autoscaler.horizontal_pod_autoscaler_cpu_initialization_period,
                "HorizontalPodAutoscalerInitialReadinessDelay":
                    self.autoscaler.horizontal_pod_autoscaler_initial_readiness_delay,
            },
            "JobController": {"ConcurrentJobSyncs": self.job.concurrent_job_syncs},
            "CronJobController": {"ConcurrentCronJobSyncs": self.cronjob.concurrent_cron_job_syncs},
            "ReplicationController": {"ConcurrentRCSyncs": self.replicaset.concurrent_rc_syncs},
            "GarbageCollectorController": {
                "EnableGarbageCollector": self.garbagecollector.enable_garbage_collector,
                "ConcurrentGCSyncs": self.garbagecollector.concurrent_gc_syncs,
            },
            "NamespaceController": {"ConcurrentNamespaceSyncs": self.namespace.concurrent_namespace_syncs},
            "NodeIPAMController": {
                "ServiceCIDR": self.nodeipam.service_cluster_ip_range,
                "NodeCIDRMaskSize": self.nodeipam.node_cidr_mask_size,
                "NodeCIDRMaskSizeIPv4": self.nodeipam.node_cidr_mask_size_ipv4,
                "NodeCIDRMaskSizeIPv6": self.nodeipam.node_cidr_mask_size_ipv6,
            },
            "NodeLifecycleController": {
                "NodeEvictionRate": self.nodelifecycle.node_eviction_rate,
                "SecondaryNodeEvictionRate": self.nodelifecycle.secondary_node_eviction_rate,
                "NodeStartupGracePeriod": self.nodelifecycle.node_startup_grace_period,
                "NodeMonitorGracePeriod": self.nodelifecycle.node_monitor_grace_period,
                "LargeClusterSizeThreshold": self.nodelifecycle.large_cluster_size_threshold,
                "UnhealthyZoneThreshold": self.nodelifecycle.unhealthy_zone_threshold,
            },
            "SAController": {
                "RootCAFile": self.serviceaccount.root_ca_file,
                "ConcurrentSATokenSyncs": self.serviceaccount.concurrent_serviceaccount_token_syncs,
            },
            "ValidatingAdmissionPolicyStatusController": {
                "ConcurrentPolicySyncs":
                    self.policy_status.concurrent_validating_admission_policy_status_syncs,
            },
        }})
    }

    /// What `node-ipam-controller` is to hand out; `None` without `--allocate-node-cidrs`.
    pub fn node_cidrs(&self) -> Result<Option<NodeCidrs>, OptionsError> {
        node_cidrs::resolve(&self.generic, &self.nodeipam)
    }
}

#[cfg(test)]
mod tests;
