//! DefaultTolerationSeconds: a pod stays for a while on a node that has become unready or
//! unreachable, so that a short outage moves nothing.

use serde_json::json;

use super::chain::Deps;
use super::*;
use crate::authz::node::items;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub struct DefaultTolerationSeconds {
    not_ready: i64,
    unreachable: i64,
}

impl DefaultTolerationSeconds {
    pub fn new(deps: &Deps) -> Self {
        Self {
            not_ready: deps.not_ready_toleration_seconds,
            unreachable: deps.unreachable_toleration_seconds,
        }
    }
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(pod) = object
            && attributes.is("", "pods")
        {
            let missing: Vec<Value> =
                [(NOT_READY, self.not_ready), (UNREACHABLE, self.unreachable)]
                    .into_iter()
                    .filter(|(key, _)| !tolerates(pod, key))
                    .map(|(key, seconds)| {
                        json!({
                            "key": key,
                            "operator": "Exists",
                            "effect": "NoExecute",
                            "tolerationSeconds": seconds,
                        })
                    })
                    .collect();
            if !missing.is_empty() {
                list_mut(&mut pod["spec"], "tolerations").extend(missing);
            }
        }
        ready(Ok(()))
    }
}

fn tolerates(pod: &Value, key: &str) -> bool {
    items(&pod["spec"]["tolerations"]).any(|t| {
        let (k, effect) = (text(t, "/key"), text(t, "/effect"));
        (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
    })
}
