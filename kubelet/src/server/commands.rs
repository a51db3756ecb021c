//! What runs in a pod, or talks to it: exec, attach, port-forward and run. The pod is the one that is
//! named; a uid besides can only agree with it.

use std::sync::Arc;

use ::streaming::websocket;
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use tonic::Code;

use super::answer::{Answer, Refusal, answer};
use super::api::{NodeApi, Query, runtime_failed};
use super::routes::Target;
use super::streaming::{self, Streams};
use crate::cri::client::{CriError, Of};
use crate::cri::labels;
use crate::pods::pod::PodExt;

fn internal(why: String) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// Why a runtime gives no URL, as upstream's streaming server says it.
fn not_streamed(error: CriError) -> Refusal {
    let status = match error.code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

impl NodeApi {
    pub fn existing_pod(&self, target: &Target) -> Result<Arc<Pod>, Refusal> {
        let missing = || (StatusCode::NOT_FOUND, "pod does not exist".to_owned());
        self.pod(target).ok_or_else(missing)
    }

    /// The id of a pod's running container.
    pub async fn running_container(
        &self,
        pod: &Pod,
        container: &str,
    ) -> Result<Option<String>, CriError> {
        let of = Of {
            pod_uid: Some(pod.uid()),
            running: true,
        };
        let containers = self.runtime.list_containers(of).await?;
        let found = containers.into_iter().find(|known| {
            let name = known.labels.get(labels::CONTAINER_NAME);
            name.is_some_and(|name| name == container)
        });
        Ok(found.map(|container| container.id))
    }

    async fn container_of(&self, pod: &Pod, container: &str) -> Result<String, Refusal> {
        let found = self.running_container(pod, container).await;
        let found = found.map_err(not_streamed)?;
        found.ok_or_else(|| internal(format!("container not found ({container:?})")))
    }

    pub async fn exec(&self, request: Request<Incoming>, target: &Target, query: &Query) -> Answer {
        let streams = Streams::parse(query).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
        let pod = self.existing_pod(target)?;
        let id = self.container_of(&pod, &target.container).await?;
        let command = query
            .iter()
            .filter(|(key, _)| key == "command")
            .map(|(_, word)| word.clone())
            .collect();
        let url = self.runtime.exec_url(streams.exec(id, command)).await;
        let url = url.map_err(not_streamed)?;
        self.command("exec", request, &url, streams).await
    }

    pub async fn attach(
        &self,
        request: Request<Incoming>,
        target: &Target,
        query: &Query,
    ) -> Answer {
        let streams = Streams::parse(query).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
        let pod = self.existing_pod(target)?;
        let (container, full_name) = (
            &target.container,
            format!("{}_{}", pod.name(), pod.namespace()),
        );
        let missing = || {
            internal(format!(
                "container {container} not found in pod {full_name}"
            ))
        };
        let id = self.running_container(&pod, container).await;
        let id = id.map_err(not_streamed)?.ok_or_else(missing)?;
        if let Some(uid) = &target.uid
            && uid != pod.uid()
        {
            return Err(internal(format!("pod {full_name} not found")));
        }
        let spec = pod.container_spec(container).ok_or_else(missing)?;
        // What the container has, whatever is asked for.
        let tty = spec.tty == Some(true);
        let streams = Streams {
            tty,
            stderr: streams.stderr && !tty,
            ..streams
        };
        let url = self.runtime.attach_url(streams.attach(id)).await;
        let url = url.map_err(not_streamed)?;
        self.command("attach", request, &url, streams).await
    }

    /// A remote command at the runtime's `url`.
    async fn command(
        &self,
        name: &str,
        request: Request<Incoming>,
        url: &str,
        streams: Streams,
    ) -> Answer {
        if self.translates && websocket::wants_stream_close(request.headers()) {
            self.metrics.websocket(name);
            return streaming::translate(request, url, streams);
        }
        streaming::join(request, url).await
    }

    pub async fn port_forward(
        &self,
        request: Request<Incoming>,
        target: &Target,
        query: &Query,
    ) -> Answer {
        let tunnelled = self.translates && !websocket::tunnelled(request.headers()).is_empty();
        let ports = if tunnelled || !is_websocket(request.headers()) {
            Vec::new()
        } else {
            ports(query).map_err(|why| (StatusCode::BAD_REQUEST, why))?
        };
        let pod = self.existing_pod(target)?;
        if let Some(uid) = &target.uid
            && uid != pod.uid()
        {
            return Err((StatusCode::NOT_FOUND, "pod not found".into()));
        }
        let of = Of {
            pod_uid: Some(pod.uid()),
            running: true,
        };
        let sandboxes = self.runtime.list_sandboxes(of).await;
        let sandboxes = sandboxes.map_err(not_streamed)?;
        let sandbox = sandboxes.first().ok_or_else(|| {
            let full_name = format!("{}_{}", pod.name(), pod.namespace());
            internal(format!("pod not found ({full_name:?})"))
        })?;
        let url = self.runtime.port_forward_url(&sandbox.id, ports).await;
        let url = url.map_err(not_streamed)?;
        if tunnelled {
            self.metrics.websocket("portforward");
            return streaming::tunnel(request, &url).await;
        }
        streaming::join(request, &url).await
    }

    pub async fn run(&self, target: &Target, query: &Query) -> Answer {
        let pod = self.existing_pod(target)?;
        let id = self.container_of(&pod, &target.container).await?;
        let command = query.iter().find(|(key, _)| key == "cmd");
        let command = command.map_or("", |(_, command)| command.as_str());
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let done = self.runtime.exec_sync(&id, &words, None).await;
        let done = done.map_err(runtime_failed)?;
        let mut output = done.stdout;
        output.extend_from_slice(&done.stderr);
        if done.exit_code == 0 {
            return Ok(answer(StatusCode::OK, "application/json", output));
        }
        let output = String::from_utf8_lossy(&output);
        let code = done.exit_code;
        Err(internal(format!(
            "command '{command}' exited with {code}: {output}"
        )))
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).map(|to| to.as_bytes());
    upgrade.is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"))
}

/// The ports that a WebSocket without a tunnel is for.
fn ports(query: &Query) -> Result<Vec<i32>, String> {
    let lists: Vec<_> = query.iter().filter(|(key, _)| key == "port").collect();
    if lists.is_empty() {
        return Err("query parameter \"port\" is required".into());
    }
    let mut ports = Vec::new();
    for (_, list) in lists {
        if list.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for port in list.split(',') {
            let parsed = port.parse::<u16>().map_err(|error| {
                let why = match error.kind() {
                    std::num::IntErrorKind::PosOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                format!(
                    "unable to parse {list:?} as a port: strconv.ParseUint: parsing {port:?}: {why}"
                )
            })?;
            if parsed == 0 {
                return Err(format!("port {list:?} must be > 0"));
            }
            ports.push(parsed.into());
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_websocket() {
        let ask = |lists: &[&str]| {
            let query = lists
                .iter()
                .map(|list| ("port".to_owned(), (*list).to_owned()));
            ports(&query.collect())
        };
        assert_eq!(ask(&["80,81", "82"]), Ok(vec![80, 81, 82]));
        assert!(ask(&[]).unwrap_err().ends_with("is required"));
        assert!(ask(&["0"]).unwrap_err().ends_with("must be > 0"));
        let x = "unable to parse \"x\" as a port: strconv.ParseUint: parsing \"x\": invalid syntax";
        assert_eq!(ask(&["x"]), Err(x.into()));
    }
}
