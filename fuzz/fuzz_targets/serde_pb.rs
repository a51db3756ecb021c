//! Typed objects and trees are read or refused, and written again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, raw)) = fuzz::kind(data) else {
        return;
    };
    if let Ok(tree) = codec::tree::from_proto(msg, raw) {
        fuzz::expect_read(codec::tree::to_proto(msg, &tree, &mut Vec::new()));
    }
    use k8s_openapi::api::core::v1::Pod;
    let pod = schema::kind("", "v1", "Pod").expect("the schema has pods");
    if let Ok(typed) = codec::serde_pb::from_slice_with_type_meta::<Pod>(pod, raw, "v1", "Pod") {
        fuzz::expect_read(codec::serde_pb::to_vec(pod, &typed));
    }
});
