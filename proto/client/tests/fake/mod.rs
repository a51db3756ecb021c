//! An API server of one resource, in this process, that does what a test tells it to: just
//! enough of HTTP and the API to see how the client takes what servers do.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How one request is to be answered.
pub enum Answer {
    Json(u16, Value),
    /// A watch: these lines, then what the sender sends, until it is dropped.
    Watch(
        Vec<Value>,
        mpsc::UnboundedReceiver<Result<Bytes, std::io::Error>>,
    ),
    /// Headers, status and text as they are.
    Raw(u16, Vec<(&'static str, &'static str)>, &'static str),
}

/// Sends further lines of a watch. Dropping it ends the watch.
#[derive(Clone)]
pub struct Watch(mpsc::UnboundedSender<Result<Bytes, std::io::Error>>);

impl Watch {
    pub fn send(&self, event: &Value) {
        self.0.unbounded_send(Ok(line(event))).unwrap();
    }

    /// Breaks the connection in the middle.
    pub fn cut(&self) {
        let error = std::io::Error::other("cut");
        self.0.unbounded_send(Err(error)).unwrap();
    }
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

/// A watch that begins with these events.
pub fn watch(events: Vec<Value>) -> (Answer, Watch) {
    let (sender, receiver) = mpsc::unbounded();
    (Answer::Watch(events, receiver), Watch(sender))
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    requests: Vec<String>,
}

/// The server. Requests are answered in the order of [`Server::answer`]; those for which
/// there is no answer yet wait.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<tokio::sync::Notify>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            changed: Arc::default(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let this = this.clone();
                        async move { Ok::<_, Infallible>(this.handle(request).await) }
                    });
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    pub fn client(&self) -> client::Client {
        let config = client::Config::new(format!("http://{}", self.address));
        client::Client::new(config).unwrap()
    }

    pub fn answer(&self, answer: Answer) {
        self.state.lock().unwrap().answers.push_back(answer);
        self.changed.notify_waiters();
    }

    /// `METHOD /path?query` and the body of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Waits until there have been `n` requests.
    pub async fn wait_for_requests(&self, n: usize) -> Vec<String> {
        loop {
            let changed = self.changed.notified();
            let requests = self.requests();
            if requests.len() >= n {
                return requests;
            }
            changed.await;
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = format!(
            "{} {} {}",
            head.method,
            head.uri,
            String::from_utf8_lossy(&body)
        );
        self.state
            .lock()
            .unwrap()
            .requests
            .push(text.trim().to_owned());
        self.changed.notify_waiters();
        let answer = loop {
            let changed = self.changed.notified();
            let next = self.state.lock().unwrap().answers.pop_front();
            match next {
                Some(answer) => break answer,
                None => changed.await,
            }
        };
        match answer {
            Answer::Json(status, value) => Response::builder()
                .status(StatusCode::from_u16(status).unwrap())
                .header("content-type", "application/json")
                .body(full(value.to_string()))
                .unwrap(),
            Answer::Watch(events, rest) => {
                let first = events.into_iter().map(|e| Ok(line(&e))).collect::<Vec<_>>();
                let stream = futures::stream::iter(first)
                    .chain(rest)
                    .map(|c| c.map(Frame::data));
                Response::builder()
                    .header("content-type", "application/json;stream=watch")
                    .body(StreamBody::new(stream).boxed_unsync())
                    .unwrap()
            }
            Answer::Raw(status, headers, text) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(full(text.to_owned())).unwrap()
            }
        }
    }
}

fn full(text: String) -> Body {
    http_body_util::Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub fn config_map(name: &str, revision: u64) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": revision.to_string()}
    })
}

pub fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

pub fn bookmark(revision: u64, initial_end: bool) -> Value {
    let mut object = config_map("", revision);
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    event("BOOKMARK", object)
}

pub fn list(revision: u64, items: Vec<Value>) -> Value {
    json!({
        "kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": {"resourceVersion": revision.to_string()}, "items": items
    })
}

pub fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code})
}
