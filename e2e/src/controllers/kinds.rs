//! The kinds that scenarios are about, and where their objects are.

/// A kind of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
}

const fn of(
    name: &'static str,
    version: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Kind {
    Kind {
        name,
        version,
        plural,
        namespaced,
    }
}

/// Every kind that is watched; what is of no kind here is not compared.
pub const KINDS: &[Kind] = &[
    of("Pod", "v1", "pods", true),
    of("Service", "v1", "services", true),
    of("Endpoints", "v1", "endpoints", true),
    of(
        "ReplicationController",
        "v1",
        "replicationcontrollers",
        true,
    ),
    of(
        "PersistentVolumeClaim",
        "v1",
        "persistentvolumeclaims",
        true,
    ),
    of("PersistentVolume", "v1", "persistentvolumes", false),
    of("ResourceQuota", "v1", "resourcequotas", true),
    of("ServiceAccount", "v1", "serviceaccounts", true),
    of("ConfigMap", "v1", "configmaps", true),
    of("Secret", "v1", "secrets", true),
    of("Node", "v1", "nodes", false),
    of("Namespace", "v1", "namespaces", false),
    of("Event", "v1", "events", true),
    of("Deployment", "apps/v1", "deployments", true),
    of("ReplicaSet", "apps/v1", "replicasets", true),
    of("StatefulSet", "apps/v1", "statefulsets", true),
    of("DaemonSet", "apps/v1", "daemonsets", true),
    of("ControllerRevision", "apps/v1", "controllerrevisions", true),
    of("Job", "batch/v1", "jobs", true),
    of("CronJob", "batch/v1", "cronjobs", true),
    of(
        "HorizontalPodAutoscaler",
        "autoscaling/v2",
        "horizontalpodautoscalers",
        true,
    ),
    of(
        "PodDisruptionBudget",
        "policy/v1",
        "poddisruptionbudgets",
        true,
    ),
    of(
        "EndpointSlice",
        "discovery.k8s.io/v1",
        "endpointslices",
        true,
    ),
    of("StorageClass", "storage.k8s.io/v1", "storageclasses", false),
    of(
        "VolumeAttachment",
        "storage.k8s.io/v1",
        "volumeattachments",
        false,
    ),
    of("CSINode", "storage.k8s.io/v1", "csinodes", false),
    of("CSIDriver", "storage.k8s.io/v1", "csidrivers", false),
    of(
        "VolumeAttributesClass",
        "storage.k8s.io/v1",
        "volumeattributesclasses",
        false,
    ),
    of(
        "ResourceClaim",
        "resource.k8s.io/v1",
        "resourceclaims",
        true,
    ),
    of(
        "ResourceClaimTemplate",
        "resource.k8s.io/v1",
        "resourceclaimtemplates",
        true,
    ),
    of(
        "ResourceSlice",
        "resource.k8s.io/v1",
        "resourceslices",
        false,
    ),
    of(
        "ClusterRole",
        "rbac.authorization.k8s.io/v1",
        "clusterroles",
        false,
    ),
    of("ServiceCIDR", "networking.k8s.io/v1", "servicecidrs", false),
    of(
        "CertificateSigningRequest",
        "certificates.k8s.io/v1",
        "certificatesigningrequests",
        false,
    ),
    of(
        "ValidatingAdmissionPolicy",
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies",
        false,
    ),
    of(
        "CustomResourceDefinition",
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        false,
    ),
    of(
        "ClusterTrustBundle",
        "certificates.k8s.io/v1beta1",
        "clustertrustbundles",
        false,
    ),
    of(
        "StorageVersion",
        "internal.apiserver.k8s.io/v1alpha1",
        "storageversions",
        false,
    ),
    of(
        "ResourcePoolStatusRequest",
        "resource.k8s.io/v1alpha3",
        "resourcepoolstatusrequests",
        false,
    ),
    of(
        "StorageVersionMigration",
        "storagemigration.k8s.io/v1beta1",
        "storageversionmigrations",
        false,
    ),
    of(
        "PriorityClass",
        "scheduling.k8s.io/v1",
        "priorityclasses",
        false,
    ),
];

impl Kind {
    /// The kind of a name.
    ///
    /// # Panics
    ///
    /// When there is none: a scenario is written wrongly.
    pub fn named(name: &str) -> &'static Self {
        let kind = KINDS.iter().find(|k| k.name == name);
        kind.unwrap_or_else(|| panic!("kinds.rs does not list {name}"))
    }

    /// Where all of them are.
    pub fn collection(&self) -> String {
        let root = if self.version.contains('/') {
            "apis"
        } else {
            "api"
        };
        format!("/{root}/{}/{}", self.version, self.plural)
    }

    /// Where those of a namespace are; of no namespace for kinds that have none.
    pub fn in_namespace(&self, namespace: &str) -> String {
        if !self.namespaced {
            return self.collection();
        }
        let root = if self.version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let (version, plural) = (self.version, self.plural);
        format!("/{root}/{version}/namespaces/{namespace}/{plural}")
    }
}
