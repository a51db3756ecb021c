//! Credential provider plugins (`--image-credential-provider-config`, KEP-2133): programs that know
//! credentials for some images. What they say is kept as long as they say; a plugin may be told the
//! pod's service account, with a token of it (KEP-4412).
//!
//! A plugin that fails is logged, and the pull goes on without it.

mod cache;
mod config;
mod exec;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Api, Client};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use parking_lot::Mutex;
use prometheus::{DEFAULT_BUCKETS, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use sha2::Digest as _;
use tracing::{debug, error};

use self::cache::{Cache, Key, Scope};
use self::config::{ConfigError, Provider, TokenAttributes};
use self::exec::{ExecError, Program, Response};
use super::keyring::{Coordinates, Credential, Keyring, Login, Source, matches};
use crate::pods::pod::PodExt;
use crate::volumes::Tokens;

/// Why there are no plugins.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("plugin binary directory {0} did not exist")]
    NoDirectory(String),
    #[error("error inspecting binary directory {0}: {1}")]
    Directory(String, std::io::Error),
    #[error("plugin binary executable {0} did not exist")]
    NoProgram(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Why a plugin gave nothing.
#[derive(Debug, thiserror::Error)]
enum ProvideError {
    #[error("failed to get service account: {0}")]
    Account(String),
    #[error("failed to get service account token: {0}")]
    Token(#[from] crate::volumes::TokenError),
    #[error("failed to get credential from external registry credential provider: {0}")]
    Exec(ExecError),
    #[error(
        "credential provider plugin returned the service account token as the password which is not allowed when \
         service account cache type is not set to 'Token'"
    )]
    Echo,
    #[error("credential provider plugin did not return a valid cacheKeyType: {0}")]
    KeyType(String),
}

/// Where plugins' tokens come from.
pub struct Accounts {
    pub api: Option<Client>,
    pub tokens: Arc<Tokens>,
}

struct Metrics {
    errors: IntCounterVec,
    duration: HistogramVec,
}

impl Metrics {
    fn register(registry: &prometheus::Registry, hash: &str) -> prometheus::Result<Self> {
        let labels = &["plugin_name"];
        let errors = Opts::new(
            "kubelet_credential_provider_plugin_errors_total",
            "Number of runs of credential provider plugins that failed.",
        );
        let duration = HistogramOpts::new(
            "kubelet_credential_provider_plugin_duration",
            "Seconds that credential provider plugins ran.",
        );
        let info = Opts::new(
            "kubelet_credential_provider_config_info",
            "The hash of the credential providers' configuration.",
        );
        let metrics = Self {
            errors: IntCounterVec::new(errors, labels)?,
            duration: HistogramVec::new(duration.buckets(DEFAULT_BUCKETS.to_vec()), labels)?,
        };
        let info = IntGaugeVec::new(info, &["hash"])?;
        info.with_label_values(&[hash]).set(1);
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(info))?;
        Ok(metrics)
    }
}

/// All plugins.
pub struct Plugins {
    plugins: Vec<Plugin>,
    accounts: Accounts,
}

/// What several pulls wait for together.
type Flight = Shared<BoxFuture<'static, Result<Arc<Response>, ExecError>>>;

struct Plugin {
    match_images: Vec<String>,
    /// `None`: it is told of no service account.
    account: Option<TokenAttributes>,
    default_duration: Duration,
    program: Arc<Program>,
    metrics: Arc<Metrics>,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<Key, Flight>>,
}

/// What a plugin is told of a service account.
#[derive(Debug, Default)]
struct Account {
    coordinates: Coordinates,
    annotations: BTreeMap<String, String>,
    token: String,
}

impl Plugins {
    /// Reads the configuration and finds the programs. `tokens`: whether plugins may be told of
    /// service accounts (KubeletServiceAccountTokenForCredentialProviders).
    ///
    /// # Errors
    /// When the configuration cannot be used, or a program is not there.
    pub fn open(
        config: &Path,
        directory: &Path,
        tokens: bool,
        accounts: Accounts,
        registry: &prometheus::Registry,
    ) -> Result<Self, SetupError> {
        let shown = directory.display().to_string();
        match std::fs::metadata(directory) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SetupError::NoDirectory(shown));
            }
            Err(error) => return Err(SetupError::Directory(shown, error)),
        }
        let (providers, hash) = config::read(config, tokens)?;
        let metrics = Arc::new(Metrics::register(registry, &hash)?);
        let plugin = |provider| Plugin::new(provider, directory, tokens, metrics.clone());
        let plugins = providers.into_iter().map(plugin);
        Ok(Self {
            plugins: plugins.collect::<Result<_, _>>()?,
            accounts,
        })
    }

    /// What all of them say about a repository, for a pod.
    pub async fn lookup(&self, repository: &str, pod: &Pod) -> Vec<Credential> {
        let mut keyring = Keyring::default();
        for plugin in &self.plugins {
            if !plugin.match_images.iter().any(|p| matches(p, repository)) {
                continue;
            }
            match plugin.provide(repository, pod, &self.accounts).await {
                Ok(found) => {
                    for (image, credential) in found {
                        keyring.add(&image, credential);
                    }
                }
                Err(error) => error!(
                    %error, provider = plugin.program.name, image = repository, pod = %pod.full_name(),
                    "Failed to provide credentials for image"
                ),
            }
        }
        keyring.lookup(repository)
    }
}

impl Plugin {
    fn new(
        provider: Provider,
        directory: &Path,
        tokens: bool,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.join(&provider.name);
        let runs = std::fs::metadata(&path)
            .is_ok_and(|meta| !meta.is_dir() && meta.permissions().mode() & 0o111 != 0);
        if !runs {
            return Err(SetupError::NoProgram(path.display().to_string()));
        }
        let duration = provider.default_cache_duration.map(|d| d.get());
        Ok(Self {
            match_images: provider.match_images,
            account: provider.token_attributes.filter(|_| tokens),
            default_duration: duration.unwrap_or_default(),
            program: Arc::new(Program {
                name: provider.name,
                path,
                api_version: provider.api_version,
                args: provider.args,
                env: provider.env,
            }),
            metrics,
            cache: Mutex::default(),
            flights: Mutex::default(),
        })
    }

    async fn provide(
        &self,
        image: &str,
        pod: &Pod,
        accounts: &Accounts,
    ) -> Result<Vec<(String, Credential)>, ProvideError> {
        let mut scope = Scope::default();
        let mut account = Account::default();
        let mut source = Source::Node;
        if let Some(attributes) = &self.account {
            let name = pod.pod_spec().service_account_name.clone();
            let name = name.unwrap_or_default();
            if name.is_empty() && attributes.require_service_account == Some(true) {
                debug!(image, "Service account name is empty");
                return Ok(Vec::new());
            }
            if !name.is_empty() {
                let Some(found) = accounts.get(attributes, pod, &name).await? else {
                    return Ok(Vec::new());
                };
                account = found;
                source = Source::ServiceAccount(account.coordinates.clone());
                scope = Scope::of(&account, attributes.cache_type == "Token");
            }
        }
        let login = |(image, login): (&String, &Login)| {
            let (login, source) = (login.clone(), source.clone());
            (image.clone(), Credential { login, source })
        };
        let cached = self.cache.lock().get(image, &scope, Instant::now());
        if let Some(logins) = cached {
            return Ok(logins.iter().map(login).collect());
        }
        let response = self
            .ask(image, &account)
            .await
            .map_err(ProvideError::Exec)?;
        let auth = response.auth.iter().flatten();
        let may_echo = self
            .account
            .as_ref()
            .is_none_or(|a| a.cache_type == "Token");
        if !account.token.is_empty()
            && !may_echo
            && auth.clone().any(|(_, auth)| auth.password == account.token)
        {
            return Err(ProvideError::Echo);
        }
        let key = cache::key(&response.cache_key_type, image)
            .ok_or_else(|| ProvideError::KeyType(response.cache_key_type.clone()))?;
        let logins: BTreeMap<String, Login> = auth
            .map(|(image, auth)| {
                let login = Login {
                    username: auth.username.clone(),
                    password: auth.password.clone(),
                    email: String::new(),
                };
                (image.clone(), login)
            })
            .collect();
        let found = logins.iter().map(login).collect();
        let kept = response.cache_duration.map(|duration| duration.get());
        let kept = kept.unwrap_or(self.default_duration);
        if !kept.is_zero() {
            let until = Instant::now() + kept;
            self.cache.lock().put(key, scope, logins, until);
        }
        Ok(found)
    }

    /// Runs the program, once for all who ask the same at the same time.
    async fn ask(&self, image: &str, account: &Account) -> Result<Arc<Response>, ExecError> {
        let key = Key {
            about: image.to_owned(),
            scope: Scope::of(account, true),
        };
        let start = || {
            let (program, metrics) = (self.program.clone(), self.metrics.clone());
            let mut request = program.request(image);
            request.service_account_token.clone_from(&account.token);
            request.service_account_annotations = account.annotations.clone();
            // As a task: who began it may give up while others wait.
            let run = tokio::spawn(async move {
                let started = Instant::now();
                let result = program.run(request).await;
                let name = [program.name.as_str()];
                let duration = metrics.duration.with_label_values(&name);
                duration.observe(started.elapsed().as_secs_f64());
                if matches!(result, Err(ExecError::Run { .. })) {
                    metrics.errors.with_label_values(&name).inc();
                }
                result.map(Arc::new)
            });
            let ended = async { run.await.unwrap_or(Err(ExecError::Response)) };
            ended.boxed().shared()
        };
        let flight = {
            let mut flights = self.flights.lock();
            flights.entry(key.clone()).or_insert_with(start).clone()
        };
        let result = flight.clone().await;
        let mut flights = self.flights.lock();
        if flights.get(&key).is_some_and(|other| other.ptr_eq(&flight)) {
            flights.remove(&key);
        }
        result
    }
}

impl Accounts {
    /// The pod's account with a token; `None` where the account lacks an annotation that would let
    /// it be told.
    async fn get(
        &self,
        attributes: &TokenAttributes,
        pod: &Pod,
        name: &str,
    ) -> Result<Option<Account>, ProvideError> {
        let failed = |why: String| ProvideError::Account(why);
        let client = self.api.as_ref();
        let client = client.ok_or_else(|| failed("there is no API server".into()))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, pod.namespace());
        let found = accounts.get(name).await;
        let meta = found.map_err(|error| failed(error.to_string()))?.metadata;
        let mut all = meta.annotations.unwrap_or_default();
        let required = &attributes.required_service_account_annotation_keys;
        if let Some(key) = required.iter().find(|key| !all.contains_key(*key)) {
            debug!(account = name, "required annotation {key} not found");
            return Ok(None);
        }
        let optional = &attributes.optional_service_account_annotation_keys;
        all.retain(|key, _| required.contains(key) || optional.contains(key));
        let audience = &attributes.service_account_token_audience;
        Ok(Some(Account {
            coordinates: Coordinates {
                namespace: pod.namespace().to_owned(),
                name: name.to_owned(),
                uid: meta.uid.unwrap_or_default(),
            },
            annotations: all,
            token: self.tokens.get(pod, audience, None).await?,
        }))
    }
}

impl Scope {
    /// What is kept for an account: for all its pods, or for who has that very token.
    fn of(account: &Account, by_token: bool) -> Self {
        let token = Some(&account.token).filter(|token| by_token && !token.is_empty());
        Self {
            account: account.coordinates.clone().into(),
            annotations: account.annotations.clone(),
            // Tokens are not kept longer than they are used.
            token: token.map(|token| sha2::Sha256::digest(token).into()),
        }
    }
}
