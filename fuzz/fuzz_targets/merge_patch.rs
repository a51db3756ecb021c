//! A merge patch applies or is refused, and changes nothing when it is applied again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mut object, patch)) = fuzz::pair(data) else {
        return;
    };
    if patch::merge::apply(&mut object, patch.clone()).is_ok() {
        let once = object.clone();
        patch::merge::apply(&mut object, patch).expect("it did apply");
        assert_eq!(object, once);
    }
});
