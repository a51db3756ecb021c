//! A strategic merge patch applies to an object of any kind or is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((message, rest)) = fuzz::kind(data) else {
        return;
    };
    if let Some((object, patch)) = fuzz::pair(rest) {
        let _ = patch::strategic::apply(object, patch, message);
    }
});
