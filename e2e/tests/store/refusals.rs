//! Who is refused while the body is still to come: over HTTP/1.1 the connection is there for the
//! next request, or the answer says that it is not.

use std::sync::Arc;

use e2e::stand::Stand;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stand;

/// Nobody's connection, over HTTP/1.1.
pub struct Client(TlsStream<TcpStream>);

impl Client {
    pub async fn connect(stand: &Stand) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(stand.pki.path("ca.crt")).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(("127.0.0.1", stand.api.port))
            .await
            .unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        Self(stream.await.unwrap())
    }

    /// Sends bytes in a TLS record of their own.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub async fn send_head(&mut self, plural: &str, length: usize, more: &str) {
        let head = format!(
            "POST /api/v1/namespaces/default/{plural} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
        );
        self.send(head.as_bytes()).await;
    }

    /// The head of the next answer, whose body is passed over.
    pub async fn answer(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        head
    }
}

fn says_that_it_closes(head: &str) -> bool {
    assert!(head.starts_with("http/1.1 401 "), "{head}");
    head.lines().any(|line| line == "connection: close")
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_or_says_that_it_does_not() {
    let stand = stand(&[], &["--anonymous-auth=false"]).await;
    let mut client = Client::connect(&stand).await;
    for length in [10, 200_000, 1] {
        client.send_head("configmaps", length, "").await;
        client.send(&vec![b'x'; length]).await;
        let head = client.answer().await;
        assert!(!says_that_it_closes(&head), "{length}: {head}");
    }
    // So much is not read for nothing.
    client.send_head("configmaps", 1_000_000, "").await;
    let head = client.answer().await;
    assert!(says_that_it_closes(&head), "{head}");

    // Nobody is asked to send what is not wanted.
    let mut client = Client::connect(&stand).await;
    client
        .send_head("configmaps", 10, "Expect: 100-continue\r\n")
        .await;
    let head = client.answer().await;
    assert!(says_that_it_closes(&head), "{head}");
}
