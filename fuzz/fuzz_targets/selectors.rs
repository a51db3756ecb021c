//! Label and field selectors are read or refused; what is read is written and read as
//! the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(selector) = meta::labels::Selector::parse(text) {
        let written = selector.to_string();
        let again = meta::labels::Selector::parse(&written).expect("what was written is read");
        assert_eq!(again.to_string(), written);
    }
    let _ = meta::fields::Selector::parse(text);
});
