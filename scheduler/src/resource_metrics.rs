//! `/metrics/resources`: what pods request, pod by pod (KEP-1748). Limits are not shown: the
//! scheduler reads none.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::model::{Pod, pod};

const HEAD: &str = "# HELP kube_pod_resource_request What the scheduler and the kubelet expect a pod to use of a resource, and its unit.
# TYPE kube_pod_resource_request gauge
";

/// In Prometheus' text format.
pub fn render(pods: &[Arc<Pod>]) -> String {
    let mut page = HEAD.to_owned();
    for pod in pods {
        let requests = pod::requested(pod);
        #[allow(clippy::cast_precision_loss, reason = "a metric's value")]
        let amounts = [
            ("cpu", requests.milli_cpu as f64 / 1000.0),
            ("memory", requests.memory as f64),
            ("ephemeral-storage", requests.ephemeral_storage as f64),
        ];
        #[allow(clippy::cast_precision_loss, reason = "a metric's value")]
        let scalars = (requests.scalars.iter()).map(|(name, amount)| (&**name, *amount as f64));
        for (resource, amount) in amounts.into_iter().chain(scalars) {
            if amount == 0.0 {
                continue;
            }
            let priority = pod.spec.priority.map(|p| p.to_string()).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                "kube_pod_resource_request{{namespace={:?},node={:?},pod={:?},priority={priority:?},resource={resource:?},scheduler={:?},unit={:?}}} {amount}",
                &*pod.metadata.namespace,
                pod.spec.node_name,
                &*pod.metadata.name,
                pod.spec.scheduler_name,
                unit(resource),
            );
        }
    }
    page
}

fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" | "storage" | "ephemeral-storage" => "bytes",
        name if name.starts_with("hugepages-") => "bytes",
        name if name.starts_with("attachable-volumes-") => "integer",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_have_units() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"nodeName": "a", "schedulerName": "s", "priority": 5, "containers": [
                {"resources": {"requests": {
                    "cpu": "1500m", "ephemeral-storage": "1Ki", "example.com/gpu": "2",
                }}},
            ]},
        });
        let pod = Arc::new(serde_json::from_value::<Pod>(pod).unwrap());
        let page = render(&[pod]);
        let line = |resource: &str, unit: &str, amount: &str| {
            format!(
                "kube_pod_resource_request{{namespace=\"n\",node=\"a\",pod=\"p\",priority=\"5\",resource={resource:?},scheduler=\"s\",unit={unit:?}}} {amount}\n"
            )
        };
        let lines = [
            line("cpu", "cores", "1.5"),
            line("ephemeral-storage", "bytes", "1024"),
            line("example.com/gpu", "", "2"),
        ];
        assert_eq!(page, format!("{HEAD}{}", lines.concat()));
    }
}
