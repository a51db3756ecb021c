//! Services: their strategy, and the addresses and ports that the server gives them.

mod addresses;
pub mod fields;
mod hooks;
pub mod metrics;
mod node_ports;
mod ports;
mod range;
mod repair;

use api::validation;
use meta::field::ErrorList;
use serde_json::Value;

pub use addresses::Addresses;
pub use hooks::ServiceHooks;
pub use ports::NodePorts;
pub use repair::repair;

use super::generic::keep_all_but_status;
use super::object_meta::keep;
use super::strategy::{Context, Strategy};

#[derive(Debug)]
pub struct Services;

impl Strategy for Services {
    fn prepare_create(&self, _cx: &Context<'_>, service: &mut Value) {
        if let Some(members) = service.as_object_mut() {
            members.remove("status");
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, service: &Value) -> ErrorList {
        validation::create("", "Service", true, service)
    }

    fn prepare_update(&self, cx: &Context<'_>, service: &mut Value, old: &Value) {
        if !cx.subresource.is_empty() {
            keep_all_but_status(service, old);
            return;
        }
        keep(service, old, "status");
        fields::drop_type_dependent(service, old);
    }

    fn validate_update(&self, cx: &Context<'_>, service: &Value, old: &Value) -> ErrorList {
        if cx.subresource.is_empty() {
            validation::update("", "Service", service, old)
        } else {
            validation::update_status("", "Service", service, old)
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
