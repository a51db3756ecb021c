//! A tree that was decoded can be written in both forms, and what may be spared the way through
//! its text would not be changed by it.

#![no_main]

use codec::decode::{Strictness, canonical, json, untyped};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((msg, body)) = fuzz::kind(data) else {
        return;
    };
    let decoded = json(msg, body, Strictness::Strict);
    if let Ok(decoded) = &decoded {
        codec::tree::to_json(msg, &decoded.value, &mut Vec::new()).expect("a tree is JSON");
        codec::tree::to_proto(msg, &decoded.value, &mut Vec::new()).expect("a tree is protobuf");
    }
    let Ok(tree) = untyped(body) else {
        return;
    };
    let text = tree.to_string();
    if let Ok(settled) = canonical(msg, tree) {
        let decoded = json(msg, text.as_bytes(), Strictness::Strict).expect("it is of its type");
        assert!(
            decoded.strict_errors.is_empty(),
            "{:?}",
            decoded.strict_errors
        );
        assert_eq!(decoded.value, settled);
    }
});
