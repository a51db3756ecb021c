//! Static pods that a server has (`staticPodURL`): asked for now and then.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::static_pod::{Known, MAX_MANIFEST, Origin, Terms};
use crate::event::{Event, Source};

/// An answer takes no longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects that are followed for one answer.
const MAX_REDIRECTS: usize = 10;
/// Failures in a row that are logged; the rest would say the same.
const LOGGED_FAILURES: u32 = 3;
/// Headers that are not for other servers.
const SECRETS: [&str; 4] = ["authorization", "cookie", "cookie2", "www-authenticate"];
/// Where distributions keep the authorities that they trust; the first that is there counts.
pub const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A server that has manifests.
pub struct Server {
    url: String,
    uri: Uri,
    headers: HeaderMap,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Server {
    /// # Errors
    /// When URL or headers make no request.
    pub fn new<'a>(
        url: &str,
        headers: impl Iterator<Item = (&'a String, &'a Vec<String>)>,
    ) -> anyhow::Result<Self> {
        let mut all = HeaderMap::new();
        for (name, values) in headers {
            for value in values {
                all.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
            }
        }
        let mut roots = rustls::RootCertStore::empty();
        let bundle = AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
        let certificates = CertificateDer::pem_slice_iter(bundle.as_deref().unwrap_or_default());
        roots.add_parsable_certificates(certificates.flatten());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        let client = Client::builder(TokioExecutor::new());
        Ok(Self {
            url: url.to_owned(),
            uri: url.parse()?,
            headers: all,
            client: client.build(connector.enable_http1().build()),
        })
    }

    /// The body of its answer.
    async fn get(&self) -> anyhow::Result<Bytes> {
        let mut uri = self.uri.clone();
        let mut headers = self.headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder()
                .method(Method::GET)
                .uri(&uri)
                .body(Empty::new())?;
            request.headers_mut().clone_from(&headers);
            let response = self.client.request(request).await?;
            let status = response.status();
            let location = response
                .headers()
                .get(LOCATION)
                .filter(|_| status.is_redirection());
            if let Some(location) = location {
                uri = redirected(&uri, location.to_str()?)?;
                // What tells who asks is for the server that was meant.
                if !is_of(&self.uri, &uri) {
                    for secret in SECRETS {
                        headers.remove(secret);
                    }
                }
                continue;
            }
            if status != http::StatusCode::OK {
                anyhow::bail!("{uri}: {status}");
            }
            let body = Limited::new(response.into_body(), MAX_MANIFEST)
                .collect()
                .await;
            return Ok(body.map_err(io::Error::other)?.to_bytes());
        }
        anyhow::bail!("stopped after {MAX_REDIRECTS} redirects")
    }
}

/// Where `location` leads from `uri` (RFC 3986, section 5.2, but for dots).
fn redirected(uri: &Uri, location: &str) -> anyhow::Result<Uri> {
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (directory, _) = uri.path().rsplit_once('/').unwrap_or_default();
    let whole = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", uri.path())
    } else {
        format!("{scheme}://{authority}{directory}/{location}")
    };
    Ok(whole.parse()?)
}

/// Whether a server is the one of `first`, or of a domain below it.
fn is_of(first: &Uri, other: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    let (first, other) = (host(first), host(other));
    let below = other.strip_suffix(&first);
    other == first || below.is_some_and(|below| below.ends_with('.'))
}

/// Tells of the server's pods until `stop`. What it had counts for as long as it cannot be asked.
pub async fn run(
    server: Server,
    terms: Terms,
    check_every: Duration,
    told: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut known = Known::new(Source::Http, told);
    let mut last = Bytes::new();
    let mut failures = 0;
    loop {
        let answer = async {
            let body = tokio::time::timeout(TIMEOUT, server.get()).await??;
            if body.is_empty() {
                known.replace(Vec::new());
                anyhow::bail!("zero-length data received from {}", server.url);
            }
            if body != last {
                last = body;
                known.replace(terms.pods(&last, Origin::Url(&server.url))?);
            }
            Ok(())
        };
        match answer.await {
            Ok(()) if failures > 0 => {
                info!(
                    url = server.url,
                    "static pods could be read from the server again"
                );
                failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if failures < LOGGED_FAILURES {
                    warn!(url = server.url, %error, "cannot read static pods from the server");
                }
                failures = failures.saturating_add(1);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(check_every) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::pods::pod::PodExt;

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";

    /// Answers one request after the other with these; what was asked comes back.
    async fn serve(listener: TcpListener, answers: Vec<String>) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                request.extend(byte);
            }
            asked.push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn a_servers_pods_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let items = format!(
            "{{apiVersion: v1, kind: PodList, items: [{}]}}",
            POD.replace("name: a", "name: b")
        );
        let answers = vec![
            answer("302 Found", "location: /there\r\n", ""),
            answer("200 OK", "", POD),
            answer("503 Service Unavailable", "", "no"),
            answer("200 OK", "", &items),
            answer("200 OK", "", ""),
        ];
        let serving = tokio::spawn(serve(listener, answers));
        let headers = [("X-Key".to_owned(), vec!["one".to_owned(), "two".to_owned()])];
        let server = Server::new(
            &format!("http://{address}/pods"),
            headers.iter().map(|(n, v)| (n, v)),
        );
        let (told, mut heard) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let terms = Terms {
            node_name: "n".into(),
            may_refer: false,
        };
        let task = tokio::spawn(run(
            server.unwrap(),
            terms,
            Duration::from_millis(5),
            told,
            stop.clone(),
        ));
        let mut next = async || match heard.recv().await.unwrap() {
            Event::PodSet(Source::Http, pod) => {
                assert_eq!(pod.annotation("kubernetes.io/config.source"), Some("http"));
                assert!(pod.pod_spec().tolerations.is_none(), "that is for files");
                format!("set {}", pod.name())
            }
            Event::PodGone(Source::Http, pod) => format!("gone {}", pod.name()),
            Event::SourceReady(Source::Http) => "ready".into(),
            other => panic!("{other:?}"),
        };
        for expected in ["set a-n", "ready", "set b-n", "gone a-n", "gone b-n"] {
            assert_eq!(next().await, expected);
        }
        let asked = serving.await.unwrap();
        assert!(asked[0].starts_with("GET /pods ") && asked[1].starts_with("GET /there "));
        assert!(
            asked[0].contains("x-key: one\r\nx-key: two\r\n"),
            "{}",
            asked[0]
        );
        stop.cancel();
        task.await.unwrap();
    }
}
