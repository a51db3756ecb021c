//! Columns of pods: one word for what a pod is about, and how often it started again.

use jiff::Timestamp;
use serde_json::Value;

use super::format::{self, NONE};
use super::{AGE, Column, Kinds, NAME, Row, column, wide};

pub(super) const KINDS: Kinds = &[("", "Pod", POD), ("", "PodTemplate", POD_TEMPLATE)];

const POD: &[Column] = &[
    NAME,
    column("Ready", "string", |row| {
        let summary = Summary::of(row);
        format!("{}/{}", summary.ready, summary.containers).into()
    }),
    column("Status", "string", |row| Summary::of(row).reason.into()),
    column("Restarts", "string", |row| {
        Summary::of(row).restarts(row.now).into()
    }),
    AGE,
    wide("IP", "string", |row| {
        row.text_or("/status/podIPs/0/ip", NONE)
    }),
    wide("Node", "string", |row| row.text_or("/spec/nodeName", NONE)),
    wide("Nominated Node", "string", |row| {
        row.text_or("/status/nominatedNodeName", NONE)
    }),
    wide("Readiness Gates", "string", readiness_gates),
];

const POD_TEMPLATE: &[Column] = &[
    NAME,
    column("Containers", "string", |row| {
        format::joined(row.list("/template/spec/containers"), "name").into()
    }),
    column("Images", "string", |row| {
        format::joined(row.list("/template/spec/containers"), "image").into()
    }),
    column("Pod Labels", "string", |row| {
        format::labels(row.at("/template/metadata/labels")).into()
    }),
];

fn readiness_gates(row: &Row<'_>) -> Value {
    let gates = row.list("/spec/readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let open = gates
        .iter()
        .filter(|gate| {
            row.list("/status/conditions")
                .iter()
                .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
        })
        .count();
    format!("{open}/{}", gates.len()).into()
}

/// What the columns of one pod are made from.
struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(row: &Row<'_>) -> Self {
        let phase = row.text("/status/phase");
        let gated = row
            .list("/status/conditions")
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
        let mut summary = Self {
            ready: 0,
            containers: row.list("/spec/containers").len(),
            reason: match row.text("/status/reason") {
                _ if gated => "SchedulingGated".to_owned(),
                "" => phase.to_owned(),
                reason => reason.to_owned(),
            },
            restarts: 0,
            last_restart: None,
        };
        let initializing = summary.add_init_containers(row);
        if !initializing || has_condition(row, "Initialized") {
            summary.add_containers(row);
        }
        if !row.at("/metadata/deletionTimestamp").is_null() {
            if row.text("/status/reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Counts the init containers in; true while one of them holds the pod up.
    fn add_init_containers(&mut self, row: &Row<'_>) -> bool {
        let specs = row.list("/spec/initContainers");
        let is_sidecar = |name: &Value| {
            specs
                .iter()
                .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
        };
        self.containers += specs
            .iter()
            .filter(|c| c["restartPolicy"] == "Always")
            .count();
        // While containers run, only restarts of sidecars count, so those of the others
        // are kept apart.
        let (mut sidecars, mut sidecar_restart) = (0, None);
        let mut blocked = false;
        for (i, status) in row.list("/status/initContainerStatuses").iter().enumerate() {
            let sidecar = is_sidecar(&status["name"]);
            if sidecar {
                sidecars += status["restartCount"].as_i64().unwrap_or(0);
                sidecar_restart = sidecar_restart.max(last_end(status));
            }
            if blocked {
                continue;
            }
            self.restarts += status["restartCount"].as_i64().unwrap_or(0);
            self.last_restart = self.last_restart.max(last_end(status));
            let (ended, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
            let waits_for = waiting["reason"].as_str().unwrap_or_default();
            if ended["exitCode"] == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            blocked = true;
            self.reason = if !ended.is_null() {
                format!("Init:{}", end_reason(ended))
            } else if !waits_for.is_empty() && waits_for != "PodInitializing" {
                format!("Init:{waits_for}")
            } else {
                format!("Init:{i}/{}", specs.len())
            };
        }
        if !blocked || has_condition(row, "Initialized") {
            self.restarts = sidecars;
            self.last_restart = sidecar_restart;
        }
        blocked
    }

    fn add_containers(&mut self, row: &Row<'_>) {
        let mut running = false;
        let mut error = None;
        for status in row.list("/status/containerStatuses").iter().rev() {
            self.restarts += status["restartCount"].as_i64().unwrap_or(0);
            self.last_restart = self.last_restart.max(last_end(status));
            let state = &status["state"];
            match state["waiting"]["reason"].as_str() {
                Some(reason) if !reason.is_empty() => self.reason = reason.to_owned(),
                _ if !state["terminated"].is_null() => {
                    self.reason = end_reason(&state["terminated"]);
                    if state["terminated"]["exitCode"] != 0 {
                        error = Some(self.reason.clone());
                    }
                }
                _ if status["ready"] == true && !state["running"].is_null() => {
                    running = true;
                    self.ready += 1;
                }
                _ => {}
            }
        }
        // One container has ended well; the pod is what the others are.
        if self.reason == "Completed" {
            if running && has_condition(row, "Ready") {
                self.reason = "Running".to_owned();
            } else if let Some(error) = error {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }

    fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!(
                    "{} ({} ago)",
                    self.restarts,
                    format::duration(now.duration_since(last))
                )
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn has_condition(row: &Row<'_>, kind: &str) -> bool {
    row.list("/status/conditions")
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

/// When the container last ended.
fn last_end(status: &Value) -> Option<Timestamp> {
    format::timestamp(&status["lastState"]["terminated"]["finishedAt"])
}

/// The reason of an end, or its signal or exit code.
fn end_reason(ended: &Value) -> String {
    match (ended["reason"].as_str(), ended["signal"].as_i64()) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
    }
}
