//! `pods/log`: what the pod's kubelet has of a container's output.
//!
//! What must not be here: which container is meant (`target`).

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use meta::field::{ErrorList, FieldError as Error, Path};
use meta::{GroupKind, GroupResource, Status};

use super::backend::Outgoing;
use super::kubelet::Kubelets;
use super::metrics::Metrics;
use super::target::{container, node_of, query};
use crate::http::body::{self, Body};
use crate::http::context::RequestContext;
use crate::http::negotiate;
use crate::http::query::Query;
use crate::http::verbs::{self, Connect};
use crate::http::websocket;
use crate::registry::store::Store;

pub struct Logs {
    pub pods: Arc<Store>,
    pub kubelets: Arc<Kubelets>,
    pub metrics: Arc<Metrics>,
    /// The feature `PodLogsQuerySplitStreams`: one of a container's two outputs can be asked for.
    pub split_streams: bool,
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

const OUTPUTS: [&str; 3] = ["All", "Stderr", "Stdout"];

/// What is wrong with the parameters (`ValidatePodLogOptions`).
///
/// # Errors
/// They cannot be read.
fn validate(query: &Query, split_streams: bool) -> Result<ErrorList, Status> {
    let number = |name| {
        let number = query.integer(name);
        number.map_err(|e| Status::bad_request(e.to_string()))
    };
    let lines = number("tailLines")?;
    let bytes = number("limitBytes")?;
    let seconds = number("sinceSeconds")?;
    let since = query.get("sinceTime").filter(|t| !t.is_empty());
    if let Some(since) = since {
        codec::Instant::parse(since, false).map_err(|e| Status::bad_request(e.to_string()))?;
    }
    let mut errors = ErrorList::new();
    let whole = Path::root().key("");
    if let Some(lines) = lines.filter(|n| *n < 0) {
        let why = "must be greater than or equal to 0";
        errors.push(Error::invalid(&Path::new("tailLines"), lines, why));
    }
    let positive = [("limitBytes", bytes), ("sinceSeconds", seconds)];
    let both = seconds.is_some() && since.is_some();
    for (name, value) in positive {
        if let Some(value) = value.filter(|n| *n < 1 && !(both && name == "sinceSeconds")) {
            let why = "must be greater than 0";
            errors.push(Error::invalid(&Path::new(name), value, why));
        }
    }
    if both {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(Error::forbidden(&whole, why));
    }
    let stream = query.get("stream");
    let path = Path::new("stream");
    match stream {
        Some(_) if !split_streams => {
            errors.push(Error::forbidden(&path, "may not be specified"));
        }
        Some(stream) => {
            if !OUTPUTS.contains(&stream) {
                errors.push(Error::not_supported(&path, stream, &OUTPUTS));
            }
            if stream != "All" && lines.is_some() {
                let why = "`tailLines` and specific `stream` are mutually exclusive for now";
                errors.push(Error::forbidden(&whole, why));
            }
        }
        None => {}
    }
    Ok(errors)
}

impl Logs {
    async fn serve(&self, request: &mut RequestContext) -> Result<Response<Body>, Status> {
        if request.method != Method::GET {
            return Err(verbs::method_not_allowed());
        }
        negotiate::output_text(&request.headers)?;
        let insecure = request.query.flag("insecureSkipTLSVerifyBackend");
        self.metrics.log(insecure);
        let errors = validate(&request.query, self.split_streams)?;
        if !errors.is_empty() {
            let kind = GroupKind::new("", "PodLogOptions");
            return Err(Status::invalid(&kind, &request.info.name, &errors));
        }
        let (namespace, name) = (&request.info.namespace, &request.info.name);
        let pod = self.pods.get_tree(namespace, name).await?;
        let asked = request.query.get("container").unwrap_or_default();
        let container = container(&pod, asked)?;
        let node = node_of(&pod);
        if node.is_empty() {
            // Nothing has run yet: there is nothing to show.
            let mut response = Response::new(body::empty());
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
        let mut kubelet = match insecure {
            true => self.kubelets.unverified(node).await?,
            false => self.kubelets.of(node).await?,
        };
        kubelet.backend.unverified = Some(self.metrics.log_tls_failures.clone());
        let mut headers = HeaderMap::new();
        let as_messages = websocket::is_asked_for(&request.headers);
        let accept = request.headers.get(header::ACCEPT_ENCODING);
        if let Some(accept) = accept.filter(|_| !as_messages) {
            headers.insert(header::ACCEPT_ENCODING, accept.clone());
        }
        let response = kubelet
            .backend
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
        if as_messages {
            return Ok(websocket::read(request, body));
        }
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
    use super::*;

    #[test]
    fn parameters_are_validated() {
        let of = |query: &str| -> Vec<String> {
            let errors = validate(&Query::parse(query), false).unwrap();
            errors.iter().map(ToString::to_string).collect()
        };
        assert!(of("tailLines=0&limitBytes=1&sinceSeconds=1").is_empty());
        assert_eq!(
            of("tailLines=-1&limitBytes=0"),
            [
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
                "limitBytes: Invalid value: 0: must be greater than 0"
            ]
        );
        assert_eq!(of("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").len(), 1);
        assert_eq!(of("stream=All").len(), 1);
        assert!(validate(&Query::parse("tailLines=x"), false).is_err());
        let refused = |time: &str| {
            let query = format!("sinceTime={time}");
            let refused = validate(&Query::parse(&query), false).err();
            refused.map(|status| status.message)
        };
        assert_eq!(refused("9999-12-31T23:59:59Z"), None);
        for (time, problem) in [
            ("2016-12-31T23:59:60Z", r#": second out of range"#),
            (
                "x",
                r#" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
            ),
        ] {
            let told = format!("parsing time {time:?}{problem}");
            assert_eq!(refused(time), Some(told));
        }
        let split = validate(&Query::parse("stream=Stdout&tailLines=1"), true);
        assert_eq!(split.unwrap().len(), 1);
    }
}
