//! Which container on which node a request about a pod means.
//!
//! What must not be here: requests to kubelets.

use meta::Status;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Empty while the pod waits for a node.
pub fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

/// The container that is meant: the one that is named, or the only one.
pub fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let (containers, init) = (names("containers"), names("initContainers"));
    let ephemeral = names("ephemeralContainers");
    if !asked.is_empty() {
        let known = [&containers, &init, &ephemeral]
            .into_iter()
            .any(|list| list.iter().any(|c| c == asked));
        if !known {
            return Err(Status::bad_request(format!(
                "container {asked} is not valid for pod {pod_name}"
            )));
        }
        return Ok(asked.to_owned());
    }
    match containers.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// Pairs as a query.
pub fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_found_or_asked_for() {
        let pod = json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "i").unwrap(), "i");
        assert_eq!(
            container(&pod, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(
            container(&pod, "x").unwrap_err().message,
            "container x is not valid for pod p"
        );
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
    }
}
