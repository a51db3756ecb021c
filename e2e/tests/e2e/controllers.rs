//! What the controllers see to: owners and orphans, namespaces, accounts.

use e2e::wait::equals;
use e2e::{Namespace, until};
use serde_json::json;

#[test]
fn namespaces_come_with_their_furniture() {
    let namespace = Namespace::new("furniture");
    assert!(namespace.get("serviceaccount default").is_ok());
    let authority = until("the root certificate", || {
        namespace.get("configmap kube-root-ca.crt")
    });
    assert!(
        authority["data"]["ca.crt"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    namespace.kubectl("delete serviceaccount default").ok();
    namespace.kubectl("delete configmap kube-root-ca.crt").ok();
    until("both to be back", || {
        namespace
            .get("serviceaccount default")
            .and(namespace.get("configmap kube-root-ca.crt"))
    });
}

#[test]
fn a_namespace_takes_everything_with_it() {
    let namespace = Namespace::new("leaving");
    namespace.kubectl("create configmap one").ok();
    namespace
        .kubectl("create deployment web --image=ferrokube.local/demo:1")
        .ok();
    namespace.await_rollout("web");
    namespace
        .kubectl("delete namespace --wait=false")
        .args([&namespace.name])
        .ok();
    until("nothing new to be let in, or the end", || {
        let done = namespace.kubectl("create configmap late").run();
        if done.stderr.contains("is being terminated") || done.stderr.contains("not found") {
            Ok(())
        } else {
            Err(done.to_string())
        }
    });
    until("the namespace to be gone", || {
        match namespace.get(&format!("namespace {}", namespace.name)) {
            Err(error) if error.contains("NotFound") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(
        namespace
            .kubectl("get configmaps,pods,deployments,replicasets,secrets -o name")
            .ok(),
        ""
    );
    // Its name is free again; this also lets the guard delete it.
    namespace
        .kubectl("create namespace")
        .args([&namespace.name])
        .ok();
}

#[test]
fn replica_sets_replace_what_is_lost() {
    let namespace = Namespace::new("replace");
    namespace
        .kubectl("create deployment web --image=ferrokube.local/demo:1 --replicas=2")
        .ok();
    namespace.await_rollout("web");
    let path = "jsonpath={.items[0].metadata.name}";
    let victim = namespace.kubectl("get pods -o").args([path]).ok();
    namespace
        .kubectl("delete pod --wait=false")
        .args([&victim])
        .ok();
    let pods = until("two pods without the one", || {
        let pods = namespace
            .kubectl("get pods --field-selector status.phase=Running -o name")
            .ok();
        if pods.lines().count() == 2 && !pods.contains(&victim) {
            Ok(pods)
        } else {
            Err(pods)
        }
    });

    // A pod whose labels no longer match is let go, and another made.
    let stray = pods.lines().next().unwrap_or_default();
    let stray = stray.trim_start_matches("pod/");
    namespace
        .kubectl("label pod --overwrite")
        .args([stray, "app=stray"])
        .ok();
    until("two more", || {
        let count = namespace
            .kubectl("get pods -l app=web -o name")
            .ok()
            .lines()
            .count();
        equals(count, &2)
    });
    until("the stray to be nobody's", || {
        let owners = namespace.get(&format!("pod {stray}"))?["metadata"]["ownerReferences"].clone();
        equals(owners, &json!(null))
    });
}

#[test]
fn dependents_are_orphaned_on_demand() {
    let namespace = Namespace::new("orphan");
    namespace
        .kubectl("create deployment web --image=ferrokube.local/demo:1")
        .ok();
    namespace.await_rollout("web");
    namespace
        .kubectl("delete deployment web --cascade=orphan")
        .ok();
    let sets = until("a replica set without owner", || {
        let sets = namespace.get("replicasets")?;
        equals(
            sets["items"][0]["metadata"]["ownerReferences"].clone(),
            &json!(null),
        )
        .map(|_| sets)
    });
    let set = sets["items"][0]["metadata"]["name"].as_str().unwrap();

    namespace
        .kubectl("delete replicaset --cascade=foreground")
        .args([set])
        .ok();
    assert_eq!(
        namespace.kubectl("get pods -o name").ok(),
        "",
        "in the foreground the owner goes last"
    );
}

#[test]
fn an_owner_that_never_was_takes_its_dependents_with_it() {
    let namespace = Namespace::new("absentowner");
    namespace.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: child\n  ownerReferences:\n  - {apiVersion: v1, kind: ConfigMap, \
         name: parent, uid: 00000000-0000-4000-8000-000000000000}\n",
    );
    until("the child to be collected", || {
        match namespace.get("configmap child") {
            Err(error) if error.contains("NotFound") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
