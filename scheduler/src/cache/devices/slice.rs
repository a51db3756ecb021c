//! A ResourceSlice, read once: what the allocator looks at again and again.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Key, Map, Value};
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1 as api;

use super::{Capacities, quantity};

/// A device, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub device: Arc<str>,
}

impl DeviceId {
    pub fn new(driver: &str, pool: &str, device: &str) -> Self {
        Self {
            driver: driver.into(),
            pool: pool.into(),
            device: device.into(),
        }
    }
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// Which nodes have a device, or a slice's devices.
#[derive(Debug, Default)]
pub struct Reach {
    pub node: Option<Box<str>>,
    pub all: bool,
    pub selector: Option<NodeSelector>,
}

#[derive(Debug)]
pub struct Slice {
    pub name: Box<str>,
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub generation: i64,
    /// How many slices of this generation the pool has.
    pub count: i64,
    pub node_name: Option<Box<str>>,
    pub reach: Reach,
    /// Each device says for itself which nodes have it.
    pub per_device: Option<bool>,
    pub shared_counters: Vec<(Box<str>, Capacities)>,
    pub devices: Vec<Device>,
}

#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    pub attributes: BTreeMap<String, api::DeviceAttribute>,
    pub capacity: BTreeMap<String, Capacity>,
    /// `device` of expressions, or why there is none.
    pub variable: Result<Value, String>,
    /// Several claims may share it (KEP-5075).
    pub shared: bool,
    /// What it uses of the counters of its pool (KEP-4815).
    pub consumes: Vec<(Box<str>, Capacities)>,
    pub taints: Vec<api::DeviceTaint>,
    pub reach: Reach,
    pub binding_conditions: Option<Vec<String>>,
    pub binding_failure_conditions: Option<Vec<String>>,
    pub binds_to_node: bool,
}

#[derive(Debug, Clone)]
pub struct Capacity {
    pub value: meta::quantity::Quantity,
    pub policy: Option<Policy>,
}

/// What may be requested of a capacity (`CapacityRequestPolicy`).
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub default: Option<meta::quantity::Quantity>,
    pub values: Vec<meta::quantity::Quantity>,
    pub range: Option<Range>,
}

#[derive(Debug, Clone)]
pub struct Range {
    pub min: meta::quantity::Quantity,
    pub max: Option<meta::quantity::Quantity>,
    pub step: Option<meta::quantity::Quantity>,
}

fn counters(counters: &BTreeMap<String, api::Counter>) -> Capacities {
    let value =
        |(name, counter): (&String, &api::Counter)| (name.clone(), quantity(&counter.value));
    counters.iter().map(value).collect()
}

impl Slice {
    pub fn new(slice: &api::ResourceSlice) -> Self {
        let spec = &slice.spec;
        let (driver, pool): (Arc<str>, Arc<str>) =
            (spec.driver.as_str().into(), spec.pool.name.as_str().into());
        let device = |device| Device::new(device, &driver, &pool);
        let node = spec.node_name.as_deref().filter(|name| !name.is_empty());
        Self {
            name: client::Object::name(slice).into(),
            generation: spec.pool.generation,
            count: spec.pool.resource_slice_count,
            node_name: node.map(Into::into),
            reach: Reach {
                node: node.map(Into::into),
                all: spec.all_nodes == Some(true),
                selector: spec.node_selector.clone(),
            },
            per_device: spec.per_device_node_selection,
            shared_counters: spec
                .shared_counters
                .iter()
                .flatten()
                .map(|set| (set.name.as_str().into(), counters(&set.counters)))
                .collect(),
            devices: spec.devices.iter().flatten().map(device).collect(),
            driver,
            pool,
        }
    }
}

impl Device {
    fn new(device: &api::Device, driver: &Arc<str>, pool: &Arc<str>) -> Self {
        let capacity: BTreeMap<String, Capacity> = device
            .capacity
            .iter()
            .flatten()
            .map(|(name, capacity)| (name.clone(), Capacity::new(capacity)))
            .collect();
        let attributes = device.attributes.clone().unwrap_or_default();
        let shared = device.allow_multiple_allocations == Some(true);
        let node = device.node_name.as_deref().filter(|name| !name.is_empty());
        Self {
            id: DeviceId {
                driver: Arc::clone(driver),
                pool: Arc::clone(pool),
                device: device.name.as_str().into(),
            },
            variable: variable(driver, &attributes, &capacity, shared),
            attributes,
            capacity,
            shared,
            consumes: device
                .consumes_counters
                .iter()
                .flatten()
                .map(|set| (set.counter_set.as_str().into(), counters(&set.counters)))
                .collect(),
            taints: device.taints.clone().unwrap_or_default(),
            reach: Reach {
                node: node.map(Into::into),
                all: device.all_nodes == Some(true),
                selector: device.node_selector.clone(),
            },
            binding_conditions: device.binding_conditions.clone(),
            binding_failure_conditions: device.binding_failure_conditions.clone(),
            binds_to_node: device.binds_to_node == Some(true),
        }
    }

    /// An attribute by its full name; its driver's own are also found without its domain.
    pub fn attribute(&self, name: &str) -> Option<&api::DeviceAttribute> {
        self.attributes.get(name).or_else(|| {
            let (domain, id) = name.split_once('/')?;
            (*domain == *self.id.driver).then(|| self.attributes.get(id))?
        })
    }
}

impl Capacity {
    fn new(capacity: &api::DeviceCapacity) -> Self {
        let policy = capacity.request_policy.as_ref();
        Self {
            value: quantity(&capacity.value),
            policy: policy.map(|policy| Policy {
                default: policy.default.as_ref().map(quantity),
                values: policy.valid_values.iter().flatten().map(quantity).collect(),
                range: policy.valid_range.as_ref().map(|range| Range {
                    min: quantity(&range.min),
                    max: range.max.as_ref().map(quantity),
                    step: range.step.as_ref().map(quantity),
                }),
            }),
        }
    }
}

/// `device`, as selectors see it: attributes and capacities by domain and name; a domain that
/// there is not has none.
fn variable(
    driver: &str,
    attributes: &BTreeMap<String, api::DeviceAttribute>,
    capacity: &BTreeMap<String, Capacity>,
    shared: bool,
) -> Result<Value, String> {
    let mut by_domain: BTreeMap<&str, Map> = BTreeMap::new();
    for (name, attribute) in attributes {
        let value = attribute_value(attribute).map_err(|why| format!("attribute {name}: {why}"))?;
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let domain = by_domain.entry(domain).or_default();
        domain.entries.insert(id.into(), value);
    }
    let mut capacities: BTreeMap<&str, Map> = BTreeMap::new();
    for (name, capacity) in capacity {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let domain = capacities.entry(domain).or_default();
        domain
            .entries
            .insert(id.into(), capacity.value.clone().into());
    }
    let outer = |domains: BTreeMap<&str, Map>| {
        let mut map: Map = domains
            .into_iter()
            .map(|(domain, map)| (Key::from(domain), map.into()))
            .collect();
        map.otherwise = Some(Map::default().into());
        Value::from(map)
    };
    let device: Map = [
        (Key::from("driver"), Value::from(driver)),
        (Key::from("allowMultipleAllocations"), shared.into()),
        (Key::from("attributes"), outer(by_domain)),
        (Key::from("capacity"), outer(capacities)),
    ]
    .into_iter()
    .collect();
    Ok(device.into())
}

fn attribute_value(attribute: &api::DeviceAttribute) -> Result<Value, String> {
    if let Some(n) = attribute.int {
        return Ok(n.into());
    }
    if let Some(b) = attribute.bool {
        return Ok(b.into());
    }
    if let Some(text) = &attribute.string {
        return Ok(text.as_str().into());
    }
    match &attribute.version {
        Some(version) => match version.parse::<cel::Version>() {
            Ok(version) => Ok(version.into()),
            Err(why) => Err(format!("parse semantic version: {why}")),
        },
        None => Err("unsupported attribute value".to_owned()),
    }
}
