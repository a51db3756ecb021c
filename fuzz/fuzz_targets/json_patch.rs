//! A JSON patch applies or is refused, whatever the object.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((mut object, patch)) = fuzz::pair(data) {
        let _ = patch::json::apply(&mut object, &patch);
    }
});
