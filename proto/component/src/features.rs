//! Feature gates: upstream's names, stages and defaults of v1.36, and what
//! `--feature-gates` makes of them.
//!
//! Every daemon knows every gate, since they share their flag files; what a gate does is
//! up to who asks for it. Gates are passed in, never global.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How far a feature has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

use Stage::{Alpha, Beta, Deprecated, Ga};

/// A gate as v1.36 has it.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    pub name: &'static str,
    pub default: bool,
    pub stage: Stage,
    /// Setting it to anything but its default is an error.
    pub locked: bool,
}

const fn gate(name: &'static str, default: bool, stage: Stage, locked: bool) -> Gate {
    Gate {
        name,
        default,
        stage,
        locked,
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FeatureGateError {
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error("missing bool value for {0}")]
    Missing(String),
    #[error(
        "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
    )]
    NotBool { name: String, value: String },
    #[error("cannot set feature gate {name} to {value}, feature is locked to {default}")]
    Locked {
        name: String,
        value: bool,
        default: bool,
    },
    #[error("{name} is enabled, but depends on features that are disabled: [{needed}]")]
    Unmet { name: &'static str, needed: String },
}

/// The gates of one daemon. Cheap to clone.
#[derive(Clone, Default)]
pub struct FeatureGates(Arc<BTreeMap<&'static str, bool>>);

impl FeatureGates {
    /// From `Name=true,Other=false`; `AllAlpha` and `AllBeta` set whole stages, and gates
    /// that are named win over them. `kube:` before a name says whose gate it is, and there are no
    /// others.
    pub fn parse(text: &str) -> Result<Self, FeatureGateError> {
        let pairs = text
            .split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty())
            .map(|pair| {
                let (name, value) = pair
                    .split_once('=')
                    .ok_or_else(|| FeatureGateError::Missing(pair.to_owned()))?;
                let (name, value) = (name.trim(), value.trim());
                let name = name.strip_prefix("kube:").unwrap_or(name);
                Ok((name.to_owned(), parse_bool(name, value)?))
            });
        Self::from_pairs(&pairs.collect::<Result<BTreeMap<_, _>, _>>()?)
    }

    /// From the map of a configuration file.
    pub fn from_pairs(pairs: &BTreeMap<String, bool>) -> Result<Self, FeatureGateError> {
        let mut set = BTreeMap::new();
        for (all, stage) in [("AllAlpha", Alpha), ("AllBeta", Beta)] {
            if let Some(value) = pairs.get(all) {
                let of_stage = GATES.iter().filter(|g| g.stage == stage && !g.locked);
                set.extend(of_stage.map(|g| (g.name, *value)));
            }
        }
        for (name, value) in pairs {
            if matches!(name.as_str(), "AllAlpha" | "AllBeta") {
                continue;
            }
            let gate = find(name).ok_or_else(|| FeatureGateError::Unknown(name.clone()))?;
            if gate.locked && *value != gate.default {
                return Err(FeatureGateError::Locked {
                    name: name.clone(),
                    value: *value,
                    default: gate.default,
                });
            }
            if gate.stage == Ga || gate.stage == Deprecated {
                tracing::warn!(
                    "setting {:?} feature gate {name}={value}. It will be removed in a future release",
                    gate.stage
                );
            }
            set.insert(gate.name, *value);
        }
        Ok(Self(Arc::new(set)))
    }

    /// Whether every feature that is on has those that it needs.
    pub fn check(&self) -> Result<(), FeatureGateError> {
        for (name, needed) in DEPENDENCIES.iter().filter(|(name, _)| self.enabled(name)) {
            let off: Vec<&str> = needed
                .iter()
                .copied()
                .filter(|n| !self.enabled(n))
                .collect();
            if !off.is_empty() {
                return Err(FeatureGateError::Unmet {
                    name,
                    needed: off.join(" "),
                });
            }
        }
        Ok(())
    }

    /// These gates, overridden by `other` (flags over a configuration file).
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut set = (*self.0).clone();
        set.extend(other.0.iter().map(|(name, value)| (*name, *value)));
        Self(Arc::new(set))
    }

    /// Is the feature on? A name that is no gate is off: the caller misspelt it, and a
    /// test of the caller should say so.
    pub fn enabled(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(value) => *value,
            None => find(name).is_some_and(|gate| gate.default),
        }
    }
}

/// What was set, not what is by default.
impl fmt::Debug for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As a flag: `--feature-gates=A=true,B=false`.
impl std::str::FromStr for FeatureGates {
    type Err = FeatureGateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn parse_bool(name: &str, value: &str) -> Result<bool, FeatureGateError> {
    crate::flags::parse_bool(value).ok_or_else(|| FeatureGateError::NotBool {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

fn find(name: &str) -> Option<&'static Gate> {
    GATES
        .binary_search_by(|gate| gate.name.cmp(name))
        .ok()
        .map(|at| &GATES[at])
}

/// Sorted by name.
#[rustfmt::skip]
pub const GATES: &[Gate] = &[
    gate("APIResponseCompression", true, Beta, false),
    gate("APIServerIdentity", true, Beta, false),
    gate("APIServerTracing", true, Ga, true),
    gate("APIServingWithRoutine", false, Alpha, false),
    gate("AggregatedDiscoveryRemoveBetaType", true, Deprecated, true),
    gate("AllowDNSOnlyNodeCSR", false, Deprecated, false),
    gate("AllowInsecureKubeletCertificateSigningRequests", false, Deprecated, false),
    gate("AllowOverwriteTerminationGracePeriodSeconds", false, Deprecated, true),
    gate("AllowParsingUserUIDFromCertAuth", true, Beta, false),
    gate("AllowServiceExternalIPs", true, Ga, false),
    gate("AllowUnsafeMalformedObjectDeletion", false, Alpha, false),
    gate("AnonymousAuthConfigurableEndpoints", true, Ga, true),
    gate("AnyVolumeDataSource", true, Ga, true),
    gate("AtomicFIFO", true, Beta, false),
    gate("AuthorizeNodeWithSelectors", true, Ga, true),
    gate("AuthorizePodWebsocketUpgradeCreatePermission", true, Beta, false),
    gate("AuthorizeWithSelectors", true, Ga, true),
    gate("BtreeWatchCache", true, Ga, true),
    gate("CBORServingAndStorage", false, Alpha, false),
    gate("CPUManagerPolicyAlphaOptions", false, Alpha, false),
    gate("CPUManagerPolicyBetaOptions", true, Beta, false),
    gate("CPUManagerPolicyOptions", true, Ga, true),
    gate("CRDObservedGenerationTracking", true, Beta, false),
    gate("CRDValidationRatcheting", true, Ga, true),
    gate("CRIListStreaming", false, Alpha, false),
    gate("CSIServiceAccountTokenSecrets", true, Ga, true),
    gate("CSIVolumeHealth", false, Alpha, false),
    gate("ChangeContainerStatusOnKubeletRestart", false, Deprecated, false),
    gate("ClearingNominatedNodeNameAfterBinding", true, Beta, false),
    gate("ClientsAllowCARotation", true, Beta, false),
    gate("ClientsAllowCBOR", false, Alpha, false),
    gate("ClientsAllowTLSCacheGC", true, Beta, false),
    gate("ClientsPreferCBOR", false, Alpha, false),
    gate("CloudControllerManagerWatchBasedRoutesReconciliation", false, Alpha, false),
    gate("CloudControllerManagerWebhook", false, Alpha, false),
    gate("ClusterTrustBundle", false, Beta, false),
    gate("ClusterTrustBundleProjection", false, Beta, false),
    gate("ComponentFlagz", true, Beta, false),
    gate("ComponentStatusz", true, Beta, false),
    gate("ConcurrentWatchObjectDecode", false, Beta, false),
    gate("ConsistentListFromCache", true, Ga, true),
    gate("ConstrainedImpersonation", true, Beta, false),
    gate("ContainerCheckpoint", true, Beta, false),
    gate("ContainerRestartRules", true, Beta, false),
    gate("ContainerStopSignals", false, Alpha, false),
    gate("ContextualLogging", true, Beta, false),
    gate("ControllerManagerReleaseLeaderElectionLockOnExit", false, Alpha, false),
    gate("CoordinatedLeaderElection", false, Beta, false),
    gate("CrossNamespaceVolumeDataSource", false, Alpha, false),
    gate("CustomCPUCFSQuotaPeriod", true, Ga, false),
    gate("CustomResourceFieldSelectors", true, Ga, true),
    gate("DRAAdminAccess", true, Ga, true),
    gate("DRAConsumableCapacity", true, Beta, false),
    gate("DRADeviceBindingConditions", true, Beta, false),
    gate("DRADeviceTaintRules", false, Beta, false),
    gate("DRADeviceTaints", true, Beta, false),
    gate("DRAExtendedResource", true, Beta, false),
    gate("DRAListTypeAttributes", false, Alpha, false),
    gate("DRANodeAllocatableResources", false, Alpha, false),
    gate("DRAPartitionableDevices", true, Beta, false),
    gate("DRAPrioritizedList", true, Ga, false),
    gate("DRAResourceClaimDeviceStatus", true, Beta, false),
    gate("DRAResourceClaimGranularStatusAuthorization", true, Beta, false),
    gate("DRAResourcePoolStatus", false, Alpha, false),
    gate("DRASchedulerFilterTimeout", true, Beta, false),
    gate("DRAWorkloadResourceClaims", false, Alpha, false),
    gate("DeclarativeValidation", true, Ga, true),
    gate("DeclarativeValidationBeta", true, Beta, false),
    gate("DeclarativeValidationTakeover", false, Deprecated, false),
    gate("DeploymentReplicaSetTerminatingReplicas", true, Beta, false),
    gate("DetectCacheInconsistency", true, Beta, false),
    gate("DisableAllocatorDualWrite", true, Ga, true),
    gate("DisableCPUQuotaWithExclusiveCPUs", true, Deprecated, false),
    gate("DisableNodeKubeProxyVersion", true, Deprecated, true),
    gate("DynamicResourceAllocation", true, Ga, true),
    gate("EnvFiles", true, Beta, false),
    gate("EventedPLEG", false, Alpha, false),
    gate("ExecProbeTimeout", true, Ga, true),
    gate("ExtendWebSocketsToKubelet", true, Beta, false),
    gate("ExternalServiceAccountTokenSigner", true, Ga, true),
    gate("GangScheduling", false, Alpha, false),
    gate("GenericWorkload", false, Alpha, false),
    gate("GitRepoVolumeDriver", false, Deprecated, true),
    gate("GracefulNodeShutdown", true, Beta, false),
    gate("GracefulNodeShutdownBasedOnPodPriority", true, Beta, false),
    gate("HPAConfigurableTolerance", true, Beta, false),
    gate("HPAScaleToZero", false, Alpha, false),
    gate("HostnameOverride", true, Beta, false),
    gate("ImageMaximumGCAge", true, Ga, true),
    gate("ImageVolume", true, Ga, true),
    gate("ImageVolumeWithDigest", false, Alpha, false),
    gate("InOrderInformers", true, Ga, true),
    gate("InOrderInformersBatchProcess", true, Beta, false),
    gate("InPlacePodLevelResourcesVerticalScaling", true, Beta, false),
    gate("InPlacePodVerticalScaling", true, Ga, true),
    gate("InPlacePodVerticalScalingExclusiveCPUs", false, Alpha, false),
    gate("InPlacePodVerticalScalingExclusiveMemory", false, Alpha, false),
    gate("InPlacePodVerticalScalingInitContainers", true, Beta, false),
    gate("InformerResourceVersion", true, Ga, false),
    gate("JobBackoffLimitPerIndex", true, Ga, true),
    gate("JobManagedBy", true, Ga, true),
    gate("JobPodReplacementPolicy", true, Ga, true),
    gate("JobSuccessPolicy", true, Ga, true),
    gate("KMSv1", false, Deprecated, false),
    gate("KubeletCgroupDriverFromCRI", true, Ga, true),
    gate("KubeletCrashLoopBackOffMax", true, Beta, false),
    gate("KubeletEnsureSecretPulledImages", true, Beta, false),
    gate("KubeletFineGrainedAuthz", true, Ga, true),
    gate("KubeletInUserNamespace", false, Alpha, false),
    gate("KubeletPSI", true, Ga, true),
    gate("KubeletPodResourcesDynamicResources", true, Ga, true),
    gate("KubeletPodResourcesGet", true, Ga, true),
    gate("KubeletPodResourcesListUseActivePods", true, Deprecated, false),
    gate("KubeletRegistrationGetOnExistsOnly", false, Deprecated, false),
    gate("KubeletSeparateDiskGC", true, Beta, false),
    gate("KubeletServiceAccountTokenForCredentialProviders", true, Beta, false),
    gate("KubeletTracing", true, Ga, true),
    gate("ListFromCacheSnapshot", true, Beta, false),
    gate("LocalStorageCapacityIsolationFSQuotaMonitoring", false, Beta, false),
    gate("LogarithmicScaleDown", true, Ga, true),
    gate("LoggingAlphaOptions", false, Alpha, false),
    gate("LoggingBetaOptions", true, Beta, false),
    gate("ManifestBasedAdmissionControlConfig", false, Alpha, false),
    gate("MatchLabelKeysInPodAffinity", true, Ga, true),
    gate("MatchLabelKeysInPodTopologySpread", true, Beta, false),
    gate("MatchLabelKeysInPodTopologySpreadSelectorMerge", true, Beta, false),
    gate("MaxUnavailableStatefulSet", false, Beta, false),
    gate("MemoryQoS", false, Alpha, false),
    gate("MultiCIDRServiceAllocator", true, Ga, true),
    gate("MutableCSINodeAllocatableCount", true, Ga, true),
    gate("MutablePVNodeAffinity", false, Alpha, false),
    gate("MutablePodResourcesForSuspendedJobs", true, Beta, false),
    gate("MutableSchedulingDirectivesForSuspendedJobs", true, Beta, false),
    gate("MutatingAdmissionPolicy", true, Ga, false),
    gate("NFTablesProxyMode", true, Ga, true),
    gate("NativeHistograms", false, Alpha, false),
    gate("NodeDeclaredFeatures", true, Beta, false),
    gate("NodeInclusionPolicyInPodTopologySpread", true, Ga, true),
    gate("NodeLogQuery", true, Ga, true),
    gate("NodeSwap", true, Ga, true),
    gate("NominatedNodeNameForExpectation", true, Beta, false),
    gate("OpenAPIEnums", true, Beta, false),
    gate("OpportunisticBatching", true, Beta, false),
    gate("OrderedNamespaceDeletion", true, Ga, true),
    gate("PLEGOnDemandRelist", true, Beta, false),
    gate("PersistentVolumeClaimUnusedSinceTime", false, Alpha, false),
    gate("PodAndContainerStatsFromCRI", false, Alpha, false),
    gate("PodCertificateRequest", false, Beta, false),
    gate("PodDeletionCost", true, Beta, false),
    gate("PodLevelResourceManagers", false, Alpha, false),
    gate("PodLevelResources", true, Beta, false),
    gate("PodLifecycleSleepAction", true, Ga, true),
    gate("PodLifecycleSleepActionAllowZero", true, Ga, true),
    gate("PodLogsQuerySplitStreams", false, Alpha, false),
    gate("PodObservedGenerationTracking", true, Ga, true),
    gate("PodReadyToStartContainersCondition", true, Beta, false),
    gate("PodSchedulingReadiness", true, Ga, true),
    gate("PodTopologyLabelsAdmission", true, Beta, false),
    gate("PodsAPI", false, Alpha, false),
    gate("PortForwardWebsockets", true, Beta, false),
    gate("PreferSameTrafficDistribution", true, Ga, true),
    gate("PreventStaticPodAPIReferences", true, Beta, false),
    gate("ProcMountType", true, Ga, true),
    gate("QOSReserved", false, Alpha, false),
    gate("RecoverVolumeExpansionFailure", true, Ga, true),
    gate("RecursiveReadOnlyMounts", true, Ga, true),
    gate("ReduceDefaultCrashLoopBackOffDecay", false, Alpha, false),
    gate("RelaxedDNSSearchValidation", true, Ga, true),
    gate("RelaxedEnvironmentVariableValidation", true, Ga, true),
    gate("RelaxedServiceNameValidation", true, Beta, false),
    gate("ReloadKubeletClientCAFile", true, Beta, false),
    gate("ReloadKubeletServerCertificateFile", true, Beta, false),
    gate("RemoteRequestHeaderUID", true, Beta, false),
    gate("ResilientWatchCacheInitialization", true, Ga, true),
    gate("ResourceHealthStatus", true, Beta, false),
    gate("ResourceHealthStatusMessage", true, Beta, false),
    gate("RestartAllContainersOnContainerExits", true, Beta, false),
    gate("RetryGenerateName", true, Ga, true),
    gate("RotateKubeletServerCertificate", true, Beta, false),
    gate("RuntimeClassInImageCriApi", false, Alpha, false),
    gate("SELinuxChangePolicy", true, Ga, true),
    gate("SELinuxMount", false, Beta, false),
    gate("SELinuxMountReadWriteOncePod", true, Ga, true),
    gate("SchedulerAsyncAPICalls", false, Beta, false),
    gate("SchedulerAsyncPreemption", true, Beta, false),
    gate("SchedulerPopFromBackoffQ", true, Beta, false),
    gate("SchedulerQueueingHints", true, Ga, true),
    gate("SeparateCacheWatchRPC", false, Deprecated, true),
    gate("SeparateTaintEvictionController", true, Ga, true),
    gate("ServiceAccountNodeAudienceRestriction", true, Beta, false),
    gate("ServiceAccountTokenJTI", true, Ga, true),
    gate("ServiceAccountTokenNodeBinding", true, Ga, true),
    gate("ServiceAccountTokenNodeBindingValidation", true, Ga, true),
    gate("ServiceAccountTokenPodNodeInfo", true, Ga, true),
    gate("ServiceCIDRStatusFieldWiping", true, Deprecated, false),
    gate("ShardedListAndWatch", false, Alpha, false),
    gate("SidecarContainers", true, Ga, true),
    gate("SizeBasedListCostEstimate", true, Beta, false),
    gate("StaleControllerConsistencyDaemonSet", true, Beta, false),
    gate("StaleControllerConsistencyJob", true, Beta, false),
    gate("StaleControllerConsistencyReplicaSet", true, Beta, false),
    gate("StaleControllerConsistencyStatefulSet", true, Beta, false),
    gate("StatefulSetSemanticRevisionComparison", true, Beta, false),
    gate("StorageCapacityScoring", false, Alpha, false),
    gate("StorageNamespaceIndex", true, Deprecated, false),
    gate("StorageVersionAPI", false, Alpha, false),
    gate("StorageVersionHash", true, Beta, false),
    gate("StorageVersionMigrator", false, Beta, false),
    gate("StreamingCollectionEncodingToJSON", true, Ga, true),
    gate("StreamingCollectionEncodingToProtobuf", true, Ga, true),
    gate("StrictIPCIDRValidation", true, Beta, false),
    gate("StructuredAuthenticationConfiguration", true, Ga, true),
    gate("StructuredAuthenticationConfigurationEgressSelector", true, Beta, false),
    gate("StructuredAuthenticationConfigurationJWKSMetrics", true, Beta, false),
    gate("SupplementalGroupsPolicy", true, Ga, true),
    gate("SystemdWatchdog", true, Ga, true),
    gate("TaintTolerationComparisonOperators", false, Alpha, false),
    gate("TokenRequestServiceAccountUIDValidation", true, Beta, false),
    gate("TopologyAwareWorkloadScheduling", false, Alpha, false),
    gate("TopologyManagerPolicyAlphaOptions", false, Alpha, false),
    gate("TopologyManagerPolicyBetaOptions", true, Beta, false),
    gate("TopologyManagerPolicyOptions", true, Ga, true),
    gate("TranslateStreamCloseWebsocketRequests", true, Beta, false),
    gate("UnauthenticatedHTTP2DOSMitigation", true, Beta, false),
    gate("UnknownVersionInteroperabilityProxy", true, Beta, false),
    gate("UnlockWhileProcessingFIFO", true, Beta, false),
    gate("UserNamespacesHostNetworkSupport", false, Alpha, false),
    gate("UserNamespacesSupport", true, Ga, true),
    gate("VolumeAttributesClass", true, Ga, true),
    gate("VolumeLimitScaling", false, Alpha, false),
    gate("WatchCacheInitializationPostStartHook", true, Beta, false),
    gate("WatchList", true, Beta, false),
    gate("WatchListClient", true, Beta, false),
    gate("WinDSR", true, Ga, true),
    gate("WinOverlay", true, Ga, true),
    gate("WindowsCPUAndMemoryAffinity", false, Alpha, false),
    gate("WindowsGracefulNodeShutdown", true, Beta, false),
    gate("WindowsHostNetwork", false, Deprecated, false),
    gate("WorkloadAwarePreemption", false, Alpha, false),
    gate("WorkloadWithJob", false, Alpha, false),
];

/// What a gate needs to be on, where that is another gate.
#[rustfmt::skip]
const DEPENDENCIES: &[(&str, &[&str])] = &[
    ("AuthorizeNodeWithSelectors", &["AuthorizeWithSelectors"]),
    ("ClusterTrustBundleProjection", &["ClusterTrustBundle"]),
    ("DRAAdminAccess", &["DynamicResourceAllocation"]),
    ("DRAConsumableCapacity", &["DynamicResourceAllocation"]),
    ("DRADeviceBindingConditions", &["DynamicResourceAllocation", "DRAResourceClaimDeviceStatus"]),
    ("DRADeviceTaintRules", &["DRADeviceTaints"]),
    ("DRADeviceTaints", &["DynamicResourceAllocation"]),
    ("DRAExtendedResource", &["DynamicResourceAllocation"]),
    ("DRAListTypeAttributes", &["DynamicResourceAllocation"]),
    ("DRANodeAllocatableResources", &["DynamicResourceAllocation"]),
    ("DRAPartitionableDevices", &["DynamicResourceAllocation"]),
    ("DRAPrioritizedList", &["DynamicResourceAllocation"]),
    ("DRAResourceClaimGranularStatusAuthorization", &["DynamicResourceAllocation", "DRAResourceClaimDeviceStatus"]),
    ("DRAResourcePoolStatus", &["DynamicResourceAllocation"]),
    ("DRASchedulerFilterTimeout", &["DynamicResourceAllocation"]),
    ("DRAWorkloadResourceClaims", &["DynamicResourceAllocation", "GenericWorkload"]),
    ("DeclarativeValidationBeta", &["DeclarativeValidation"]),
    ("DeclarativeValidationTakeover", &["DeclarativeValidation"]),
    ("DisableAllocatorDualWrite", &["MultiCIDRServiceAllocator"]),
    ("ExtendWebSocketsToKubelet", &["NodeDeclaredFeatures"]),
    ("GangScheduling", &["GenericWorkload"]),
    ("GracefulNodeShutdownBasedOnPodPriority", &["GracefulNodeShutdown"]),
    ("ImageVolumeWithDigest", &["ImageVolume"]),
    ("InPlacePodLevelResourcesVerticalScaling", &["InPlacePodVerticalScaling", "PodLevelResources", "NodeDeclaredFeatures"]),
    ("InPlacePodVerticalScalingExclusiveCPUs", &["InPlacePodVerticalScaling"]),
    ("InPlacePodVerticalScalingExclusiveMemory", &["InPlacePodVerticalScaling"]),
    ("InPlacePodVerticalScalingInitContainers", &["InPlacePodVerticalScaling", "NodeDeclaredFeatures"]),
    ("MatchLabelKeysInPodTopologySpreadSelectorMerge", &["MatchLabelKeysInPodTopologySpread"]),
    ("PodCertificateRequest", &["AuthorizeNodeWithSelectors"]),
    ("PodLevelResourceManagers", &["PodLevelResources"]),
    ("PodLifecycleSleepActionAllowZero", &["PodLifecycleSleepAction"]),
    ("ProcMountType", &["UserNamespacesSupport"]),
    ("ResourceHealthStatus", &["DynamicResourceAllocation"]),
    ("ResourceHealthStatusMessage", &["ResourceHealthStatus"]),
    ("RestartAllContainersOnContainerExits", &["ContainerRestartRules", "NodeDeclaredFeatures"]),
    ("ServiceAccountTokenNodeBinding", &["ServiceAccountTokenNodeBindingValidation"]),
    ("StaleControllerConsistencyDaemonSet", &["AtomicFIFO"]),
    ("StaleControllerConsistencyJob", &["AtomicFIFO"]),
    ("StaleControllerConsistencyReplicaSet", &["AtomicFIFO"]),
    ("StaleControllerConsistencyStatefulSet", &["AtomicFIFO"]),
    ("StorageVersionAPI", &["APIServerIdentity"]),
    ("StructuredAuthenticationConfigurationEgressSelector", &["StructuredAuthenticationConfiguration"]),
    ("StructuredAuthenticationConfigurationJWKSMetrics", &["StructuredAuthenticationConfiguration"]),
    ("TopologyAwareWorkloadScheduling", &["GenericWorkload"]),
    ("UnknownVersionInteroperabilityProxy", &["APIServerIdentity"]),
    ("UserNamespacesHostNetworkSupport", &["UserNamespacesSupport", "NodeDeclaredFeatures"]),
    ("WindowsGracefulNodeShutdown", &["GracefulNodeShutdown"]),
    ("WorkloadAwarePreemption", &["GangScheduling"]),
    ("WorkloadWithJob", &["GenericWorkload"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_need_others() {
        let of = DEPENDENCIES
            .iter()
            .flat_map(|(gate, needed)| needed.iter().chain([gate]));
        assert_eq!(of.copied().find(|name| find(name).is_none()), None);
        let checked = |text: &str| {
            let checked = FeatureGates::parse(text).unwrap().check();
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(checked(""), Ok(()));
        assert_eq!(checked("GangScheduling=true,GenericWorkload=true"), Ok(()));
        assert_eq!(
            checked("GangScheduling=true").unwrap_err(),
            "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]"
        );
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(GATES.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn gates_are_set_over_their_defaults() {
        let alpha = GATES.iter().find(|g| g.stage == Alpha).unwrap().name;
        let beta = GATES
            .iter()
            .find(|g| g.stage == Beta && g.default)
            .unwrap()
            .name;
        let gates = FeatureGates::parse("AllAlpha=true").unwrap();
        assert!(gates.enabled(alpha) && gates.enabled(beta));
        let gates =
            FeatureGates::parse(&format!("AllAlpha=true, {alpha}=false, {beta}=false")).unwrap();
        assert!(!gates.enabled(alpha) && !gates.enabled(beta));
        assert!(!FeatureGates::default().enabled(alpha));
    }

    #[test]
    fn mistakes_are_named() {
        let locked = GATES.iter().find(|g| g.locked).unwrap();
        let text = format!("{}={}", locked.name, !locked.default);
        assert!(matches!(
            FeatureGates::parse(&text),
            Err(FeatureGateError::Locked { .. })
        ));
        assert_eq!(
            FeatureGates::parse("Nonsense=true")
                .unwrap_err()
                .to_string(),
            "unrecognized feature gate: Nonsense"
        );
        assert_eq!(
            FeatureGates::parse("A").unwrap_err().to_string(),
            "missing bool value for A"
        );
    }
}
