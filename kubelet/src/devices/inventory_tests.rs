use serde_json::json;

use super::*;
use crate::devices::hints;
use crate::topology::Hint;

fn device(id: &str, health: &str, nodes: &[i64]) -> pb::Device {
    let nodes = nodes.iter().map(|id| pb::NumaNode { id: *id }).collect();
    pb::Device {
        id: id.into(),
        health: health.into(),
        topology: Some(pb::TopologyInfo { nodes }),
    }
}

fn ids(ids: &[&str]) -> Ids {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn pod(uid: &str, gpus: u32) -> Pod {
    let container =
        |name: &str| json!({"name": name, "resources": {"limits": {"d.io/gpu": gpus, "cpu": 1}}});
    let mut sidecar = container("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {
        "initContainers": [container("init"), sidecar],
        "containers": [container("c")],
    }}))
    .unwrap()
}

fn three() -> Inventory {
    let mut inventory = Inventory::default();
    inventory.connected("d.io/gpu");
    let devices = [
        device("a", HEALTHY, &[0]),
        device("b", HEALTHY, &[1]),
        device("c", "Unhealthy", &[]),
    ];
    assert!(inventory.told("d.io/gpu", devices.into()).is_empty());
    inventory
}

fn chosen(choice: Result<Option<Choice>, String>) -> Result<Ids, String> {
    choice.map(|choice| match choice {
        None => Ids::new(),
        Some(Choice::Done(ids)) => ids,
        Some(Choice::Ask(question)) => question.answered(&Ids::new()).unwrap(),
    })
}

#[test]
fn what_the_node_shows() {
    let (mut inventory, start) = (three(), Instant::now());
    let counts = |all, healthy| BTreeMap::from([("d.io/gpu".to_owned(), (all, healthy))]);
    assert_eq!(inventory.capacity(start).counts, counts(3, 2));
    inventory.gone("d.io/gpu", start);
    assert_eq!(inventory.capacity(start + GRACE).counts, counts(3, 0));
    let late = inventory.capacity(start + GRACE + Duration::from_secs(1));
    assert_eq!(late.removed, ids(&["d.io/gpu"]));
    let later = inventory.capacity(start + GRACE * 2);
    assert_eq!(later, Capacity::default(), "it is told once");
    assert!(!inventory.has_plugin("d.io/gpu"));
    // One that comes back is told again.
    inventory.connected("d.io/gpu");
    inventory.told("d.io/gpu", vec![device("a", HEALTHY, &[])]);
    assert_eq!(inventory.capacity(start).counts, counts(1, 1));
}

#[test]
fn devices_of_init_containers_are_had_again() {
    let (mut inventory, pod) = (three(), pod("u", 1));
    let mut give = |container: &str| {
        let ids = chosen(inventory.choose("u", container, ("d.io/gpu", 1), None, false))?;
        inventory.give("u", container, "d.io/gpu", &ids, Default::default());
        inventory.settle(&pod, container);
        Ok::<_, String>(ids)
    };
    assert_eq!(give("init"), Ok(ids(&["a"])));
    assert_eq!(give("sidecar"), Ok(ids(&["a"])));
    assert_eq!(give("c"), Ok(ids(&["b"])), "the sidecar keeps its own");
    assert_eq!(inventory.in_use("d.io/gpu"), ids(&["a", "b"]));
    assert_eq!(inventory.available("d.io/gpu"), Ids::new());
    let none = inventory.choose("v", "c", ("d.io/gpu", 1), None, false);
    assert_eq!(
        none.unwrap_err(),
        "requested number of devices unavailable for d.io/gpu. Requested: 1, Available: 0"
    );
    inventory.retain(&HashSet::from(["v".to_owned()]));
    assert_eq!(inventory.available("d.io/gpu"), ids(&["a", "b"]));
}

#[test]
fn what_cannot_be_had() {
    let mut inventory = three();
    let choose = |inventory: &Inventory, resource: &str, size, runs| {
        chosen(inventory.choose("u", "c", (resource, size), None, runs))
    };
    let unknown = choose(&inventory, "d.io/fpga", 1, false);
    assert_eq!(
        unknown.unwrap_err(),
        "cannot allocate unregistered device d.io/fpga"
    );
    assert_eq!(choose(&inventory, "d.io/gpu", 0, false), Ok(Ids::new()));
    inventory.give("u", "c", "d.io/gpu", &ids(&["a"]), Default::default());
    assert_eq!(choose(&inventory, "d.io/gpu", 1, false), Ok(Ids::new()));
    assert_eq!(
        choose(&inventory, "d.io/gpu", 2, false).unwrap_err(),
        "pod \"u\" container \"c\" changed request for resource \"d.io/gpu\" from 1 to 2"
    );
    let devices = vec![device("a", "Unhealthy", &[]), device("b", HEALTHY, &[])];
    assert_eq!(
        inventory.told("d.io/gpu", devices),
        ["u"],
        "its health is news"
    );
    assert_eq!(
        inventory.health("u", "c"),
        [("d.io/gpu", vec![("a".to_owned(), false)])]
    );
    assert!(
        choose(&inventory, "d.io/gpu", 1, false)
            .unwrap_err()
            .starts_with("previously allocated")
    );
    inventory.gone("d.io/gpu", Instant::now());
    assert!(
        choose(&inventory, "d.io/gpu", 1, false)
            .unwrap_err()
            .starts_with("no healthy devices")
    );
    assert_eq!(
        choose(&inventory, "d.io/gpu", 1, true),
        Ok(Ids::new()),
        "it runs already"
    );
}

#[test]
fn the_file_is_upstreams() {
    let mut inventory = three();
    let response = pb::ContainerAllocateResponse {
        envs: [("A".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    inventory.give("u", "c", "d.io/gpu", &ids(&["b", "c"]), response);
    let text = inventory.save().text().unwrap();
    // Its checksum as upstream's code works it out.
    let file = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c","ResourceName":"d.io/gpu","DeviceIDs":{"-1":["c"],"1":["b"]},"AllocResp":"CgYKAUESATE="}],"RegisteredDevices":{"d.io/gpu":["a","b"]}},"Checksum":157950392}"#;
    assert_eq!(String::from_utf8(text).unwrap(), file);
    let data = Data::parse(file.as_bytes()).unwrap();
    let mut again = Inventory::restore(data, Instant::now());
    assert_eq!(
        again.of_container("u", "c"),
        inventory.of_container("u", "c")
    );
    let counts = again.capacity(Instant::now()).counts;
    assert_eq!(counts["d.io/gpu"], (0, 0), "until its plugin is back");
    assert!(Data::parse(file.replace("\"a\"", "\"z\"").as_bytes()).is_err());

    // Empty lists as upstream writes them.
    let file = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":3467439661}"#;
    let empty = Data::parse(file.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(empty.text().unwrap()).unwrap(), file);
}

#[test]
fn hints_say_where() {
    let mut inventory = three();
    let one = pod("u", 1);
    let hint = |nodes: &[u32], preferred| Hint {
        affinity: Some(Mask::of(nodes.iter().copied())),
        preferred,
    };
    let hints = |inventory: &Inventory, pod: &Pod| {
        let mut hints = hints::of_container(inventory, &[0, 1], pod, &pod.containers()[0]);
        assert_eq!(hints.len(), 1, "nothing but devices");
        hints.remove("d.io/gpu").unwrap()
    };
    let each = vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(hints(&inventory, &one), Some(each));
    let both = hints(&inventory, &pod("u", 2));
    assert_eq!(both, Some(vec![hint(&[0, 1], true)]));
    assert_eq!(hints(&inventory, &pod("u", 3)), Some(vec![]));
    inventory.give("v", "c", "d.io/gpu", &ids(&["a"]), Default::default());
    let second = vec![hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(hints(&inventory, &one), Some(second));
    // What it has, it keeps.
    inventory.give("u", "c", "d.io/gpu", &ids(&["b"]), Default::default());
    let own = vec![hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(hints(&inventory, &one), Some(own));
    inventory.told("d.io/gpu", vec![device("a", HEALTHY, &[])]);
    assert_eq!(hints(&inventory, &one), None, "it does not matter");
    let whole = hints::of_pod(&inventory, &[0, 1], &one);
    assert_eq!(whole["d.io/gpu"], None);
}

#[test]
fn what_a_claim_brings_is_no_device_of_ours() {
    let (inventory, mut pod) = (three(), pod("u", 1));
    let container = pod.containers()[0].clone();
    assert_eq!(
        inventory.wanted(&pod, &container),
        [("d.io/gpu".to_owned(), 1)]
    );
    let mapping = json!({"containerName": "c", "resourceName": "d.io/gpu", "requestName": "r"});
    let status = json!({"extendedResourceClaimStatus": {"resourceClaimName": "x", "requestMappings": [mapping]}});
    pod.status = serde_json::from_value(status).unwrap();
    assert!(inventory.wanted(&pod, &container).is_empty());
}
