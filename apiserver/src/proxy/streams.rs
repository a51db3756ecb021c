//! `pods/log`, `pods/exec`, `pods/attach` and `pods/portforward`: at the pod's kubelet.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use meta::{GroupResource, Status};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::backend::{Outgoing, wants_upgrade};
use super::kubelet::Kubelets;
use crate::authz::{Attributes, Authorizer};
use crate::http::authorization;
use crate::http::body::Body;
use crate::http::context::RequestContext;
use crate::http::query::Query;
use crate::http::verbs::Connect;
use crate::registry::store::Store;

/// What a kubelet is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Exec,
    Attach,
    PortForward,
}

pub struct Streams {
    pub stream: Stream,
    pub pods: Arc<Store>,
    pub kubelets: Arc<Kubelets>,
    pub authorizer: Arc<dyn Authorizer>,
}

pub struct Logs {
    pub pods: Arc<Store>,
    pub kubelets: Arc<Kubelets>,
}

fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

/// The container that is meant: the one that is named, or the only one.
fn container(pod: &Value, asked: &str) -> Result<String, Status> {
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
fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    pairs.join("&")
}

impl Stream {
    /// The request's parameters as the kubelet names them.
    fn parameters(self, asked: &Query) -> String {
        if self == Stream::PortForward {
            return query(asked.all("ports").map(|port| ("port", port)));
        }
        let flags = [
            ("stdin", "input"),
            ("stdout", "output"),
            ("stderr", "error"),
            ("tty", "tty"),
        ];
        let flags = flags
            .into_iter()
            .filter(|(ours, _)| asked.flag(ours))
            .map(|(_, theirs)| (theirs, "1"));
        let command = asked.all("command").map(|word| ("command", word));
        match self {
            Stream::Exec => query(flags.chain(command)),
            _ => query(flags),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Stream::Exec => "exec",
            Stream::Attach => "attach",
            Stream::PortForward => "portForward",
        }
    }
}

impl Streams {
    async fn serve(&self, request: &mut RequestContext) -> Result<Response<Body>, Status> {
        if !matches!(request.method, Method::GET | Method::POST) {
            return Err(crate::http::verbs::method_not_allowed());
        }
        if request.query.get("dryRun").is_some() {
            return Err(Status::bad_request("dryRun is not supported"));
        }
        if request.method == Method::GET {
            // A WebSocket begins with GET whatever it is for; running commands takes the right
            // to create.
            let base = authorization::attributes(&request.info, &request.user, "");
            let attributes = Attributes {
                verb: "create",
                ..base
            };
            authorization::authorize(&*self.authorizer, &attributes)?;
        }
        let (namespace, name) = (&request.info.namespace, &request.info.name);
        let pod = self.pods.get_tree(namespace, name).await?;
        let mut path = format!("/{}/{namespace}/{name}", self.stream.path());
        if self.stream != Stream::PortForward {
            let asked = request.query.get("container").unwrap_or_default();
            path = format!("{path}/{}", container(&pod, asked)?);
        }
        let node = node_of(&pod);
        if node.is_empty() {
            return Err(Status::bad_request(format!(
                "pod {name} does not have a host assigned"
            )));
        }
        if !wants_upgrade(&request.headers) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let parameters = self.stream.parameters(&request.query);
        let backend = self.kubelets.of(node).await?;
        backend
            .send(Outgoing {
                method: request.method.clone(),
                target: format!("{path}?{parameters}"),
                headers: std::mem::take(&mut request.headers),
                body: None,
                upgrade: request.upgrade.take(),
            })
            .await
    }
}

impl Connect for Streams {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(self.serve(request))
    }
}

/// Parameters of a log request that the kubelet knows by the same names.
const LOG_PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
];

impl Logs {
    async fn serve(&self, request: &mut RequestContext) -> Result<Response<Body>, Status> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(crate::http::verbs::method_not_allowed());
        }
        for number in ["sinceSeconds", "tailLines", "limitBytes"] {
            request
                .query
                .integer(number)
                .map_err(|e| Status::bad_request(e.to_string()))?;
        }
        let (namespace, name) = (&request.info.namespace, &request.info.name);
        let pod = self.pods.get_tree(namespace, name).await?;
        let asked = request.query.get("container").unwrap_or_default();
        let container = container(&pod, asked)?;
        let node = node_of(&pod);
        if node.is_empty() {
            // Nothing has run yet: there is nothing to show.
            let mut response = Response::new(crate::http::body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        let flags = ["follow", "previous", "timestamps"];
        let parameters = query(LOG_PARAMETERS.into_iter().filter_map(|key| {
            let value = request.query.get(key)?;
            match flags.contains(&key) {
                true => request.query.flag(key).then_some((key, "true")),
                false => Some((key, value)),
            }
        }));
        let backend = self.kubelets.of(node).await?;
        let mut headers = HeaderMap::new();
        if let Some(accept) = request.headers.get(header::ACCEPT_ENCODING) {
            headers.insert(header::ACCEPT_ENCODING, accept.clone());
        }
        let response = backend
            .send(Outgoing {
                method: Method::GET,
                target: format!("/containerLogs/{namespace}/{name}/{container}?{parameters}"),
                headers,
                body: None,
                upgrade: None,
            })
            .await?;
        if !response.status().is_success() {
            return Err(refused(response, name).await);
        }
        let (parts, body) = response.into_parts();
        let mut response = Response::new(body);
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING) {
            out.insert(header::CONTENT_ENCODING, encoding.clone());
        }
        Ok(response)
    }
}

/// A kubelet's refusal as a status.
async fn refused(response: Response<Body>, name: &str) -> Status {
    const MOST: usize = 50_000;
    let code = i32::from(response.status().as_u16());
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        if text.len() > MOST {
            text.truncate(MOST);
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    match code {
        400 => Status::bad_request(text),
        500 => Status::internal(text),
        _ => {
            let resource = GroupResource::new("", "pods/log");
            Status::generic_server_response(code, "", &resource, name, &text, 0, false)
        }
    }
}

impl Connect for Logs {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(self.serve(request))
    }
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

    #[test]
    fn parameters_are_the_kubelets() {
        let asked = Query::parse("command=sh&command=-c&stdin=true&tty=true&stdout=1&stderr=false");
        assert_eq!(
            Stream::Exec.parameters(&asked),
            "input=1&output=1&tty=1&command=sh&command=%2Dc"
        );
        assert_eq!(Stream::Attach.parameters(&asked), "input=1&output=1&tty=1");
        assert_eq!(
            Stream::PortForward.parameters(&Query::parse("ports=80&ports=81")),
            "port=80&port=81"
        );
    }
}
