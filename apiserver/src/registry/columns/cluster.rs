//! Columns of kinds about the cluster: access, certificates, leases, scheduling,
//! admission, flow control, extensions.

use serde_json::Value;

use super::format::{self, NONE, UNSET};
use super::{AGE, Column, Kinds, NAME, NAME_AND_AGE, Row, column, wide};

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";

pub(super) const KINDS: Kinds = &[
    (RBAC, "RoleBinding", BINDING),
    (RBAC, "ClusterRoleBinding", BINDING),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        SIGNING_REQUEST,
    ),
    (
        "certificates.k8s.io",
        "PodCertificateRequest",
        POD_CERTIFICATE,
    ),
    ("coordination.k8s.io", "Lease", LEASE),
    ("coordination.k8s.io", "LeaseCandidate", LEASE_CANDIDATE),
    (
        "internal.apiserver.k8s.io",
        "StorageVersion",
        STORAGE_VERSION,
    ),
    ("scheduling.k8s.io", "PodGroup", POD_GROUP),
    ("scheduling.k8s.io", "PriorityClass", PRIORITY_CLASS),
    ("scheduling.k8s.io", "Workload", NAME_AND_AGE),
    ("node.k8s.io", "RuntimeClass", RUNTIME_CLASS),
    (ADMISSION, "MutatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingAdmissionPolicy", VALIDATING_POLICY),
    (
        ADMISSION,
        "ValidatingAdmissionPolicyBinding",
        POLICY_BINDING,
    ),
    (ADMISSION, "MutatingAdmissionPolicy", MUTATING_POLICY),
    (ADMISSION, "MutatingAdmissionPolicyBinding", POLICY_BINDING),
    (FLOW, "FlowSchema", FLOW_SCHEMA),
    (FLOW, "PriorityLevelConfiguration", PRIORITY_LEVEL),
    ("apiregistration.k8s.io", "APIService", API_SERVICE),
    ("resource.k8s.io", "DeviceClass", NAME_AND_AGE),
    ("resource.k8s.io", "ResourceClaimTemplate", NAME_AND_AGE),
    ("", "ServiceAccount", NAME_AND_AGE),
];

const BINDING: &[Column] = &[
    NAME,
    column("Role", "string", |row| {
        format!(
            "{}/{}",
            row.text("/roleRef/kind"),
            row.text("/roleRef/name")
        )
        .into()
    }),
    AGE,
    wide("Users", "string", |row| subjects(row, "User").into()),
    wide("Groups", "string", |row| subjects(row, "Group").into()),
    wide("ServiceAccounts", "string", |row| {
        subjects(row, "ServiceAccount").into()
    }),
];

fn subjects(row: &Row<'_>, kind: &str) -> String {
    let names: Vec<String> = row
        .list("/subjects")
        .iter()
        .filter(|s| s["kind"] == kind)
        .map(|s| match s["namespace"].as_str() {
            Some(namespace) if kind == "ServiceAccount" => {
                format!("{namespace}/{}", s["name"].as_str().unwrap_or_default())
            }
            _ => s["name"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    names.join(", ")
}

const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "string", |row| {
        row.text_or("/spec/signerName", NONE)
    }),
    column("Requestor", "string", |row| {
        row.text("/spec/username").into()
    }),
    column("RequestedDuration", "string", |row| {
        match row.at("/spec/expirationSeconds").as_i64() {
            Some(seconds) => format::duration(jiff::SignedDuration::from_secs(seconds)).into(),
            None => NONE.into(),
        }
    }),
    column("Condition", "string", |row| {
        let has = |kind: &str| {
            row.list("/status/conditions")
                .iter()
                .any(|c| c["type"] == kind)
        };
        let mut status = match () {
            () if has("Denied") => "Denied",
            () if has("Approved") => "Approved",
            () => "Pending",
        }
        .to_owned();
        if has("Failed") {
            status.push_str(",Failed");
        }
        if !row.text("/status/certificate").is_empty() {
            status.push_str(",Issued");
        }
        status.into()
    }),
];

const POD_CERTIFICATE: &[Column] = &[
    NAME,
    column("PodName", "string", |row| row.text("/spec/podName").into()),
    column("ServiceAccountName", "string", |row| {
        row.text("/spec/serviceAccountName").into()
    }),
    column("NodeName", "string", |row| {
        row.text("/spec/nodeName").into()
    }),
    column("SignerName", "string", |row| {
        row.text("/spec/signerName").into()
    }),
    column("State", "string", |row| {
        let ends = row.list("/status/conditions").iter();
        let ends = ends.filter_map(|condition| condition["type"].as_str());
        let mut known = ends.filter(|end| ["Issued", "Denied", "Failed"].contains(end));
        known.next_back().unwrap_or("Pending").into()
    }),
    column("UnverifiedUserAnnotations", "string", |row| {
        format::labels(row.at("/spec/unverifiedUserAnnotations")).into()
    }),
];

const LEASE_CANDIDATE: &[Column] = &[
    NAME,
    column("LeaseName", "string", |row| {
        row.text("/spec/leaseName").into()
    }),
    column("BinaryVersion", "string", |row| {
        row.text("/spec/binaryVersion").into()
    }),
    column("EmulationVersion", "string", |row| {
        row.text("/spec/emulationVersion").into()
    }),
    AGE,
];

const STORAGE_VERSION: &[Column] = &[
    NAME,
    column("CommonEncodingVersion", "string", |row| {
        row.text_or("/status/commonEncodingVersion", UNSET)
    }),
    column("StorageVersions", "string", |row| {
        const SHOWN: usize = 3;
        let versions = row.list("/status/storageVersions");
        let text =
            |version: &Value, key: &str| version[key].as_str().unwrap_or_default().to_owned();
        let shown: Vec<String> = versions
            .iter()
            .take(SHOWN)
            .map(|v| format!("{}={}", text(v, "apiServerID"), text(v, "encodingVersion")))
            .collect();
        match versions.len() {
            0 => UNSET.into(),
            all if all > SHOWN => format!("{} + {} more...", shown.join(","), all - SHOWN).into(),
            _ => shown.join(",").into(),
        }
    }),
    AGE,
];

const LEASE: &[Column] = &[
    NAME,
    column("Holder", "string", |row| {
        row.text("/spec/holderIdentity").into()
    }),
    AGE,
];

const POD_GROUP: &[Column] = &[
    NAME,
    column("Policy", "string", |row| {
        let gang = row.at("/spec/schedulingPolicy/gang").is_object();
        if gang { "Gang" } else { "Basic" }.into()
    }),
    column("Workload", "string", |row| {
        row.text_or("/spec/podGroupTemplateRef/workload/workloadName", NONE)
    }),
    column("Status", "string", |row| {
        let conditions = row.list("/status/conditions");
        let of = |kind| conditions.iter().find(|c| c["type"] == kind);
        match (of("DisruptionTarget"), of("PodGroupScheduled")) {
            (Some(disrupted), _) => disrupted["reason"].clone(),
            (None, Some(scheduled)) if scheduled["status"] == "True" => "Scheduled".into(),
            (None, Some(_)) => "Unschedulable".into(),
            (None, None) => "Pending".into(),
        }
    }),
    AGE,
];

const PRIORITY_CLASS: &[Column] = &[
    NAME,
    column("Value", "integer", |row| row.count("/value").into()),
    column("Global-Default", "boolean", |row| {
        (row.at("/globalDefault") == true).into()
    }),
    AGE,
    column("PreemptionPolicy", "string", |row| {
        row.text("/preemptionPolicy").into()
    }),
];

const RUNTIME_CLASS: &[Column] = &[
    NAME,
    column("Handler", "string", |row| row.text("/handler").into()),
    AGE,
];

const WEBHOOKS: &[Column] = &[
    NAME,
    column("Webhooks", "integer", |row| {
        row.list("/webhooks").len().into()
    }),
    AGE,
];

fn param_kind(row: &Row<'_>) -> Value {
    match row.text("/spec/paramKind/kind") {
        "" => UNSET.into(),
        kind => format!("{}/{kind}", row.text("/spec/paramKind/apiVersion")).into(),
    }
}

const VALIDATING_POLICY: &[Column] = &[
    NAME,
    column("Validations", "integer", |row| {
        row.list("/spec/validations").len().into()
    }),
    column("ParamKind", "string", param_kind),
    AGE,
];

const MUTATING_POLICY: &[Column] = &[
    NAME,
    column("Mutations", "integer", |row| {
        row.list("/spec/mutations").len().into()
    }),
    column("ParamKind", "string", param_kind),
    AGE,
];

const POLICY_BINDING: &[Column] = &[
    NAME,
    column("PolicyName", "string", |row| {
        row.text("/spec/policyName").into()
    }),
    column("ParamRef", "string", |row| {
        let name = row.text("/spec/paramRef/name");
        let selector = row.at("/spec/paramRef/selector");
        if name.is_empty() {
            return match selector {
                Value::Null => UNSET.into(),
                selector => format::go_selector(selector).into(),
            };
        }
        match row.text("/spec/paramRef/namespace") {
            "" => format!("*/{name}").into(),
            namespace => format!("{namespace}/{name}").into(),
        }
    }),
    AGE,
];

const FLOW_SCHEMA: &[Column] = &[
    NAME,
    column("PriorityLevel", "string", |row| {
        row.text("/spec/priorityLevelConfiguration/name").into()
    }),
    column("MatchingPrecedence", "string", |row| {
        row.count("/spec/matchingPrecedence").into()
    }),
    column("DistinguisherMethod", "string", |row| {
        row.text_or("/spec/distinguisherMethod/type", NONE)
    }),
    AGE,
    column("MissingPL", "string", |row| {
        let dangling = row
            .list("/status/conditions")
            .iter()
            .find(|c| c["type"] == "Dangling");
        dangling
            .and_then(|c| c["status"].as_str())
            .unwrap_or("?")
            .into()
    }),
];

fn or_none(row: &Row<'_>, pointer: &str) -> Value {
    match row.at(pointer).as_i64() {
        Some(number) => number.into(),
        None => NONE.into(),
    }
}

const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    column("Type", "string", |row| row.text("/spec/type").into()),
    column("NominalConcurrencyShares", "string", |row| {
        or_none(row, "/spec/limited/nominalConcurrencyShares")
    }),
    column("Queues", "string", |row| {
        or_none(row, "/spec/limited/limitResponse/queuing/queues")
    }),
    column("HandSize", "string", |row| {
        or_none(row, "/spec/limited/limitResponse/queuing/handSize")
    }),
    column("QueueLengthLimit", "string", |row| {
        or_none(row, "/spec/limited/limitResponse/queuing/queueLengthLimit")
    }),
    AGE,
];

const API_SERVICE: &[Column] = &[
    NAME,
    column("Service", "string", |row| {
        if row.at("/spec/service").is_null() {
            return "Local".into();
        }
        format!(
            "{}/{}",
            row.text("/spec/service/namespace"),
            row.text("/spec/service/name")
        )
        .into()
    }),
    column("Available", "string", |row| {
        let available = row
            .list("/status/conditions")
            .iter()
            .find(|c| c["type"] == "Available");
        match available {
            None => "Unknown".into(),
            Some(c) if c["status"] == "True" => "True".into(),
            Some(c) => format!(
                "{} ({})",
                c["status"].as_str().unwrap_or("Unknown"),
                c["reason"].as_str().unwrap_or_default()
            )
            .into(),
        }
    }),
    AGE,
];
