//! `pods/exec`, `pods/attach` and `pods/portforward`: at the pod's kubelet.
//!
//! A kubelet that knows WebSockets gets the client's bytes as they are, as every kubelet does
//! of protocols that it has always known. For the others, what clients ask for over newer
//! WebSocket protocols is translated here.
//!
//! What must not be here: the protocols (`proto/streaming`).

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use meta::Status;
use serde_json::Value;
use streaming::websocket::{self, Handshake};
use streaming::{REMOTE_COMMAND_V4, REMOTE_COMMAND_V5, translate, tunnel};

use super::backend::{Backend, Outgoing, passed_on, wants_upgrade};
use super::kubelet::{Kubelet, Kubelets};
use super::metrics::Metrics;
use super::target::{container, node_of, query};
use crate::authz::{Attributes, Authorizer};
use crate::http::body::{self, Body};
use crate::http::context::RequestContext;
use crate::http::query::Query;
use crate::http::verbs::Connect;
use crate::http::websocket::upgraded;
use crate::http::{authorization, verbs};
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
    pub metrics: Arc<Metrics>,
    /// The feature of this stream's translation (`TranslateStreamCloseWebsocketRequests`,
    /// `PortForwardWebsockets`): without it bytes are passed on, whatever they are.
    pub translates: bool,
    /// The feature `ExtendWebSocketsToKubelet`: kubelets are believed that they translate.
    pub trusts_kubelets: bool,
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

    /// As metrics name it.
    fn name(self) -> &'static str {
        match self {
            Stream::PortForward => "portforward",
            other => other.path(),
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
            return Err(verbs::method_not_allowed());
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
        let Kubelet {
            backend,
            knows_websockets,
        } = self.kubelets.of(node).await?;
        let by_kubelet = knows_websockets && self.trusts_kubelets;
        if self.translates {
            self.metrics.routed(self.stream.name(), by_kubelet);
        }
        let target = format!("{path}?{}", self.stream.parameters(&request.query));
        if self.translates && !by_kubelet {
            if self.stream == Stream::PortForward {
                if !websocket::tunnelled(&request.headers).is_empty() {
                    return self.tunnel(backend, target, request).await;
                }
            } else if websocket::wants_stream_close(&request.headers) {
                return Ok(self.translate(backend, target, request));
            }
        }
        if !wants_upgrade(&request.headers) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        backend
            .send(Outgoing {
                method: request.method.clone(),
                target,
                headers: std::mem::take(&mut request.headers),
                body: None,
                upgrade: request.upgrade.take(),
            })
            .await
    }

    /// A remote command over a WebSocket, for a kubelet that speaks SPDY.
    fn translate(
        &self,
        backend: Backend,
        target: String,
        request: &mut RequestContext,
    ) -> Response<Body> {
        let metrics = self.metrics.clone();
        let handshake = match (
            Handshake::of(&request.method, &request.headers),
            request.upgrade.take(),
        ) {
            (Ok(handshake), Some(client)) => Ok((handshake, client)),
            (Err(refusal), _) => Err(refusal),
            (_, None) => Err(websocket::Refusal::NotWebSocket),
        };
        let (handshake, client) = match handshake {
            Ok(both) => both,
            Err(refusal) => {
                metrics.translated(400);
                return refusal.response().map(body::full);
            }
        };
        let streams = translate::Streams {
            stdin: request.query.flag("stdin"),
            stdout: request.query.flag("stdout"),
            stderr: request.query.flag("stderr"),
            tty: request.query.flag("tty"),
        };
        let session = async move {
            let client = match client.await {
                Ok(client) => websocket::server(TokioIo::new(client)).await,
                Err(_) => return metrics.translated(400),
            };
            let code = translate::translate(client, streams, dial(&backend, target)).await;
            metrics.translated(code);
        };
        let response = handshake.response(REMOTE_COMMAND_V5);
        upgraded(response.map(|()| body::empty()), session)
    }

    /// Ports that are forwarded over SPDY over a WebSocket, for a kubelet that speaks SPDY.
    async fn tunnel(
        &self,
        backend: Backend,
        target: String,
        request: &mut RequestContext,
    ) -> Result<Response<Body>, Status> {
        let handshake = match Handshake::of(&request.method, &request.headers) {
            Ok(handshake) => handshake,
            Err(refusal) => {
                self.metrics.tunnelled(500);
                return Ok(refusal.response().map(body::full));
            }
        };
        let mut headers = request.headers.clone();
        streaming::spdy_request(&mut headers, &websocket::tunnelled(&request.headers));
        let mut answer = backend.upgrade(target, headers).await?;
        let code = answer.status();
        let is_spdy = code == StatusCode::SWITCHING_PROTOCOLS;
        if is_spdy && !streaming::is_spdy(answer.headers()) {
            self.metrics.tunnelled(500);
            let text = "unable to upgrade: missing upgrade headers in response\n";
            return Ok(body::text(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
        self.metrics.tunnelled(code.as_u16());
        let Some(client) = request.upgrade.take().filter(|_| is_spdy) else {
            return Ok(answer.map(passed_on));
        };
        let response = handshake.response(&tunnel::protocol(answer.headers()));
        let behind = hyper::upgrade::on(&mut answer);
        let session = async move {
            let (client, behind) = match tokio::try_join!(client, behind) {
                Ok(both) => both,
                Err(error) => return tracing::debug!(%error, "a tunnel was not completed"),
            };
            let client = websocket::server(TokioIo::new(client)).await;
            if let Err(error) = tunnel::tunnel(client, TokioIo::new(behind)).await {
                tracing::debug!(%error, "a tunnel ended");
            }
        };
        Ok(upgraded(response.map(|()| body::empty()), session))
    }
}

/// A connection over which the kubelet speaks SPDY.
async fn dial(
    backend: &Backend,
    target: String,
) -> Result<TokioIo<hyper::upgrade::Upgraded>, Status> {
    let mut headers = HeaderMap::new();
    streaming::spdy_request(&mut headers, &[REMOTE_COMMAND_V4]);
    let mut answer = backend.upgrade(target, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !streaming::is_spdy(answer.headers()) {
        return Err(refused(answer).await);
    }
    let upgraded = hyper::upgrade::on(&mut answer).await;
    upgraded.map(TokioIo::new).map_err(Status::internal)
}

/// Why a kubelet does not speak SPDY, as it says.
async fn refused(answer: Response<Incoming>) -> Status {
    const MOST: usize = 1 << 20;
    let said = Limited::new(answer.into_body(), MOST).collect().await;
    let said = said.map(|body| body.to_bytes()).unwrap_or_default();
    if let Ok(status) = serde_json::from_slice::<Value>(&said)
        && status["kind"] == "Status"
        && let Ok(status) = serde_json::from_value(status)
    {
        return status;
    }
    let said = String::from_utf8_lossy(&said);
    Status::internal(format!("unable to upgrade connection: {}", said.trim()))
}

impl Connect for Streams {
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
