//! Columns of workloads: apps, batch, autoscaling, policy.

use serde_json::Value;

use super::format::{self, NONE, UNSET};
use super::{AGE, Column, Kinds, NAME, Row, column, wide};

pub(super) const KINDS: Kinds = &[
    ("apps", "Deployment", DEPLOYMENT),
    ("apps", "ReplicaSet", REPLICA_SET),
    ("apps", "DaemonSet", DAEMON_SET),
    ("apps", "StatefulSet", STATEFUL_SET),
    ("apps", "ControllerRevision", REVISION),
    ("batch", "Job", JOB),
    ("batch", "CronJob", CRON_JOB),
    ("autoscaling", "HorizontalPodAutoscaler", AUTOSCALER),
    ("autoscaling", "Scale", SCALE),
    ("policy", "PodDisruptionBudget", DISRUPTION_BUDGET),
    ("", "ReplicationController", REPLICATION_CONTROLLER),
];

const CONTAINERS: Column = wide("Containers", "string", |row| {
    format::joined(row.list(POD_CONTAINERS), "name").into()
});
const IMAGES: Column = wide("Images", "string", |row| {
    format::joined(row.list(POD_CONTAINERS), "image").into()
});
const SELECTOR: Column = wide("Selector", "string", |row| {
    format::selector(row.at("/spec/selector")).into()
});

const POD_CONTAINERS: &str = "/spec/template/spec/containers";

/// `2/3` of two counts.
fn of(row: &Row<'_>, some: &str, all: &str) -> Value {
    format!("{}/{}", row.count(some), row.count(all)).into()
}

/// Upstream does not mark the column of names here.
const SCALE: &[Column] = &[
    column("Name", "string", |row| row.text("/metadata/name").into()),
    column("Desired", "integer", |row| {
        row.count("/spec/replicas").into()
    }),
    column("Available", "integer", |row| {
        row.count("/status/replicas").into()
    }),
    AGE,
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", "string", |row| {
        of(row, "/status/readyReplicas", "/spec/replicas")
    }),
    column("Up-to-date", "string", |row| {
        row.count("/status/updatedReplicas").into()
    }),
    column("Available", "string", |row| {
        row.count("/status/availableReplicas").into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET: &[Column] = &[
    NAME,
    column("Desired", "integer", |row| {
        row.count("/spec/replicas").into()
    }),
    column("Current", "integer", |row| {
        row.count("/status/replicas").into()
    }),
    column("Ready", "integer", |row| {
        row.count("/status/readyReplicas").into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    column("Desired", "integer", |row| {
        row.count("/spec/replicas").into()
    }),
    column("Current", "integer", |row| {
        row.count("/status/replicas").into()
    }),
    column("Ready", "integer", |row| {
        row.count("/status/readyReplicas").into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector", "string", |row| {
        format::labels(row.at("/spec/selector")).into()
    }),
];

const DAEMON_SET: &[Column] = &[
    NAME,
    column("Desired", "integer", |row| {
        row.count("/status/desiredNumberScheduled").into()
    }),
    column("Current", "integer", |row| {
        row.count("/status/currentNumberScheduled").into()
    }),
    column("Ready", "integer", |row| {
        row.count("/status/numberReady").into()
    }),
    column("Up-to-date", "integer", |row| {
        row.count("/status/updatedNumberScheduled").into()
    }),
    column("Available", "integer", |row| {
        row.count("/status/numberAvailable").into()
    }),
    column("Node Selector", "string", |row| {
        format::labels(row.at("/spec/template/spec/nodeSelector")).into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const STATEFUL_SET: &[Column] = &[
    NAME,
    column("Ready", "string", |row| {
        of(row, "/status/readyReplicas", "/spec/replicas")
    }),
    AGE,
    CONTAINERS,
    IMAGES,
];

const REVISION: &[Column] = &[
    NAME,
    column("Controller", "string", |row| {
        let owners = row.list("/metadata/ownerReferences");
        let controller = owners.iter().find(|o| o["controller"] == true);
        match controller {
            None => NONE.into(),
            Some(owner) => {
                let (group, _) = owner["apiVersion"]
                    .as_str()
                    .and_then(|v| v.split_once('/'))
                    .unwrap_or_default();
                let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
                let name = owner["name"].as_str().unwrap_or_default();
                let group = if group.is_empty() {
                    String::new()
                } else {
                    format!(".{group}")
                };
                format!("{kind}{group}/{name}").into()
            }
        }
    }),
    column("Revision", "string", |row| row.count("/revision").into()),
    AGE,
];

fn has_condition(row: &Row<'_>, kind: &str) -> bool {
    row.list("/status/conditions")
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

const JOB: &[Column] = &[
    NAME,
    column("Status", "string", |row| {
        let first = ["Complete", "Failed"]
            .into_iter()
            .find(|c| has_condition(row, c));
        let later = || {
            ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
                .into_iter()
                .find(|c| has_condition(row, c))
        };
        match first {
            Some(done) => done.into(),
            None if !row.at("/metadata/deletionTimestamp").is_null() => "Terminating".into(),
            None => later().unwrap_or("Running").into(),
        }
    }),
    column("Completions", "string", |row| {
        let succeeded = row.count("/status/succeeded");
        let parallel = row.count("/spec/parallelism");
        match row.at("/spec/completions").as_i64() {
            Some(wanted) => format!("{succeeded}/{wanted}").into(),
            None if parallel > 1 => format!("{succeeded}/1 of {parallel}").into(),
            None => format!("{succeeded}/1").into(),
        }
    }),
    column("Duration", "string", |row| {
        let Some(start) = format::timestamp(row.at("/status/startTime")) else {
            return "".into();
        };
        let end = format::timestamp(row.at("/status/completionTime")).unwrap_or(row.now);
        format::duration(end.duration_since(start)).into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const CRON_JOB_CONTAINERS: &str = "/spec/jobTemplate/spec/template/spec/containers";

const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule", "string", |row| {
        row.text("/spec/schedule").into()
    }),
    column("Timezone", "string", |row| {
        row.text_or("/spec/timeZone", NONE)
    }),
    column("Suspend", "boolean", |row| boolean(row.at("/spec/suspend"))),
    column("Active", "integer", |row| {
        row.list("/status/active").len().into()
    }),
    column("Last Schedule", "string", |row| {
        match row.at("/status/lastScheduleTime") {
            Value::Null => NONE.into(),
            _ => row.since("/status/lastScheduleTime").into(),
        }
    }),
    AGE,
    wide("Containers", "string", |row| {
        format::joined(row.list(CRON_JOB_CONTAINERS), "name").into()
    }),
    wide("Images", "string", |row| {
        format::joined(row.list(CRON_JOB_CONTAINERS), "image").into()
    }),
    wide("Selector", "string", |row| {
        format::selector(row.at("/spec/jobTemplate/spec/selector")).into()
    }),
];

/// `True`, `False` or `<unset>`, as upstream prints a pointer to a bool.
pub(super) fn boolean(value: &Value) -> Value {
    match value.as_bool() {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => UNSET.into(),
    }
}

const AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference", "string", |row| {
        format!(
            "{}/{}",
            row.text("/spec/scaleTargetRef/kind"),
            row.text("/spec/scaleTargetRef/name")
        )
        .into()
    }),
    column("Targets", "string", |row| targets(row).into()),
    column("MinPods", "string", |row| {
        match row.at("/spec/minReplicas").as_i64() {
            Some(least) => least.to_string().into(),
            None => UNSET.into(),
        }
    }),
    column("MaxPods", "string", |row| {
        row.count("/spec/maxReplicas").into()
    }),
    column("Replicas", "string", |row| {
        row.count("/status/currentReplicas").into()
    }),
    AGE,
];

/// Each metric's current value and target, two of them at most.
fn targets(row: &Row<'_>) -> String {
    let (metrics, current) = (
        row.list("/spec/metrics"),
        row.list("/status/currentMetrics"),
    );
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let mut shown: Vec<String> = Vec::new();
    for (i, metric) in metrics.iter().enumerate().take(2) {
        let source = match metric["type"].as_str().unwrap_or_default() {
            "External" => "external",
            "Object" => "object",
            "Pods" => "pods",
            "ContainerResource" => "containerResource",
            _ => "resource",
        };
        let now = current
            .get(i)
            .map_or(&Value::Null, |c| &c[source]["current"]);
        let target = &metric[source]["target"];
        let name = metric[source]["name"]
            .as_str()
            .map(|n| format!("{n}: "))
            .unwrap_or_default();
        let value = |from: &Value| -> Option<String> {
            from["averageUtilization"]
                .as_i64()
                .map(|u| format!("{u}%"))
                .or_else(|| from["averageValue"].as_str().map(str::to_owned))
                .or_else(|| from["value"].as_str().map(str::to_owned))
        };
        let now = value(now).unwrap_or_else(|| format::UNKNOWN.to_owned());
        let target = value(target).unwrap_or_else(|| "<auto>".to_owned());
        shown.push(format!("{name}{now}/{target}"));
    }
    let text = shown.join(", ");
    match metrics.len() {
        n if n > 2 => format!("{text} + {} more...", n - 2),
        _ => text,
    }
}

fn int_or_text(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::Number(n) => n.to_string().into(),
        other => other.clone(),
    }
}

const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    column("Min Available", "string", |row| {
        int_or_text(row.at("/spec/minAvailable"))
    }),
    column("Max Unavailable", "string", |row| {
        int_or_text(row.at("/spec/maxUnavailable"))
    }),
    column("Allowed Disruptions", "integer", |row| {
        row.count("/status/disruptionsAllowed").into()
    }),
    AGE,
];
