//! A tree that was decoded can be written in both forms.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, body)) = fuzz::kind(data) else {
        return;
    };
    let strict = codec::decode::Strictness::Strict;
    if let Ok(decoded) = codec::decode::json(msg, body, strict) {
        codec::tree::to_json(msg, &decoded.value, &mut Vec::new()).expect("a tree is JSON");
        codec::tree::to_proto(msg, &decoded.value, &mut Vec::new()).expect("a tree is protobuf");
    }
});
