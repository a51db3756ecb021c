//! Constraints over the devices of one claim. Once one is violated, more devices do not help.

use std::collections::HashMap;

use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceConstraint};

use crate::cache::devices::slice::Device;

#[derive(Debug)]
pub struct Constraint {
    /// The requests that it is about; all when there are none.
    requests: Vec<String>,
    attribute: String,
    /// All values are different, rather than the same.
    distinct: bool,
    /// The value that all have; or, by request, that its last device has: within a request,
    /// upstream compares with no other, and a claim that it serves is to be served here.
    values: HashMap<String, DeviceAttribute>,
    devices: usize,
}

impl Constraint {
    /// `None` when it is of a kind that is not known.
    pub fn new(constraint: &DeviceConstraint) -> Option<Self> {
        let (attribute, distinct) =
            match (&constraint.match_attribute, &constraint.distinct_attribute) {
                (Some(attribute), _) => (attribute, false),
                (None, Some(attribute)) => (attribute, true),
                (None, None) => return None,
            };
        Some(Self {
            requests: constraint.requests.clone().unwrap_or_default(),
            attribute: attribute.clone(),
            distinct,
            values: HashMap::new(),
            devices: 0,
        })
    }

    fn concerns(&self, request: &str, sub: Option<&str>) -> bool {
        self.requests.is_empty()
            || self.requests.iter().any(|name| {
                name == request
                    || sub.is_some_and(|sub| name.split_once('/') == Some((request, sub)))
            })
    }

    /// Adds a device, if it may be.
    pub fn add(&mut self, request: &str, sub: Option<&str>, device: &Device) -> bool {
        if !self.concerns(request, sub) {
            return true;
        }
        let Some(value) = device.attribute(&self.attribute) else {
            return false;
        };
        let fits = self.devices == 0
            || (self.values.values()).all(|other| same(value, other) != self.distinct);
        if fits {
            if self.distinct || self.devices == 0 {
                if !self.distinct {
                    self.values.clear();
                }
                self.values.insert(request.to_owned(), value.clone());
            }
            self.devices += 1;
        }
        fits
    }

    /// Takes back the device that was added last.
    pub fn remove(&mut self, request: &str, sub: Option<&str>) {
        if self.concerns(request, sub) {
            if self.distinct {
                self.values.remove(request);
            }
            self.devices -= 1;
        }
    }
}

fn same(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    if a.string.is_some() {
        return a.string == b.string;
    }
    if a.int.is_some() {
        return a.int == b.int;
    }
    if a.bool.is_some() {
        return a.bool == b.bool;
    }
    a.version.is_some() && a.version == b.version
}
