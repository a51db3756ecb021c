//! Bearer tokens: literal, from a file that rotates, or requested from the API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderValue;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::Api;
use crate::client::Client;
use crate::config::Auth;
use crate::error::Error;

/// Gives the token for a request. Called for every request, so it caches.
pub trait TokenSource: Send + Sync {
    fn token(&self) -> BoxFuture<'_, Result<String, Error>>;

    /// The server did not accept the token: do not hand it out again.
    fn reject(&self) {}
}

/// How requests say who they come from.
#[derive(Clone)]
pub(crate) enum Credentials {
    None,
    Header(HeaderValue),
    File(Arc<TokenFile>),
    Source(Arc<dyn TokenSource>),
}

impl Credentials {
    pub fn new(auth: &Auth) -> Result<Self, Error> {
        use base64::Engine as _;
        Ok(match auth {
            Auth::None => Self::None,
            Auth::Token(token) => Self::Header(bearer(token)?),
            Auth::TokenFile(path) => Self::File(Arc::new(TokenFile {
                path: path.clone(),
                cached: Mutex::new(None),
            })),
            Auth::Basic { username, password } => {
                let pair = format!("{username}:{password}");
                let text = base64::engine::general_purpose::STANDARD.encode(pair);
                Self::Header(sensitive(&format!("Basic {text}"))?)
            }
        })
    }

    pub async fn header(&self) -> Result<Option<HeaderValue>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Header(value) => Ok(Some(value.clone())),
            Self::File(file) => file.header().map(Some),
            Self::Source(source) => bearer(&source.token().await?).map(Some),
        }
    }

    pub fn reject(&self) {
        match self {
            Self::File(file) => *file.cached.lock() = None,
            Self::Source(source) => source.reject(),
            Self::None | Self::Header(_) => {}
        }
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::Credentials("the token holds characters that no header may".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    sensitive(&format!("Bearer {token}"))
}

pub(crate) struct TokenFile {
    path: PathBuf,
    cached: Mutex<Option<(HeaderValue, Instant)>>,
}

impl TokenFile {
    /// Kubelets rotate projected tokens long before they expire, so a minute is soon enough.
    const FRESH: Duration = Duration::from_secs(60);

    fn header(&self) -> Result<HeaderValue, Error> {
        let mut cached = self.cached.lock();
        if let Some((value, at)) = &*cached
            && at.elapsed() < Self::FRESH
        {
            return Ok(value.clone());
        }
        match std::fs::read_to_string(&self.path) {
            Ok(text) => {
                let value = bearer(text.trim())?;
                *cached = Some((value.clone(), Instant::now()));
                Ok(value)
            }
            Err(err) => match &*cached {
                // The old one may still do while the file is being replaced.
                Some((value, _)) => Ok(value.clone()),
                None => Err(Error::Credentials(format!(
                    "{}: {err}",
                    self.path.display()
                ))),
            },
        }
    }
}

/// Tokens of a service account, requested with the daemon's own credentials and renewed
/// before they expire: what `--use-service-account-credentials` stands for. The service
/// account is created if there is none.
pub struct ServiceAccountTokens {
    api: Api<ServiceAccount>,
    name: String,
    cached: tokio::sync::Mutex<Option<Cached>>,
}

struct Cached {
    token: String,
    renew: Instant,
}

impl ServiceAccountTokens {
    /// What upstream asks for; the server may give less.
    const LIFETIME: Duration = Duration::from_secs(3600);

    /// `client` must be allowed to create tokens and service accounts in `namespace`.
    pub fn new(client: &Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            cached: tokio::sync::Mutex::new(None),
        }
    }

    async fn request(&self) -> Result<Cached, Error> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(Self::LIFETIME.as_secs() as i64),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer: TokenRequest = match self
            .api
            .create_subresource(&self.name, "token", &request)
            .await
        {
            Err(e) if e.is_not_found() => {
                let account = ServiceAccount {
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                        name: Some(self.name.clone()),
                        namespace: Some(self.api.namespace().to_owned()),
                        ..Default::default()
                    },
                    ..ServiceAccount::default()
                };
                match self.api.create(&account).await {
                    Err(e) if !e.is_already_exists() => return Err(e),
                    _ => {}
                }
                self.api
                    .create_subresource(&self.name, "token", &request)
                    .await?
            }
            other => other?,
        };
        let status = answer.status.unwrap_or_default();
        let token = status
            .token
            .filter(|t| !t.is_empty())
            .ok_or_else(|| Error::Decode {
                what: "TokenRequest".into(),
                message: "the server issued no token".into(),
            })?;
        let lifetime = status
            .expiration_timestamp
            .and_then(|t| t.0.duration_since(jiff::Timestamp::now()).try_into().ok())
            .unwrap_or(Self::LIFETIME);
        Ok(Cached {
            token,
            renew: Instant::now() + lifetime.mul_f32(0.8),
        })
    }
}

impl TokenSource for ServiceAccountTokens {
    fn token(&self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(async move {
            let mut cached = self.cached.lock().await;
            if let Some(c) = &*cached
                && Instant::now() < c.renew
            {
                return Ok(c.token.clone());
            }
            let fresh = self.request().await?;
            let token = fresh.token.clone();
            *cached = Some(fresh);
            Ok(token)
        })
    }

    fn reject(&self) {
        // A request that is being answered right now keeps its token; the next one asks anew.
        if let Ok(mut cached) = self.cached.try_lock() {
            *cached = None;
        }
    }
}
