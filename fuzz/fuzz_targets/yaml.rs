//! YAML is read or refused, and what is written is read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, body)) = fuzz::kind(data) else {
        return;
    };
    let strict = codec::decode::Strictness::Strict;
    if let Ok(decoded) = codec::decode::yaml(msg, body, strict) {
        codec::write_yaml(&decoded.value, &mut Vec::new());
    }
});
