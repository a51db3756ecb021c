//! [`Client`]: requests to one API server as one user.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use meta::{GroupResource, Status};
use serde::de::DeserializeOwned;

use crate::config::{Config, ConfigError, ContentType, Impersonation};
use crate::credentials::{Credentials, ServiceAccountTokens, TokenSource};
use crate::error::Error;
use crate::fence::Fence;
use crate::metrics::ClientMetrics;
use crate::rate_limit::TokenBucket;
use crate::transport::{BaseUri, Body, Transport};
use crate::wire;

const LEASES: &str = "/apis/coordination.k8s.io/";
/// How often a request is sent again because the server said when to (`Retry-After`), as upstream.
const MAX_RETRIES: u32 = 10;

/// A connection to an API server. Cheap to clone; clones share connections and rate limit.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    config: Config,
    transport: Arc<Transport>,
    base: BaseUri,
    credentials: Credentials,
    headers: HeaderMap,
    limiter: Option<Arc<TokenBucket>>,
    metrics: Option<ClientMetrics>,
    /// Connections without a client certificate, shared by all users of tokens.
    anonymous: Arc<OnceLock<Arc<Transport>>>,
    fence: Arc<Fence>,
}

/// A request that [`Api`](crate::Api) has no method for.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// Path and query, such as `/healthz?verbose`.
    pub path: String,
    /// Empty for none.
    pub accept: String,
    /// Content type and bytes.
    pub body: Option<(String, Bytes)>,
    /// Overrides [`Config::timeout`]; `Some(Duration::MAX)` for none.
    pub timeout: Option<Duration>,
    /// What the request is about, for error messages: resource and name.
    pub about: (GroupResource, String),
}

impl Request {
    /// A request for JSON.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            accept: wire::JSON.to_owned(),
            body: None,
            timeout: None,
            about: Default::default(),
        }
    }

    #[must_use]
    pub fn body(mut self, content_type: &str, bytes: Bytes) -> Self {
        self.body = Some((content_type.to_owned(), bytes));
        self
    }
}

/// A full bucket, if the configuration limits requests.
fn limiter(config: &Config) -> Option<Arc<TokenBucket>> {
    let bucket = |qps: f32| Arc::new(TokenBucket::new(qps.into(), config.burst));
    config.qps.map(bucket)
}

impl Client {
    /// Reads the configuration's files; connects on first use.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let transport = Transport::new(&config)?;
        Self::with_transport(config, Arc::new(transport))
    }

    fn with_transport(config: Config, transport: Arc<Transport>) -> Result<Self, ConfigError> {
        let bad = |e: Error| ConfigError::Missing(e.to_string());
        let mut headers = HeaderMap::new();
        let agent = HeaderValue::from_str(&config.user_agent)
            .map_err(|_| ConfigError::Missing("the user agent is no header value".into()))?;
        headers.insert(USER_AGENT, agent);
        if let Some(impersonation) = &config.impersonate {
            impersonate(&mut headers, impersonation)?;
        }
        let inner = Inner {
            base: BaseUri::parse(&config.server)?,
            credentials: Credentials::new(&config.auth).map_err(bad)?,
            limiter: limiter(&config),
            headers,
            transport,
            metrics: None,
            anonymous: Arc::default(),
            fence: Arc::default(),
            config,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The configuration that this client was made from.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The kubeconfig context's namespace.
    pub fn default_namespace(&self) -> &str {
        &self.inner.config.namespace
    }

    /// What keeps a former leader from writing.
    pub(crate) fn fence(&self) -> &Arc<Fence> {
        &self.inner.fence
    }

    pub(crate) fn content_type(&self) -> ContentType {
        self.inner.config.content_type
    }

    /// Counts this client's requests, and those of clients made from it.
    #[must_use]
    pub fn with_metrics(&self, metrics: &ClientMetrics) -> Self {
        let mut inner = (*self.inner).clone();
        inner.metrics = Some(metrics.clone());
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same user with a part of the program named at the end of the `User-Agent`, as
    /// upstream's controllers have it. It has a rate limit of its own: what one part has much to
    /// do with keeps no other waiting, least of all the renewal of a lease.
    #[must_use]
    pub fn for_part(&self, part: &str) -> Self {
        let mut inner = (*self.inner).clone();
        inner.config.user_agent = format!("{}/{part}", inner.config.user_agent);
        if let Ok(agent) = HeaderValue::from_str(&inner.config.user_agent) {
            inner.headers.insert(USER_AGENT, agent);
        }
        inner.limiter = limiter(&inner.config);
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same user with a rate limit of its own.
    #[must_use]
    pub fn with_rate_limit(&self, qps: f32, burst: u32) -> Self {
        let mut inner = (*self.inner).clone();
        inner.config = inner.config.rate_limit(qps, burst);
        inner.limiter = limiter(&inner.config);
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same user with a limit for each request (watches excepted).
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut inner = (*self.inner).clone();
        inner.config.timeout = Some(timeout);
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same server as the user of a bearer token, without our client certificate. All
    /// clients that are made so share one connection; each has a rate limit of its own.
    pub fn with_token_source(&self, source: Arc<dyn TokenSource>) -> Result<Self, ConfigError> {
        let config = self.inner.config.clone().anonymous();
        let transport = match self.inner.anonymous.get() {
            Some(transport) => Arc::clone(transport),
            None => {
                let transport = Arc::new(Transport::new(&config)?);
                Arc::clone(self.inner.anonymous.get_or_init(|| transport))
            }
        };
        let mut inner = (*Self::with_transport(config, transport)?.inner).clone();
        inner.fence = Arc::clone(&self.inner.fence);
        inner.credentials = Credentials::Source(source);
        inner.metrics = self.inner.metrics.clone();
        inner.anonymous = Arc::clone(&self.inner.anonymous);
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// A client that is the service account `namespace/name`: what a daemon's
    /// `--use-service-account-credentials` gives each of its controllers.
    pub fn as_service_account(&self, namespace: &str, name: &str) -> Result<Self, ConfigError> {
        let account = format!("system:serviceaccount:{namespace}:{name}");
        self.for_part(&account)
            .with_token_source(Arc::new(ServiceAccountTokens::new(self, namespace, name)))
    }

    /// Sends a request and returns the answer once its head is there and is a success; any
    /// other answer is an [`Error::Status`]. The body is still to be read.
    pub async fn send(&self, request: &Request) -> Result<Response<Body>, Error> {
        let mut retries = 0;
        let mut resent = false;
        loop {
            let response = match self.send_once(request).await {
                Ok(response) => response,
                // A connection that was just being closed: what only reads is sent again.
                Err(Error::Transport {
                    connecting: false, ..
                }) if request.method == Method::GET && !resent => {
                    resent = true;
                    self.count_retry("<error>", request);
                    continue;
                }
                Err(err) => return Err(err),
            };
            let code = response.status();
            if code.is_success() {
                return Ok(response);
            }
            if code == StatusCode::UNAUTHORIZED {
                self.inner.credentials.reject();
            }
            let retry_after = retry_after(response.headers());
            let wait = retry_after
                .filter(|_| code == StatusCode::TOO_MANY_REQUESTS || code.is_server_error());
            if let Some(wait) = wait
                && retries < MAX_RETRIES
            {
                retries += 1;
                self.count_retry(code.as_str(), request);
                tracing::debug!(%code, ?wait, path = %request.path, "the server asks to try again");
                // Reading the rest lets HTTP/1.1 connections be used again.
                let _ = Box::pin(response.into_body().collect()).await;
                Box::pin(tokio::time::sleep(wait)).await;
                continue;
            }
            return Err(Box::pin(self.failure(request, response, retry_after)).await);
        }
    }

    /// Sends a request and reads the whole answer: its content type and bytes.
    pub async fn fetch(&self, request: &Request) -> Result<(String, Bytes), Error> {
        let timeout = request.timeout.or(self.inner.config.timeout);
        let work = async {
            let response = self.send(request).await?;
            let content_type = content_type(response.headers());
            let body = response.into_body().collect().await;
            let body = body.map_err(|e| self.inner.transport.error(e))?;
            Ok((content_type, body.to_bytes()))
        };
        match timeout {
            None | Some(Duration::MAX) => work.await,
            Some(after) => Box::pin(tokio::time::timeout(after, work))
                .await
                .unwrap_or_else(|_| {
                    Err(Error::Timeout {
                        server: self.inner.transport.server().to_owned(),
                        after,
                    })
                }),
        }
    }

    /// GETs a path as JSON.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let (_, bytes) = self.fetch(&Request::new(Method::GET, path)).await?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Decode {
            what: path.to_owned(),
            message: e.to_string(),
        })
    }

    /// GETs a path as text, such as `/healthz`.
    pub async fn get_text(&self, path: &str) -> Result<String, Error> {
        let mut request = Request::new(Method::GET, path);
        request.accept = "*/*".to_owned();
        let (_, bytes) = self.fetch(&request).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn send_once(&self, request: &Request) -> Result<Response<Body>, Error> {
        let inner = &*self.inner;
        if let Some(limiter) = &inner.limiter {
            let wait = limiter.reserve();
            if let Some(metrics) = &inner.metrics {
                metrics.held_back(request.method.as_str(), inner.base.host(), wait);
            }
            if !wait.is_zero() {
                Box::pin(tokio::time::sleep(wait)).await;
            }
        }
        let (content_type, body) = request.body.clone().unzip();
        let mut out = http::Request::new(body.unwrap_or_default());
        *out.method_mut() = request.method.clone();
        *out.uri_mut() = inner.base.join(&request.path)?;
        // Whoever does not lead may try to.
        let writes = request.method != Method::GET && !request.path.starts_with(LEASES);
        if writes && !inner.fence.is_open() {
            return Err(Error::NotLeading);
        }
        let map = out.headers_mut();
        map.clone_from(&inner.headers);
        let value = |s: &str| {
            HeaderValue::from_str(s).map_err(|_| Error::Request(format!("{s:?} is no header")))
        };
        if !request.accept.is_empty() {
            map.insert(ACCEPT, value(&request.accept)?);
        }
        if let Some(content_type) = content_type {
            map.insert(CONTENT_TYPE, value(&content_type)?);
        }
        if let Some(auth) = inner.credentials.header().await? {
            map.insert(AUTHORIZATION, auth);
        }
        tracing::trace!(method = %request.method, path = %request.path, "request");
        let start = tokio::time::Instant::now();
        let result = inner.transport.send(out).await;
        if let Some(metrics) = &inner.metrics {
            let code = result.as_ref().map_or(None, |r| Some(r.status()));
            let code = code.as_ref().map_or("<error>", StatusCode::as_str);
            metrics.answered(
                code,
                request.method.as_str(),
                inner.base.host(),
                start.elapsed(),
            );
        }
        result
    }

    fn count_retry(&self, code: &str, request: &Request) {
        if let Some(metrics) = &self.inner.metrics {
            metrics.retried(code, request.method.as_str(), self.inner.base.host());
        }
    }

    async fn failure(
        &self,
        request: &Request,
        response: Response<Body>,
        retry_after: Option<Duration>,
    ) -> Error {
        let code = response.status();
        let content_type = content_type(response.headers());
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return self.inner.transport.error(e),
        };
        if let Some(mut status) = wire::decode_status(&content_type, &body)
            && !status.success
        {
            if status.code == 0 {
                status.code = code.as_u16().into();
            }
            return status.into();
        }
        let text = String::from_utf8_lossy(&body);
        let (resource, name) = &request.about;
        Status::generic_server_response(
            code.as_u16().into(),
            request.method.as_str(),
            resource,
            name,
            text.trim(),
            retry_after.map_or(0, |d| d.as_secs() as i32),
            true,
        )
        .into()
    }

    pub(crate) fn transport_error(
        &self,
        e: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        self.inner.transport.error(e)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.inner.config)
            .finish()
    }
}

fn impersonate(headers: &mut HeaderMap, i: &Impersonation) -> Result<(), ConfigError> {
    let bad = |what: &str| ConfigError::Missing(format!("cannot impersonate {what:?}"));
    let value = |s: &str| HeaderValue::from_str(s).map_err(|_| bad(s));
    headers.insert("impersonate-user", value(&i.user)?);
    if let Some(uid) = &i.uid {
        headers.insert("impersonate-uid", value(uid)?);
    }
    for group in &i.groups {
        headers.append("impersonate-group", value(group)?);
    }
    for (key, values) in &i.extra {
        let key: String =
            percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC)
                .collect();
        let name: HeaderName = format!("impersonate-extra-{key}")
            .parse()
            .map_err(|_| bad(&key))?;
        for v in values {
            headers.append(name.clone(), value(v)?);
        }
    }
    Ok(())
}

fn content_type(headers: &HeaderMap) -> String {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    text.to_owned()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
