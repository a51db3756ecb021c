//! What the golden fixtures do not show: empty and absent values, escapes, negative
//! numbers, inlined messages, members in odd order, fields that nobody knows, strict
//! errors. What is expected was taken from upstream's types and from Go's rules.

use codec::decode::{self, Strictness};
use codec::{serde_pb, transcode, tree};
use k8s_openapi::api::core::v1 as core;
use schema::Message;
use serde::Deserialize;
use serde_json::{Value, json};

fn kind(kind: &str) -> &'static Message {
    [
        "",
        "apps",
        "rbac.authorization.k8s.io",
        "apiextensions.k8s.io",
        "coordination.k8s.io",
    ]
    .iter()
    .find_map(|group| schema::kind(group, "v1", kind))
    .unwrap()
}

fn proto(msg: &'static Message, json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    transcode::json_to_proto(msg, json.as_bytes(), &mut out).unwrap();
    // The three ways there have to agree.
    let decoded = decode::json(msg, json.as_bytes(), Strictness::Ignore).unwrap();
    let mut by_tree = Vec::new();
    tree::to_proto(msg, &decoded.value, &mut by_tree).unwrap();
    assert_eq!(by_tree, out, "{json}");
    out
}

fn json(msg: &'static Message, raw: &[u8]) -> String {
    let mut out = Vec::new();
    transcode::proto_to_json(msg, raw, None, &mut out).unwrap();
    let tree = tree::from_proto(msg, raw).unwrap();
    let mut by_tree = Vec::new();
    tree::to_json(msg, &tree, &mut by_tree).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(String::from_utf8(by_tree).unwrap(), out);
    out
}

/// Through protobuf and back.
fn round(msg: &'static Message, text: &str) -> String {
    json(msg, &proto(msg, text))
}

const NO_META: &str = r#""metadata":{}"#;

#[test]
fn values_that_are_no_pointers_are_always_in_protobuf() {
    // ObjectMeta, then data, type and stringData: only what is no pointer, list or map.
    let empty_meta = [
        0x0a, 0x10, 0x0a, 0, 0x12, 0, 0x1a, 0, 0x22, 0, 0x2a, 0, 0x32, 0, 0x38, 0, 0x42, 0,
    ];
    let want = [&empty_meta[..], &[0x1a, 0]].concat();
    assert_eq!(proto(kind("Secret"), "{}"), want);
    assert_eq!(
        proto(kind("Secret"), r#"{"metadata":null,"data":{},"type":null}"#),
        want
    );
    assert_eq!(json(kind("Secret"), &want), format!("{{{NO_META}}}"));
}

#[test]
fn structs_are_printed_even_when_empty() {
    assert_eq!(
        round(kind("Pod"), "{}"),
        r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#
    );
    let pod = r#"{"spec":{"containers":[{"name":"a"}],"volumes":[{"name":"v","emptyDir":{}}]}}"#;
    assert_eq!(
        round(kind("Pod"), pod),
        r#"{"metadata":{},"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"a","resources":{}}]},"status":{}}"#
    );
    assert_eq!(round(kind("Role"), "{}"), r#"{"metadata":{},"rules":null}"#);
}

#[test]
fn pointers_tell_zero_from_nothing() {
    let with = |replicas| format!(r#"{{"spec":{{"replicas":{replicas}}}}}"#);
    let deployment = |text: &str| round(kind("Deployment"), text);
    assert!(deployment(&with("0")).contains(r#""spec":{"replicas":0,"#));
    assert!(deployment(&with("-7")).contains(r#""spec":{"replicas":-7,"#));
    assert!(!deployment(&with("null")).contains("replicas"));
    let raw = proto(kind("Deployment"), &with("-1"));
    // A negative varint takes ten bytes.
    let minus_one = [
        0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
    ];
    assert!(raw.windows(11).any(|w| w == minus_one));
}

#[test]
fn members_may_come_in_any_order() {
    let a = r#"{"data":{"b":"2","a":"1"},"metadata":{"uid":"u","name":"n"},"immutable":true}"#;
    let b = r#"{"immutable":true,"metadata":{"name":"n","uid":"u"},"data":{"a":"1","b":"2"}}"#;
    assert_eq!(proto(kind("ConfigMap"), a), proto(kind("ConfigMap"), b));
    assert_eq!(
        round(kind("ConfigMap"), a),
        r#"{"metadata":{"name":"n","uid":"u"},"immutable":true,"data":{"a":"1","b":"2"}}"#
    );
}

#[test]
fn members_that_come_twice_are_merged_as_in_go() {
    let twice = r#"{"metadata":{"name":"a","uid":"u"},"data":{"x":"1"},"metadata":{"name":"b"},"data":{"y":"2"}}"#;
    assert_eq!(
        round(kind("ConfigMap"), twice),
        r#"{"metadata":{"name":"b","uid":"u"},"data":{"x":"1","y":"2"}}"#
    );
    let keys = r#"{"data":{"x":"1","x":"2"}}"#;
    assert_eq!(
        round(kind("ConfigMap"), keys),
        format!(r#"{{{NO_META},"data":{{"x":"2"}}}}"#)
    );
}

#[test]
fn strings_survive() {
    let text = "\"\\\u{1}<&>\u{2028}é𝄞\n";
    let body = json!({"data": {text: text}}).to_string();
    let got = round(kind("ConfigMap"), &body);
    assert!(
        got.contains(r#""\"\\\u0001\u003c\u0026\u003e\u2028é𝄞\n""#),
        "{got}"
    );
    let back: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(back["data"][text], text);
}

#[test]
fn bytes_tell_empty_from_nothing_in_maps() {
    // gogo-proto leaves a nil value out and reads it back as an empty one.
    assert_eq!(
        round(kind("Secret"), r#"{"data":{"a":"","b":null,"c":"AAE="}}"#),
        format!(r#"{{{NO_META},"data":{{"a":"","b":"","c":"AAE="}}}}"#)
    );
}

#[test]
fn inlined_messages_are_flat_in_json() {
    // ConfigMapKeySelector inlines LocalObjectReference, Volume inlines VolumeSource,
    // and EphemeralContainer inlines EphemeralContainerCommon.
    let pod = json!({"spec": {
        "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {
            "configMapKeyRef": {"key": "k", "optional": true, "name": "n"}}}]}],
        "ephemeralContainers": [{"targetContainerName": "c", "name": "e", "image": "i"}],
        "volumes": [{"configMap": {"name": "n"}, "name": "v"}],
    }});
    let got: Value = serde_json::from_str(&round(kind("Pod"), &pod.to_string())).unwrap();
    let spec = &got["spec"];
    assert_eq!(
        spec["containers"][0]["env"][0]["valueFrom"]["configMapKeyRef"],
        json!({"key": "k", "optional": true, "name": "n"})
    );
    assert_eq!(
        spec["volumes"][0],
        json!({"configMap": {"name": "n"}, "name": "v"})
    );
    assert_eq!(spec["ephemeralContainers"][0]["targetContainerName"], "c");
    assert_eq!(spec["ephemeralContainers"][0]["image"], "i");
}

#[test]
fn special_types_are_made_canonical() {
    let pod = json!({
        "metadata": {"creationTimestamp": "2024-05-01T12:00:00.5+02:00"},
        "spec": {"containers": [{
            "name": "c",
            "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            "livenessProbe": {"httpGet": {"port": "http"}, "tcpSocket": {"port": -1}},
        }]},
    });
    let got: Value = serde_json::from_str(&round(kind("Pod"), &pod.to_string())).unwrap();
    assert_eq!(got["metadata"]["creationTimestamp"], "2024-05-01T10:00:00Z");
    let container = &got["spec"]["containers"][0];
    assert_eq!(
        container["resources"]["limits"],
        json!({"cpu": "500m", "memory": "1Gi"})
    );
    assert_eq!(container["livenessProbe"]["httpGet"]["port"], "http");
    assert_eq!(container["livenessProbe"]["tcpSocket"]["port"], -1);
}

#[test]
fn schemas_take_all_their_forms() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"items": {"type": "string"}, "default": {"x": [1, null]}},
            "b": {"items": [{"type": "string"}, {}], "additionalProperties": false},
            "c": {"additionalProperties": {"type": "integer"}, "minimum": 1.5},
        },
        "dependencies": {"d": ["x", "y"], "e": {"type": "null"}},
    });
    let crd = json!({"spec": {"group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Cluster",
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let got = round(kind("CustomResourceDefinition"), &crd.to_string());
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(
        got["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        schema
    );
}

#[test]
fn unknown_protobuf_fields_are_stepped_over() {
    let mut raw = proto(kind("ConfigMap"), r#"{"data":{"a":"b"}}"#);
    raw.extend_from_slice(&[
        0xfa, 0x01, 2, b'x', b'y', 0xf8, 0x01, 7, 0xf9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    assert_eq!(
        json(kind("ConfigMap"), &raw),
        format!(r#"{{{NO_META},"data":{{"a":"b"}}}}"#)
    );
}

#[test]
fn protobuf_that_others_write_is_read() {
    // A map out of order with a key that comes twice, a split message, a packed list.
    let raw = [
        0x0a, 3, 0x0a, 1, b'n', 0x12, 6, 0x0a, 1, b'b', 0x12, 1, b'2', 0x12, 6, 0x0a, 1, b'a',
        0x12, 1, b'1', 0x12, 6, 0x0a, 1, b'b', 0x12, 1, b'3', 0x0a, 3, 0x2a, 1, b'u',
    ];
    let mut out = Vec::new();
    transcode::proto_to_json(kind("ConfigMap"), &raw, None, &mut out).unwrap();
    let want = r#"{"metadata":{"name":"n","uid":"u"},"data":{"a":"1","b":"3"}}"#;
    assert_eq!(String::from_utf8(out).unwrap(), want);

    let groups = proto(
        kind("Pod"),
        r#"{"spec":{"securityContext":{"supplementalGroups":[5,300]}}}"#,
    );
    let unpacked = [0x20, 5, 0x20, 0xac, 2];
    let at = groups.windows(5).position(|w| w == unpacked).unwrap();
    let mut packed = groups.clone();
    packed.splice(at..at + 5, [0x22, 3, 5, 0xac, 2]);
    assert_eq!(json(kind("Pod"), &packed), json(kind("Pod"), &groups));
}

#[test]
fn depth_is_limited() {
    let body = format!(r#"{{"data":{{"a":{}}}}}"#, "[".repeat(100_000));
    assert!(transcode::json_to_proto(kind("ConfigMap"), body.as_bytes(), &mut Vec::new()).is_err());
    // JSONSchemaProps nests in itself.
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let msg = schema::message(name).unwrap();
    let varint = |mut v: usize| {
        let mut out = Vec::new();
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
        out
    };
    let not = varint((msg.field("not").unwrap().number as usize) << 3 | 2);
    let nested = |depth: usize| {
        let (mut heads, mut length) = (Vec::new(), 0);
        for _ in 0..depth {
            heads.push([not.clone(), varint(length)].concat());
            length += heads.last().unwrap().len();
        }
        heads.reverse();
        heads.concat()
    };
    let (deep, deeper) = (nested(9_999), nested(10_001));
    let test = move || {
        assert!(transcode::proto_to_json(msg, &deeper, None, &mut Vec::new()).is_err());
        assert!(tree::from_proto(msg, &deeper).is_err());
        let tree = tree::from_proto(msg, &deep).unwrap();
        let (mut json, mut direct) = (Vec::new(), Vec::new());
        tree::to_json(msg, &tree, &mut json).unwrap();
        transcode::proto_to_json(msg, &deep, None, &mut direct).unwrap();
        assert!(json == direct);
        let mut proto = Vec::new();
        tree::to_proto(msg, &tree, &mut proto).unwrap();
        assert!(tree::from_proto(msg, &proto).unwrap() == tree);
        let read = decode::json(msg, &json, Strictness::Strict).unwrap();
        assert!(read.value == tree);
        assert!(read.strict_errors.is_empty());
    };
    let thread = std::thread::Builder::new().stack_size(512 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}

fn strict(kind_: &str, body: &str) -> Vec<String> {
    decode::json(kind(kind_), body.as_bytes(), Strictness::Strict)
        .unwrap()
        .strict_errors
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let pod = r#"{"foo":1,"spec":{"foo":{"bar":1},"containers":[{"name":"a","foo":1},{"name":"b","foo":1,"name":"c"}]},
        "metadata":{"labels":{"a":"1","a":"2"},"name":"x","name":"y"}}"#;
    assert_eq!(
        strict("Pod", pod),
        [
            r#"unknown field "foo""#,
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.containers[0].foo""#,
            r#"unknown field "spec.containers[1].foo""#,
            r#"duplicate field "spec.containers[1].name""#,
            r#"duplicate field "metadata.labels.a""#,
            r#"duplicate field "metadata.name""#,
        ]
    );
    let decoded = decode::json(kind("Pod"), pod.as_bytes(), Strictness::Strict).unwrap();
    assert!(
        decode::strict_error(&decoded.strict_errors)
            .unwrap()
            .starts_with(r#"strict decoding error: unknown field "foo", unknown field "spec.foo""#)
    );
    assert_eq!(decoded.value.get("foo"), None);
    let decoded = decode::json(kind("Pod"), pod.as_bytes(), Strictness::Ignore).unwrap();
    assert_eq!(decode::strict_error(&decoded.strict_errors), None);

    let yaml = "kind: Pod\nmetadata:\n  name: a\n  name: b\n  foo: 1\n";
    let decoded = decode::yaml(kind("Pod"), yaml.as_bytes(), Strictness::Warn).unwrap();
    assert_eq!(
        decoded.strict_errors,
        [
            "yaml: unmarshal errors:\n  line 4: key \"name\" already set in map",
            r#"unknown field "metadata.foo""#,
        ]
    );
    assert_eq!(decoded.value["metadata"]["name"], "b");
}

#[test]
fn values_of_the_wrong_type_are_errors() {
    for (kind_, body, want) in [
        (
            "Deployment",
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":[{"name":1}]}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "ConfigMap",
            r#"{"data":{"a":true}}"#,
            "json: cannot unmarshal bool into Go struct field ConfigMap.data of type string",
        ),
        (
            "ConfigMap",
            r#"{"metadata":[]}"#,
            "json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
        ),
        (
            "ConfigMap",
            "[]",
            r#"couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#,
        ),
        (
            "ConfigMap",
            r#"{"kind":1}"#,
            "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string",
        ),
        (
            "Service",
            r#"{"spec":{"ports":[{"targetPort":true}]}}"#,
            "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32",
        ),
        (
            "Secret",
            r#"{"data":{"a":"!"}}"#,
            "illegal base64 data at input byte 0",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "Pod",
            r#"{"metadata":{"creationTimestamp":"today"}}"#,
            "parsing time \"today\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"today\" as \"2006\"",
        ),
        (
            "Pod",
            r#"{"spec":}"#,
            "couldn't get version/kind; json parse error: invalid character '}' looking for beginning of value",
        ),
    ] {
        let error = decode::json(kind(kind_), body.as_bytes(), Strictness::Ignore).unwrap_err();
        assert_eq!(error.to_string(), want);
        let streamed = transcode::json_to_proto(kind(kind_), body.as_bytes(), &mut Vec::new());
        assert!(streamed.is_err(), "{body}");
    }
}

#[test]
fn trees_can_be_completed_for_json_patches() {
    let mut tree = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
    tree::complete(kind("Pod"), &mut tree);
    let want = json!({
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "resources": {}}]},
        "status": {},
    });
    assert_eq!(tree, want);
    let mut role = json!({});
    tree::complete(kind("Role"), &mut role);
    assert_eq!(role, json!({"metadata": {}, "rules": null}));
}

#[test]
fn typed_objects_read_and_write_protobuf() {
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "labels": {"x": "y"}, "creationTimestamp": "2024-01-01T00:00:00Z",
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
        "spec": {
            "containers": [{"name": "c", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": "http"}}}],
            "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}],
        },
    });
    let raw = proto(kind("Pod"), &body.to_string());
    let pod: core::Pod =
        serde_pb::from_slice_with_type_meta(kind("Pod"), &raw, "v1", "Pod").unwrap();
    assert_eq!(pod.metadata.name.as_deref(), Some("a"));
    // What JSON leaves out, the type does not see.
    assert_eq!(pod.metadata.namespace, None);
    assert_eq!(
        pod.spec.as_ref().unwrap().containers[0]
            .ports
            .as_ref()
            .unwrap()[0]
            .container_port,
        80
    );
    assert_eq!(serde_pb::to_vec(kind("Pod"), &pod).unwrap(), raw);

    let body = r#"{"data":{"a":"AAE="},"type":"Opaque"}"#;
    let raw = proto(kind("Secret"), body);
    let secret: core::Secret =
        serde_pb::from_slice_with_type_meta(kind("Secret"), &raw, "v1", "Secret").unwrap();
    assert_eq!(secret.data.as_ref().unwrap()["a"].0, [0, 1]);
    assert_eq!(serde_pb::to_vec(kind("Secret"), &secret).unwrap(), raw);
}

#[derive(Debug, Deserialize, PartialEq)]
struct SlimMeta<'a> {
    name: &'a str,
    #[serde(default)]
    namespace: Option<&'a str>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct SlimSpec<'a> {
    #[serde(borrow, default)]
    node_name: Option<&'a str>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
struct SlimPod<'a> {
    #[serde(borrow)]
    metadata: SlimMeta<'a>,
    spec: SlimSpec<'a>,
}

#[test]
fn slim_structs_borrow_what_they_declare() {
    let body = r#"{"metadata":{"name":"a","namespace":"n","labels":{"x":"y"}},"spec":{"nodeName":"w","containers":[{"name":"c"}]}}"#;
    let raw = proto(kind("Pod"), body);
    let pod: SlimPod = serde_pb::from_slice(kind("Pod"), &raw).unwrap();
    let want = SlimPod {
        metadata: SlimMeta {
            name: "a",
            namespace: Some("n"),
        },
        spec: SlimSpec {
            node_name: Some("w"),
            host_network: false,
        },
    };
    assert_eq!(pod, want);
    assert!(raw.as_ptr_range().contains(&pod.metadata.name.as_ptr()));
}

#[test]
fn embedded_objects_are_opened() {
    let pod = codec::envelope::encode(
        "v1",
        "Pod",
        &proto(kind("Pod"), r#"{"metadata":{"name":"a"}}"#),
    );
    let mut event = vec![0x0a, 5];
    event.extend_from_slice(b"ADDED");
    let mut extension = vec![0x0a, pod.len() as u8];
    extension.extend_from_slice(&pod);
    event.extend_from_slice(&[0x12, extension.len() as u8]);
    event.extend_from_slice(&extension);
    let msg = schema::kind("", "v1", "WatchEvent").unwrap();
    let mut out = Vec::new();
    transcode::proto_to_json(msg, &event, None, &mut out).unwrap();
    let want = r#"{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":null},"status":{}}}"#;
    assert_eq!(String::from_utf8(out).unwrap(), want);
    let tree = tree::from_proto(msg, &event).unwrap();
    assert_eq!(tree["object"]["metadata"]["name"], "a");
}

mod never_panics {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn on_bytes(bytes: Vec<u8>) {
            for name in ["Pod", "Secret", "CustomResourceDefinition", "Lease"] {
                let msg = kind(name);
                let _ = transcode::proto_to_json(msg, &bytes, None, &mut Vec::new());
                let _ = transcode::json_to_proto(msg, &bytes, &mut Vec::new());
                let _ = tree::from_proto(msg, &bytes);
                let _ = decode::json(msg, &bytes, Strictness::Strict);
                let _ = decode::yaml(msg, &bytes, Strictness::Strict);
            }
        }

        #[test]
        fn on_damaged_objects(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let body = r#"{"metadata":{"name":"a","labels":{"x":"y"},"creationTimestamp":"2024-01-01T00:00:00Z"},
                "spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1"}},"livenessProbe":{"httpGet":{"port":1}}}]}}"#;
            let mut raw = proto(kind("Pod"), body);
            let i = at % raw.len();
            raw[i] = byte;
            raw.truncate(raw.len().min(400).max(cut));
            let by_transcoder = transcode::proto_to_json(kind("Pod"), &raw, None, &mut Vec::new());
            let by_tree = tree::from_proto(kind("Pod"), &raw);
            // A message that was split is read by the transcoder only.
            prop_assert!(by_transcoder.is_ok() || by_tree.is_err());
            let mut text = body.as_bytes().to_vec();
            let i = at % text.len();
            text[i] = byte;
            let streamed = transcode::json_to_proto(kind("Pod"), &text, &mut Vec::new());
            let decoded = decode::json(kind("Pod"), &text, Strictness::Ignore);
            prop_assert_eq!(streamed.is_ok(), decoded.is_ok());
        }
    }
}

#[test]
fn empty_bytes_go_where_json_leaves_them_out() {
    let group = "admissionregistration.k8s.io";
    let message = schema::kind(group, "v1", "MutatingWebhookConfiguration").unwrap();
    let mut hooks = json!({"webhooks": [
        {"name": "a", "clientConfig": {"url": "", "caBundle": ""}},
        {"name": "b", "clientConfig": {"caBundle": "YQ=="}},
    ]});
    tree::drop_empty_bytes(message, &mut hooks);
    assert_eq!(hooks["webhooks"][0]["clientConfig"], json!({"url": ""}));
    assert_eq!(hooks["webhooks"][1]["clientConfig"]["caBundle"], "YQ==");
    let mut secret = json!({"data": {"a": ""}});
    tree::drop_empty_bytes(kind("Secret"), &mut secret);
    assert_eq!(secret, json!({"data": {"a": ""}}));
}

#[test]
fn field_sets_of_templates_become_json_too() {
    let entry = json!({"manager": "m", "fieldsV1": r#"{"f:a":{}}"#});
    let expanded = json!({"manager": "m", "fieldsV1": {"f:a": {}}});
    let tree_of = |entry: &Value| {
        json!({
            "metadata": {"managedFields": [entry]},
            "spec": {"template": {"metadata": {"managedFields": [entry]}}},
        })
    };
    let mut deployment = tree_of(&entry);
    tree::expand_field_sets(kind("Deployment"), &mut deployment);
    assert_eq!(deployment, tree_of(&expanded));
}
