//! The methods together: tokens issued here are believed here, and only as long as what
//! they are bound to exists; certificates are believed only of the right CA.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use meta::Status;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::keys::SigningKey;
use super::request_header::Headers;
use super::token_issuer::{Issued, TokenIssuer};
use super::*;
use crate::lookup::Lookup;

#[derive(Default)]
struct Objects(Mutex<HashMap<String, Arc<Value>>>);

impl Objects {
    fn put(&self, resource: &str, namespace: &str, name: &str, mut object: Value) {
        object["metadata"]["name"] = name.into();
        self.0
            .lock()
            .insert(format!("{resource}/{namespace}/{name}"), Arc::new(object));
    }

    fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.0
            .lock()
            .remove(&format!("{resource}/{namespace}/{name}"));
    }
}

impl Lookup for Objects {
    fn get(&self, _: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0
            .lock()
            .get(&format!("{resource}/{namespace}/{name}"))
            .cloned()
    }

    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }

    fn get_fresh<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, Status>> {
        Box::pin(async move { Ok(self.get(group, resource, namespace, name)) })
    }
}

struct World {
    objects: Arc<Objects>,
    now: Arc<Mutex<Timestamp>>,
    issuer: TokenIssuer,
    authn: Arc<Authn>,
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    proxy_ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    _dir: tempfile::TempDir,
}

fn ca(name: &str) -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

fn client(
    ca: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    name: &str,
    organization: &str,
    usage: rcgen::ExtendedKeyUsagePurpose,
) -> CertificateDer<'static> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in [
        (rcgen::DnType::CommonName, name),
        (rcgen::DnType::OrganizationName, organization),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.extended_key_usages = vec![usage];
    params
        .signed_by(&rcgen::KeyPair::generate().unwrap(), ca)
        .unwrap()
        .der()
        .clone()
}

const CLIENT: rcgen::ExtendedKeyUsagePurpose = rcgen::ExtendedKeyUsagePurpose::ClientAuth;

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (client_ca, proxy_ca) = (ca("ca"), ca("front-proxy-ca"));
    let now = Arc::new(Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()));
    let clock: Clock = {
        let now = now.clone();
        Arc::new(move || *now.lock())
    };
    let objects = Arc::new(Objects::default());
    let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
    let config = Config {
        client_ca_file: Some(write("ca.crt", &client_ca.pem())),
        request_header: Some((
            write("proxy-ca.crt", &proxy_ca.pem()),
            Headers {
                allowed_names: vec!["front-proxy-client".into()],
                ..Headers::standard()
            },
        )),
        token_auth_file: Some(write("tokens.csv", "static,ann,1,\"dev\"")),
        service_accounts: ServiceAccounts {
            key_files: vec![write("sa.key", &pem)],
            issuers: vec![issuer.clone()],
            api_audiences: Vec::new(),
            lookup: true,
            used: None,
        },
        bootstrap_tokens: true,
        anonymous: true,
    };
    let authn = build(
        config,
        objects.clone(),
        clock.clone(),
        [1; 32],
        super::Metrics::unregistered(),
    )
    .unwrap();
    objects.put(
        "serviceaccounts",
        "ns",
        "web",
        json!({"metadata": {"uid": "sa-1"}}),
    );
    objects.put("nodes", "", "n1", json!({"metadata": {"uid": "node-1"}}));
    objects.put(
        "pods",
        "ns",
        "web-0",
        json!({
            "metadata": {"uid": "pod-1"},
            "spec": {"serviceAccountName": "web", "nodeName": "n1"},
        }),
    );
    World {
        objects,
        now,
        issuer: TokenIssuer {
            key: SigningKey::from_pem(pem.as_bytes()).unwrap(),
            audiences: vec![issuer.clone()],
            issuer,
            max_expiration: 0,
            extend_expiration: true,
            clock,
            new_uuid: Arc::new(|| "9c9b".into()),
        },
        authn,
        ca: client_ca,
        proxy_ca,
        _dir: dir,
    }
}

impl World {
    fn request(&self, spec: Value) -> Result<Issued, Status> {
        self.issuer
            .create(
                &*self.objects,
                "ns",
                "web",
                json!({"spec": spec}),
                |_| async { Ok(()) },
            )
            .now_or_never()
            .unwrap()
    }

    fn pod_token(&self) -> String {
        let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": "pod-1"});
        let issued = self.request(json!({"expirationSeconds": 3607, "boundObjectRef": bound}));
        issued.unwrap().object["status"]["token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn ask(
        &self,
        certificates: &[CertificateDer<'static>],
        headers: &[(&'static str, String)],
    ) -> Result<Option<Arc<User>>, AuthenticationError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        self.authn
            .authenticate(Credentials {
                peer_certificates: certificates,
                headers: &map,
            })
            .now_or_never()
            .unwrap()
    }

    fn bearer(&self, token: &str) -> Result<Option<Arc<User>>, AuthenticationError> {
        self.ask(&[], &[("authorization", format!("Bearer {token}"))])
    }

    fn pass(&self, seconds: i64) {
        *self.now.lock() += SignedDuration::from_secs(seconds);
    }
}

#[test]
fn a_pods_token_names_account_pod_and_node() {
    let world = world();
    let user = world.bearer(&world.pod_token()).unwrap().unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:web");
    assert_eq!(user.uid, "sa-1");
    assert_eq!(
        user.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:ns",
            "system:authenticated"
        ]
    );
    for (key, value) in [
        (service_account::POD_NAME, "web-0"),
        (service_account::POD_UID, "pod-1"),
        (service_account::NODE_NAME, "n1"),
        (service_account::NODE_UID, "node-1"),
        (service_account::CREDENTIAL_ID, "JTI=9c9b"),
    ] {
        assert_eq!(user.extra[key], [value], "{key}");
    }
}

#[test]
fn claims_are_upstreams() {
    let world = world();
    let token = world.pod_token();
    let claims: Value = jwt::Unverified::parse(&token).unwrap().claims().unwrap();
    assert_eq!(
        claims,
        json!({
            "aud": ["https://kubernetes.default.svc.cluster.local"],
            "exp": 1_800_000_000 + 31_536_000,
            "iat": 1_800_000_000,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": "9c9b",
            "kubernetes.io": {
                "namespace": "ns",
                "node": {"name": "n1", "uid": "node-1"},
                "pod": {"name": "web-0", "uid": "pod-1"},
                "serviceaccount": {"name": "web", "uid": "sa-1"},
                "warnafter": 1_800_000_000 + 3607,
            },
            "nbf": 1_800_000_000,
            "sub": "system:serviceaccount:ns:web",
        })
    );
}

#[test]
fn a_token_dies_with_its_pod_its_account_and_its_time() {
    let world = world();
    let token = world.pod_token();
    assert!(world.bearer(&token).is_ok());
    // The cache forgets after ten seconds.
    world.pass(11);
    world.objects.remove("pods", "ns", "web-0");
    assert!(world.bearer(&token).is_err());
    world
        .objects
        .put("pods", "ns", "web-0", json!({"metadata": {"uid": "pod-2"}}));
    assert!(
        world.bearer(&token).is_err(),
        "another pod of the same name"
    );

    let plain = world.request(json!({"expirationSeconds": 600})).unwrap();
    let plain = plain.object["status"]["token"].as_str().unwrap().to_owned();
    assert!(world.bearer(&plain).is_ok());
    world.pass(600 + jwt::LEEWAY + 1);
    assert_eq!(
        world.bearer(&plain).unwrap_err().0,
        "service account token has expired"
    );
}

#[test]
fn forged_and_foreign_tokens_are_refused() {
    let world = world();
    let token = world.pod_token();
    let (message, _) = token.rsplit_once('.').unwrap();
    assert!(world.bearer(&format!("{message}.AAAA")).is_err());
    assert_eq!(
        world.bearer("nonsense").unwrap_err().0,
        "invalid bearer token"
    );

    let other = SigningKey::from_pem(
        rcgen::KeyPair::generate()
            .unwrap()
            .serialize_pem()
            .as_bytes(),
    );
    let stolen = TokenIssuer {
        key: other.unwrap(),
        ..world.issuer
    };
    let forged = World {
        issuer: stolen,
        ..world
    };
    assert!(forged.bearer(&forged.pod_token()).is_err());
}

#[test]
fn audiences_are_kept_apart() {
    let world = world();
    let issued = world.request(json!({"audiences": ["vault"], "expirationSeconds": 600}));
    let token = issued.unwrap().object["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(world.bearer(&token).is_err());
    let vault = ["vault".to_owned()];
    let (user, good) = world
        .authn
        .review_token(&token, &vault)
        .now_or_never()
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:web");
    assert_eq!(good, ["vault"]);
}

#[test]
fn requests_for_tokens_are_validated() {
    let world = world();
    let status = world
        .request(json!({"expirationSeconds": 599}))
        .unwrap_err();
    assert_eq!(status.code, 422);
    assert!(
        status
            .message
            .contains("may not specify a duration less than 10 minutes")
    );
    let other_pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "gone"});
    assert_eq!(
        world
            .request(json!({"boundObjectRef": other_pod}))
            .unwrap_err()
            .code,
        404
    );
    let wrong_uid = json!({"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": "x"});
    assert_eq!(
        world
            .request(json!({"boundObjectRef": wrong_uid}))
            .unwrap_err()
            .code,
        409
    );
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "name": "web"});
    assert_eq!(
        world
            .request(json!({"boundObjectRef": deployment}))
            .unwrap_err()
            .code,
        400
    );
}

#[test]
fn certificates_make_users() {
    let world = world();
    let node = client(&world.ca, "system:node:n1", "system:nodes", CLIENT);
    let user = world.ask(&[node], &[]).unwrap().unwrap();
    assert_eq!(user.name, "system:node:n1");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    assert!(user.extra[service_account::CREDENTIAL_ID][0].starts_with("X509SHA256="));

    let foreign = client(&ca("ca"), "system:node:n1", "system:nodes", CLIENT);
    assert!(world.ask(&[foreign], &[]).is_err());
    let server = rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    let server = client(&world.ca, "system:node:n1", "system:nodes", server);
    assert!(world.ask(&[server], &[]).is_err());
}

#[test]
fn only_the_front_proxy_vouches() {
    let world = world();
    let headers = [
        ("x-remote-user", "bob".to_owned()),
        ("x-remote-group", "ops".to_owned()),
    ];
    let proxy = client(&world.proxy_ca, "front-proxy-client", "", CLIENT);
    let user = world.ask(&[proxy], &headers).unwrap().unwrap();
    assert_eq!(user.name, "bob");
    assert_eq!(user.groups, ["ops", "system:authenticated"]);

    let other = client(&world.proxy_ca, "someone", "", CLIENT);
    assert!(world.ask(&[other], &headers).is_err());
    // A user's own certificate does not vouch for others.
    let ann = client(&world.ca, "ann", "dev", CLIENT);
    assert_eq!(world.ask(&[ann], &headers).unwrap().unwrap().name, "ann");
    // Without a certificate the headers are nothing.
    assert_eq!(world.ask(&[], &headers).unwrap().unwrap().name, ANONYMOUS);
}

#[test]
fn a_ca_file_is_reread() {
    let world = world();
    let next = ca("next");
    let ann = client(&next, "ann", "dev", CLIENT);
    assert!(world.ask(std::slice::from_ref(&ann), &[]).is_err());
    assert!(!world.authn.refresh());
    std::fs::write(world._dir.path().join("ca.crt"), next.pem()).unwrap();
    assert!(world.authn.refresh());
    assert_eq!(world.ask(&[ann], &[]).unwrap().unwrap().name, "ann");
}

#[test]
fn websockets_carry_the_token_as_a_protocol() {
    use base64::Engine as _;
    let world = world();
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode("static");
    let protocol = format!("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{token}");
    let headers = [
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-protocol", protocol),
    ];
    assert_eq!(world.ask(&[], &headers).unwrap().unwrap().name, "ann");

    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name, value.parse().unwrap());
    }
    map.insert("authorization", "Bearer x".parse().unwrap());
    map.insert("x-remote-user", "root".parse().unwrap());
    world.authn.scrub(&mut map);
    assert_eq!(
        map.get("sec-websocket-protocol").unwrap(),
        "v5.channel.k8s.io"
    );
    assert_eq!(map.len(), 2);
}

#[test]
fn certificates_of_version_1_are_believed_as_far_as_their_issuer() {
    let testdata = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../proto/component/src/serving/testdata");
    let chain = [CertificateDer::from_pem_file(testdata.join("v1.crt")).unwrap()];
    let at = |seconds| -> Clock { Arc::new(move || Timestamp::from_second(seconds).unwrap()) };
    let (now, long_ago) = (at(1_800_000_000), at(1_000_000_000));

    let bundle = x509::CaBundle::load(&testdata.join("ca.crt")).unwrap();
    assert!(bundle.verify(&chain, &long_ago).is_err());
    let subject = bundle.verify(&chain, &now).unwrap();
    let user = subject.user.unwrap();
    assert_eq!(user.name, "jane");
    assert!(user.groups.contains(&"dev".to_owned()));

    // Another authority of the same name.
    let directory = tempfile::tempdir().unwrap();
    let mut other = rcgen::CertificateParams::default();
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    other.distinguished_name = rcgen::DistinguishedName::new();
    let name = rcgen::DnValue::Utf8String("ca".into());
    other
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let path = directory.path().join("ca.crt");
    std::fs::write(&path, other.self_signed(&key).unwrap().pem()).unwrap();
    let bundle = x509::CaBundle::load(&path).unwrap();
    assert!(bundle.verify(&chain, &now).is_err());
}

#[test]
fn who_is_trusted_without_being_an_authority_vouches_for_nobody_else() {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "pinned");
    params.extended_key_usages = vec![CLIENT];
    let key = rcgen::KeyPair::generate().unwrap();
    let pinned = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let authority = ca("ca");
    let clock: Clock = Arc::new(Timestamp::now);
    let name = |bundle: &x509::CaBundle, certificate: &CertificateDer<'static>| {
        let chain = [certificate.clone(), pinned.der().clone()];
        let verified = bundle.verify(&chain, &clock);
        verified.ok().map(|subject| subject.common_name)
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.crt");
    for bundle in [pinned.pem(), pinned.pem() + &authority.pem()] {
        std::fs::write(&path, &bundle).unwrap();
        let loaded = x509::CaBundle::load(&path).unwrap();
        assert_eq!(name(&loaded, pinned.der()).unwrap(), "pinned");
        let child = client(&pinned, "child", "system:masters", CLIENT);
        assert_eq!(name(&loaded, &child), None);
        let ann = client(&authority, "ann", "dev", CLIENT);
        let known = bundle.contains(&authority.pem());
        assert_eq!(name(&loaded, &ann).is_some(), known);
    }
}

#[test]
fn chains_are_as_long_and_end_in_whom_their_authorities_say() {
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
    let named = |name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
    };
    let authority = |name: &str, constraints: BasicConstraints| {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(constraints);
        params
    };
    let key = || rcgen::KeyPair::generate().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.crt");
    let clock: Clock = Arc::new(Timestamp::now);
    let believed = |root: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
                    chain: &[CertificateDer<'static>]| {
        std::fs::write(&path, root.pem()).unwrap();
        let bundle = x509::CaBundle::load(&path).unwrap();
        bundle.verify(chain, &clock).is_ok()
    };
    let root = |constraints| {
        rcgen::CertifiedIssuer::self_signed(authority("root", constraints), key()).unwrap()
    };
    for (most, direct, through) in [
        (BasicConstraints::Unconstrained, true, true),
        (BasicConstraints::Constrained(1), true, true),
        (BasicConstraints::Constrained(0), true, false),
    ] {
        let root = root(most);
        let middle = authority("middle", BasicConstraints::Unconstrained);
        let middle = rcgen::CertifiedIssuer::signed_by(middle, key(), &root).unwrap();
        let ann = client(&root, "ann", "dev", CLIENT);
        assert_eq!(believed(&root, &[ann]), direct, "{most:?}");
        let bob = client(&middle, "bob", "dev", CLIENT);
        let chain = [bob, middle.der().clone()];
        assert_eq!(believed(&root, &chain), through, "{most:?}");
        assert!(!believed(&root, &chain[..1]), "{most:?}");
    }

    let root = root(BasicConstraints::Unconstrained);
    // In the middle: one that may not sign, one that is no authority.
    let mut silent = authority("silent", BasicConstraints::Unconstrained);
    silent.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for middle in [silent, named("nobody")] {
        let middle = rcgen::CertifiedIssuer::signed_by(middle, key(), &root).unwrap();
        let bob = client(&middle, "bob", "dev", CLIENT);
        assert!(!believed(&root, &[bob, middle.der().clone()]));
    }
    // Clients that are authorities, or may be used for anything, or nothing is known of.
    let signed = |params: rcgen::CertificateParams| {
        let certificate = params.signed_by(&key(), &root).unwrap();
        [certificate.der().clone()]
    };
    assert!(believed(
        &root,
        &signed(authority("ann", BasicConstraints::Unconstrained))
    ));
    let mut any = named("ann");
    any.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    assert!(believed(&root, &signed(any)));
    let with = |mut params: rcgen::CertificateParams, id: &[u64], content: &[u8], critical| {
        let mut extension = rcgen::CustomExtension::from_oid_content(id, content.to_vec());
        extension.set_criticality(critical);
        params.custom_extensions.push(extension);
        params
    };
    // What nobody here heeds must not be critical, whether it can be read (a comment) or not.
    for (id, content) in [
        (&[1, 3, 6, 1, 4, 1, 9][..], &[5, 0][..]),
        (&[2, 16, 840, 1, 113_730, 1, 13], &[0x16, 1, b'c']),
    ] {
        assert!(believed(
            &root,
            &signed(with(named("ann"), id, content, false))
        ));
        assert!(!believed(
            &root,
            &signed(with(named("ann"), id, content, true))
        ));
    }
    // An authority below which a policy is required, 1.2.3.
    let strict = authority("strict", BasicConstraints::Unconstrained);
    let (policies, one) = (&[2, 5, 29, 32], &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]);
    let strict = with(strict, policies, one, true);
    let strict = with(strict, &[2, 5, 29, 36], &[0x30, 3, 0x80, 1, 0], true);
    let strict = rcgen::CertifiedIssuer::signed_by(strict, key(), &root).unwrap();
    for (client, counts) in [
        (named("ann"), false),
        (with(named("ann"), policies, one, false), true),
    ] {
        let client = client.signed_by(&key(), &strict).unwrap();
        let chain = [client.der().clone(), strict.der().clone()];
        assert_eq!(believed(&root, &chain), counts);
    }
}

#[test]
fn authorities_vouch_while_they_are_valid_and_for_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.crt");
    let issuer = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertifiedIssuer::self_signed(params, key).unwrap()
    };
    let believed = |issuer: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, at: &str| {
        let at: Timestamp = at.parse().unwrap();
        let clock: Clock = Arc::new(move || at);
        // Beside another that is in order.
        std::fs::write(&path, issuer.pem() + &ca("other").pem()).unwrap();
        let bundle = x509::CaBundle::load(&path).unwrap();
        let child = client(issuer, "child", "dev", CLIENT);
        bundle.verify(&[child], &clock).is_ok()
    };
    let old = issuer(|params| params.not_after = rcgen::date_time_ymd(2030, 1, 1));
    assert!(believed(&old, "2029-12-31T00:00:00Z"));
    assert!(!believed(&old, "2030-01-02T00:00:00Z"));
    let of_servers = issuer(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(!believed(&of_servers, "2029-12-31T00:00:00Z"));
    let unknown = issuer(|params| {
        let mut extension =
            rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 9], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    });
    assert!(!believed(&unknown, "2029-12-31T00:00:00Z"));
}
