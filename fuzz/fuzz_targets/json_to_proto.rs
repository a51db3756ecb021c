//! JSON that is read is written again, and the same from then on.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, json)) = fuzz::kind(data) else {
        return;
    };
    let mut once = Vec::new();
    if codec::transcode::json_to_proto(msg, json, &mut once).is_ok() {
        let mut text = Vec::new();
        // Embedded JSON may hold an envelope of its own, which may be nonsense.
        if codec::transcode::proto_to_json(msg, &once, None, &mut text).is_ok() {
            let mut twice = Vec::new();
            codec::transcode::json_to_proto(msg, &text, &mut twice).expect("own JSON is read");
        }
    }
});
