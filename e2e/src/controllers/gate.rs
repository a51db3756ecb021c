//! A proxy between a manager and its API server that lets so many writes through. After the
//! last of them it answers nothing more: what was written is stored, and the manager does
//! not know. Then it is time to kill it.

use std::sync::{Arc, Mutex};

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

/// What may still pass.
#[derive(Debug, Default)]
struct Count {
    left: u64,
    under_way: u64,
    /// Goes up when the gate is opened anew: what was held before stays held.
    epoch: u64,
    passed: u64,
}

pub struct Gate {
    pub port: u16,
    writes: u64,
    count: Mutex<Count>,
    spent: Notify,
}

impl Gate {
    /// Listens, and lets `writes` pass.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn open(stand: &Stand, writes: u64) -> Result<Arc<Self>> {
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
            writes,
            count: Mutex::new(Count {
                left: writes,
                ..Count::default()
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

    /// Lets as many writes pass as at first.
    pub fn reopen(&self) {
        let mut count = self.count.lock().expect("no panic under the lock");
        count.left = self.writes;
        count.under_way = 0;
        count.epoch += 1;
    }

    /// Waits until all have passed.
    pub async fn spent(&self) {
        self.spent.notified().await;
    }

    /// How many have passed in all.
    pub fn passed(&self) -> u64 {
        self.count.lock().expect("no panic under the lock").passed
    }

    async fn pass(
        self: Arc<Self>,
        server: Connection,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>> {
        let counted = is_counted(&request);
        let epoch = if counted { self.enter().await } else { 0 };
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

    /// Waits for the right to write; for ever, when it is used up.
    async fn enter(&self) -> u64 {
        let entered = {
            let mut count = self.count.lock().expect("no panic under the lock");
            if count.left == 0 {
                None
            } else {
                count.left -= 1;
                count.under_way += 1;
                count.passed += 1;
                Some(count.epoch)
            }
        };
        match entered {
            Some(epoch) => epoch,
            None => std::future::pending().await,
        }
    }

    /// Returns unless this was the last.
    async fn leave(&self, epoch: u64) {
        let last = {
            let mut count = self.count.lock().expect("no panic under the lock");
            if count.epoch == epoch {
                count.under_way -= 1;
            }
            count.epoch == epoch && count.left == 0 && count.under_way == 0
        };
        if last {
            self.spent.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// Writes of objects. Events and leases change nothing that a controller reads, and questions
/// store nothing.
fn is_counted(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let asks = ["/events", "/leases", "reviews", "/token"];
    *request.method() != Method::GET && !asks.iter().any(|part| path.contains(part))
}
