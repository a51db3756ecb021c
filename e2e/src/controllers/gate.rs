//! A proxy between a manager and its API server that lets writes through up to one that is the
//! last of a life. That one it does not answer: what was written is stored, and the manager does
//! not know. Then it is time to kill it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::stand::{Connection, Stand};

/// Which writes are the last of a manager's life.
#[derive(Debug, Clone, Copy)]
pub enum Lives {
    /// None is.
    Endless,
    /// Every so-many-eth.
    Writes(u64),
    /// Of each kind of write the first, and then others in lives of some length until there were
    /// so many: a manager that is killed all the time gets nothing done.
    Kinds(u64),
}

impl fmt::Display for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endless => f.write_str("never killed"),
            Self::Writes(writes) => write!(f, "killed after every {writes} writes"),
            Self::Kinds(each) => write!(f, "killed after {each} writes of each kind"),
        }
    }
}

/// How long a life lasts before a kind of write ends it that has ended one already.
const LIFE: Duration = Duration::from_secs(6);

/// What was seen of one kind of write.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub passed: u64,
    pub last: u64,
}

#[derive(Debug)]
struct Count {
    born: Instant,
    /// Writes of this life so far.
    passed: u64,
    /// Whether the last one of this life has been let through.
    closed: bool,
    under_way: u64,
    /// Goes up when the gate is opened anew: what was held before stays held.
    epoch: u64,
    /// How many ask for a life that lasts so long.
    asked: BTreeMap<Duration, u64>,
    /// By who writes what how.
    seen: BTreeMap<String, Seen>,
}

pub struct Gate {
    pub port: u16,
    lives: Lives,
    count: Mutex<Count>,
    spent: Notify,
}

/// Somebody waits for what a longer life brings.
pub struct Spared {
    gate: Arc<Gate>,
    life: Duration,
}

impl Drop for Spared {
    fn drop(&mut self) {
        let mut count = self.gate.count();
        if let Some(asked) = count.asked.get_mut(&self.life) {
            *asked -= 1;
        }
        count.asked.retain(|_, asked| *asked > 0);
    }
}

impl Gate {
    /// Listens, and lets the writes of the first life pass.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn open(stand: &Stand, lives: Lives) -> Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let pki = &stand.pki;
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(pki.path("apiserver.crt"))?],
            PrivateKeyDer::from_pem_file(pki.path("apiserver.key"))?,
        )?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let gate = Arc::new(Self {
            port: listener.local_addr()?.port(),
            lives,
            count: Mutex::new(Count {
                born: Instant::now(),
                passed: 0,
                closed: false,
                under_way: 0,
                epoch: 0,
                asked: BTreeMap::new(),
                seen: BTreeMap::new(),
            }),
            spent: Notify::new(),
        });
        let accepting = Arc::downgrade(&gate);
        let endpoint = stand.endpoint.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Some(gate) = accepting.upgrade() else {
                    return;
                };
                let (acceptor, endpoint) = (acceptor.clone(), endpoint.clone());
                tokio::spawn(async move {
                    // A manager that was killed leaves in the middle of anything.
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let Ok(server) = endpoint.connect().await else {
                        return;
                    };
                    let service =
                        service_fn(|request| Arc::clone(&gate).pass(server.clone(), request));
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(gate)
    }

    /// A new life begins.
    pub fn reopen(&self) {
        let mut count = self.count();
        count.born = Instant::now();
        count.passed = 0;
        count.closed = false;
        count.under_way = 0;
        count.epoch += 1;
    }

    /// Lets no life end earlier until this is dropped. A manager whose lives are all shorter
    /// than what it counts never gets to it: that is no fault of it.
    pub fn spare(self: &Arc<Self>, life: Duration) -> Spared {
        *self.count().asked.entry(life).or_default() += 1;
        Spared {
            gate: Arc::clone(self),
            life,
        }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().expect("no panic under the lock")
    }

    /// Waits for the end of a life.
    pub async fn spent(&self) {
        self.spent.notified().await;
    }

    /// The kinds of writes that there were.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        let count = self.count();
        count.seen.clone()
    }

    /// How many have passed in all.
    pub fn passed(&self) -> u64 {
        let count = self.count();
        count.seen.values().map(|seen| seen.passed).sum()
    }

    async fn pass(
        self: Arc<Self>,
        server: Connection,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>> {
        let counted = is_counted(&request);
        let epoch = if counted {
            self.enter(kind(&request)).await
        } else {
            0
        };
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = parts.uri.path_and_query().context("a request has a path")?;
        let mut on = Request::builder()
            .method(parts.method)
            .uri(format!("https://{}{path}", server.authority()));
        for (name, value) in &parts.headers {
            // The gate speaks for the manager, as the administrator.
            if name != header::AUTHORIZATION && name != header::HOST {
                on = on.header(name, value);
            }
        }
        let answer = server.send(on.body(Full::<Bytes>::new(body))?).await;
        if counted {
            self.leave(epoch).await;
        }
        answer
    }

    /// Waits for the right to write; for ever, after the last.
    async fn enter(&self, kind: String) -> u64 {
        let entered = {
            let mut count = self.count();
            count.enter(self.lives, kind).then_some(count.epoch)
        };
        match entered {
            Some(epoch) => epoch,
            None => std::future::pending().await,
        }
    }

    /// Returns unless this was the last, or under way with it.
    async fn leave(&self, epoch: u64) {
        let (over, all) = {
            let mut count = self.count();
            if count.epoch == epoch {
                count.under_way -= 1;
            }
            let over = count.epoch != epoch || count.closed;
            (over, count.epoch == epoch && count.under_way == 0)
        };
        if over {
            if all {
                self.spent.notify_one();
            }
            std::future::pending::<()>().await;
        }
    }
}

impl Count {
    /// False when the last one has been let through.
    fn enter(&mut self, lives: Lives, kind: String) -> bool {
        if self.closed {
            return false;
        }
        self.under_way += 1;
        self.passed += 1;
        let seen = self.seen.entry(kind).or_default();
        seen.passed += 1;
        let life = self.asked.keys().next_back().copied().unwrap_or_default();
        self.closed = match lives {
            _ if self.born.elapsed() < life => false,
            Lives::Endless => false,
            Lives::Writes(writes) => self.passed >= writes,
            Lives::Kinds(each) => {
                seen.last == 0 || (seen.last < each && self.born.elapsed() >= LIFE)
            }
        };
        seen.last += u64::from(self.closed);
        true
    }
}

/// Who writes what how: the part of the manager, the method, and the resource.
fn kind(request: &Request<Incoming>) -> String {
    let agent = request.headers().get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    let part = agent.and_then(|agent| agent.rsplit('/').next());
    let mut path = request.uri().path().split('/').skip(1);
    // The version is behind the group, where there is one.
    let before = usize::from(path.next() == Some("apis"));
    path.nth(before);
    let path: Vec<&str> = path.collect();
    let (resource, sub) = match path[..] {
        ["namespaces", _, sub @ ("status" | "finalize")] => ("namespaces", Some(sub)),
        ["namespaces", _, resource, _, sub] => (resource, Some(sub)),
        ["namespaces", _, resource, ..] => (resource, None),
        [resource, _, sub] => (resource, Some(sub)),
        _ => (path.first().copied().unwrap_or_default(), None),
    };
    let sub = sub.map(|sub| format!("/{sub}")).unwrap_or_default();
    let part = part.unwrap_or_default();
    format!("{part}: {} {resource}{sub}", request.method())
}

/// Writes of objects. Events and leases change nothing that a controller reads, and questions
/// store nothing.
fn is_counted(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let asks = ["/events", "/leases", "reviews", "/token"];
    *request.method() != Method::GET && !asks.iter().any(|part| path.contains(part))
}
