//! Sees to it that an image is on the node, within its pull policy, and backs off from pulls that
//! fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::rate_limit::TokenBucket;
use component::flags::GoDuration;
use grpc::cri;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::credentials::{self, NodeFiles};
use super::keyring::Credential;
use super::plugins::Plugins;
use super::records::{Records, Verdict};
use super::reference::Reference;
use crate::cri::backoff::Backoff;
use crate::cri::client::{CriClient, CriError};
use crate::events::{Events, Kind};
use crate::pods::pod::PodExt;

/// Why a container's image is not there: the reason and message of its waiting state.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    pub reason: &'static str,
    pub message: String,
    /// When trying again makes sense; `None`: whenever the pod is synced.
    pub retry_after: Option<Duration>,
}

/// One image that a pod needs.
pub struct PullRequest<'a> {
    pub pod: &'a Pod,
    /// The container that the events are about; none for an image volume.
    pub container: Option<&'a Container>,
    pub image: &'a str,
    /// `Always`, `IfNotPresent` or `Never`.
    pub policy: &'a str,
    pub secrets: &'a [Arc<Secret>],
    pub sandbox: &'a cri::PodSandboxConfig,
}

/// How many pulls there may be.
#[derive(Debug, Clone, Copy)]
pub struct PullLimits {
    /// At once.
    pub parallel: usize,
    /// On average (`registryPullQPS`); zero is no limit.
    pub per_second: i32,
    /// At first, and after a rest.
    pub burst: u32,
}

/// Why an image is not pulled.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("pull QPS exceeded")]
    TooMany,
    #[error(transparent)]
    Runtime(#[from] CriError),
}

struct Failures {
    backoff: Backoff,
    /// The last error by key, for the message of a pull that is held back.
    messages: HashMap<String, String>,
}

/// Where credentials come from that no pod brings.
pub struct CredentialSources {
    pub files: NodeFiles,
    pub plugins: Option<Plugins>,
}

impl CredentialSources {
    /// All that fit an image, in the order in which they are tried: the pod's own, the node's, and
    /// what plugins say.
    async fn lookup(&self, request: &PullRequest<'_>, name: &str) -> Vec<Credential> {
        let repository = Reference::parse(name).map(|r| r.repository);
        let repository = repository.unwrap_or_default();
        let mut found = credentials::of_secrets(request.secrets).lookup(&repository);
        found.extend(self.files.read().lookup(&repository));
        if let Some(plugins) = &self.plugins {
            found.extend(plugins.lookup(&repository, request.pod).await);
        }
        found
    }
}

/// The node's images.
pub struct Images {
    client: CriClient,
    events: Arc<Events>,
    sources: CredentialSources,
    /// Who may use what is there; `None`: everybody.
    records: Option<Arc<Records>>,
    failures: Mutex<Failures>,
    /// One pull at a time, or as many as configured.
    pulls: Semaphore,
    /// Pulls beyond the rate fail, and are tried again as any that failed.
    rate: Option<TokenBucket>,
}

impl Images {
    pub fn new(
        client: CriClient,
        events: Arc<Events>,
        sources: CredentialSources,
        records: Option<Arc<Records>>,
        limits: PullLimits,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        Self {
            client,
            events,
            sources,
            records,
            failures: Mutex::new(Failures {
                backoff,
                messages: HashMap::new(),
            }),
            pulls: Semaphore::new(limits.parallel.clamp(1, Semaphore::MAX_PERMITS)),
            rate: (limits.per_second > 0)
                .then(|| TokenBucket::new(limits.per_second.into(), limits.burst)),
        }
    }

    /// Finds or pulls the image, and returns what the runtime calls it.
    ///
    /// # Errors
    /// When it is not there and may not, cannot or should not yet be pulled.
    pub async fn ensure(&self, request: &PullRequest<'_>) -> Result<String, ImageError> {
        let warn = |reason: &'static str, message: &str| {
            self.event(request, Kind::Warning, reason, message)
        };
        let failed = |reason, message| ImageError {
            reason,
            message,
            retry_after: None,
        };
        let name = Reference::with_default_tag(request.image).map_err(|error| {
            let message = format!(
                "Failed to apply default image tag {:?}: {error}",
                request.image
            );
            warn("InspectFailed", &message);
            failed("InvalidImageName", message)
        })?;
        let spec = cri::ImageSpec {
            image: name.clone(),
            annotations: request.pod.metadata.annotations.clone().unwrap_or_default(),
            ..Default::default()
        };
        let mut credentials = None;
        if request.policy != "Always" {
            let present = self
                .client
                .image_status(spec.clone())
                .await
                .map_err(|error| {
                    let message = format!("Failed to inspect image {name:?}: {error}");
                    warn("InspectFailed", &message);
                    failed("ImageInspectError", message)
                })?;
            let usable = match present {
                Some(image) => {
                    let usable = self.may_use(request, &name, &image.id, &mut credentials);
                    usable.await.then_some(image)
                }
                None => None,
            };
            match usable {
                Some(image) => {
                    let message = format!(
                        "Container image {:?} already present on machine and can be accessed by the pod",
                        request.image
                    );
                    self.event(request, Kind::Normal, "Pulled", &message);
                    return Ok(image.id);
                }
                None if request.policy == "Never" => {
                    let message = format!(
                        "Container image {:?} is not present with pull policy of Never",
                        request.image
                    );
                    warn("ErrImageNeverPull", &message);
                    return Err(failed("ErrImageNeverPull", message));
                }
                None => {}
            }
        }
        self.pull(request, spec, credentials).await
    }

    /// Whether the pod may use an image that is there. What its credentials are is told, if that
    /// was to be known.
    async fn may_use(
        &self,
        request: &PullRequest<'_>,
        name: &str,
        image_ref: &str,
        credentials: &mut Option<Vec<Credential>>,
    ) -> bool {
        let Some(records) = &self.records else {
            return true;
        };
        match records.check(request.image, image_ref) {
            Verdict::Allowed => true,
            Verdict::MustPull => false,
            Verdict::Needs(access) => {
                let found = credentials.insert(self.sources.lookup(request, name).await);
                records.admits(&access, found, request.image, image_ref, Timestamp::now())
            }
        }
    }

    async fn pull(
        &self,
        request: &PullRequest<'_>,
        spec: cri::ImageSpec,
        credentials: Option<Vec<Credential>>,
    ) -> Result<String, ImageError> {
        let image = request.image;
        let key = format!("{}_{image}", request.pod.uid());
        self.hold_back(request, &key)?;
        let begun = match &self.records {
            Some(records) => Some(Begun::new(records, image)?),
            None => None,
        };

        self.event(
            request,
            Kind::Normal,
            "Pulling",
            &format!("Pulling image {image:?}"),
        );
        let asked = Instant::now();
        // The semaphore is never closed.
        let _turn = self.pulls.acquire().await;
        let started = Instant::now();
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => self.sources.lookup(request, &spec.image).await,
        };
        let result = self.pull_with_any(request, &spec, credentials).await;
        match result {
            Ok((reference, credential)) => {
                if let Some(mut begun) = begun {
                    begun.pulled = Some((reference.clone(), credential));
                }
                let size = self
                    .client
                    .image_status(spec)
                    .await
                    .ok()
                    .flatten()
                    .map_or(0, |image| image.size);
                let message = format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {size} bytes.",
                    go_duration(started.elapsed()),
                    go_duration(asked.elapsed()),
                );
                self.event(request, Kind::Normal, "Pulled", &message);
                self.failures.lock().backoff.collect(Timestamp::now());
                Ok(reference)
            }
            Err(error) => {
                let text = format!("Failed to pull image {image:?}: {error}");
                self.event(request, Kind::Warning, "Failed", &text);
                let (reason, message) = classify(image, &error);
                let mut failures = self.failures.lock();
                let now = Timestamp::now();
                failures.backoff.next(&key, now, now);
                failures
                    .messages
                    .insert(key.clone(), format!("{reason}: {message}"));
                Err(ImageError {
                    reason,
                    message,
                    retry_after: Some(failures.backoff.get(&key)),
                })
            }
        }
    }

    fn hold_back(&self, request: &PullRequest<'_>, key: &str) -> Result<(), ImageError> {
        let mut failures = self.failures.lock();
        let now = Timestamp::now();
        if !failures.backoff.in_backoff_since_update(key, now) {
            failures.messages.remove(key);
            return Ok(());
        }
        let mut message = format!("Back-off pulling image {:?}", request.image);
        self.event(request, Kind::Normal, "BackOff", &message);
        if let Some(last) = failures.messages.get(key) {
            message = format!("{message}: {last}");
        }
        Err(ImageError {
            reason: "ImagePullBackOff",
            message,
            retry_after: Some(failures.backoff.get(key)),
        })
    }

    /// Tries every credential that fits, or none where none does.
    async fn pull_with_any(
        &self,
        request: &PullRequest<'_>,
        spec: &cri::ImageSpec,
        credentials: Vec<Credential>,
    ) -> Result<(String, Option<Credential>), PullError> {
        if self.rate.as_ref().is_some_and(|rate| !rate.try_take()) {
            return Err(PullError::TooMany);
        }
        let mut tries: Vec<_> = credentials.into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut last = None;
        for credential in tries {
            let auth = credential.as_ref().map(Credential::auth);
            match self
                .client
                .pull_image(spec.clone(), auth, request.sandbox.clone())
                .await
            {
                Ok(reference) => return Ok((reference, credential)),
                Err(error) => last = Some(error),
            }
        }
        let last = last.unwrap_or(CriError {
            code: tonic::Code::Internal,
            message: "no pull was tried".into(),
        });
        Err(last.into())
    }

    fn event(&self, request: &PullRequest<'_>, kind: Kind, reason: &'static str, message: &str) {
        match request.container {
            Some(container) => {
                self.events
                    .container(request.pod, &container.name, kind, reason, message)
            }
            None => self.events.pod(request.pod, kind, reason, message),
        }
    }
}

/// A pull that is under way. It ends when this is dropped, whichever way it went.
struct Begun<'a> {
    records: &'a Records,
    image: &'a str,
    /// What the runtime calls the image, and the credential that let it be pulled.
    pulled: Option<(String, Option<Credential>)>,
}

impl<'a> Begun<'a> {
    fn new(records: &'a Records, image: &'a str) -> Result<Self, ImageError> {
        records.begin(image).map_err(|error| ImageError {
            reason: "ErrImagePull",
            message: format!(
                "Failed to record image pull intent for container image {image:?}: {error}"
            ),
            retry_after: None,
        })?;
        Ok(Self {
            records,
            image,
            pulled: None,
        })
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let pulled = self.pulled.as_ref();
        let pulled = pulled.map(|(reference, used)| (reference.as_str(), used.as_ref()));
        self.records.end(self.image, pulled, Timestamp::now());
    }
}

fn classify(image: &str, error: &PullError) -> (&'static str, String) {
    let PullError::Runtime(error) = error else {
        return ("ErrImagePull", error.to_string());
    };
    for (prefix, reason, why) in [
        (
            "RegistryUnavailable",
            "RegistryUnavailable",
            "the registry is unavailable",
        ),
        (
            "SignatureValidationFailed",
            "SignatureValidationFailed",
            "the signature validation failed",
        ),
    ] {
        if let Some(rest) = error.message.strip_prefix(prefix) {
            return (
                reason,
                format!("image pull failed for {image} because {why}{rest}"),
            );
        }
    }
    ("ErrImagePull", error.to_string())
}

/// A duration in milliseconds as Go prints it.
fn go_duration(duration: Duration) -> GoDuration {
    GoDuration::from_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
