//! Device classes, resource claims and their templates.

use std::collections::{BTreeMap, HashSet};

use meta::field::{ErrorList, FieldError};
use meta::validation as format;
use serde_json::{Map, Value};

use super::at::At;
use super::conditions::conditions;
use super::device_selector::selector;
use super::metadata::{self, immutable_message};
use super::raw::{Raw, raw};
use super::{Rules, any_update, pod, required};

const GROUP: &str = "resource.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "DeviceClass",
        name: format::dns1123_subdomain,
        object: |at, errors| device_class(&at.get("spec"), errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "ResourceClaim",
        name: format::dns1123_subdomain,
        object: |_, _| {},
        update: |new, old, errors| {
            let nothing = Value::Object(Map::new());
            // No spec is an empty one: it is no pointer.
            let [new, old] = [new, old].map(|claim| {
                let spec = claim.get("spec");
                At::new(spec.path.clone(), spec.value().unwrap_or(&nothing))
            });
            fixed("ResourceClaimSpec", &new, &old, errors);
        },
        status: claim_status,
    },
    Rules {
        group: GROUP,
        kind: "ResourceClaimTemplate",
        name: format::dns1123_subdomain,
        object: template,
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            fixed("ResourceClaimTemplateSpec", &new, &old, errors);
        },
        status: any_update,
    },
];

/// A message of the group that stays as it is.
fn fixed(model: &str, new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let model = format!("io.k8s.api.resource.v1.{model}");
    immutable_message(&model, new, old, errors);
}

/// How much of each a claim may hold.
const REQUESTS: usize = 32;
const SUB_REQUESTS: usize = 8;
const SELECTORS: usize = 32;
const CONSTRAINTS: usize = 32;
const CONFIGS: usize = 32;
const RESERVED_FOR: usize = 256;
const RESULTS: usize = 32;
const DEVICE_CONDITIONS: usize = 8;
const ADDRESSES: usize = 16;
/// In bytes.
const PARAMETERS_LIMIT: usize = 10 * 1024;

/// Each item of a list that has at most so many; nothing is checked in one that has more.
pub(super) fn at_most<'a>(
    list: &At<'a>,
    most: usize,
    errors: &mut ErrorList,
    mut check: impl FnMut(&At<'a>, &mut ErrorList),
) {
    if list.len() > most {
        errors.push(FieldError::too_many(&list.path, list.len(), most));
        return;
    }
    for item in list.items() {
        check(&item, errors);
    }
}

/// The same, and no two of one key.
pub(super) fn set_of<'a>(
    list: &At<'a>,
    most: usize,
    key: impl Fn(&At<'a>) -> String,
    errors: &mut ErrorList,
    check: impl FnMut(&At<'a>, &mut ErrorList),
) {
    at_most(list, most, errors, check);
    if list.len() > most {
        return;
    }
    let mut seen = HashSet::new();
    for item in list.items() {
        let key = key(&item);
        if !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(&item.path, key));
        }
    }
}

pub(super) fn label(name: &At<'_>, errors: &mut ErrorList) {
    name.check(errors, format::dns1123_label(name.text()));
}

/// The name of a driver, of CSI or of devices.
pub(super) fn driver_name(name: &At<'_>, errors: &mut ErrorList) {
    if !required(name, errors) {
        return;
    }
    if name.text().len() > 63 {
        errors.push(FieldError::too_long(&name.path, 63));
    }
    name.check(
        errors,
        format::dns1123_subdomain(&name.text().to_lowercase()),
    );
}

pub(super) fn pool_name(name: &At<'_>, errors: &mut ErrorList) {
    if !required(name, errors) {
        return;
    }
    if name.text().len() > format::SUBDOMAIN_MAX_LENGTH {
        errors.push(FieldError::too_long(
            &name.path,
            format::SUBDOMAIN_MAX_LENGTH,
        ));
    }
    for part in name.text().split('/') {
        for message in format::dns1123_subdomain(part) {
            errors.push(FieldError::invalid(&name.path, part, message));
        }
    }
}

fn device_class(spec: &At<'_>, errors: &mut ErrorList) {
    at_most(&spec.get("selectors"), SELECTORS, errors, selector);
    at_most(&spec.get("config"), CONFIGS, errors, configuration);
    let name = spec.get("extendedResourceName");
    if name.is_set() && !is_extended_resource(name.text()) {
        name.invalid(errors, "must be a valid extended resource name");
    }
}

fn is_extended_resource(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && format::qualified_name(&format!("requests.{name}")).is_empty()
}

fn configuration(config: &At<'_>, errors: &mut ErrorList) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        opaque.required(errors, "");
        return;
    }
    driver_name(&opaque.get("driver"), errors);
    driver_object(&opaque.get("parameters"), errors);
}

/// An object whose fields only a driver knows.
fn driver_object(value: &At<'_>, errors: &mut ErrorList) {
    const OMITTED: &str = "<value omitted>";
    let path = &value.path;
    if value.text().len() > PARAMETERS_LIMIT {
        errors.push(FieldError::too_long(path, PARAMETERS_LIMIT));
        return;
    }
    match raw(value) {
        Raw::Object => {}
        Raw::Nothing => value.required(errors, ""),
        Raw::Malformed(error) => {
            let why = format!("error parsing data as JSON: {error}");
            errors.push(FieldError::invalid(path, OMITTED, why));
        }
        Raw::Other => errors.push(FieldError::invalid(
            path,
            OMITTED,
            "must be a valid JSON object",
        )),
    }
}

/// The claim's requests, and below each what may be chosen from.
struct Names<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Names<'a> {
    fn of(devices: &At<'a>) -> Self {
        let names = devices.get("requests").items().map(|request| {
            let alternatives = request.get("firstAvailable");
            let below = alternatives.items().map(|s| s.get("name").text()).collect();
            (request.get("name").text(), below)
        });
        Self(names.collect())
    }

    fn check(&self, reference: &At<'_>, errors: &mut ErrorList) {
        const WHICH: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let segments: Vec<&str> = reference.text().split('/').collect();
        if segments.len() > 2 {
            reference.invalid(errors, WHICH);
            return;
        }
        for segment in &segments {
            for message in format::dns1123_label(segment) {
                errors.push(FieldError::invalid(&reference.path, *segment, message));
            }
        }
        let known = self
            .0
            .get(segments[0])
            .is_some_and(|below| segments.get(1).is_none_or(|sub| below.contains(sub)));
        if !known {
            reference.invalid(errors, WHICH);
        }
    }
}

pub(super) fn claim_created(at: &At<'_>, errors: &mut ErrorList) {
    devices(&at.get("spec").get("devices"), errors);
}

fn template(at: &At<'_>, errors: &mut ErrorList) {
    let spec = at.get("spec");
    metadata::strict_template(&spec.get("metadata"), errors);
    devices(&spec.get("spec").get("devices"), errors);
}

fn name_of(item: &At<'_>) -> String {
    item.get("name").text().to_owned()
}

fn text_of(item: &At<'_>) -> String {
    item.text().to_owned()
}

fn devices(devices: &At<'_>, errors: &mut ErrorList) {
    let names = Names::of(devices);
    set_of(&devices.get("requests"), REQUESTS, name_of, errors, request);
    at_most(
        &devices.get("constraints"),
        CONSTRAINTS,
        errors,
        |constraint, errors| self::constraint(constraint, &names, errors),
    );
    at_most(&devices.get("config"), CONFIGS, errors, |config, errors| {
        set_of(
            &config.get("requests"),
            REQUESTS,
            text_of,
            errors,
            |r, errors| {
                names.check(r, errors);
            },
        );
        configuration(config, errors);
    });
}

fn constraint(constraint: &At<'_>, names: &Names<'_>, errors: &mut ErrorList) {
    let requests = constraint.get("requests");
    set_of(&requests, REQUESTS, text_of, errors, |r, errors| {
        names.check(r, errors)
    });
    let (same, other) = (
        constraint.get("matchAttribute"),
        constraint.get("distinctAttribute"),
    );
    if same.is_set() {
        fully_qualified(&same, errors);
    } else if other.is_set() {
        fully_qualified(&other, errors);
    } else {
        constraint.required(errors, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set");
    }
}

/// The name of an attribute or a capacity: an identifier, with a domain or without.
pub(super) fn qualified(name: &At<'_>, text: &str, errors: &mut ErrorList) {
    let mut invalid = |value: &str, detail: String| {
        errors.push(FieldError::invalid(&name.path, value, detail));
    };
    let parts: Vec<&str> = text.split('/').collect();
    let id = match parts.as_slice() {
        [id] => id,
        [domain, id] => {
            if domain.is_empty() {
                invalid("", "the domain must not be empty".to_owned());
            } else {
                for message in format::dns1123_subdomain(&domain.to_lowercase()) {
                    invalid(domain, message);
                }
            }
            if id.is_empty() {
                invalid("", "the name must not be empty".to_owned());
                return;
            }
            id
        }
        // Upstream has nothing to say about these.
        _ => return,
    };
    for message in format::c_identifier(id) {
        invalid(id, message);
    }
    if id.len() > 32 {
        errors.push(FieldError::too_long(&name.path, 32));
    }
}

fn fully_qualified(name: &At<'_>, errors: &mut ErrorList) {
    qualified(name, name.text(), errors);
    if !name.text().contains('/') {
        name.invalid(
            errors,
            "a fully qualified name must be a domain and a name separated by a slash",
        );
    }
}

fn request(request: &At<'_>, errors: &mut ErrorList) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    label(&request.get("name"), errors);
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), first.len() > 0) {
        (false, false) => request.required(errors, ONE),
        (true, true) => {
            request.invalid(errors, format!("{ONE}, but multiple fields are set"));
        }
        (true, false) => exact(&exactly, errors),
        (false, true) => set_of(&first, SUB_REQUESTS, name_of, errors, |sub, errors| {
            label(&sub.get("name"), errors);
            exact(sub, errors);
        }),
    }
}

fn exact(request: &At<'_>, errors: &mut ErrorList) {
    let class = request.get("deviceClassName");
    if required(&class, errors) {
        class.check(errors, format::dns1123_subdomain(class.text()));
    }
    at_most(&request.get("selectors"), SELECTORS, errors, selector);
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    let number = count.int().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => {
            count.invalid(errors, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if number <= 0 => count.invalid(errors, "must be greater than zero"),
        "ExactCount" => {}
        _ => mode.one_of(errors, &["All", "ExactCount"]),
    }
    for toleration in request.get("tolerations").items() {
        self::toleration(&toleration, errors);
    }
}

fn toleration(toleration: &At<'_>, errors: &mut ErrorList) {
    let (key, value) = (toleration.get("key"), toleration.get("value"));
    if key.is_given() {
        key.check(errors, format::qualified_name(key.text()));
    }
    let operator = toleration.get("operator");
    match operator.text() {
        "Exists" if value.is_given() => {
            value.invalid(errors, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => value.check(errors, format::label_value(value.text())),
        "" => operator.required(errors, ""),
        _ => operator.one_of(errors, &["Equal", "Exists"]),
    }
    let effect = toleration.get("effect");
    if effect.is_given() {
        effect.one_of(errors, &["NoExecute", "NoSchedule", "None"]);
    }
}

/// A device of a pool of a driver, as a claim's status names it.
fn device_id(device: &At<'_>) -> String {
    let part = |field| device.get(field).text();
    let id = format!("{}/{}/{}", part("driver"), part("pool"), part("device"));
    match part("shareID") {
        "" => id,
        share => format!("{id}/{share}"),
    }
}

fn claim_status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let names = Names::of(&new.get("spec").get("devices"));
    let (status, before) = (new.get("status"), old.get("status"));
    let reserved = status.get("reservedFor");
    let uid = |consumer: &At<'_>| consumer.get("uid").text().to_owned();
    set_of(&reserved, RESERVED_FOR, uid, errors, |consumer, errors| {
        for field in ["resource", "name", "uid"] {
            required(&consumer.get(field), errors);
        }
    });
    let allocation = status.get("allocation");
    let results = allocation.get("devices").get("results");
    let allocated: HashSet<String> = results.items().map(|r| device_id(&r)).collect();
    let devices = status.get("devices");
    set_of(&devices, usize::MAX, device_id, errors, |device, errors| {
        device_status(device, &allocated, errors);
    });
    if reserved.len() > 0 {
        let was = before.get("reservedFor");
        let was: HashSet<_> = was.items().map(|c| c.value()).collect();
        let added = |consumer: &At<'_>| !was.contains(&consumer.value());
        if !allocation.is_set() {
            reserved.forbidden(errors, "may not be specified when `allocated` is not set");
        } else if new.get("metadata").get("deletionTimestamp").is_set()
            && reserved.items().any(|c| added(&c))
        {
            reserved.forbidden(errors, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
        }
    }
    if !allocation.is_set() {
    } else if before.get("allocation").is_set() {
        fixed(
            "AllocationResult",
            &allocation,
            &before.get("allocation"),
            errors,
        );
    } else {
        self::allocation(&allocation, &names, errors);
    }
}

/// Which share of a device that several claims have (KEP-5075): an identifier as RFC 9562 writes
/// it.
fn share_id(id: &At<'_>, errors: &mut ErrorList) {
    const FORM: &str = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
    if !id.is_set() {
        return;
    }
    let text = id.text();
    if let Err(why) = uuid(text) {
        id.invalid(errors, format!("error validating uid: {why}"));
    } else if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        id.invalid(errors, FORM);
    }
}

/// Whether it is a UUID in one of the forms that Go's library reads.
fn uuid(text: &str) -> Result<(), String> {
    let hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    let inner = match text.len() {
        32 if hex(text) => return Ok(()),
        32 => return Err("invalid UUID format".to_owned()),
        36 => text,
        38 if text.starts_with('{') && text.ends_with('}') => &text[1..37],
        38 => return Err("invalid bracketed UUID format".to_owned()),
        45 => match text.get(..9) {
            Some(prefix) if prefix.eq_ignore_ascii_case("urn:uuid:") => &text[9..],
            prefix => return Err(format!("invalid urn prefix: {:?}", prefix.unwrap_or(text))),
        },
        length => return Err(format!("invalid UUID length: {length}")),
    };
    let dashed = inner.bytes().enumerate().all(|(i, b)| match i {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    if dashed {
        Ok(())
    } else {
        Err("invalid UUID format".to_owned())
    }
}

fn allocation(allocation: &At<'_>, names: &Names<'_>, errors: &mut ErrorList) {
    let devices = allocation.get("devices");
    at_most(
        &devices.get("results"),
        RESULTS,
        errors,
        |result, errors| {
            names.check(&result.get("request"), errors);
            driver_name(&result.get("driver"), errors);
            pool_name(&result.get("pool"), errors);
            label(&result.get("device"), errors);
            share_id(&result.get("shareID"), errors);
            super::resource_slice::binding_conditions(result, errors);
        },
    );
    at_most(
        &devices.get("config"),
        2 * CONFIGS,
        errors,
        |config, errors| {
            let source = config.get("source");
            if required(&source, errors) {
                source.one_of(errors, &["FromClaim", "FromClass"]);
            }
            set_of(
                &config.get("requests"),
                REQUESTS,
                text_of,
                errors,
                |r, errors| {
                    names.check(r, errors);
                },
            );
            configuration(config, errors);
        },
    );
    if allocation.get("nodeSelector").is_set() {
        pod::node_selector(&allocation.get("nodeSelector"), errors);
        pod::node_selector_values(&allocation.get("nodeSelector"), errors);
    }
}

fn device_status(device: &At<'_>, allocated: &HashSet<String>, errors: &mut ErrorList) {
    driver_name(&device.get("driver"), errors);
    pool_name(&device.get("pool"), errors);
    label(&device.get("device"), errors);
    share_id(&device.get("shareID"), errors);
    if !allocated.contains(&device_id(device)) {
        device.invalid(errors, "must be an allocated device in the claim");
    }
    let list = device.get("conditions");
    if list.len() > DEVICE_CONDITIONS {
        errors.push(FieldError::too_many(
            &list.path,
            list.len(),
            DEVICE_CONDITIONS,
        ));
    }
    conditions(&list, errors);
    if device.get("data").is_set() {
        driver_object(&device.get("data"), errors);
    }
    let network = device.get("networkData");
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        let text = network.get(field);
        if text.text().len() > most {
            errors.push(FieldError::too_long(&text.path, most));
        }
    }
    set_of(
        &network.get("ips"),
        ADDRESSES,
        text_of,
        errors,
        |ip, errors| {
            let (address, bits) = ip.text().split_once('/').unwrap_or((ip.text(), ""));
            let most = match address.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(_)) => 32,
                Ok(std::net::IpAddr::V6(_)) => 128,
                Err(_) => 0,
            };
            if !bits.parse::<u8>().is_ok_and(|b| b <= most) || most == 0 {
                ip.invalid(
                    errors,
                    "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
                );
            }
        },
    );
}
