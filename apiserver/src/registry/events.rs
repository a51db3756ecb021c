//! Events: they live for `--event-ttl` and then go by themselves.

use std::time::Duration;

use api::validation;
use meta::field::ErrorList;
use serde_json::Value;

use super::deletion::GarbageCollection;
use super::strategy::{Context, Strategy};

#[derive(Debug)]
pub struct Events {
    pub ttl: Duration,
}

impl Strategy for Events {
    fn prepare_create(&self, _cx: &Context<'_>, _event: &mut Value) {}

    fn validate_create(&self, cx: &Context<'_>, event: &Value) -> ErrorList {
        validation::create(cx.group, "Event", true, event)
    }

    fn prepare_update(&self, _cx: &Context<'_>, _event: &mut Value, _old: &Value) {}

    fn validate_update(&self, cx: &Context<'_>, event: &Value, old: &Value) -> ErrorList {
        validation::update(cx.group, "Event", event, old)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn garbage_collection(&self) -> GarbageCollection {
        GarbageCollection::Unsupported
    }

    fn ttl(&self, _event: &Value) -> Option<Duration> {
        Some(self.ttl)
    }
}
