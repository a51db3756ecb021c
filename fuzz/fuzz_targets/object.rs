//! A request's body on its way in: decoded, defaulted, validated as new and as an
//! update of itself.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let resources = schema::resources();
    let resource = &resources[*first as usize % resources.len()];
    let lax = codec::decode::Strictness::Ignore;
    let Ok(decoded) = codec::decode::json(resource.message, body, lax) else {
        return;
    };
    let mut object = decoded.value;
    api::defaults::apply(resource.message, &mut object);
    // Defaults are settled at once.
    let once = object.clone();
    api::defaults::apply(resource.message, &mut object);
    assert_eq!(object, once);
    let (group, kind) = (resource.group, resource.kind);
    let _ = api::validation::create(group, kind, resource.namespaced, &object);
    let _ = api::validation::update(group, kind, &object, &object);
    let _ = api::validation::update_status(group, kind, &object, &object);
});
