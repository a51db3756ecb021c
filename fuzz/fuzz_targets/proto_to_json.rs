//! Protobuf becomes JSON that parses, whatever the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, raw)) = fuzz::kind(data) else {
        return;
    };
    let mut out = Vec::new();
    if codec::transcode::proto_to_json(msg, raw, Some(("Kind", "v1")), &mut out).is_ok() {
        std::str::from_utf8(&out).expect("JSON is UTF-8");
        let mut proto = Vec::new();
        fuzz::expect_read(codec::transcode::json_to_proto(msg, &out, &mut proto));
    }
});
