//! `componentstatuses`: whether etcd, the scheduler and the controller manager answer, asked
//! anew by every request. Deprecated, and right only where all of them run on one machine.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use meta::{GroupResource, Status, fields, labels};
use schema::Resource;
use serde_json::{Value, json};

use super::backend::{Backend, Outgoing};
use super::tls::{ClientTls, Files};
use crate::http::body::Body;
use crate::http::context::RequestContext;
use crate::http::verbs::{Connect, computed};

/// No component is waited for longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks one etcd member; an error says what is wrong with it.
pub type Health = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

pub struct ComponentStatuses {
    resource: &'static Resource,
    /// One per `--etcd-servers`.
    etcd: Vec<Health>,
    tls: Arc<ClientTls>,
}

/// Where the others listen unless told otherwise.
const DAEMONS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];

impl ComponentStatuses {
    pub fn new(resource: &'static Resource, etcd: Vec<Health>) -> Self {
        Self {
            resource,
            etcd,
            // Their certificates are made by themselves.
            tls: Arc::new(ClientTls::new(Files::default())),
        }
    }

    async fn daemon(&self, port: u16) -> Result<String, String> {
        let backend = Backend {
            host: "127.0.0.1".to_owned(),
            port,
            tls: Some(self.tls.clone()),
            unverified: None,
        };
        let outgoing = Outgoing {
            method: Method::GET,
            target: "/healthz".to_owned(),
            headers: HeaderMap::new(),
            body: None,
            upgrade: None,
        };
        let url = format!("https://127.0.0.1:{port}/healthz");
        let answer = tokio::time::timeout(TIMEOUT, async {
            let answer = backend.send(outgoing).await.map_err(|e| e.message)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|e| e.to_string())?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            if head.status.is_success() {
                return Ok(body);
            }
            let code = head.status.as_u16();
            Err(format!("HTTP probe failed with statuscode: {code}"))
        });
        match answer.await {
            Ok(answer) => answer.map_err(|e| match e.split_once("dial tcp") {
                Some((_, e)) => format!("Get {url:?}: dial tcp{e}"),
                None => e,
            }),
            Err(_) => Err(format!("Get {url:?}: context deadline exceeded")),
        }
    }

    async fn all(&self) -> Vec<Value> {
        let members = self.etcd.iter().enumerate().map(|(i, health)| async move {
            let condition = match health().await {
                Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
                Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
            };
            status(&format!("etcd-{i}"), condition)
        });
        let daemons = DAEMONS.map(|(name, port)| async move {
            let condition = match self.daemon(port).await {
                Ok(message) => json!({"type": "Healthy", "status": "True", "message": message}),
                Err(message) => json!({"type": "Healthy", "status": "False", "message": message}),
            };
            status(name, condition)
        });
        let (mut all, daemons) = tokio::join!(join_all(members), join_all(daemons));
        all.extend(daemons);
        all
    }
}

fn status(name: &str, condition: Value) -> Value {
    json!({"metadata": {"name": name}, "conditions": [condition]})
}

impl Connect for ComponentStatuses {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let name = request.info.name.as_str();
            let statuses = self.all().await;
            let named = |wanted: &str| statuses.iter().find(|s| s["metadata"]["name"] == wanted);
            if request.info.verb == "get" {
                let found = named(name).ok_or_else(|| {
                    Status::not_found(&GroupResource::new("", "componentstatus"), name)
                })?;
                return computed::object(self.resource, found, request);
            }
            let bad = |e: &dyn std::fmt::Display| Status::bad_request(e.to_string());
            let selector = labels::Selector::parse(&request.query.text("labelSelector"))
                .map_err(|e| bad(&e))?;
            let fields = fields::Selector::parse(&request.query.text("fieldSelector"))
                .map_err(|e| bad(&e))?;
            let selected = |s: &&Value| {
                let name = s["metadata"]["name"].as_str();
                let field = |field: &str| (field == "metadata.name").then_some(name)?;
                selector.matches(|_| None) && fields.matches(field)
            };
            let statuses: Vec<&Value> = statuses.iter().filter(selected).collect();
            computed::list(self.resource, &statuses, request)
        })
    }
}
