use std::sync::Arc;

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use rustls::pki_types::ServerName;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::{Bound, Limits, ServingCertificate, TlsFiles, TlsOptions, full, handler};

async fn get(address: std::net::SocketAddr, ca: &std::path::Path) -> String {
    get_as(address, ca, None).await
}

/// One request over TLS; the whole answer.
async fn get_as(
    address: std::net::SocketAddr,
    ca: &std::path::Path,
    user: Option<&TlsFiles>,
) -> String {
    get_over(rustls::ALL_VERSIONS, address, ca, user).await
}

async fn get_over(
    versions: &[&'static rustls::SupportedProtocolVersion],
    address: std::net::SocketAddr,
    ca: &std::path::Path,
    user: Option<&TlsFiles>,
) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match user {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
            let key = rustls_pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap();
            let provider = rustls::crypto::ring::default_provider();
            let shown = client::client_certificate(chain, key, &provider).unwrap();
            config.with_client_cert_resolver(shown)
        }
    };
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    assert!(format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    let request = b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // Servers may close without a TLS goodbye.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_self_signed_server_answers_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned()];
    let files = TlsFiles::self_signed(directory.path(), "server", &names).unwrap();
    let again = TlsFiles::self_signed(directory.path(), "server", &names).unwrap();
    assert_eq!(files, again);
    let options = TlsOptions {
        default: Some(files.clone().into()),
        ..TlsOptions::default()
    };
    let tls = ServingCertificate::load(options).unwrap();

    let bound = Bound::new("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let stop = CancellationToken::new();
    let handler = handler(|request, peer| async move {
        let mut response = Response::new(full(format!(
            "{} {}",
            request.uri().path(),
            peer.certificates.len()
        )));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response
    });
    let server = tokio::spawn(bound.serve(Some(tls), handler, Limits::default(), stop.clone()));
    let answer = get(address, &files.certificate).await;
    assert!(answer.starts_with("HTTP/1.1 418 "), "{answer}");
    assert!(answer.ends_with("/x 0"), "{answer}");
    stop.cancel();
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let files = TlsFiles {
        certificate: "/nowhere/a.crt".into(),
        key: "/nowhere/a.key".into(),
    };
    let options = TlsOptions {
        default: Some(files.into()),
        ..TlsOptions::default()
    };
    let Err(error) = ServingCertificate::load(options) else {
        panic!("there is no such file")
    };
    assert!(error.to_string().contains("/nowhere/a.crt"), "{error}");
}

#[tokio::test]
async fn published_authorities_are_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    let server = TlsFiles::self_signed(directory.path(), "server", &["localhost".into()]).unwrap();
    let user = TlsFiles::self_signed(directory.path(), "user", &["user".into()]).unwrap();
    let (publish, published_ca) = tokio::sync::watch::channel(Vec::new());
    let options = TlsOptions {
        default: Some(server.clone().into()),
        published_ca: Some(published_ca),
        ..TlsOptions::default()
    };
    let tls = ServingCertificate::load(options).unwrap();
    let bound = Bound::new("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let stop = CancellationToken::new();
    let handler =
        handler(|_, peer| async move { Response::new(full(peer.certificates.len().to_string())) });
    let serving = bound.serve(Some(tls), handler, Limits::default(), stop.clone());
    let serving = tokio::spawn(serving);
    // Nobody is asked for a certificate yet.
    let answer = get_as(address, &server.certificate, Some(&user)).await;
    assert!(answer.ends_with("\r\n0"), "{answer}");
    publish.send_replace(std::fs::read(&user.certificate).unwrap());
    let taken_up = async {
        while !get_as(address, &server.certificate, Some(&user))
            .await
            .ends_with("\r\n1")
        {}
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, taken_up).await.unwrap();
    stop.cancel();
    serving.await.unwrap();
}

/// As `openssl x509 -req` makes them, which knows no extensions unless it is told some. The key is
/// known to the world.
#[tokio::test]
async fn certificates_of_version_1_are_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = TlsFiles::self_signed(directory.path(), "server", &["localhost".into()]).unwrap();
    let testdata = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serving/testdata");
    let user = TlsFiles {
        certificate: testdata.join("v1.crt"),
        key: testdata.join("v1.key"),
    };
    let handler =
        handler(|_, peer| async move { Response::new(full(peer.certificates.len().to_string())) });
    let options = TlsOptions {
        default: Some(server.clone().into()),
        client_ca: vec![testdata.join("ca.crt")],
        verifies_later: true,
        ..TlsOptions::default()
    };
    let tls = ServingCertificate::load(options).unwrap();
    let bound = Bound::new("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let stop = CancellationToken::new();
    let serving = bound.serve(Some(tls), handler, Limits::default(), stop.clone());
    let serving = tokio::spawn(serving);
    for version in rustls::ALL_VERSIONS {
        let answer = get_over(&[version], address, &server.certificate, Some(&user)).await;
        assert!(answer.ends_with("\r\n1"), "{version:?}: {answer}");
    }
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn who_sends_many_requests_at_once_does_not_hold_up_others() {
    const MANY: usize = 50;
    let served = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&served);
    let handler = handler(move |request, _| {
        let counts = Arc::clone(&counts);
        async move {
            if request.uri().path() == "/served" {
                return Response::new(full(counts.load(Ordering::Relaxed).to_string()));
            }
            let began = std::time::Instant::now();
            while began.elapsed() < crate::aside::TURN {
                std::hint::spin_loop();
            }
            counts.fetch_add(1, Ordering::Relaxed);
            Response::new(full(""))
        }
    });
    let bound = Bound::new("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let stop = CancellationToken::new();
    let server = tokio::spawn(bound.serve(None, handler, Limits::default(), stop.clone()));
    let mut greedy = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut other = tokio::net::TcpStream::connect(address).await.unwrap();
    let many = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n".repeat(MANY);
    greedy.write_all(many.as_bytes()).await.unwrap();
    while served.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let one = b"GET /served HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    other.write_all(one).await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    let (_, before) = answer.split_once("\r\n\r\n").unwrap();
    assert!(before.parse::<usize>().unwrap() < 10, "{answer}");
    stop.cancel();
    drop(greedy);
    server.await.unwrap();
}

#[tokio::test]
async fn the_last_answer_over_http2_ends_the_connection() {
    let handler = handler(|request, _| async move {
        let mut response = Response::new(full(""));
        if request.uri().path() == "/last" {
            let close = http::HeaderValue::from_static("close");
            (response.headers_mut()).insert(http::header::CONNECTION, close);
        }
        response
    });
    let bound = Bound::new("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address();
    let stop = CancellationToken::new();
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles::self_signed(directory.path(), "server", &["localhost".into()]).unwrap();
    let ca = files.certificate.clone();
    let options = TlsOptions {
        default: Some(files.into()),
        ..TlsOptions::default()
    };
    let tls = ServingCertificate::load(options).unwrap();
    let server = tokio::spawn(bound.serve(Some(tls), handler, Limits::default(), stop.clone()));
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    let (executor, io) = (
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    );
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut get = async |path: &str| {
        let request = http::Request::get(format!("http://a{path}"));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new());
        sender.ready().await.unwrap();
        sender.send_request(request.unwrap()).await.unwrap()
    };
    assert_eq!(get("/first").await.status(), StatusCode::OK);
    let last = get("/last").await;
    assert_eq!(last.status(), StatusCode::OK);
    assert!(!last.headers().contains_key("connection"));
    drop(last);
    connection.await.unwrap().unwrap();
    stop.cancel();
    server.await.unwrap();
}
