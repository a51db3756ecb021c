//! What only a real etcd can show.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use grpc::etcd::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::process::{Member, connect};
use super::subject::{Direct, Subject, Told};
use super::suite::{PATIENCE, cached, create, delete, next, update};
use crate::storage::cache::At;
use crate::storage::etcd::compact::Turn;
use crate::storage::etcd::{Compactor, Etcd, Transport};
use crate::storage::metrics::Metrics;
use crate::storage::{Storage, StorageError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_is_410_for_reads_and_watches() {
    let member = Member::single(&[]);
    let etcd = member.client().await;
    let subject = Direct(etcd.clone());
    let mut turns = Compactor::new(etcd.clone());
    let mut other = Compactor::new(etcd.clone());
    let first = create(&subject, "ns/a", "v=1").await.unwrap();
    // The first turn only takes the time; the other server's finds it taken.
    assert_eq!(turns.step().await.unwrap(), Turn::First);
    assert_eq!(other.step().await.unwrap(), Turn::First);
    let second = update(&subject, "ns/a", "v=2", first).await.unwrap();
    let Turn::Ours(compacted) = turns.step().await.unwrap() else {
        panic!("not its turn");
    };
    assert!(compacted > first && compacted < second);
    assert_eq!(other.step().await.unwrap(), Turn::Theirs(compacted));
    // The first has gone: the other takes over.
    let Turn::Ours(taken_over) = other.step().await.unwrap() else {
        panic!("not its turn");
    };
    assert!(taken_over >= second);

    let list = subject.list("", 0, first).await.map(|page| page.items);
    assert!(matches!(list, Err(StorageError::Compacted { asked, .. }) if asked == first));
    let mut watch = subject.watch(first).await.unwrap();
    let told = watch.next().await.unwrap();
    assert!(
        matches!(told, Err(StorageError::Compacted { asked, oldest })
            if asked == first && oldest == taken_over),
        "{told:?}"
    );
    assert!(watch.next().await.is_none());
    // Upstream's key and value.
    let key = etcd.get("compact_rev_key", 0).await.unwrap().unwrap();
    let value = std::str::from_utf8(&key.value).unwrap();
    assert_eq!(value.parse::<u64>().unwrap(), taken_over);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_objects() {
    let member = Member::single(&[]);
    let etcd = member.client().await;
    let subject = cached(etcd.clone()).await;
    let start = etcd.current_revision().await.unwrap();
    let mut watch = subject.watch(start).await.unwrap();
    let ttl = Some(Duration::from_secs(1));
    let key = "/registry/pods/ns/short";
    let created = etcd.create(key, Bytes::new(), ttl).await.unwrap();
    let put = Told::Put(("ns/short".into(), created, String::new()));
    assert_eq!(next(&mut watch).await, put);
    assert!(matches!(next(&mut watch).await, Told::Gone(key, _) if key == "ns/short"));
    assert!(etcd.get(key, 0).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_went_is_replaced() {
    let member = Member::single(&[]);
    let etcd = member.client().await;
    let channel = tonic::transport::Endpoint::from_shared(member.url().to_owned())
        .unwrap()
        .connect_lazy();
    let lease_of = async |name: &str| {
        let request = pb::RangeRequest {
            key: Bytes::copy_from_slice(name.as_bytes()),
            ..Default::default()
        };
        let answer = KvClient::new(channel.clone()).range(request).await.unwrap();
        answer.into_inner().kvs[0].lease
    };
    let ttl = Some(Duration::from_secs(3600));
    for name in ["a", "b"] {
        etcd.create(name, Bytes::new(), ttl).await.unwrap();
    }
    let shared = lease_of("a").await;
    assert_eq!(lease_of("b").await, shared);
    let request = pb::LeaseRevokeRequest { id: shared };
    let mut leases = LeaseClient::new(channel.clone());
    leases.lease_revoke(request).await.unwrap();
    etcd.create("c", Bytes::new(), ttl).await.unwrap();
    assert_ne!(lease_of("c").await, shared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_restarts_and_nothing_is_lost() {
    let mut member = Member::single(&[]);
    let etcd = member.client().await;
    let subject = cached(etcd.clone()).await;
    let start = etcd.current_revision().await.unwrap();
    let mut watch = subject.watch(start).await.unwrap();
    let first = create(&subject, "ns/a", "v=1").await.unwrap();
    subject.cache.wait_for(first).await.unwrap();
    member.stop();
    assert!(etcd.check(PATIENCE).await.is_err());
    let down = subject.get("ns/a", 0).await;
    assert!(
        matches!(down, Err(StorageError::Unavailable(_))),
        "{down:?}"
    );
    // What is in memory can still be had.
    let known = subject.pods.get("ns/a", At::Any).await.unwrap();
    assert_eq!(known.map(|object| object.revision()), Some(first));
    member.start();
    etcd.check(PATIENCE).await.unwrap();
    let second = update(&subject, "ns/a", "v=2", first).await.unwrap();
    let third = delete(&subject, "ns/a", second).await.unwrap();
    for told in [
        Told::Put(("ns/a".into(), first, "v=1".into())),
        Told::Put(("ns/a".into(), second, "v=2".into())),
        Told::Gone("ns/a".into(), third),
    ] {
        assert_eq!(next(&mut watch).await, told);
    }
    subject.cache.wait_for(third).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_revisions_and_values() {
    let member = Member::single(&[]);
    let etcd = member.client().await;
    let subject = cached(etcd.clone()).await;
    let start = etcd.current_revision().await.unwrap();
    // A watch that resumes gets more than one message can hold.
    let value = format!("v={}", "x".repeat(1 << 20));
    let mut last = 0;
    for n in 0..8 {
        last = create(&subject, &format!("ns/{n}"), &value).await.unwrap();
    }
    let mut resumed = Direct(etcd.clone()).watch(start).await.unwrap();
    for n in 0..8 {
        let Told::Put((key, _, got)) = next(&mut resumed).await else {
            panic!("a put");
        };
        assert_eq!((key, got.len()), (format!("ns/{n}"), value.len()));
    }
    subject.cache.wait_for(last).await.unwrap();
    for size in [1_600_000, 3 << 20] {
        let large = Bytes::from(vec![b'x'; size]);
        let refused = etcd.create("/registry/pods/ns/large", large, None).await;
        assert!(
            matches!(refused, Err(StorageError::TooLarge)),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_so() {
    let member = Member::single(&["--quota-backend-bytes=100000"]);
    let etcd = member.client().await;
    let value = Bytes::from(vec![b'x'; 60_000]);
    // etcd learns its size from commits, which are a little later.
    let mut n = 0;
    let message = loop {
        n += 1;
        assert!(n < 10_000, "60 kB each into 100 kB");
        let key = format!("/registry/{n}");
        if let Err(error) = etcd.create(&key, value.clone(), None).await {
            break error.to_string();
        }
    };
    assert!(message.contains("database space exceeded"), "{message}");
    assert!(message.contains("defragment"), "{message}");
    // Reads go on.
    etcd.check(PATIENCE).await.unwrap();
    let (_, status) = etcd.statuses().await.remove(0);
    assert!(status.unwrap().db_size > 60_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_dies_and_the_others_go_on() {
    let mut members = Member::cluster::<3>();
    let transport = Transport {
        servers: members.iter().map(|m| m.url().to_owned()).collect(),
        ..Transport::default()
    };
    let etcd = connect(&transport).await;
    let subject = cached(etcd.clone()).await;
    let start = etcd.current_revision().await.unwrap();
    let mut watch = subject.watch(start).await.unwrap();
    let mut revision = create(&subject, "ns/a", "n=0").await.unwrap();
    let mut acknowledged = vec![(revision, "n=0".to_owned())];
    for n in 1..40 {
        if n == 10 {
            // The one that requests and the watch go to.
            members[0].stop();
        }
        let value = format!("n={n}");
        loop {
            match update(&subject, "ns/a", &value, revision).await {
                Ok(new) => {
                    revision = new;
                    break;
                }
                // Whether it was done is not known: look.
                Err(StorageError::Unavailable(_)) => {}
                Err(StorageError::Conflict { current: Some(kv) }) if kv.value == value => {
                    revision = kv.mod_revision;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        acknowledged.push((revision, value));
    }
    for (revision, value) in acknowledged {
        let told = Told::Put(("ns/a".into(), revision, value));
        assert_eq!(next(&mut watch).await, told);
    }
}

/// Writes a CA, a server's and a client's certificate.
fn certificates(directory: &Path) {
    let write = |file: &str, text: String| std::fs::write(directory.join(file), text).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write("ca.crt", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        write(
            &format!("{name}.crt"),
            params.signed_by(&key, &issuer).unwrap().pem(),
        );
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_files_are_read_anew_for_every_connection() {
    let files = tempfile::tempdir().unwrap();
    certificates(files.path());
    let mut member = Member::with_tls(files.path());
    let transport = Transport {
        ca_file: Some(files.path().join("ca.crt")),
        cert_file: Some(files.path().join("client.crt")),
        key_file: Some(files.path().join("client.key")),
        ..member.transport()
    };
    let etcd = connect(&transport).await;
    let watch = etcd.watch("/registry/", 0).await.unwrap();
    etcd.create("/registry/a", Bytes::new(), None)
        .await
        .unwrap();
    let mut changes = watch.changes;
    assert!(changes.next().await.unwrap().is_ok());

    let anonymous = Transport {
        cert_file: None,
        key_file: None,
        ..transport.clone()
    };
    let anonymous = Etcd::new(&anonymous, "/registry", Metrics::unregistered()).unwrap();
    let refused = anonymous.check(Duration::from_secs(10)).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))));

    // All of them replaced, the CA too, under a client that stays.
    member.stop();
    certificates(files.path());
    member.start();
    etcd.check(PATIENCE).await.unwrap();
    assert!(etcd.get("/registry/a", 0).await.unwrap().is_some());
}
