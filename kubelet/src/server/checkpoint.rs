//! `/checkpoint/`: the runtime writes a container's state into a file (KEP-2008).

use std::os::unix::fs::DirBuilderExt;

use grpc::cri;
use http::StatusCode;
use jiff::Zoned;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::answer::{Answer, Refusal, as_json};
use super::api::{NodeApi, Query};
use super::routes::Target;
use crate::pods::pod::PodExt;

/// Seconds that are asked for; the last of several counts.
fn timeout(query: &Query) -> Result<i64, Refusal> {
    let wanted = query.iter().rfind(|(key, _)| key == "timeout");
    let wanted = wanted
        .map(|(_, seconds)| seconds.parse::<i64>())
        .transpose();
    let why = "cannot parse value of timeout parameter";
    // Upstream's status for it.
    let seconds = wanted.map_err(|_| (StatusCode::NOT_FOUND, why.to_owned()))?;
    Ok(seconds.unwrap_or_default())
}

/// When, to the second and in the node's own time, as in RFC 3339.
fn file_name(pod: &Pod, container: &str, now: &Zoned) -> String {
    let (name, namespace) = (pod.name(), pod.namespace());
    let zone = match now.offset().seconds() {
        0 => "Z".to_owned(),
        _ => now.strftime("%:z").to_string(),
    };
    let at = now.strftime("%Y-%m-%dT%H:%M:%S");
    format!("checkpoint-{name}_{namespace}-{container}-{at}{zone}.tar")
}

impl NodeApi {
    pub async fn checkpoint(&self, target: &Target, query: &Query) -> Answer {
        let pod = self.existing_pod(target)?;
        let container = &target.container;
        if pod.container_spec(container).is_none() {
            let why = format!("container {container} does not exist");
            return Err((StatusCode::NOT_FOUND, why));
        }
        let timeout = timeout(query)?;
        let written = self.written_down(&pod, container, timeout).await;
        let location = written.map_err(|why| {
            let Target { namespace, pod, .. } = target;
            let why = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})");
            (StatusCode::INTERNAL_SERVER_ERROR, why)
        })?;
        Ok(as_json(&json!({"items": [location]})))
    }

    async fn written_down(
        &self,
        pod: &Pod,
        container: &str,
        timeout: i64,
    ) -> Result<String, String> {
        let id = self.running_container(pod, container).await;
        let id = id.map_err(|error| error.to_string())?;
        let id = id.ok_or_else(|| format!("container {container} not found"))?;
        if timeout < 0 {
            return Err("CheckpointContainer requires the timeout value to be > 0".into());
        }
        let directory = self.root.path().join("checkpoints");
        // What is in the memory of containers is nobody else's to read.
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        made.map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let location = directory.join(file_name(pod, container, &Zoned::now()));
        let location = location.to_string_lossy().into_owned();
        let request = cri::CheckpointContainerRequest {
            container_id: id,
            location: location.clone(),
            timeout,
        };
        let done = self.runtime.checkpoint(request).await;
        done.map_err(|error| error.to_string())?;
        Ok(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_timeout_counts() {
        let ask = |values: &[&str]| {
            let query = values
                .iter()
                .map(|v| ("timeout".to_owned(), (*v).to_owned()));
            timeout(&query.collect())
        };
        assert_eq!(ask(&[]), Ok(0));
        assert_eq!(ask(&["x", "7"]), Ok(7));
        assert_eq!(ask(&["7", "x"]).unwrap_err().0, 404);
    }

    #[test]
    fn files_have_upstreams_names() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let at: Zoned = "2026-11-24T03:04:05.6[UTC]".parse().unwrap();
        let want = "checkpoint-p_n-c-2026-11-24T03:04:05Z.tar";
        assert_eq!(file_name(&pod, "c", &at), want);
    }
}
