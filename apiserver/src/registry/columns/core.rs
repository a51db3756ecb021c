//! Columns of the core group, but for pods and volumes.

use serde_json::Value;

use super::format::{self, NONE, UNKNOWN};
use super::{AGE, Column, Kinds, NAME, Row, column, wide};

pub(super) const KINDS: Kinds = &[
    ("", "Node", NODE),
    ("", "Namespace", NAMESPACE),
    ("", "Secret", SECRET),
    ("", "ConfigMap", CONFIG_MAP),
    ("", "Event", EVENT),
    ("events.k8s.io", "Event", EVENT),
    ("", "ResourceQuota", QUOTA),
    ("", "ComponentStatus", COMPONENT),
];

const NODE: &[Column] = &[
    NAME,
    column("Status", "string", |row| {
        let ready = row
            .list("/status/conditions")
            .iter()
            .find(|c| c["type"] == "Ready");
        let mut status = match ready {
            None => "Unknown".to_owned(),
            Some(c) if c["status"] == "True" => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
        };
        if row.at("/spec/unschedulable") == true {
            status.push_str(",SchedulingDisabled");
        }
        status.into()
    }),
    column("Roles", "string", |row| format::or_none(roles(row)).into()),
    AGE,
    column("Version", "string", |row| {
        row.text("/status/nodeInfo/kubeletVersion").into()
    }),
    wide("Internal-IP", "string", |row| address(row, "InternalIP")),
    wide("External-IP", "string", |row| address(row, "ExternalIP")),
    wide("OS-Image", "string", |row| {
        row.text_or("/status/nodeInfo/osImage", UNKNOWN)
    }),
    wide("Kernel-Version", "string", |row| {
        let kernel = row.text_or("/status/nodeInfo/kernelVersion", UNKNOWN);
        match (kernel.as_str(), row.text("/status/nodeInfo/architecture")) {
            (Some(kernel), architecture) if !architecture.is_empty() => {
                format!("{kernel} ({architecture})").into()
            }
            _ => kernel,
        }
    }),
    wide("Container-Runtime", "string", |row| {
        row.text_or("/status/nodeInfo/containerRuntimeVersion", UNKNOWN)
    }),
];

fn address(row: &Row<'_>, kind: &str) -> Value {
    let found = row
        .list("/status/addresses")
        .iter()
        .find(|a| a["type"] == kind);
    found
        .and_then(|a| a["address"].as_str())
        .unwrap_or(NONE)
        .into()
}

/// From the labels `node-role.kubernetes.io/<role>` and `kubernetes.io/role`.
fn roles(row: &Row<'_>) -> String {
    let labels = row.at("/metadata/labels").as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

const NAMESPACE: &[Column] = &[
    NAME,
    column("Status", "string", |row| row.text("/status/phase").into()),
    AGE,
];

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

const SECRET: &[Column] = &[
    NAME,
    column("Type", "string", |row| row.text("/type").into()),
    column("Data", "string", |row| entries(row.at("/data")).into()),
    AGE,
];

const CONFIG_MAP: &[Column] = &[
    NAME,
    column("Data", "string", |row| {
        (entries(row.at("/data")) + entries(row.at("/binaryData"))).into()
    }),
    AGE,
];

/// Events of both groups are stored and shown as the core group's; events.k8s.io names
/// some fields otherwise.
const EVENT: &[Column] = &[
    column("Last Seen", "string", |row| {
        match row.first_time(&[
            "/series/lastObservedTime",
            "/lastTimestamp",
            "/deprecatedLastTimestamp",
        ]) {
            Some(time) => row.since(time).into(),
            None => first_seen(row),
        }
    }),
    column("Type", "string", |row| row.text("/type").into()),
    column("Reason", "string", |row| row.text("/reason").into()),
    column("Object", "string", |row| {
        let object = first_of(row, &["/involvedObject", "/regarding"]);
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        match object["name"].as_str().unwrap_or_default() {
            "" => kind.into(),
            name => format!("{kind}/{name}").into(),
        }
    }),
    wide("Subobject", "string", |row| {
        let object = first_of(row, &["/involvedObject", "/regarding"]);
        object["fieldPath"].as_str().unwrap_or_default().into()
    }),
    wide("Source", "string", |row| {
        let source = first_of(row, &["/source", "/deprecatedSource"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let or = |text: String, pointers: &[&str]| {
            if text.is_empty() {
                first_of(row, pointers)
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            } else {
                text
            }
        };
        let component = or(
            text(&source["component"]),
            &["/reportingComponent", "/reportingController"],
        );
        match or(text(&source["host"]), &["/reportingInstance"]) {
            instance if instance.is_empty() => component.into(),
            instance => format!("{component}, {instance}").into(),
        }
    }),
    column("Message", "string", |row| {
        first_of(row, &["/message", "/note"])
            .as_str()
            .unwrap_or_default()
            .trim()
            .into()
    }),
    wide("First Seen", "string", first_seen),
    wide("Count", "string", |row| {
        let counts = ["/series/count", "/count", "/deprecatedCount"];
        let count = counts.iter().map(|p| row.count(p)).find(|c| *c != 0);
        count.unwrap_or(1).into()
    }),
    Column {
        priority: 1,
        ..NAME
    },
];

fn first_of<'a>(row: &'a Row<'_>, pointers: &[&str]) -> &'a Value {
    pointers
        .iter()
        .map(|p| row.at(p))
        .find(|v| !v.is_null())
        .unwrap_or(&Value::Null)
}

fn first_seen(row: &Row<'_>) -> Value {
    match row.first_time(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]) {
        Some(time) => row.since(time).into(),
        None => UNKNOWN.into(),
    }
}

impl Row<'_> {
    fn first_time(&self, pointers: &[&'static str]) -> Option<&'static str> {
        pointers
            .iter()
            .copied()
            .find(|p| format::timestamp(self.at(p)).is_some())
    }
}

const QUOTA: &[Column] = &[
    NAME,
    column("Request", "string", |row| quota(row, false).into()),
    column("Limit", "string", |row| quota(row, true).into()),
    AGE,
];

/// `name: used/hard` of the limits or of everything else.
fn quota(row: &Row<'_>, limits: bool) -> String {
    let used = row.at("/status/used");
    let shown: Vec<String> = row
        .at("/status/hard")
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, hard)| {
            let used = used[name.as_str()].as_str().unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
        })
        .collect();
    shown.join(", ")
}

const COMPONENT: &[Column] = &[
    NAME,
    column("Status", "string", |row| {
        let healthy = row
            .list("/conditions")
            .iter()
            .any(|c| c["type"] == "Healthy" && c["status"] == "True");
        if healthy { "Healthy" } else { "Unhealthy" }.into()
    }),
    column("Message", "string", |row| {
        row.text("/conditions/0/message").into()
    }),
    column("Error", "string", |row| {
        row.text("/conditions/0/error").into()
    }),
];
