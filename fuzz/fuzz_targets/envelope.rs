//! An envelope that opens closes to the same kind and message.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(unknown) = codec::envelope::decode(data) {
        let bytes = codec::envelope::encode(unknown.api_version, unknown.kind, unknown.raw);
        let again = codec::envelope::decode(&bytes).expect("what was written is read");
        assert_eq!((again.kind, again.raw), (unknown.kind, unknown.raw));
    }
});
