//! JSON that is read is written again, and the same from then on.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, json)) = fuzz::kind(data) else {
        return;
    };
    let mut once = Vec::new();
    if codec::transcode::json_to_proto(msg, json, &mut once).is_ok() {
        // Embedded JSON is kept as it came, so that the text settles on the second time.
        let mut text = Vec::new();
        codec::transcode::proto_to_json(msg, &once, None, &mut text).expect("own bytes are read");
        let (mut twice, mut again) = (Vec::new(), Vec::new());
        codec::transcode::json_to_proto(msg, &text, &mut twice).expect("own JSON is read");
        codec::transcode::proto_to_json(msg, &twice, None, &mut again).expect("once more");
        assert_eq!(text, again);
    }
});
