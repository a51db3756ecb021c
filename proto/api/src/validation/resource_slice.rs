//! Resource slices: the devices that a driver offers, and taints on devices.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::quantity::{Format, Quantity};
use meta::validation as format;

use super::at::At;
use super::metadata::{immutable, immutable_message};
use super::resource::{at_most, driver_name, label, pool_name, qualified, set_of};
use super::{Rules, any_update, anything, conditions, pod, required, requirements};

const GROUP: &str = "resource.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "ResourceSlice",
        name: format::dns1123_subdomain,
        object: |at, errors| slice(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            let (pool, before) = (new.get("pool"), old.get("pool"));
            immutable(&pool.get("name"), &before.get("name"), errors);
            for field in ["driver", "nodeName"] {
                immutable(&new.get(field), &old.get(field), errors);
            }
        },
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "ResourcePoolStatusRequest",
        name: format::dns1123_subdomain,
        // What it asks never changes.
        object: anything,
        update: |new, old, errors| {
            immutable_message(
                "io.k8s.api.resource.v1alpha3.ResourcePoolStatusRequestSpec",
                &new.get("spec"),
                &old.get("spec"),
                errors,
            );
        },
        status: |new, old, errors| {
            let (new, old) = (new.get("status"), old.get("status"));
            if old.is_set() {
                immutable_message(
                    "io.k8s.api.resource.v1alpha3.ResourcePoolStatusRequestStatus",
                    &new,
                    &old,
                    errors,
                );
            } else {
                conditions::conditions(&new.get("conditions"), errors);
            }
        },
    },
    Rules {
        group: GROUP,
        kind: "DeviceTaintRule",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            let spec = at.get("spec");
            let selector = spec.get("deviceSelector");
            for (field, check) in [
                ("driver", driver_name as fn(&At<'_>, &mut ErrorList)),
                ("pool", pool_name),
                ("device", label),
            ] {
                if selector.get(field).is_set() {
                    check(&selector.get(field), errors);
                }
            }
            taint(&spec.get("taint"), errors);
        },
        update: any_update,
        status: any_update,
    },
];

pub(super) fn pool_status_request_created(request: &At<'_>, errors: &mut ErrorList) {
    let spec = request.get("spec");
    let driver = spec.get("driver");
    if required(&driver, errors) {
        // Alone among them it may be as long as a name.
        driver.check(
            errors,
            format::dns1123_subdomain(&driver.text().to_lowercase()),
        );
    }
    if spec.get("poolName").is_set() {
        pool_name(&spec.get("poolName"), errors);
    }
    let limit = spec.get("limit");
    match limit.int() {
        Some(..=0) => limit.invalid(errors, "must be greater than or equal to 1"),
        Some(1001..) => limit.invalid(errors, "must be less than or equal to 1000"),
        _ => {}
    }
}

/// How much of each a slice may hold.
const DEVICES: usize = 128;
const SPECIAL_DEVICES: usize = 64;
const COUNTER_SETS: usize = 8;
const COUNTERS: usize = 32;
const CONSUMPTIONS: usize = 2;
const POLICY_VALUES: usize = 10;
const ATTRIBUTES: usize = 32;
const ATTRIBUTE_VALUES: usize = 48;
const TAINTS: usize = 16;
const BINDING_CONDITIONS: usize = 4;
/// In bytes.
const VALUE_LIMIT: usize = 64;

const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

fn name_of(item: &At<'_>) -> String {
    item.get("name").text().to_owned()
}

fn slice(spec: &At<'_>, errors: &mut ErrorList) {
    driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    pool_name(&pool.get("name"), errors);
    let (count, generation) = (pool.get("resourceSliceCount"), pool.get("generation"));
    if count.int().unwrap_or(0) <= 0 {
        count.invalid(errors, "must be greater than zero");
    }
    if generation.int().is_some_and(|g| g < 0) {
        generation.invalid(errors, "must be greater than or equal to zero");
    }
    where_it_is(spec, errors);
    let (devices, counters) = (spec.get("devices"), spec.get("sharedCounters"));
    if counters.is_set() && devices.is_set() {
        spec.invalid(
            errors,
            "only one of `sharedCounters` or `devices` is allowed",
        );
    }
    let special = devices.items().any(|device| {
        let attributes = device.get("attributes");
        device.get("taints").len() > 0
            || device.get("consumesCounters").len() > 0
            || attributes
                .entries()
                .any(|(_, a)| LISTS.iter().any(|list| a.get(list).is_set()))
    });
    let most = if special { SPECIAL_DEVICES } else { DEVICES };
    let per_device = spec.get("perDeviceNodeSelection").is_true();
    set_of(&devices, most, name_of, errors, |device, errors| {
        self::device(device, per_device, errors);
    });
    set_of(&counters, COUNTER_SETS, name_of, errors, |set, errors| {
        if required(&set.get("name"), errors) {
            label(&set.get("name"), errors);
        }
        self::counters(&set.get("counters"), errors);
    });
}

/// Exactly one field says on which nodes the devices are.
fn where_it_is(spec: &At<'_>, errors: &mut ErrorList) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut given = 0;
    let name = spec.get("nodeName");
    if name.is_given() {
        given += 1;
        name.check(errors, format::dns1123_subdomain(name.text()));
    } else if name.is_set() {
        name.invalid(errors, "must be either unset or set to a non-empty string");
    }
    let selector = spec.get("nodeSelector");
    if selector.is_set() {
        given += 1;
        pod::node_selector(&selector, errors);
        pod::node_selector_values(&selector, errors);
        if selector.get("nodeSelectorTerms").len() != 1 {
            selector
                .get("nodeSelectorTerms")
                .invalid(errors, "must have exactly one node selector term");
        }
    }
    for field in ["allNodes", "perDeviceNodeSelection"] {
        let flag = spec.get(field);
        if flag.is_true() {
            given += 1;
        } else if flag.is_set() {
            flag.invalid(errors, "must be either unset or set to true");
        }
    }
    match given {
        0 => spec.required(errors, ONE),
        1 => {}
        _ => spec.invalid(errors, format!("{ONE}, but multiple fields are set")),
    }
}

fn device(device: &At<'_>, per_device: bool, errors: &mut ErrorList) {
    label(&device.get("name"), errors);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    if attributes.len() + capacity.len() > ATTRIBUTES {
        device.invalid(
            errors,
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES}"),
        );
    }
    let values: usize = attributes
        .entries()
        .map(|(_, a)| LISTS.iter().map(|l| a.get(l).len()).sum::<usize>().max(1))
        .sum();
    if values > ATTRIBUTE_VALUES {
        device.invalid(
            errors,
            format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES}"),
        );
    }
    for (key, attribute) in attributes.entries() {
        qualified(&attributes, key, errors);
        self::attribute(&attribute, errors);
    }
    let shared = device.get("allowMultipleAllocations").is_true();
    for (key, amount) in capacity.entries() {
        qualified(&capacity, key, errors);
        let policy = amount.get("requestPolicy");
        match shared {
            true => request_policy(&amount.get("value"), &policy, errors),
            false if policy.is_set() => {
                policy.forbidden(errors, "allowMultipleAllocations must be true");
            }
            false => {}
        }
    }
    for (name, mapping) in device.get("nodeAllocatableResourceMappings").entries() {
        node_resource(name, &mapping, &capacity, errors);
    }
    at_most(&device.get("taints"), TAINTS, errors, taint);
    let set = |c: &At<'_>| c.get("counterSet").text().to_owned();
    let consumed = device.get("consumesCounters");
    set_of(
        &consumed,
        CONSUMPTIONS,
        set,
        errors,
        |consumption, errors| {
            if required(&consumption.get("counterSet"), errors) {
                label(&consumption.get("counterSet"), errors);
            }
            counters(&consumption.get("counters"), errors);
        },
    );
    on_nodes(device, per_device, errors);
    binding_conditions(device, errors);
}

/// What a device takes of a node's own resources (KEP-5517): so many for each, or by a capacity.
fn node_resource(name: &str, mapping: &At<'_>, capacity: &At<'_>, errors: &mut ErrorList) {
    if !crate::resources::is_native(name) {
        mapping.invalid(errors, "must be a node allocatable resource name");
    }
    let (times, key) = (
        mapping.get("allocationMultiplier"),
        mapping.get("capacityKey"),
    );
    if requirements::parse(times.value()).is_some_and(|times| times.sign() <= 0) {
        times.invalid(errors, "must be positive");
    }
    if key.is_set() && key.text().is_empty() {
        key.invalid(errors, "capacityKey must not be an empty string");
    } else if key.is_set() && capacity.raw(key.text()).is_none() {
        key.not_found(errors);
    }
}

/// How much of a capacity a claim may ask for (KEP-5075); `all`: how much there is.
fn request_policy(all: &At<'_>, policy: &At<'_>, errors: &mut ErrorList) {
    let (values, range) = (policy.get("validValues"), policy.get("validRange"));
    let default = policy.get("default");
    let (rule, detail) = match (values.len() > 0, range.is_set()) {
        (true, true) => {
            policy.forbidden(
                errors,
                "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
            );
            return;
        }
        (false, false) => return,
        (true, false) => (&values, "required when validValues is defined"),
        (false, true) => (&range, "required when validRange is defined"),
    };
    let quantity = |at: &At<'_>| requirements::parse(at.value());
    // What nothing is said of is none.
    let all = quantity(all).unwrap_or(Quantity::new(0, Format::DecimalSI));
    let Some(default) = quantity(&default) else {
        default.required(errors, detail);
        return;
    };
    if values.len() > 0 {
        valid_values(rule, &default, &all, errors);
    } else {
        valid_range(rule, &default, &all, errors);
    }
}

fn valid_values(values: &At<'_>, default: &Quantity, all: &Quantity, errors: &mut ErrorList) {
    let mut last: Option<Quantity> = None;
    let mut found = false;
    for value in values.items() {
        let Some(own) = requirements::parse(value.value()) else {
            continue;
        };
        if last.as_ref().is_some_and(|last| *last > own) {
            value.invalid(errors, "values must be sorted in ascending order");
        }
        found |= own == *default;
        last = Some(own);
    }
    let key = |value: &At<'_>| {
        let own = requirements::parse(value.value());
        own.map_or_else(String::new, |own| own.to_string())
    };
    set_of(values, POLICY_VALUES, key, errors, |value, errors| {
        if requirements::parse(value.value()).is_some_and(|own| own > *all) {
            value.invalid(
                errors,
                format!("option is larger than capacity value: {all}"),
            );
        }
    });
    if !found {
        let detail = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(
            &values.path,
            default.to_string(),
            detail,
        ));
    }
}

fn valid_range(range: &At<'_>, default: &Quantity, all: &Quantity, errors: &mut ErrorList) {
    let [min, max, step] = ["min", "max", "step"].map(|field| range.get(field));
    let quantity = |at: &At<'_>| requirements::parse(at.value());
    let Some(least) = quantity(&min) else {
        min.required(errors, "required when validRange is defined");
        return;
    };
    let mut wrong = |at: &At<'_>, holds: bool, detail: String| {
        if holds {
            at.invalid(errors, detail);
        }
    };
    let detail = format!("min is larger than capacity value: {all}");
    wrong(&min, least > *all, detail);
    let detail = format!("default is less than min: {least}");
    wrong(&min, *default < least, detail);
    let most = quantity(&max);
    if let Some(most) = &most {
        wrong(
            &max,
            least > *most,
            format!("min is larger than max: {most}"),
        );
        let detail = format!("max is larger than capacity value: {all}");
        wrong(&max, most > all, detail);
        let detail = format!("default is more than max: {most}");
        wrong(&max, default > most, detail);
    }
    let Some(by) = quantity(&step) else { return };
    let mut next = least.clone();
    next.add(&by);
    let detail = format!("one step {next} is larger than capacity value: {all}");
    wrong(&step, next > *all, detail);
    for value in [Some(default), most.as_ref()].into_iter().flatten() {
        let over = (value.value() - least.value())
            .checked_rem(by.value())
            .is_none_or(|rest| rest != 0);
        let detail = format!("value is not a multiple of a given step ({by}) from ({least})");
        wrong(&step, over, detail);
    }
}

fn attribute(attribute: &At<'_>, errors: &mut ErrorList) {
    let mut given = 0;
    for field in ["bool", "int", "string", "version"] {
        let value = attribute.get(field);
        if value.is_set() {
            given += 1;
            scalar(field, &value, errors);
        }
    }
    for (list, field) in LISTS.iter().zip(["bool", "int", "string", "version"]) {
        let values = attribute.get(list);
        if values.is_set() {
            given += 1;
            if values.len() == 0 {
                values.invalid(errors, "must not be empty if specified");
            }
            for value in values.items() {
                scalar(field, &value, errors);
            }
        }
    }
    if given != 1 {
        attribute.invalid(errors, "exactly one value must be specified");
    }
}

fn scalar(field: &str, value: &At<'_>, errors: &mut ErrorList) {
    if field == "version" && !super::semver::is_strict(value.text()) {
        value.invalid(
            errors,
            "must be a string compatible with semver.org spec 2.0.0",
        );
    }
    if matches!(field, "string" | "version") && value.text().len() > VALUE_LIMIT {
        errors.push(FieldError::too_long(&value.path, VALUE_LIMIT));
    }
}

fn counters(counters: &At<'_>, errors: &mut ErrorList) {
    match counters.len() {
        0 => counters.required(errors, ""),
        n if n > COUNTERS => errors.push(FieldError::too_many(&counters.path, n, COUNTERS)),
        _ => {
            for (name, _) in counters.entries() {
                for message in format::dns1123_label(name) {
                    errors.push(FieldError::invalid(&counters.path, name, message));
                }
            }
        }
    }
}

fn on_nodes(device: &At<'_>, per_device: bool, errors: &mut ErrorList) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let fields = ["nodeName", "nodeSelector", "allNodes"].map(|field| device.get(field));
    if !per_device {
        if fields.iter().any(At::is_set) {
            device.invalid(errors, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec");
        }
        return;
    }
    let [name, selector, all] = &fields;
    if name.is_given() {
        name.check(errors, format::dns1123_subdomain(name.text()));
    } else if name.is_set() {
        name.invalid(errors, "must not be empty");
    }
    if selector.is_set() {
        pod::node_selector(selector, errors);
        pod::node_selector_values(selector, errors);
    }
    if all.is_set() && !all.is_true() {
        all.invalid(errors, "must be either unset or set to true");
    }
    let given = [name.is_given(), selector.is_set(), all.is_true()];
    match given.into_iter().filter(|given| *given).count() {
        0 => device.required(errors, ONE),
        1 => {}
        _ => device.invalid(errors, ONE),
    }
}

/// Of a device, and of what it was allocated for.
pub(super) fn binding_conditions(device: &At<'_>, errors: &mut ErrorList) {
    let (to, not) = (
        device.get("bindingConditions"),
        device.get("bindingFailureConditions"),
    );
    for list in [&to, &not] {
        at_most(list, BINDING_CONDITIONS, errors, |name, errors| {
            name.check(errors, format::qualified_name(name.text()));
        });
    }
    let mut seen = HashSet::new();
    for condition in to.items() {
        if !seen.insert(condition.text()) {
            condition.duplicate(errors);
        }
    }
    let mut failures = HashSet::new();
    for condition in not.items() {
        if !failures.insert(condition.text()) {
            condition.duplicate(errors);
        }
        if seen.contains(condition.text()) {
            condition.invalid(
                errors,
                "bindingFailureConditions must not overlap with bindingConditions",
            );
        }
    }
    if seen.is_empty() && !failures.is_empty() {
        to.invalid(
            errors,
            "bindingConditions are required to use bindingFailureConditions",
        );
    }
    if failures.is_empty() && !seen.is_empty() {
        not.invalid(
            errors,
            "bindingFailureConditions are required to use bindingConditions",
        );
    }
}

fn taint(taint: &At<'_>, errors: &mut ErrorList) {
    let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
    key.check(errors, format::qualified_name(key.text()));
    if value.is_given() {
        value.check(errors, format::label_value(value.text()));
    }
    if required(&effect, errors) {
        effect.one_of(errors, &["NoExecute", "NoSchedule", "None"]);
    }
}
