//! Lifecycle hooks: what a container is told after its start and before its stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::client::CriClient;
use crate::prober::http::HttpGet;

/// An HTTP hook that never answers must not keep a container from stopping for ever.
const HTTP_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a hook to its end.
///
/// # Errors
/// A text for the log; hooks may print secrets, so that it must not go into events.
pub async fn run(
    runtime: &CriClient,
    handler: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let done = runtime.exec_sync(container_id, &command, None).await;
        match done {
            Ok(done) if done.exit_code == 0 => Ok(()),
            Ok(done) => Err(format!(
                "Exec lifecycle hook ({command:?}) exited with {}",
                done.exit_code
            )),
            Err(error) => Err(format!("Exec lifecycle hook ({command:?}) failed: {error}")),
        }
    } else if let Some(action) = &handler.http_get {
        let request = HttpGet::new(action, container, pod_ip, "lifecycle")
            .map_err(|error| error.to_string())?;
        // Any answer will do.
        request
            .send(HTTP_TIMEOUT)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    } else if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(
            u64::try_from(action.seconds).unwrap_or_default(),
        ))
        .await;
        Ok(())
    } else {
        Err("invalid handler: it does nothing".into())
    }
}
