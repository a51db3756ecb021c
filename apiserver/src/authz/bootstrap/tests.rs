//! The default objects against upstream's published ones, and reconciliation over a map.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use meta::{GroupResource, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::reconcile::{Action, Objects as Cluster, plan, run};
use super::*;

/// The directory of upstream's `bootstrappolicy/testdata`.
const GOLDEN: &str = "FERROKUBE_BOOTSTRAP_POLICY";

#[test]
fn objects_are_upstreams() {
    let Ok(dir) = std::env::var(GOLDEN) else {
        eprintln!("NOT COMPARED: set {GOLDEN} to upstream's bootstrappolicy/testdata");
        return;
    };
    let ours = objects(&FeatureGates::default());
    let (controllers, people): (Vec<_>, Vec<_>) = ours.cluster_roles.into_iter().partition(named);
    let bindings = ours.cluster_role_bindings.into_iter();
    let (controller_bindings, people_bindings): (Vec<_>, Vec<_>) = bindings.partition(named);
    let mut compared = 0;
    for (file, ours) in [
        ("cluster-roles.yaml", people),
        ("controller-roles.yaml", controllers),
        ("cluster-role-bindings.yaml", people_bindings),
        ("controller-role-bindings.yaml", controller_bindings),
        ("namespace-roles.yaml", ours.roles),
        ("namespace-role-bindings.yaml", ours.role_bindings),
    ] {
        let text = std::fs::read_to_string(format!("{dir}/{file}")).unwrap();
        let theirs: Value = serde_saphyr::from_str(&text).unwrap();
        let theirs = index(theirs["items"].as_array().unwrap().clone());
        let ours = index(ours);
        for (name, theirs) in &theirs {
            assert_eq!(ours.get(name), Some(theirs), "{file}: {name}");
            compared += 1;
        }
        assert_eq!(ours.len(), theirs.len(), "{file} has fewer than we make");
    }
    eprintln!("{compared} objects equal");
}

fn named(object: &Value) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap();
    name.starts_with(CONTROLLER_PREFIX)
}

fn index(list: Vec<Value>) -> BTreeMap<String, Value> {
    list.into_iter()
        .map(|mut object| {
            let metadata = &object["metadata"];
            let key = format!("{}/{}", metadata["namespace"], metadata["name"]);
            if object["rules"].is_null() {
                object.as_object_mut().unwrap().remove("rules");
            }
            (key, object)
        })
        .collect()
}

#[derive(Default)]
struct Map(Mutex<BTreeMap<String, Value>>, Mutex<usize>);

fn key(resource: &str, namespace: &str, name: &str) -> String {
    format!("{resource}/{namespace}/{name}")
}

impl Map {
    fn write(&self, resource: &str, namespace: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        *self.1.lock() += 1;
        self.0
            .lock()
            .insert(key(resource, namespace, &name), object);
    }

    fn writes(&self) -> usize {
        std::mem::take(&mut self.1.lock())
    }
}

impl Cluster for Map {
    fn get<'a>(
        &'a self,
        _: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>, Status>> {
        Box::pin(async move { Ok(self.0.lock().get(&key(resource, namespace, name)).cloned()) })
    }

    fn create<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let name = object["metadata"]["name"].as_str().unwrap();
            if self.0.lock().contains_key(&key(resource, namespace, name)) {
                let resource = GroupResource::new(group, resource);
                return Err(Status::already_exists(&resource, name));
            }
            self.write(resource, namespace, object);
            Ok(())
        })
    }

    fn update<'a>(
        &'a self,
        _: &'a str,
        resource: &'a str,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            self.write(resource, namespace, object);
            Ok(())
        })
    }

    fn delete<'a>(
        &'a self,
        _: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            self.0.lock().remove(&key(resource, namespace, name));
            Ok(())
        })
    }
}

#[test]
fn an_empty_cluster_is_filled_once() {
    let map = Map::default();
    run(&map, &FeatureGates::default())
        .now_or_never()
        .unwrap()
        .unwrap();
    assert!(map.writes() > 100);
    run(&map, &FeatureGates::default())
        .now_or_never()
        .unwrap()
        .unwrap();
    assert_eq!(map.writes(), 0, "the second run finds nothing to do");
}

#[test]
fn a_feature_brings_its_rules() {
    let roles = |gates: &str| {
        let gates = FeatureGates::parse(gates).unwrap();
        let roles = objects(&gates).cluster_roles.into_iter();
        roles.map(|role| role["rules"].to_string())
    };
    let of_groups = |rules: &String| rules.contains("podgroups");
    assert_eq!(roles("").filter(of_groups).count(), 0);
    assert_eq!(roles("GenericWorkload=true").filter(of_groups).count(), 4);
}

#[test]
fn a_feature_brings_its_roles_and_bindings() {
    for (gate, name) in [
        (
            "StorageVersionMigrator",
            "system:controller:storage-version-migrator-controller",
        ),
        (
            "StorageVersionAPI",
            "system:controller:storage-version-garbage-collector",
        ),
        (
            "DRAResourcePoolStatus",
            "system:controller:resourcepoolstatusrequest-controller",
        ),
        (
            "ClusterTrustBundle",
            "system:controller:kube-apiserver-serving-clustertrustbundle-publisher",
        ),
        (
            "ClusterTrustBundle",
            "system:cluster-trust-bundle-discovery",
        ),
    ] {
        for on in [false, true] {
            let gates = FeatureGates::parse(&format!("{gate}={on}")).unwrap();
            let objects = objects(&gates);
            for list in [&objects.cluster_roles, &objects.cluster_role_bindings] {
                let found = list.iter().any(|object| object["metadata"]["name"] == name);
                assert_eq!(found, on, "{name}");
            }
        }
    }
}

#[test]
fn nodes_may_read_bundles_where_there_are_any() {
    for on in [false, true] {
        let gates = FeatureGates::parse(&format!("ClusterTrustBundle={on}")).unwrap();
        let rules = json!(node_rules(&gates)).to_string();
        assert_eq!(rules.contains("clustertrustbundles"), on);
    }
}

#[test]
fn additions_stay_and_what_is_missing_returns() {
    let expected = objects(&FeatureGates::default()).cluster_roles.remove(1);
    assert_eq!(expected["metadata"]["name"], "cluster-admin");
    let mut existing = expected.clone();
    existing["metadata"]["labels"] = json!({"mine": "1"});
    existing["rules"] = json!([
        {"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    let Action::Update(new) = plan(Some(&existing), &expected) else {
        panic!("an update is needed");
    };
    assert_eq!(new["metadata"]["labels"]["mine"], "1");
    assert_eq!(
        new["metadata"]["labels"]["kubernetes.io/bootstrapping"],
        "rbac-defaults"
    );
    assert_eq!(new["rules"].as_array().unwrap().len(), 3);
    assert_eq!(plan(Some(&new), &expected), Action::Nothing);

    existing["metadata"]["annotations"][AUTOUPDATE] = "false".into();
    assert_eq!(plan(Some(&existing), &expected), Action::Protected);
}

#[test]
fn bindings_get_missing_subjects_and_the_right_role() {
    let expected = objects(&FeatureGates::default())
        .cluster_role_bindings
        .remove(0);
    let mut existing = expected.clone();
    existing["subjects"] = json!([{"kind": "User", "name": "mine"}]);
    let Action::Update(new) = plan(Some(&existing), &expected) else {
        panic!("an update is needed");
    };
    assert_eq!(new["subjects"].as_array().unwrap().len(), 2);
    existing["roleRef"]["name"] = "other".into();
    assert!(matches!(
        plan(Some(&existing), &expected),
        Action::Recreate(_)
    ));
}
