//! YAML is read or refused, what is written is read as the same, and JSON that is not taken
//! for YAML says the same as if it were.

#![no_main]

use codec::decode::{Strictness, plain_json, yaml, yaml_to_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, body)) = fuzz::kind(data) else {
        return;
    };
    if let Ok(decoded) = yaml(msg, body, Strictness::Strict) {
        codec::write_yaml(&decoded.value, &mut Vec::new());
    }
    if let Some(plain) = plain_json(body) {
        let (text, duplicates) = yaml_to_json(body).expect("JSON is YAML");
        assert!(duplicates.is_empty(), "{duplicates:?}");
        let read: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!(read, plain);
    }
});
