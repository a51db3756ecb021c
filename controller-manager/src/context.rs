//! What every controller is given: caches, clients, queues, events, the clock, the options.

use std::sync::Arc;

use client::workqueue::{Backoff, Key, MetricsProvider, Queue, Requeue};
use client::{Client, Error, Informer, Informers, Kind, ObjectKey};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::events::Recorder;
use crate::kinds::Pod;
use crate::metrics::Meter;
use crate::options::Options;

/// A controller, once it has been set up: it runs until the context's token is cancelled.
pub type Run = BoxFuture<'static, ()>;

/// What every controller is given. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub options: Arc<Options>,
    /// One cache per kind for the whole process.
    pub informers: Informers,
    pub stop: CancellationToken,
    pub meter: Meter,
    clients: Arc<Clients>,
    queues: MetricsProvider,
    recorder: client::events::Recorder,
}

/// Where controllers get their clients from.
pub struct Clients {
    root: Client,
    /// Each controller is a service account of its own.
    as_service_accounts: bool,
}

impl Context {
    pub fn new(
        options: Arc<Options>,
        root: Client,
        queues: MetricsProvider,
        meter: Meter,
        stop: CancellationToken,
    ) -> Self {
        let recorder = client::events::Recorder::start(&root, "kube-controller-manager", "", &stop);
        Self {
            recorder,
            informers: Informers::new(&root.for_part("shared-informers")),
            clients: Arc::new(Clients {
                as_service_accounts: options.generic.use_service_account_credentials,
                root,
            }),
            options,
            queues,
            meter,
            stop,
        }
    }

    /// The client of a controller: its own service account in `kube-system`, or the daemon's
    /// user under its name.
    pub fn client(&self, name: &str) -> anyhow::Result<Client> {
        let client = self.clients.root.for_part(name);
        if self.clients.as_service_accounts {
            return Ok(client.as_service_account("kube-system", name)?);
        }
        Ok(client)
    }

    /// The daemon's own user, for what must work before service accounts do.
    pub fn root_client(&self, name: &str) -> Client {
        self.clients.root.for_part(name)
    }

    /// Tells events in the name of `component`.
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.recorder.component(component))
    }

    /// The CA that the daemon's own connection trusts, as PEM.
    pub fn root_ca(&self) -> anyhow::Result<Option<String>> {
        let ca = &self.clients.root.config().certificate_authority;
        let Some(ca) = ca else { return Ok(None) };
        Ok(Some(String::from_utf8(ca.read()?)?))
    }

    /// A queue with upstream's name and default delays.
    pub fn queue<T: Key>(&self, name: &str) -> Queue<T> {
        self.queue_with(name, Backoff::default())
    }

    pub fn queue_with<T: Key>(&self, name: &str, backoff: Backoff) -> Queue<T> {
        Queue::with(backoff, Some(self.queues.queue(name)))
    }

    /// The shared cache of a kind.
    pub fn informer<K: Kind>(&self) -> Informer<K> {
        self.informers.get()
    }

    pub fn pods(&self) -> Informer<Pod> {
        self.informers.get()
    }
}

/// The time, in the seconds that the API keeps.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Adds the key of whatever changes to a queue.
pub fn enqueue_all<K: Kind>(informer: &Informer<K>, queue: &Queue<ObjectKey>) {
    let queue = queue.clone();
    informer.add_handler(move |event| queue.add(event.key()));
}

/// A conflict is no failure: somebody was faster, and the key comes back to see what they did.
pub fn retry_conflicts(result: Result<Requeue, Error>) -> Result<Requeue, Error> {
    match result {
        Err(e) if e.is_conflict() => {
            tracing::debug!(%e, "conflict, trying again");
            Ok(Requeue::Backoff)
        }
        other => other,
    }
}
