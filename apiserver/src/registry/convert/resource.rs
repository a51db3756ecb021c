//! `resource.k8s.io`: what `v1beta1` says of a device or a request flatly or in `basic`, the
//! later versions say in `exactly` or flatly.

use serde_json::{Map, Value, json};

/// What a request says of the one thing that it asks for.
const EXACTLY: [&str; 7] = [
    "deviceClassName",
    "selectors",
    "allocationMode",
    "count",
    "adminAccess",
    "tolerations",
    "capacity",
];

fn each(list: Option<&mut Value>, change: impl Fn(&mut Map<String, Value>)) {
    let items = list.and_then(Value::as_array_mut).into_iter().flatten();
    for item in items.filter_map(Value::as_object_mut) {
        change(item);
    }
}

fn requests(object: &mut Value, change: impl Fn(&mut Map<String, Value>)) {
    for path in ["/spec/devices/requests", "/spec/spec/devices/requests"] {
        each(object.pointer_mut(path), &change);
    }
}

/// Claims and templates of claims.
pub fn claim_to_v1(claim: &mut Value) {
    requests(claim, |request| {
        let said: Map<String, Value> = EXACTLY
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), request.remove(*field)?)))
            .filter(|(_, value)| !matches!(value.as_str(), Some("")) && *value != 0)
            .collect();
        if !said.is_empty() {
            request.insert("exactly".into(), Value::Object(said));
        }
    });
}

pub fn claim_to_v1beta1(claim: &mut Value) {
    requests(claim, |request| {
        if let Some(Value::Object(said)) = request.remove("exactly") {
            request.extend(said);
        }
    });
}

pub fn slice_to_v1(slice: &mut Value) {
    // What the older version cannot leave unsaid.
    if let Some(spec) = slice.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, value| match field.as_str() {
            "nodeName" => value != "",
            "allNodes" => *value != false,
            _ => true,
        });
    }
    each(slice.pointer_mut("/spec/devices"), |device| {
        if let Some(Value::Object(said)) = device.remove("basic") {
            device.extend(said);
        }
    });
}

pub fn slice_to_v1beta1(slice: &mut Value) {
    each(slice.pointer_mut("/spec/devices"), |device| {
        let name = device.remove("name").unwrap_or_else(|| json!(""));
        let said = std::mem::take(device);
        device.insert("name".into(), name);
        device.insert("basic".into(), Value::Object(said));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_there_and_back() {
        let beta = json!({"spec": {"devices": {"requests": [
            {"name": "a", "deviceClassName": "c", "count": 2},
            {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]},
        ]}}});
        let mut claim = beta.clone();
        claim_to_v1(&mut claim);
        let request = &claim["spec"]["devices"]["requests"][0];
        assert_eq!(
            request["exactly"],
            json!({"deviceClassName": "c", "count": 2})
        );
        assert!(
            claim["spec"]["devices"]["requests"][1]
                .get("exactly")
                .is_none()
        );
        claim_to_v1beta1(&mut claim);
        assert_eq!(claim, beta);
    }

    #[test]
    fn devices_go_there_and_back() {
        let beta = json!({"spec": {"devices": [
            {"name": "d", "basic": {"attributes": {"a": {"int": 1}}}},
            {"name": "e", "basic": {}},
        ]}});
        let mut slice = beta.clone();
        slice_to_v1(&mut slice);
        assert_eq!(
            slice["spec"]["devices"],
            json!([{"name": "d", "attributes": {"a": {"int": 1}}}, {"name": "e"}])
        );
        slice_to_v1beta1(&mut slice);
        assert_eq!(slice, beta);
    }
}
