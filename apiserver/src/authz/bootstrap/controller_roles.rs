//! The roles of kube-controller-manager's controllers: `system:controller:<name>`, each bound
//! to the service account of that name in kube-system.
//!
//! What must not be here: roles of people (`cluster_roles.rs`).

use super::table::{EVENTS, READ, READ_UPDATE, Role, Rule, WATCH, named, on, role};

// One rule a line, however long: a table is read by columns.
#[rustfmt::skip]
pub const ROLES: &[Role] = &[
    role("attachdetach-controller", &[
        on(WATCH, "core", "persistentvolumeclaims persistentvolumes"),
        on(READ, "core", "nodes"),
        on("patch update", "core", "nodes/status"),
        on(WATCH, "core", "pods"),
        EVENTS,
        on("create delete get list watch", "storage.k8s.io", "volumeattachments"),
        on(READ, "storage.k8s.io", "csidrivers"),
        on(READ, "storage.k8s.io", "csinodes"),
    ]),
    role("certificate-controller", &[
        on("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        on("update", "certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status"),
        named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
        named("sign", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown"),
        on("create", "authorization.k8s.io", "subjectaccessreviews"),
        EVENTS,
    ]),
    role("clusterrole-aggregation-controller", &[
        on("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles"),
    ]),
    role("cronjob-controller", &[
        on("get list update watch", "batch", "cronjobs"),
        on("create delete get list patch update watch", "batch", "jobs"),
        on("update", "batch", "cronjobs/status"),
        on("update", "batch", "cronjobs/finalizers"),
        on("delete list watch", "core", "pods"),
        EVENTS,
    ]),
    role("daemon-set-controller", &[
        on(READ, "apps extensions", "daemonsets"),
        on("update", "apps extensions", "daemonsets/status"),
        on("update", "apps extensions", "daemonsets/finalizers"),
        on(WATCH, "core", "nodes"),
        on("create delete list patch watch", "core", "pods"),
        on("create", "core", "pods/binding"),
        on("create delete get list patch update watch", "apps", "controllerrevisions"),
        EVENTS,
    ]),
    role("deployment-controller", &[
        on("get list update watch", "apps extensions", "deployments"),
        on("update", "apps extensions", "deployments/status"),
        on("update", "apps extensions", "deployments/finalizers"),
        on("create delete get list patch update watch", "apps extensions", "replicasets"),
        on("get list update watch", "core", "pods"),
        EVENTS,
    ]),
    role("device-taint-eviction-controller", &[
        on("delete get list watch", "core", "pods"),
        on("patch update", "core", "pods/status"),
        on(READ, "resource.k8s.io", "resourceclaims"),
        on(READ, "resource.k8s.io", "resourceslices"),
        on(READ, "resource.k8s.io", "deviceclasses"),
        EVENTS,
    ]),
    role("disruption-controller", &[
        on(READ, "apps extensions", "deployments"),
        on(READ, "apps extensions", "replicasets"),
        on(READ, "core", "replicationcontrollers"),
        on(READ, "policy", "poddisruptionbudgets"),
        on(READ, "apps", "statefulsets"),
        on("update", "policy", "poddisruptionbudgets/status"),
        on("patch update", "core", "pods/status"),
        on("get", "*", "*/scale"),
        EVENTS,
    ]),
    role("endpoint-controller", &[
        on(READ, "core", "pods services"),
        on("create delete get list update watch", "core", "endpoints"),
        on("create", "core", "endpoints/restricted"),
        EVENTS,
    ]),
    role("endpointslice-controller", &[
        on(READ, "core", "nodes pods services"),
        on("update", "core", "services/finalizers"),
        on("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
        on("create", "discovery.k8s.io", "endpointslices/restricted"),
        EVENTS,
    ]),
    role("endpointslicemirroring-controller", &[
        on(READ, "core", "endpoints services"),
        on("update", "core", "services/finalizers"),
        on("update", "core", "endpoints/finalizers"),
        on("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
        on("create", "discovery.k8s.io", "endpointslices/restricted"),
        EVENTS,
    ]),
    role("ephemeral-volume-controller", &[
        on(READ, "core", "pods"),
        on("update", "core", "pods/finalizers"),
        on("create get list watch", "core", "persistentvolumeclaims"),
        EVENTS,
    ]),
    role("expand-controller", &[
        on(READ_UPDATE, "core", "persistentvolumes"),
        on("patch update", "core", "persistentvolumeclaims/status"),
        on(READ, "core", "persistentvolumeclaims"),
        EVENTS,
    ]),
    role("generic-garbage-collector", &[
        on("delete get list patch update watch", "*", "*"),
        EVENTS,
    ]),
    role("horizontal-pod-autoscaler", &[
        on(READ, "autoscaling", "horizontalpodautoscalers"),
        on("update", "autoscaling", "horizontalpodautoscalers/status"),
        on("get update", "*", "*/scale"),
        on(WATCH, "core", "pods"),
        on(WATCH, "metrics.k8s.io", "pods"),
        on(READ, "custom.metrics.k8s.io", "*"),
        on(READ, "external.metrics.k8s.io", "*"),
        EVENTS,
    ]),
    role("job-controller", &[
        on(READ_UPDATE, "batch", "jobs"),
        on("update", "batch", "jobs/status"),
        on("update", "batch", "jobs/finalizers"),
        on("create delete list patch watch", "core", "pods"),
        EVENTS,
    ]),
    role("legacy-service-account-token-cleaner", &[
        named("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        on("delete patch", "core", "secrets"),
    ]),
    role("namespace-controller", &[
        on("delete get list watch", "core", "namespaces"),
        on("update", "core", "namespaces/finalize namespaces/status"),
        on("delete deletecollection get list watch", "*", "*"),
    ]),
    role("node-controller", &[
        on("delete get list patch update watch", "core", "nodes"),
        on("patch update", "core", "nodes/status"),
        on("patch update", "core", "pods/status"),
        on("delete get list watch", "core", "pods"),
        EVENTS,
    ]),
    role("persistent-volume-binder", &[
        on("create delete get list update watch", "core", "persistentvolumes"),
        on("update", "core", "persistentvolumes/status"),
        on("get list update watch", "core", "persistentvolumeclaims"),
        on("update", "core", "persistentvolumeclaims/status"),
        on("create delete get list watch", "core", "pods"),
        on(READ, "storage.k8s.io", "storageclasses"),
        on(WATCH, "core", "nodes"),
        EVENTS,
        on("watch", "core", "events"),
    ]),
    role("pod-garbage-collector", &[
        on("delete list watch", "core", "pods"),
        on(READ, "core", "nodes"),
        on("patch", "core", "pods/status"),
    ]),
    role("pv-protection-controller", &[
        on("get list update watch", "core", "persistentvolumes"),
        EVENTS,
    ]),
    role("pvc-protection-controller", &[
        on("get list update watch", "core", "persistentvolumeclaims"),
        on("update", "core", "persistentvolumeclaims/status"),
        on(READ, "core", "pods"),
        EVENTS,
    ]),
    role("replicaset-controller", &[
        on("get list update watch", "apps extensions", "replicasets"),
        on("update", "apps extensions", "replicasets/status"),
        on("update", "apps extensions", "replicasets/finalizers"),
        on("create delete list patch watch", "core", "pods"),
        EVENTS,
    ]),
    role("replication-controller", &[
        on("get list update watch", "core", "replicationcontrollers"),
        on("update", "core", "replicationcontrollers/status"),
        on("update", "core", "replicationcontrollers/finalizers"),
        on("create delete list patch watch", "core", "pods"),
        EVENTS,
    ]),
    role("resource-claim-controller", &[
        on(READ, "core", "pods"),
        on("update", "core", "pods/finalizers"),
        on("create delete get list watch", "resource.k8s.io", "resourceclaims"),
        on("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
        on("patch update", "core", "pods/status"),
        EVENTS,
        on("patch update", "resource.k8s.io", "resourceclaims/binding"),
    ]),
    role("resourcequota-controller", &[
        on(WATCH, "*", "*"),
        on("update", "core", "resourcequotas/status"),
        EVENTS,
    ]),
    role("root-ca-cert-publisher", &[
        on("create update", "core", "configmaps"),
        EVENTS,
    ]),
    role("route-controller", &[
        on(WATCH, "core", "nodes"),
        on("patch", "core", "nodes/status"),
        EVENTS,
    ]),
    role("selinux-warning-controller", &[
        EVENTS,
        on(READ, "core", "persistentvolumes"),
        on(READ, "core", "persistentvolumeclaims"),
        on(READ, "core", "pods"),
        on(READ, "storage.k8s.io", "csidrivers"),
    ]),
    role("service-account-controller", &[
        on("create", "core", "serviceaccounts"),
        EVENTS,
    ]),
    role("service-cidrs-controller", &[
        on(READ_UPDATE, "networking.k8s.io", "servicecidrs"),
        on("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
        on("patch update", "networking.k8s.io", "servicecidrs/status"),
        on(READ, "networking.k8s.io", "ipaddresses"),
        EVENTS,
    ]),
    role("service-controller", &[
        on(READ, "core", "services"),
        on("patch update", "core", "services/status"),
        on(WATCH, "core", "nodes"),
        EVENTS,
    ]),
    role("statefulset-controller", &[
        on(WATCH, "core", "pods"),
        on(READ, "apps", "statefulsets"),
        on("update", "apps", "statefulsets/status"),
        on("update", "apps", "statefulsets/finalizers"),
        on("create delete get patch update", "core", "pods"),
        on("create delete get list patch update watch", "apps", "controllerrevisions"),
        on("create get list watch", "core", "persistentvolumeclaims"),
        on("delete update", "core", "persistentvolumeclaims"),
        on("update", "core", "pods/finalizers"),
        EVENTS,
    ]),
    role("ttl-after-finished-controller", &[
        on("delete get list watch", "batch", "jobs"),
        EVENTS,
    ]),
    role("ttl-controller", &[
        on("list patch update watch", "core", "nodes"),
        EVENTS,
    ]),
    role("validatingadmissionpolicy-status-controller", &[
        on(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        on("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
        EVENTS,
    ]),
    role("volumeattributesclass-protection-controller", &[
        on(READ, "core", "persistentvolumeclaims"),
        on(READ, "core", "persistentvolumes"),
        on("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
        EVENTS,
    ]),
];

/// What controllers may do besides while a feature is on that is not by default: role, gate,
/// rules.
#[rustfmt::skip]
pub const MORE: &[(&str, &str, &[Rule])] = &[
    ("device-taint-eviction-controller", "DRADeviceTaintRules", &[
        on("patch update", "resource.k8s.io", "devicetaintrules/status"),
        on(READ, "resource.k8s.io", "devicetaintrules"),
    ]),
    ("job-controller", "WorkloadWithJob", &[
        on("create get list watch", "scheduling.k8s.io", "podgroups workloads"),
    ]),
    ("resource-claim-controller", "DRAWorkloadResourceClaims", &[
        on(READ, "scheduling.k8s.io", "podgroups"),
        on("patch update", "scheduling.k8s.io", "podgroups/status"),
    ]),
];

/// Roles of controllers that are there only while a feature is on that is not by default:
/// gates that must all be on, role.
#[rustfmt::skip]
pub const GATED: &[(&[&str], Role)] = &[
    (&["ClusterTrustBundle"], role("kube-apiserver-serving-clustertrustbundle-publisher", &[
        named("attest", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-serving"),
        on("create delete list update watch", "certificates.k8s.io", "clustertrustbundles"),
        EVENTS,
    ])),
    (&["DRAResourcePoolStatus"], role("resourcepoolstatusrequest-controller", &[
        on("delete get list watch", "resource.k8s.io", "resourcepoolstatusrequests"),
        on("patch update", "resource.k8s.io", "resourcepoolstatusrequests/status"),
        on(READ, "resource.k8s.io", "resourceslices"),
        on(READ, "resource.k8s.io", "resourceclaims"),
        EVENTS,
    ])),
    (&["GenericWorkload"], role("podgroup-protection-controller", &[
        on("get list update watch", "scheduling.k8s.io", "podgroups"),
        on(READ, "core", "pods"),
    ])),
    (&["PodCertificateRequest"], role("podcertificaterequestcleaner", &[
        on("delete get list watch", "certificates.k8s.io", "podcertificaterequests"),
    ])),
    (&["APIServerIdentity", "StorageVersionAPI"], role("storage-version-garbage-collector", &[
        on(READ, "coordination.k8s.io", "leases"),
        on("delete get list patch update watch", "internal.apiserver.k8s.io", "storageversions"),
        on("get patch update", "internal.apiserver.k8s.io", "storageversions/status"),
    ])),
    (&["StorageVersionMigrator"], role("storage-version-migrator-controller", &[
        // What is applied to an object that is gone by then is taken for a creation at first.
        on("create list patch", "*", "*"),
        on("get", "apiextensions.k8s.io", "customresourcedefinitions"),
        on("patch", "apiextensions.k8s.io", "customresourcedefinitions/status"),
        on("update", "storagemigration.k8s.io", "storageversionmigrations/status"),
    ])),
];
