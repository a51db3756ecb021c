//! TaintToleration: keeps pods off nodes whose taints they do not tolerate, and prefers
//! nodes with fewer taints of the softer kind.

use std::sync::Arc;

use api::placement;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Filter, Hint, Normalize, Plugin, Rejection, Score};
use crate::model::{Node, PodInfo, Template};

pub struct TaintToleration;

/// Does one of the tolerations tolerate the taint (`Toleration.ToleratesTaint`)?
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    tolerations
        .iter()
        .any(|t| placement::tolerates(t, &taint.key, value, &taint.effect))
}

fn keeps_off(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

/// A taint that keeps the pod off.
pub fn untolerated<'a>(taints: &'a [Taint], pod: &Template) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|t| keeps_off(t))
        .find(|t| !tolerates(&pod.tolerations, t))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        let pod = Arc::clone(&pod.template);
        Filter::Local(Box::new(move |node| {
            match untolerated(&node.taints, &pod) {
                None => Ok(()),
                // Which taint it was differs from node to node; the event counts them as one.
                Some(_) => Err(Rejection::unresolvable("node(s) had untolerated taint(s)")),
            }
        }))
    }

    fn score(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Score {
        let pod = Arc::clone(&pod.template);
        let intolerable = Box::new(move |node: &crate::cache::NodeInfo, _: &Cache| {
            let soft = node
                .taints
                .iter()
                .filter(|t| t.effect == "PreferNoSchedule");
            let count = soft.filter(|t| !tolerates(&pod.tolerations, t)).count();
            i64::try_from(count).unwrap_or(i64::MAX)
        });
        Score::Local(intolerable, Normalize::Reversed)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        let takes = |node: &Node| untolerated(&node.spec.taints, pod).is_none();
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(takes(node)),
            ClusterEvent::NodeUpdated { old, new } => Hint::queue_if(takes(new) && !takes(old)),
            ClusterEvent::PodChanged { old } => {
                Hint::queue_if(old.tolerations.len() != pod.tolerations.len())
            }
            _ => Hint::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{api_node, filter, node, pod};

    #[test]
    fn a_taint_keeps_off_who_does_not_tolerate_it() {
        let tainted = node(
            "a",
            json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
        );
        let tolerating = |toleration: serde_json::Value| pod(json!({"tolerations": [toleration]}));
        assert!(filter(&TaintToleration, &pod(json!({})), &tainted).is_err());
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"key": "k", "operator": "Exists"}),
            json!({"key": "k", "value": "v"}),
            json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
        ] {
            assert!(filter(&TaintToleration, &tolerating(toleration), &tainted).is_ok());
        }
        for toleration in [
            json!({"key": "k"}),
            json!({"key": "k", "value": "v", "effect": "NoExecute"}),
        ] {
            assert!(filter(&TaintToleration, &tolerating(toleration), &tainted).is_err());
        }
    }

    #[test]
    fn a_node_that_loses_its_taint_is_worth_another_look() {
        let tainted = api_node(
            "a",
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
        );
        let clean = api_node("a", json!({}));
        let waiting = pod(json!({}));
        let lost = ClusterEvent::NodeUpdated {
            old: &tainted,
            new: &clean,
        };
        let got = ClusterEvent::NodeUpdated {
            old: &clean,
            new: &tainted,
        };
        assert_eq!(
            TaintToleration.hint(&waiting, &lost, &Cache::default()),
            Hint::Queue
        );
        assert_eq!(
            TaintToleration.hint(&waiting, &got, &Cache::default()),
            Hint::Skip
        );
    }
}
