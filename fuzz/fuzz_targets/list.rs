//! Lists are taken apart, and what was put together is taken apart again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(list) = codec::list::List::decode(data) {
        let items: Vec<&[u8]> = list.items().map_while(Result::ok).collect();
        let mut out = Vec::new();
        codec::list::proto("v1", "List", &list.meta, items.iter().copied(), &mut out);
        let raw = codec::envelope::decode(&out)
            .expect("own envelopes are opened")
            .raw;
        let again = codec::list::List::decode(raw).expect("own lists are read");
        assert_eq!(again.meta, list.meta);
        assert_eq!(again.items().count(), items.len());
    }
});
