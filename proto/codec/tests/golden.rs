//! Upstream's golden fixtures: every kind as JSON, YAML and protobuf, each of which has to
//! come out of each of the others byte for byte.
//!
//! They are not in this tree. `FERROKUBE_FIXTURES` names their directory, a checkout's
//! `staging/src/k8s.io/api/testdata/HEAD`; the test says so loudly when it is not set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use codec::decode::{self, Strictness};
use codec::{envelope, serde_pb, transcode, tree};
use k8s_openapi::api;
use schema::Message;
use serde_json::Value;

/// One kind's three files.
#[derive(Clone)]
struct Fixture {
    name: String,
    msg: &'static Message,
    api_version: String,
    kind: String,
    json: Vec<u8>,
    proto: Vec<u8>,
    yaml: Vec<u8>,
}

/// The fixtures of a directory. Kinds that are no more are left out.
fn fixtures(dir: &Path) -> Vec<Fixture> {
    let mut files: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("the fixtures' directory can be read") {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".after_roundtrip.") {
            continue;
        }
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let extension = path.extension().unwrap().to_str().unwrap().to_owned();
        let of_kind = files.entry(stem).or_default();
        of_kind.insert(extension, fs::read(&path).unwrap());
    }
    let fixture = |(name, mut files): (String, BTreeMap<String, Vec<u8>>)| {
        let mut parts = name.rsplitn(3, '.');
        let kind = parts.next().unwrap().to_owned();
        let version = parts.next().unwrap();
        let group = match parts.next().unwrap() {
            "core" => "",
            group => group,
        };
        let api_version = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        Some(Fixture {
            msg: schema::kind(group, version, &kind)?,
            name,
            api_version,
            kind,
            json: files.remove("json").expect("a JSON file"),
            proto: files.remove("pb").expect("a protobuf file"),
            yaml: files.remove("yaml").expect("a YAML file"),
        })
    };
    files.into_iter().filter_map(fixture).collect()
}

/// Upstream's JSON files are indented; the wire's JSON is not.
fn compact(json: &[u8]) -> String {
    let mut out = Vec::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for &b in json {
        if quoted {
            quoted = b != b'"' || escaped;
            escaped = b == b'\\' && !escaped;
        } else if b.is_ascii_whitespace() {
            continue;
        } else {
            quoted = b == b'"';
        }
        out.push(b);
    }
    String::from_utf8(out).unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

impl Fixture {
    /// What is wrong with each of the three files, if anything.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (file, checked) in [
            ("pb", self.check_proto()),
            ("json", self.check_json()),
            ("yaml", self.check_yaml()),
        ] {
            if let Err(error) = checked {
                wrong.push(format!("{}.{file}: {error}", self.name));
            }
        }
        wrong
    }

    fn check_proto(&self) -> Result<(), String> {
        let json = compact(&self.json);
        let unknown = envelope::decode(&self.proto).map_err(|e| e.to_string())?;
        // A WatchEvent is no object: it has neither.
        if self.kind != "WatchEvent" {
            same("kind", unknown.kind, &*self.kind)?;
            same("version", unknown.api_version, &*self.api_version)?;
        }
        let (api_version, kind) = (unknown.api_version, unknown.kind);
        let again = envelope::encode(unknown.api_version, unknown.kind, unknown.raw);
        same("envelope", &again, &self.proto)?;
        let mut out = Vec::new();
        transcode::proto_to_json(self.msg, unknown.raw, Some((kind, api_version)), &mut out)
            .map_err(|e| e.to_string())?;
        same("proto to JSON", &text(out), &json)?;

        let tree = tree::from_proto_with_type_meta(self.msg, unknown.raw, api_version, kind)
            .map_err(|e| e.to_string())?;
        let parsed: Value = serde_json::from_str(&json).unwrap();
        same("proto to tree", &tree, &parsed)?;
        let mut out = Vec::new();
        tree::to_json(self.msg, &tree, &mut out).map_err(|e| e.to_string())?;
        same("tree to JSON", &text(out), &json)?;
        let mut out = Vec::new();
        tree::to_proto(self.msg, &tree, &mut out).map_err(|e| e.to_string())?;
        same("tree to proto", &out[..], unknown.raw)
    }

    fn check_json(&self) -> Result<(), String> {
        let json = compact(&self.json);
        self.check_text(json.as_bytes(), |body| {
            decode::json(self.msg, body, Strictness::Strict)
        })
    }

    fn check_yaml(&self) -> Result<(), String> {
        self.check_text(&self.yaml, |body| {
            decode::yaml(self.msg, body, Strictness::Strict)
        })?;
        let json: Value = serde_json::from_str(&compact(&self.json)).unwrap();
        let mut out = Vec::new();
        codec::write_yaml(&json, &mut out);
        same("JSON to YAML", &text(out), &text(self.yaml.clone()))
    }

    fn check_text(
        &self,
        body: &[u8],
        decode: impl Fn(&[u8]) -> Result<decode::Decoded, codec::Error>,
    ) -> Result<(), String> {
        let raw = envelope::decode(&self.proto).unwrap().raw;
        let json = compact(&self.json);
        let mut out = Vec::new();
        transcode::json_to_proto(self.msg, json.as_bytes(), &mut out).map_err(|e| e.to_string())?;
        same("JSON to proto", &out[..], raw)?;

        let decoded = decode(body).map_err(|e| e.to_string())?;
        same("strict errors", &decoded.strict_errors, &Vec::new())?;
        let mut out = Vec::new();
        tree::to_json(self.msg, &decoded.value, &mut out).map_err(|e| e.to_string())?;
        same("decoded to JSON", &text(out), &json)?;
        let mut out = Vec::new();
        tree::to_proto(self.msg, &decoded.value, &mut out).map_err(|e| e.to_string())?;
        same("decoded to proto", &out[..], raw)
    }
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    got: &T,
    want: &T,
) -> Result<(), String> {
    if got == want {
        return Ok(());
    }
    let (got, want) = (format!("{got:?}"), format!("{want:?}"));
    let at = got
        .bytes()
        .zip(want.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let near = |s: &str| {
        let s: Vec<char> = s.chars().collect();
        s[at.saturating_sub(80).min(s.len())..(at + 80).min(s.len())]
            .iter()
            .collect::<String>()
    };
    Err(format!(
        "{what}:\n    got  …{}\n    want …{}",
        near(&got),
        near(&want)
    ))
}

/// The fixtures' directory, if the environment names it.
fn directory() -> Option<PathBuf> {
    let dir = std::env::var_os("FERROKUBE_FIXTURES").map(PathBuf::from);
    if dir.is_none() {
        eprintln!(
            "\n*** FERROKUBE_FIXTURES IS NOT SET: UPSTREAM'S GOLDEN FIXTURES WERE NOT TESTED."
        );
        eprintln!(
            "*** Set it to the staging/src/k8s.io/api/testdata/HEAD of a Kubernetes v1.36.2 checkout.\n"
        );
    }
    dir
}

#[test]
fn every_fixture_returns_byte_for_byte() {
    let Some(dir) = directory() else {
        return;
    };
    let fixtures = fixtures(&dir);
    let wrong: Vec<String> = fixtures.iter().flat_map(Fixture::check).collect();
    let files = fixtures.len() * 3;
    println!("golden fixtures: {} of {files}", files - wrong.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(files >= 555, "the directory has {files} of 555 fixtures");
}

/// Objects of earlier versions, in which fields have come and gone since: upstream says
/// what becomes of those in `.after_roundtrip` files.
#[test]
fn earlier_versions_return_as_upstream_returns_them() {
    let Some(parent) = directory().and_then(|dir| Some(dir.parent()?.to_owned())) else {
        return;
    };
    let mut wrong = Vec::new();
    let mut checked = 0;
    for entry in fs::read_dir(parent).unwrap() {
        let dir = entry.unwrap().path();
        let version = dir.file_name().unwrap().to_string_lossy().into_owned();
        if !version.starts_with('v') {
            continue;
        }
        for fixture in fixtures(&dir) {
            let after = |extension: &str, before: &[u8]| {
                let file = format!("{}.after_roundtrip.{extension}", fixture.name);
                fs::read(dir.join(file)).unwrap_or(before.to_owned())
            };
            let want = Fixture {
                json: after("json", &fixture.json),
                proto: after("pb", &fixture.proto),
                yaml: after("yaml", &fixture.yaml),
                name: format!("{version}/{}", fixture.name),
                ..fixture.clone()
            };
            checked += 3;
            if let Err(error) = returns(&fixture, &want) {
                wrong.push(format!("{}: {error}", want.name));
            }
        }
    }
    println!("fixtures of earlier versions: {checked}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(checked > 1000, "only {checked} files of earlier versions");
}

/// Each file of `before` has to come out as that of `after`.
fn returns(before: &Fixture, after: &Fixture) -> Result<(), String> {
    let error = |e: codec::Error| e.to_string();
    let (msg, json) = (before.msg, compact(&after.json));
    let unknown = envelope::decode(&before.proto).map_err(error)?;
    let (api_version, kind) = (unknown.api_version, unknown.kind);
    let want = envelope::decode(&after.proto).map_err(error)?.raw;

    let tree = tree::from_proto_with_type_meta(msg, unknown.raw, api_version, kind);
    let mut out = Vec::new();
    tree::to_proto(msg, &tree.map_err(error)?, &mut out).map_err(error)?;
    same("proto", &out[..], want)?;

    for decoded in [
        decode::json(msg, compact(&before.json).as_bytes(), Strictness::Ignore),
        decode::yaml(msg, &before.yaml, Strictness::Ignore),
    ] {
        let value = decoded.map_err(error)?.value;
        let mut out = Vec::new();
        tree::to_json(msg, &value, &mut out).map_err(error)?;
        same("JSON", &text(out), &json)?;
        let mut out = Vec::new();
        tree::to_proto(msg, &value, &mut out).map_err(error)?;
        same("proto", &out[..], want)?;
    }
    let mut out = Vec::new();
    let body = compact(&before.json);
    transcode::json_to_proto(msg, body.as_bytes(), &mut out).map_err(error)?;
    same("JSON to proto", &out[..], want)?;
    let mut out = Vec::new();
    codec::write_yaml(&serde_json::from_str(&json).unwrap(), &mut out);
    same("YAML", &text(out), &text(after.yaml.clone()))
}

/// Through a typed object, whose JSON and protobuf both have to come back.
fn through<T: serde::Serialize + serde::de::DeserializeOwned>(fixture: &Fixture) {
    let unknown = envelope::decode(&fixture.proto).unwrap();
    let (api_version, kind) = (unknown.api_version, unknown.kind);
    let typed: T =
        serde_pb::from_slice_with_type_meta(fixture.msg, unknown.raw, api_version, kind).unwrap();
    let raw = serde_pb::to_vec(fixture.msg, &typed).unwrap();
    same("typed to proto", &raw[..], unknown.raw).unwrap();
    let parsed: Value = serde_json::from_slice(&fixture.json).unwrap();
    same(
        "typed to JSON",
        &serde_json::to_value(&typed).unwrap(),
        &parsed,
    )
    .unwrap();
}

#[test]
fn typed_objects_return_byte_for_byte() {
    let Some(dir) = directory() else {
        return;
    };
    for fixture in fixtures(&dir) {
        match &*fixture.name {
            "apps.v1.Deployment" => through::<api::apps::v1::Deployment>(&fixture),
            "apps.v1.DaemonSet" => through::<api::apps::v1::DaemonSet>(&fixture),
            "batch.v1.CronJob" => through::<api::batch::v1::CronJob>(&fixture),
            "coordination.k8s.io.v1.Lease" => through::<api::coordination::v1::Lease>(&fixture),
            "core.v1.ConfigMap" => through::<api::core::v1::ConfigMap>(&fixture),
            "core.v1.Event" => through::<api::core::v1::Event>(&fixture),
            "core.v1.Namespace" => through::<api::core::v1::Namespace>(&fixture),
            "core.v1.Node" => through::<api::core::v1::Node>(&fixture),
            "core.v1.Pod" => through::<api::core::v1::Pod>(&fixture),
            "core.v1.Secret" => through::<api::core::v1::Secret>(&fixture),
            "core.v1.Service" => through::<api::core::v1::Service>(&fixture),
            "core.v1.ServiceAccount" => through::<api::core::v1::ServiceAccount>(&fixture),
            "discovery.k8s.io.v1.EndpointSlice" => {
                through::<api::discovery::v1::EndpointSlice>(&fixture);
            }
            "rbac.authorization.k8s.io.v1.ClusterRole" => {
                through::<api::rbac::v1::ClusterRole>(&fixture);
            }
            _ => {}
        }
    }
}
