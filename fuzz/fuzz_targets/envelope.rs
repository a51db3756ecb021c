//! An envelope that opens closes to the same kind and message.

#![no_main]

use codec::envelope::{MAGIC, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = decode(body);
    // Coverage does not lead to the magic bytes: they are compared all at once.
    let enveloped = [&MAGIC, body].concat();
    if let Ok(unknown) = decode(&enveloped) {
        let bytes = encode(unknown.api_version, unknown.kind, unknown.raw);
        let again = decode(&bytes).expect("what was written is read");
        assert_eq!((again.kind, again.raw), (unknown.kind, unknown.raw));
    }
});
