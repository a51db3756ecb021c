//! What is said of an eviction, in upstream's words: people and programs read them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use meta::Quantity;

use super::plan::Observations;
use super::ranking::{Candidate, ContainerUsage};
use super::thresholds::{Resource, Threshold};
use crate::pods::pod::PodExt;
use crate::resources::requests::{ResourceList, container_requests};

/// Message and annotations of the event; the status carries the message too.
pub fn eviction(
    candidate: &Candidate,
    threshold: &Threshold,
    observed: &Observations,
) -> (String, BTreeMap<String, String>) {
    let resource = threshold.signal.resource();
    let (name, pod) = (resource.name(), &*candidate.pod);
    let mut message = format!("The node was low on resource: {name}. ");
    if let Some(observed) = observed.get(&threshold.signal) {
        let quantity = threshold.value.of(observed.capacity);
        let available = observed.shown(threshold.signal);
        message += &format!("Threshold quantity: {quantity}, available: {available}. ");
    }
    let mut annotations = BTreeMap::new();
    let Some(usage) = &candidate.usage else {
        return (message, annotations);
    };
    let mut annotate = |key: &str, text: String| annotations.insert(key.to_owned(), text);
    let larger = |kind: &str, who: &str, used: &Quantity, asked: &Quantity| {
        format!(
            "{kind} {who} was using {used}, request is {asked}, has larger consumption of {name}. "
        )
    };
    let of_pod = pod.pod_spec().resources.as_ref();
    let of_pod = of_pod.and_then(|own| own.requests.as_ref());
    if resource == Resource::Memory
        && let Some(asked) = of_pod.and_then(|list| listed(list, name))
        && let Some(used) = usage.memory
    {
        let used = Quantity::new(used, resource.format());
        message += &larger("Pod", pod.name(), &used, &asked);
        annotate("offending_pod", pod.name().to_owned());
        annotate("offending_pod_usage", used.to_string());
    }
    let (mut names, mut amounts) = (Vec::new(), Vec::new());
    for container in pod.containers().iter().chain(pod.init_containers()) {
        let mut running = usage.containers.iter();
        let Some(running) = running.find(|running| running.name == container.name) else {
            continue;
        };
        let asked = asked(container, name);
        let Some(used) = used(running, resource).filter(|used| *used > asked) else {
            continue;
        };
        message += &larger("Container", &container.name, &used, &asked);
        names.push(container.name.clone());
        amounts.push(used.to_string());
    }
    annotate("offending_containers", names.join(","));
    annotate("offending_containers_usage", amounts.join(","));
    annotate("starved_resource", name.to_owned());
    (message, annotations)
}

fn listed(list: &ResourceList, name: &str) -> Option<Quantity> {
    Quantity::try_from(list.get(name)?).ok()
}

fn asked(container: &Container, name: &str) -> Quantity {
    let list = container_requests(container);
    list.and_then(|list| listed(list, name)).unwrap_or_default()
}

fn used(running: &ContainerUsage, resource: Resource) -> Option<Quantity> {
    let amount = match resource {
        Resource::Memory => running.memory?,
        Resource::EphemeralStorage => running.layer?.bytes + running.logs?.bytes,
        Resource::Inodes | Resource::Pids => return None,
    };
    Some(Quantity::new(amount, resource.format()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use serde_json::{Value as Json, json};

    use super::super::plan::Observed;
    use super::super::ranking::{PodUsage, Taken};
    use super::super::thresholds::{Signal, Value};
    use super::*;

    fn said(
        spec: Json,
        usage: Option<PodUsage>,
        signal: Signal,
        value: Value,
    ) -> (String, BTreeMap<String, String>) {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let candidate = Candidate {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            usage,
        };
        let threshold = Threshold {
            signal,
            value,
            grace: Duration::ZERO,
            min_reclaim: None,
        };
        let observed = Observed {
            available: 50 << 20,
            capacity: 1 << 30,
            at: Instant::now(),
        };
        eviction(&candidate, &threshold, &[(signal, observed)].into())
    }

    fn usage() -> PodUsage {
        let container = |name: &str, memory: i64, layer: i64| ContainerUsage {
            name: name.into(),
            memory: Some(memory),
            layer: Some(Taken {
                bytes: layer,
                inodes: 1,
            }),
            logs: Some(Taken {
                bytes: 1 << 10,
                inodes: 1,
            }),
        };
        PodUsage {
            memory: Some(24 << 20),
            containers: vec![
                container("side", 2 << 20, 0),
                container("a", 12 << 20, 1 << 20),
                container("b", 10 << 20, 0),
            ],
            ..PodUsage::default()
        }
    }

    fn spec() -> Json {
        let asks = |name: &str, memory: &str| json!({"name": name, "resources": {"requests": {"memory": memory}}});
        json!({"containers": [asks("a", "10Mi"), asks("b", "10Mi")], "initContainers": [{"name": "side"}]})
    }

    fn pairs(annotations: &BTreeMap<String, String>) -> String {
        let each = annotations
            .iter()
            .map(|(key, text)| format!("{key}={text}"));
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_used_too_much() {
        let hundred = Value::Quantity("100Mi".parse().unwrap());
        let of_memory = |spec| {
            let signal = Signal::MemoryAvailable;
            said(spec, Some(usage()), signal, hundred.clone())
        };
        let (message, annotations) = of_memory(spec());
        assert_eq!(
            message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container a was using 12Mi, \
             request is 10Mi, has larger consumption of memory. Container side was using 2Mi, request is 0, has larger \
             consumption of memory. "
        );
        assert_eq!(
            pairs(&annotations),
            "offending_containers=a,side offending_containers_usage=12Mi,2Mi starved_resource=memory"
        );
        let mut whole = spec();
        whole["resources"] = json!({"requests": {"memory": "20Mi"}});
        let (message, annotations) = of_memory(whole);
        let own =
            "Pod p was using 24Mi, request is 20Mi, has larger consumption of memory. Container a";
        assert!(message.contains(own), "{message}");
        assert!(pairs(&annotations).contains("offending_pod=p offending_pod_usage=24Mi"));
    }

    #[test]
    fn disk_and_what_is_not_asked_for() {
        let tenth = || Value::Share(0.5);
        let (message, annotations) = said(spec(), Some(usage()), Signal::NodeFsAvailable, tenth());
        assert_eq!(
            message,
            "The node was low on resource: ephemeral-storage. Threshold quantity: 512Mi, available: 50Mi. Container a was \
             using 1025Ki, request is 0, has larger consumption of ephemeral-storage. Container b was using 1Ki, request \
             is 0, has larger consumption of ephemeral-storage. Container side was using 1Ki, request is 0, has larger \
             consumption of ephemeral-storage. "
        );
        assert_eq!(annotations["starved_resource"], "ephemeral-storage");
        let (message, annotations) = said(spec(), Some(usage()), Signal::PidAvailable, tenth());
        assert_eq!(
            message,
            "The node was low on resource: pids. Threshold quantity: 512Mi, available: 52428800. "
        );
        assert_eq!(annotations["offending_containers"], "");
        let (message, annotations) = said(spec(), None, Signal::ImageFsInodesFree, tenth());
        assert!(message.starts_with("The node was low on resource: inodes. Threshold"));
        assert!(annotations.is_empty());
    }
}
