//! Configurations and what upstream says of them.

use super::*;
use crate::config::decode;

/// What is wrong with a configuration, on a machine of either version of cgroups.
fn judge_on(text: &str, cgroup_v2: bool) -> String {
    let tree = serde_saphyr::from_str(text).unwrap();
    let (config, unknown) = decode::<KubeletConfiguration>(&tree).unwrap();
    assert_eq!(unknown, [""; 0], "{text}");
    let judged = validate(&config.complete(), cgroup_v2);
    judged.err().unwrap_or_default()
}

fn check(cases: &[(&str, &str)]) {
    for (text, message) in cases {
        let expected = match *message {
            "" => String::new(),
            message => format!("invalid configuration: {message}"),
        };
        assert_eq!(judge_on(text, true), expected, "{text}");
    }
}

#[test]
fn numbers() {
    check(&[
        ("{}", ""),
        (
            "nodeLeaseDurationSeconds: -1",
            "nodeLeaseDurationSeconds must be greater than 0",
        ),
        (
            "eventBurst: -1",
            "eventBurst (--event-burst) -1 must not be a negative number",
        ),
        (
            "eventRecordQPS: -1",
            "eventRecordQPS (--event-qps) -1 must not be a negative number",
        ),
        (
            "healthzPort: 70000",
            "healthzPort (--healthz-port) 70000 must be between 1 and 65535, inclusive",
        ),
        ("healthzPort: 0", ""),
        (
            "cpuCFSQuotaPeriod: 2s",
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {2s} must be between 1ms and 1sec, inclusive",
        ),
        (
            "cpuCFSQuotaPeriod: 0s",
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {0s} must be between 1ms and 1sec, inclusive",
        ),
        (
            "{cpuCFSQuotaPeriod: 50ms, featureGates: {CustomCPUCFSQuotaPeriod: false}}",
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {50ms} requires feature gate CustomCPUCFSQuotaPeriod",
        ),
        (
            "imageGCHighThresholdPercent: 150",
            "imageGCHighThresholdPercent (--image-gc-high-threshold) 150 must be between 0 and 100, inclusive",
        ),
        (
            "imageGCLowThresholdPercent: 90",
            "imageGCLowThresholdPercent (--image-gc-low-threshold) 90 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 85",
        ),
        (
            "imageMinimumGCAge: -1s",
            "imageMinimumGCAge -1s must not be negative",
        ),
        (
            "imageMaximumGCAge: 1s",
            "imageMaximumGCAge 1s must be greater than imageMinimumGCAge 2m0s",
        ),
        (
            "iptablesDropBit: 40",
            "iptablesDropBit (--iptables-drop-bit) 40 must be between 0 and 31, inclusive",
        ),
        (
            "kubeAPIBurst: -1",
            "kubeAPIBurst (--kube-api-burst) -1 must not be a negative number",
        ),
        (
            "kubeAPIQPS: -1",
            "kubeAPIQPS (--kube-api-qps) -1 must not be a negative number",
        ),
        (
            "nodeStatusMaxImages: -2",
            "nodeStatusMaxImages (--node-status-max-images) -2 must be -1 or greater",
        ),
        (
            "maxOpenFiles: -1",
            "maxOpenFiles (--max-open-files) -1 must not be a negative number",
        ),
        (
            "maxPods: -1",
            "maxPods (--max-pods) -1 must not be a negative number",
        ),
        (
            "oomScoreAdj: 2000",
            "oomScoreAdj (--oom-score-adj) 2000 must be between -1000 and 1000, inclusive",
        ),
        (
            "podsPerCore: -1",
            "podsPerCore (--pods-per-core) -1 must not be a negative number",
        ),
        (
            "port: 70000",
            "port (--port) 70000 must be between 1 and 65535, inclusive",
        ),
        (
            "readOnlyPort: 70000",
            "readOnlyPort (--read-only-port) 70000 must be between 0 and 65535, inclusive",
        ),
        (
            "registryBurst: -1",
            "registryBurst (--registry-burst) -1 must not be a negative number",
        ),
        (
            "registryPullQPS: -1",
            "registryPullQPS (--registry-qps) -1 must not be a negative number",
        ),
        (
            "maxParallelImagePulls: 0",
            "maxParallelImagePulls 0 must be a positive number",
        ),
        ("maxParallelImagePulls: 3", ""),
        (
            "{maxParallelImagePulls: 3, serializeImagePulls: true}",
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false",
        ),
        (
            "runOnce: true",
            "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set",
        ),
        (
            "systemCgroups: /sys",
            "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified",
        ),
    ]);
}

#[test]
fn names() {
    check(&[
        ("topologyManagerPolicy: \"\"", ""),
        (
            "topologyManagerPolicy: x",
            "topologyManagerPolicy (--topology-manager-policy) \"x\" must be one of: [\"none\" \"best-effort\" \"restricted\" \"single-numa-node\"]",
        ),
        (
            "topologyManagerScope: x",
            "topologyManagerScope (--topology-manager-scope) \"x\" must be one of: \"container\", or \"pod\"",
        ),
        (
            "memorySwap: {swapBehavior: Foo}",
            "memorySwap.swapBehavior \"Foo\" must be one of: \"\", \"LimitedSwap\" or \"NoSwap\"",
        ),
        (
            "hairpinMode: foo",
            "option \"foo\" specified for hairpinMode (--hairpin-mode). Valid options are \"none\", \"hairpin-veth\" or \"promiscuous-bridge\"",
        ),
        (
            "imagePullCredentialsVerificationPolicy: foo",
            "option \"foo\" specified for imagePullCredentialsVerificationPolicy. Valid options are \"NeverVerify\", \"NeverVerifyPreloadedImages\", \"NeverVerifyAllowlistedImages\" or \"AlwaysVerify\"",
        ),
        (
            "preloadedImagesVerificationAllowlist: [a]",
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \"NeverVerifyAllowlistedImages\"",
        ),
        (
            "memoryReservationPolicy: foo",
            "option \"foo\" specified for memoryReservationPolicy. Valid options are \"None\" or \"TieredReservation\"",
        ),
        (
            "memoryReservationPolicy: TieredReservation",
            "memoryReservationPolicy \"TieredReservation\" requires MemoryQoS feature gate to be enabled",
        ),
        (
            "memoryThrottlingFactor: 2",
            "memoryThrottlingFactor 2 must be greater than 0 and less than or equal to 1.0",
        ),
        (
            "{enableSystemLogQuery: true, enableSystemLogHandler: false}",
            "enableSystemLogHandler is required for enableSystemLogQuery",
        ),
        (
            "containerLogMaxWorkers: 0",
            "containerLogMaxWorkers must be greater than or equal to 1",
        ),
        (
            "containerLogMonitorInterval: 1s",
            "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s",
        ),
        (
            "containerLogMaxFiles: 1",
            "containerLogMaxFiles must be greater than 1",
        ),
        (
            "podLogsDir: /var/log/../log/pods",
            "pod logs path \"/var/log/../log/pods\" must be normalized",
        ),
        (
            "podLogsDir: /var/log/pods/",
            "pod logs path \"/var/log/pods/\" must be normalized",
        ),
    ]);
}

#[test]
fn images_that_need_no_verification() {
    for (pattern, problem) in [
        ("docker.io/library/nginx", ""),
        ("registry.example:5000/a", ""),
        ("registry.example/*", ""),
        (" a", "leading/trailing spaces are not allowed:  a"),
        (
            "a*",
            "not a valid wildcard pattern, only patterns ending with '/*' are allowed: a*",
        ),
        ("/*", "at least registry hostname is required"),
        (
            "a:b",
            "neither tag nor digest is accepted in an image reference: a:b",
        ),
    ] {
        let text = format!(
            "{{imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages, \
             preloadedImagesVerificationAllowlist: [\"{pattern}\"]}}"
        );
        let expected = match problem {
            "" => String::new(),
            problem => format!(
                "invalid configuration: invalid image pattern in `preloadedImagesVerificationAllowlist`: {problem}"
            ),
        };
        assert_eq!(judge_on(&text, true), expected);
    }
}

#[test]
fn periods() {
    check(&[
        (
            "{shutdownGracePeriod: 10s, shutdownGracePeriodCriticalPods: 20s}",
            "shutdownGracePeriodCriticalPods {20s} must be <= shutdownGracePeriod {10s}",
        ),
        (
            "shutdownGracePeriod: 500ms",
            "shutdownGracePeriod {500ms} must be either zero or otherwise >= 1 sec",
        ),
        (
            "{shutdownGracePeriod: 5s, featureGates: {GracefulNodeShutdown: false, GracefulNodeShutdownBasedOnPodPriority: false, WindowsGracefulNodeShutdown: false}}",
            "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate GracefulNodeShutdown",
        ),
        (
            "{shutdownGracePeriod: 5s, shutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 2}]}",
            "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
        ),
        (
            "crashLoopBackOff: {maxContainerRestartPeriod: 400s}",
            "CrashLoopBackOff.MaxContainerRestartPeriod (got: 400 seconds) must be set between 1s and 300s",
        ),
        (
            "{crashLoopBackOff: {maxContainerRestartPeriod: 4s}, featureGates: {KubeletCrashLoopBackOffMax: false}}",
            "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be set",
        ),
    ]);
}

#[test]
fn reservations() {
    check(&[
        (
            "enforceNodeAllocatable: [system-reserved]",
            "systemReservedCgroup (--system-reserved-cgroup) must be specified when \"system-reserved\" or \"system-reserved-compressible\" included in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [foo]",
            "option \"foo\" specified for enforceNodeAllocatable (--enforce-node-allocatable). Valid options are \"pods\", \"system-reserved\", \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\"",
        ),
        (
            "enforceNodeAllocatable: [pods, pods]",
            "duplicated enforcements \"pods\" in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [none, pods]",
            "enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when \"none\" is specified",
        ),
        (
            "{enforceNodeAllocatable: [kube-reserved, kube-reserved-compressible], kubeReservedCgroup: /k}",
            "both \"kube-reserved\" and \"kube-reserved-compressible\" cannot be specified together in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "cgroupsPerQOS: false",
            "cgroupsPerQOS (--cgroups-per-qos) must be set to true when \"pods\" contained in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        ("{cgroupsPerQOS: false, enforceNodeAllocatable: []}", ""),
        (
            "reservedSystemCPUs: a",
            "unable to parse reservedSystemCPUs (--reserved-cpus) a, error: strconv.Atoi: parsing \"a\": invalid syntax",
        ),
        (
            "{reservedSystemCPUs: \"0\", systemReservedCgroup: /s}",
            "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)",
        ),
        (
            "reservedMemory: [{numaNode: 0, limits: {cpu: \"1\"}}]",
            "the limit type \"cpu\" for NUMA node 0 is not supported, only [memory hugepages-<HugePageSize>] is accepted",
        ),
        (
            "reservedMemory: [{numaNode: 0, limits: {memory: \"0\"}}]",
            "reserved memory may not be zero for NUMA node 0 and resource \"memory\"",
        ),
        (
            "reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}, {numaNode: 0, limits: {memory: 1Gi}}]",
            "the reserved memory has a duplicate value for NUMA node 0 and resource \"memory\"",
        ),
        (
            "reservedMemory: [{numaNode: 0, limits: {memory: 1Gi, hugepages-2Mi: 4Mi}}, {numaNode: 1, limits: {memory: 1Gi}}]",
            "",
        ),
    ]);
}

#[test]
fn the_machine() {
    let v1 = |text: &str| judge_on(&format!("{{failCgroupV1: false, {text}}}"), false);
    assert_eq!(v1(""), "");
    let killed = "invalid configuration: singleProcessOOMKill must not be explicitly set to false when using cgroup v1";
    assert_eq!(v1("singleProcessOOMKill: false"), killed);
    assert!(
        judge_on("{}", false)
            .starts_with("kubelet is configured to not run on a host using cgroup v1.")
    );
    check(&[
        (
            "userNamespaces: {idsPerPod: 5}",
            "userNamespaces.idsPerPod must not be less than 65536",
        ),
        (
            "userNamespaces: {idsPerPod: 65537}",
            "userNamespaces.idsPerPod must be a multiple of 65536",
        ),
        (
            "userNamespaces: {idsPerPod: 4294967296}",
            "userNamespaces.idsPerPod must not be more than 4294967295",
        ),
        ("userNamespaces: {idsPerPod: 131072}", ""),
    ]);
}

/// Sentences that do not begin as the others do, and more than one.
#[test]
fn other_sentences() {
    for (text, message) in [
        (
            "registerWithTaints: [{key: \"a b\", effect: NoSchedule}]",
            "invalid taint: {a b  NoSchedule <nil>}",
        ),
        (
            "registerWithTaints: [{key: a, effect: Foo}]",
            "invalid taint: {a  Foo <nil>}",
        ),
        (
            "registerWithTaints: [{key: a, value: b, effect: NoExecute}]",
            "",
        ),
        (
            "showHiddenMetricsForVersion: \"1.2\"",
            "invalid showHiddenMetricsForVersion: showHiddenMetricsForVersion: Invalid value: \"1.2\": must be omitted or have the value '1.35'; only the previous minor version is allowed",
        ),
        ("showHiddenMetricsForVersion: \"1.35\"", ""),
        (
            "logging: {format: foo}",
            "logging.format: Invalid value: \"foo\": Unsupported log format",
        ),
        ("logging: {format: json}", ""),
        (
            "logging: {format: json, vmodule: [{filePattern: a, verbosity: 1}]}",
            "logging.vmodule: Forbidden: Only supported for text log format",
        ),
        (
            "tracing: {samplingRatePerMillion: -1}",
            "tracing.samplingRatePerMillion: Invalid value: -1: sampling rate must be positive",
        ),
        ("tracing: {endpoint: \"localhost:4317\"}", ""),
        (
            "featureGates: {NoSuchGate: true}",
            "unrecognized feature gate: NoSuchGate",
        ),
        (
            "featureGates: {KubeletFineGrainedAuthz: false}",
            "cannot set feature gate KubeletFineGrainedAuthz to false, feature is locked to true",
        ),
        (
            "{maxPods: -1, port: -1}",
            "[invalid configuration: maxPods (--max-pods) -1 must not be a negative number, invalid configuration: port (--port) -1 must be between 1 and 65535, inclusive]",
        ),
    ] {
        assert_eq!(judge_on(text, true), message, "{text}");
    }
    assert!(
        judge_on("tracing: {endpoint: \"http://a\"}", true)
            .contains("unsupported scheme: http.  Options are none")
    );
}
