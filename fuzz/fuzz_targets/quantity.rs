//! A quantity that is read is written as one that is read.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(quantity) = text.parse::<meta::quantity::Quantity>()
    {
        let _ = quantity.to_string();
    }
});
