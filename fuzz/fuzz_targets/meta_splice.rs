//! A resourceVersion that was set is there.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    if codec::meta_splice::set_resource_version(data, "123", &mut out).is_ok()
        && let Ok(meta) = codec::meta_splice::ObjectMeta::of(&out)
    {
        assert_eq!(meta.resource_version, "123");
        meta.labels().chain(meta.annotations()).for_each(drop);
        meta.owner_references().for_each(drop);
        meta.finalizers().for_each(drop);
    }
    let enveloped = codec::envelope::encode("v1", "Pod", data);
    let _ = codec::meta_splice::set_enveloped_resource_version(&enveloped, "123", &mut Vec::new());
});
