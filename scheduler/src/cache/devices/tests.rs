use serde_json::{Value, json};

use super::*;

fn claim(version: &str, status: Value) -> Arc<ResourceClaim> {
    let claim = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": version},
        "spec": {},
        "status": status,
    });
    serde_json::from_value::<ResourceClaim>(claim)
        .unwrap()
        .into()
}

fn result(more: Value) -> Value {
    let mut result = json!({"request": "r", "driver": "d", "pool": "p", "device": "x"});
    let more = more.as_object().unwrap().clone();
    result.as_object_mut().unwrap().extend(more);
    json!({"allocation": {"devices": {"results": [result]}}})
}

#[test]
fn what_is_promised_is_taken_until_it_is_written_and_longer() {
    let id = DeviceId::new("d", "p", "x");
    let mut devices = Devices::default();
    devices.put_claim(&claim("1", json!({})));
    let allocated = claim("3", result(json!({})));
    let allocation = allocation_of(&allocated).unwrap().clone();
    devices.promise("u", allocation.into());
    assert!(devices.is_taken(&id) && devices.pending("u"));
    devices.put_claim(&allocated);
    assert!(devices.is_taken(&id) && !devices.pending("u"));
    let (_, kept) = devices.put_claim(&claim("2", json!({})));
    assert!(!kept, "it is older");
    assert!(devices.is_taken(&id));
    devices.put_claim(&claim("4", json!({})));
    assert!(!devices.is_taken(&id));
}

#[test]
fn who_looks_after_a_device_does_not_take_it() {
    let mut devices = Devices::default();
    devices.put_claim(&claim("1", result(json!({"adminAccess": true}))));
    assert!(!devices.is_allocated(&DeviceId::new("d", "p", "x")));
}

#[test]
fn shares_add_up() {
    let id = DeviceId::new("d", "p", "x");
    let mut devices = Devices::default();
    let share = json!({"shareID": "s", "consumedCapacity": {"memory": "1Gi"}});
    devices.put_claim(&claim("1", result(share)));
    assert!(!devices.is_taken(&id) && devices.is_allocated(&id));
    assert_eq!(
        devices.capacity_taken(&id).unwrap()["memory"].value(),
        1 << 30
    );
    devices.remove_claim(&"n/c".into());
    assert!(devices.capacity_taken(&id).is_none() && !devices.is_allocated(&id));
}

#[test]
fn of_classes_for_one_resource_the_newest_counts() {
    let class = |name: &str, made: &str| {
        let class = json!({
            "metadata": {"name": name, "creationTimestamp": made},
            "spec": {"extendedResourceName": "example.com/gpu"},
        });
        Arc::new(serde_json::from_value::<DeviceClass>(class).unwrap())
    };
    let mut devices = Devices::default();
    devices.put_class(&class("b", "2026-01-01T00:00:00Z"));
    devices.put_class(&class("a", "2026-01-01T00:00:00Z"));
    assert_eq!(devices.class_for("example.com/gpu").unwrap().name(), "a");
    devices.put_class(&class("c", "2026-01-02T00:00:00Z"));
    assert_eq!(devices.class_for("example.com/gpu").unwrap().name(), "c");
    devices.remove_class("c");
    assert_eq!(devices.class_for("example.com/gpu").unwrap().name(), "a");
    let implicit = format!("{CLASS_RESOURCE_PREFIX}b");
    assert_eq!(devices.class_for(&implicit).unwrap().name(), "b");
}
