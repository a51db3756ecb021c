//! Watch events in both forms.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = codec::watch_event::decode_json(data);
    let _ = codec::watch_event::decode_proto(data);
    if let Ok(Some((event, taken))) = codec::watch_event::frame(data, 1 << 20) {
        assert_eq!(event.len() + 4, taken);
        let _ = codec::watch_event::decode_proto(event);
    }
});
