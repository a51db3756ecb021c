//! The runtime's connection with a meter on it: how often what is called, how long it takes, and
//! whether it fails.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::{Channel, Error};

use crate::metrics::Metrics;

/// A channel whose calls are counted.
#[derive(Clone)]
pub struct Measured {
    channel: Channel,
    metrics: Arc<Metrics>,
}

impl Measured {
    pub fn new(channel: Channel, metrics: Arc<Metrics>) -> Self {
        Self { channel, metrics }
    }
}

impl Service<http::Request<Body>> for Measured {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let operation = operation(request.uri().path());
        // It lasts as long as the kubelet.
        let since = (operation != EVENTS).then(Instant::now);
        let answer = self.channel.call(request);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let answer = answer.await;
            // A call that fails has nothing but its status to answer, and so has it in front.
            let failed = answer.as_ref().map_or(true, |answer| {
                let status = answer.headers().get("grpc-status");
                status.is_some_and(|status| status != "0")
            });
            metrics.runtime_called(&operation, since, failed);
            answer
        })
    }
}

const EVENTS: &str = "get_container_events";

/// Upstream's name of a method: `/runtime.v1.RuntimeService/RunPodSandbox` is `run_podsandbox`.
fn operation(path: &str) -> String {
    let method = path.rsplit('/').next().unwrap_or_default();
    let mut name = String::with_capacity(method.len() + 4);
    for letter in method.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name.replace("pod_sandbox", "podsandbox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_upstreams_names() {
        for (method, name) in [
            ("RunPodSandbox", "run_podsandbox"),
            ("ListPodSandbox", "list_podsandbox"),
            ("ContainerStatus", "container_status"),
            ("ReopenContainerLog", "reopen_container_log"),
            ("ImageFsInfo", "image_fs_info"),
            ("GetContainerEvents", EVENTS),
        ] {
            assert_eq!(
                operation(&format!("/runtime.v1.RuntimeService/{method}")),
                name
            );
        }
    }
}
