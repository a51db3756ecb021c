//! The controllers: one line for each that upstream has, ours with how to start them.

use crate::context::{Context, Run};
use crate::controllers as c;

/// Sets a controller up: asks for its caches and queues, and returns what runs once caches are
/// started. `None`: the options leave it nothing to do.
pub type Start = fn(&Context) -> anyhow::Result<Option<Run>>;

/// A controller by upstream's names.
#[derive(Debug)]
pub struct Descriptor {
    pub name: &'static str,
    /// The name it had before v1.29, which flags still take.
    pub alias: Option<&'static str>,
    pub on_by_default: bool,
    /// Features that must all be on.
    pub gates: &'static [&'static str],
    /// `None`: it is the cloud controller manager's. Upstream takes its name here, too, and
    /// ignores it.
    pub start: Option<Start>,
}

const fn ours(name: &'static str, alias: &'static str, start: Start) -> Descriptor {
    Descriptor {
        name,
        alias: if alias.is_empty() { None } else { Some(alias) },
        on_by_default: true,
        gates: &[],
        start: Some(start),
    }
}

const fn cloud(name: &'static str, alias: &'static str) -> Descriptor {
    Descriptor {
        name,
        alias: Some(alias),
        on_by_default: false,
        gates: &[],
        start: None,
    }
}

const fn off(descriptor: Descriptor) -> Descriptor {
    Descriptor {
        on_by_default: false,
        ..descriptor
    }
}

const fn gated(gates: &'static [&'static str], descriptor: Descriptor) -> Descriptor {
    Descriptor {
        gates,
        ..descriptor
    }
}

/// Every controller that upstream v1.36 knows.
pub const CONTROLLERS: &[Descriptor] = &[
    ours("deployment-controller", "deployment", c::deployment::start),
    ours("replicaset-controller", "replicaset", c::replicaset::start),
    ours("endpoints-controller", "endpoint", c::endpoints::start),
    ours(
        "endpointslice-controller",
        "endpointslice",
        c::endpointslice::start,
    ),
    ours("namespace-controller", "namespace", c::namespace::start),
    ours(
        "serviceaccount-controller",
        "serviceaccount",
        c::serviceaccount::start,
    ),
    ours(
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        c::rootcapublisher::start,
    ),
    ours(
        "garbage-collector-controller",
        "garbagecollector",
        c::garbagecollector::start,
    ),
    ours("node-ipam-controller", "nodeipam", c::nodeipam::start),
    ours(
        "node-lifecycle-controller",
        "nodelifecycle",
        c::nodelifecycle::start,
    ),
    ours("taint-eviction-controller", "", c::tainteviction::start),
    ours(
        "serviceaccount-token-controller",
        "serviceaccount-token",
        c::serviceaccounttoken::start,
    ),
    ours(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring",
        c::endpointslicemirroring::start,
    ),
    ours(
        "replicationcontroller-controller",
        "replicationcontroller",
        c::replicaset::start_replication_controllers,
    ),
    ours("pod-garbage-collector-controller", "podgc", c::podgc::start),
    ours(
        "resourcequota-controller",
        "resourcequota",
        c::resourcequota::start,
    ),
    ours("daemonset-controller", "daemonset", c::daemonset::start),
    ours("job-controller", "job", c::job::start),
    ours(
        "horizontal-pod-autoscaler-controller",
        "horizontalpodautoscaling",
        c::horizontalpodautoscaler::start,
    ),
    ours("disruption-controller", "disruption", c::disruption::start),
    ours(
        "statefulset-controller",
        "statefulset",
        c::statefulset::start,
    ),
    ours("cronjob-controller", "cronjob", c::cronjob::start),
    ours(
        "certificatesigningrequest-signing-controller",
        "csrsigning",
        c::certificates::start_signers,
    ),
    ours(
        "certificatesigningrequest-approving-controller",
        "csrapproving",
        c::certificates::start_approver,
    ),
    ours(
        "certificatesigningrequest-cleaner-controller",
        "csrcleaner",
        c::certificates::start_cleaner,
    ),
    gated(
        &["PodCertificateRequest"],
        ours(
            "podcertificaterequest-cleaner-controller",
            "",
            c::certificates::start_pod_certificate_cleaner,
        ),
    ),
    ours("ttl-controller", "ttl", c::ttl::start),
    off(ours(
        "bootstrap-signer-controller",
        "bootstrapsigner",
        c::bootstrap::start_signer,
    )),
    off(ours(
        "token-cleaner-controller",
        "tokencleaner",
        c::bootstrap::start_cleaner,
    )),
    ours(
        "device-taint-eviction-controller",
        "",
        c::devicetainteviction::start,
    ),
    ours(
        "persistentvolume-binder-controller",
        "persistentvolume-binder",
        c::persistentvolume::start,
    ),
    ours(
        "persistentvolume-attach-detach-controller",
        "attachdetach",
        c::attachdetach::start,
    ),
    ours(
        "persistentvolume-expander-controller",
        "persistentvolume-expander",
        c::persistentvolumeexpander::start,
    ),
    ours(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation",
        c::clusterroleaggregation::start,
    ),
    ours(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        c::pvcprotection::start,
    ),
    ours(
        "persistentvolume-protection-controller",
        "pv-protection",
        c::pvprotection::start,
    ),
    gated(
        &["GenericWorkload"],
        ours(
            "podgroup-protection-controller",
            "",
            c::podgroupprotection::start,
        ),
    ),
    ours(
        "ttl-after-finished-controller",
        "ttl-after-finished",
        c::ttlafterfinished::start,
    ),
    gated(
        &["ClusterTrustBundle"],
        ours(
            "kube-apiserver-serving-clustertrustbundle-publisher-controller",
            "",
            c::clustertrustbundlepublisher::start,
        ),
    ),
    ours(
        "ephemeral-volume-controller",
        "ephemeral-volume",
        c::ephemeralvolume::start,
    ),
    gated(
        &["APIServerIdentity", "StorageVersionAPI"],
        ours(
            "storageversion-garbage-collector-controller",
            "storage-version-gc",
            c::storageversiongc::start,
        ),
    ),
    ours(
        "resourceclaim-controller",
        "resource-claim-controller",
        c::resourceclaim::start,
    ),
    gated(
        &["DRAResourcePoolStatus"],
        ours(
            "resourcepoolstatusrequest-controller",
            "",
            c::resourcepoolstatusrequest::start,
        ),
    ),
    ours(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        c::serviceaccounttoken::start_cleaner,
    ),
    ours(
        "validatingadmissionpolicy-status-controller",
        "",
        c::validatingadmissionpolicystatus::start,
    ),
    ours(
        "volumeattributesclass-protection-controller",
        "",
        c::vacprotection::start,
    ),
    ours("service-cidr-controller", "", c::servicecidrs::start),
    ours(
        "storage-version-migrator-controller",
        "svm",
        c::storageversionmigrator::start,
    ),
    off(gated(
        &["SELinuxChangePolicy"],
        ours("selinux-warning-controller", "", c::selinuxwarning::start),
    )),
    cloud("cloud-node-lifecycle-controller", "cloud-node-lifecycle"),
    cloud("node-route-controller", "route"),
    cloud("service-lb-controller", "service"),
];

/// The controller of a name or alias.
pub fn find(name: &str) -> Option<&'static Descriptor> {
    CONTROLLERS
        .iter()
        .find(|d| d.name == name || d.alias == Some(name))
}
