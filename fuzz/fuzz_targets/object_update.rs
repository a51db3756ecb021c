//! An object in the place of another one of its kind, by the object itself or any of its
//! subresources: validated, warned of, held against pod security.

#![no_main]

use api::pod_security::{Level, LevelVersion, Version};
use codec::decode::{Strictness, json};
use libfuzzer_sys::fuzz_target;
use schema::Resource;
use serde_json::Value;

fn read(resource: &Resource, body: &[u8]) -> Option<Value> {
    let mut object = json(resource.message, body, Strictness::Ignore).ok()?.value;
    api::defaults::apply(resource.message, &mut object);
    Some(object)
}

fuzz_target!(|data: &[u8]| {
    let Some((resource, body)) = fuzz::resource(data) else {
        return;
    };
    let Some((old, new)) = fuzz::halves(body) else {
        return;
    };
    let (Some(old), Some(new)) = (read(resource, old), read(resource, new)) else {
        return;
    };
    let (group, kind) = (resource.group, resource.kind);
    for object in [&new, &old] {
        let _ = api::validation::create(group, kind, resource.namespaced, object);
        let _ = api::warnings::on_create(group, kind, object);
    }
    let _ = api::validation::update(group, kind, &new, &old);
    let _ = api::validation::update_status(group, kind, &new, &old);
    let _ = api::warnings::on_update(group, kind, "", &new, &old);
    for subresource in resource.subresources {
        let part = subresource.name;
        let _ = api::validation::update_part(group, kind, part, &new, &old);
        let _ = api::warnings::on_update(group, kind, part, &new, &old);
    }
    if kind == "Pod" {
        for level in [Level::Baseline, Level::Restricted] {
            let policy = LevelVersion {
                level,
                version: Version::Latest,
            };
            let found = api::pod_security::evaluate(policy, &new["metadata"], &new["spec"]);
            let _ = found.details();
        }
    }
});
