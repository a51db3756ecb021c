//! How fast objects move between wire forms, on upstream's fixture of a kind:
//!
//!     FERROKUBE_FIXTURES=… cargo run --release -p codec --example throughput -- core.v1.Pod [proto_to_json]

use std::hint::black_box;
use std::time::{Duration, Instant};

use codec::{decode, envelope, serde_pb, transcode, tree};

/// Runs `f` for a while and says how long its fastest runs took and what it moved per
/// second. The mean would say more about what else the machine was doing.
fn measure(name: &str, bytes: usize, mut f: impl FnMut()) {
    if std::env::args().nth(2).is_some_and(|only| only != name) {
        return;
    }
    let mut fastest = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        let batch = Instant::now();
        for _ in 0..8 {
            f();
        }
        fastest = fastest.min(batch.elapsed() / 8);
    }
    let rate = bytes as f64 / fastest.as_secs_f64() / 1e6;
    println!("{name:>24}  {fastest:>12.2?}  {rate:>8.0} MB/s");
}

fn main() {
    let dir = std::env::var("FERROKUBE_FIXTURES").expect("FERROKUBE_FIXTURES names the fixtures");
    let name = std::env::args().nth(1).unwrap_or("core.v1.Pod".into());
    let stored = std::fs::read(format!("{dir}/{name}.pb")).expect("a fixture of this name");
    let unknown = envelope::decode(&stored).expect("an envelope");
    let (group, version) = unknown
        .api_version
        .split_once('/')
        .unwrap_or(("", unknown.api_version));
    let msg = schema::kind(group, version, unknown.kind).expect("a kind of the schema");
    let raw = unknown.raw;
    let mut json = Vec::new();
    let type_meta = Some((unknown.kind, unknown.api_version));
    transcode::proto_to_json(msg, raw, type_meta, &mut json).expect("a valid message");
    let value = tree::from_proto(msg, raw).expect("a valid message");
    let yaml = std::fs::read(format!("{dir}/{name}.yaml")).expect("a fixture of this name");
    println!(
        "{name}: {} bytes of protobuf, {} of JSON",
        raw.len(),
        json.len()
    );

    let mut out = Vec::with_capacity(json.len() * 2);
    measure("proto_to_json", json.len(), || {
        out.clear();
        transcode::proto_to_json(msg, black_box(raw), type_meta, &mut out).unwrap();
    });
    measure("json_to_proto", json.len(), || {
        out.clear();
        transcode::json_to_proto(msg, black_box(&json), &mut out).unwrap();
    });
    measure("decode::json", json.len(), || {
        let strict = decode::Strictness::Strict;
        black_box(decode::json(msg, black_box(&json), strict).unwrap());
    });
    measure("decode::yaml", yaml.len(), || {
        let strict = decode::Strictness::Strict;
        black_box(decode::yaml(msg, black_box(&yaml), strict).unwrap());
    });
    measure("tree::from_proto", raw.len(), || {
        black_box(tree::from_proto(msg, black_box(raw)).unwrap());
    });
    measure("tree::to_proto", raw.len(), || {
        out.clear();
        tree::to_proto(msg, black_box(&value), &mut out).unwrap();
    });
    measure("tree::to_json", json.len(), || {
        out.clear();
        tree::to_json(msg, black_box(&value), &mut out).unwrap();
    });
    measure("ignore every field", raw.len(), || {
        let ignored: serde::de::IgnoredAny = serde_pb::from_slice(msg, black_box(raw)).unwrap();
        black_box(ignored);
    });
    if unknown.kind == "Pod" {
        use k8s_openapi::api::core::v1::Pod;
        measure("typed from_slice", raw.len(), || {
            let pod: Pod =
                serde_pb::from_slice_with_type_meta(msg, black_box(raw), "v1", "Pod").unwrap();
            black_box(pod);
        });
        let pod: Pod = serde_pb::from_slice_with_type_meta(msg, raw, "v1", "Pod").unwrap();
        measure("typed to_vec", raw.len(), || {
            black_box(serde_pb::to_vec(msg, black_box(&pod)).unwrap());
        });
    }
}
