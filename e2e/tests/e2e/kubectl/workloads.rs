//! Deployments by kubectl: create, expose, scale, set image, rollout, describe.

use e2e::cluster::DEMO;
use e2e::wait::equals;
use e2e::{Namespace, net, until};
use serde_json::json;

use super::cell;

fn web(theme: &str, replicas: u32) -> Namespace {
    let namespace = Namespace::new(theme);
    namespace
        .kubectl("create deployment web --port=8080")
        .args([
            format!("--image={}", DEMO[0]),
            format!("--replicas={replicas}"),
        ])
        .ok();
    namespace.await_rollout("web");
    namespace
}

/// The images that the deployment's pods run, each once.
fn images(namespace: &Namespace) -> Result<Vec<String>, String> {
    let path = "jsonpath={.items[*].spec.containers[*].image}";
    let images = namespace
        .kubectl("get pods -l app=web -o")
        .args([path])
        .run()
        .success()?;
    let mut images: Vec<_> = images.split_whitespace().map(str::to_owned).collect();
    images.sort();
    images.dedup();
    Ok(images)
}

#[test]
fn create_deployment_and_expose() {
    let namespace = web("expose", 2);
    let table = namespace.kubectl("get deployment web -o wide").ok();
    for (column, value) in [
        ("READY", "2/2"),
        ("UP-TO-DATE", "2"),
        ("AVAILABLE", "2"),
        ("IMAGES", DEMO[0]),
        ("SELECTOR", "app=web"),
    ] {
        assert_eq!(cell(&table, column), value, "{column} of:\n{table}");
    }

    assert_eq!(
        namespace
            .kubectl("expose deployment web --port=80 --target-port=8080")
            .ok(),
        "service/web exposed"
    );
    let service = namespace.get("service web").unwrap();
    assert_eq!(
        service["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}])
    );
    let address = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap());
    until("the service to answer", || {
        let name = net::get(&address)?;
        if name.starts_with("web-") {
            Ok(())
        } else {
            Err(name)
        }
    });
    let table = namespace.kubectl("get service web").ok();
    assert_eq!(
        (cell(&table, "TYPE"), cell(&table, "PORT(S)")),
        ("ClusterIP".into(), "80/TCP".into())
    );
}

#[test]
fn scale_up_and_down() {
    let namespace = web("scale", 1);
    assert_eq!(
        namespace.kubectl("scale deployment web --replicas=3").ok(),
        "deployment.apps/web scaled"
    );
    namespace.await_rollout("web");
    assert_eq!(
        namespace.get("deployment web").unwrap()["status"]["readyReplicas"],
        3
    );

    let error = namespace
        .kubectl("scale deployment web --current-replicas=7 --replicas=1")
        .fails();
    assert!(
        error.contains("Expected replicas to be 7, was 3"),
        "{error}"
    );

    namespace.kubectl("scale deployment web --replicas=0").ok();
    until("the pods to be gone", || {
        equals(namespace.kubectl("get pods -o name").ok(), "")
    });
    namespace.await_value("deployment web", "/status/replicas", json!(null));
}

#[test]
fn set_image_and_undo() {
    let namespace = web("rollout", 2);
    let printed = namespace
        .kubectl("set image deployment/web")
        .args([format!("demo={}", DEMO[1])])
        .ok();
    assert_eq!(printed, "deployment.apps/web image updated");
    let status = namespace
        .kubectl("rollout status deployment/web --timeout=150s")
        .ok();
    assert!(
        status.ends_with(r#"deployment "web" successfully rolled out"#),
        "{status}"
    );
    until("only the new image to run", || {
        equals(images(&namespace)?, &vec![DEMO[1].to_owned()])
    });

    let history = namespace.kubectl("rollout history deployment/web").ok();
    let revisions: Vec<_> = history
        .lines()
        .skip(2)
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(revisions, ["1", "2"], "{history}");

    assert_eq!(
        namespace.kubectl("rollout undo deployment/web").ok(),
        "deployment.apps/web rolled back"
    );
    namespace.await_rollout("web");
    until("the old image to be back", || {
        equals(images(&namespace)?, &vec![DEMO[0].to_owned()])
    });
    let history = namespace.kubectl("rollout history deployment/web").ok();
    let revisions: Vec<_> = history
        .lines()
        .skip(2)
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        revisions,
        ["2", "3"],
        "the restored revision takes a new number: {history}"
    );
}

#[test]
fn a_bad_image_does_not_replace_a_good_one() {
    let namespace = web("badimage", 2);
    let before = namespace.kubectl("get pods -l app=web -o name").ok();
    namespace
        .kubectl("set image deployment/web demo=ferrokube.local/absent:1")
        .ok();
    until("the new pod to fail at its image", || {
        let path = "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}";
        let reasons = namespace
            .kubectl("get pods -l app=web -o")
            .args([path])
            .ok();
        if reasons.contains("ErrImagePull") || reasons.contains("ImagePullBackOff") {
            Ok(())
        } else {
            Err(reasons)
        }
    });
    let after = namespace.kubectl("get pods -l app=web -o name").ok();
    assert!(
        before.lines().all(|pod| after.contains(pod)),
        "of {before} not all are left: {after}"
    );
    namespace.kubectl("rollout undo deployment/web").ok();
    namespace.await_rollout("web");
    until("the good pods alone", || {
        equals(
            namespace.kubectl("get pods -l app=web -o name").ok(),
            &before,
        )
    });
}

#[test]
fn restart_replaces_every_pod() {
    let namespace = web("restart", 2);
    let before = namespace.kubectl("get pods -l app=web -o name").ok();
    namespace.kubectl("rollout restart deployment/web").ok();
    namespace.await_rollout("web");
    until("none of the old pods", || {
        let now = namespace.kubectl("get pods -l app=web -o name").ok();
        if before.lines().any(|pod| now.contains(pod)) {
            Err(now)
        } else {
            Ok(())
        }
    });
}

#[test]
fn pause_and_resume() {
    let namespace = web("pause", 1);
    namespace.kubectl("rollout pause deployment/web").ok();
    namespace
        .kubectl("set image deployment/web")
        .args([format!("demo={}", DEMO[1])])
        .ok();
    // Seen by the controller, and yet nothing follows from it.
    until("the change to be seen", || {
        let web = namespace.get("deployment web")?;
        equals(
            web["status"]["observedGeneration"].clone(),
            &web["metadata"]["generation"],
        )
    });
    assert_eq!(images(&namespace).unwrap(), [DEMO[0]]);
    namespace.kubectl("rollout resume deployment/web").ok();
    until("the change to be rolled out", || {
        equals(images(&namespace)?, &vec![DEMO[1].to_owned()])
    });
}

#[test]
fn describe_tells_the_story() {
    let namespace = web("describe", 1);
    let text = until("the deployment's event", || {
        let text = namespace.kubectl("describe deployment web").ok();
        if text.contains("ScalingReplicaSet") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    for line in [
        "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
        "StrategyType:           RollingUpdate",
        "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
        "  Available      True    MinimumReplicasAvailable",
        "  Progressing    True    NewReplicaSetAvailable",
        "deployment-controller  Scaled up replica set web-",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }

    let pod = until("the pod's events", || {
        let text = namespace.kubectl("describe pod -l app=web").ok();
        if text.contains("Started") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    for part in [
        "Controlled By:  ReplicaSet/web-",
        "QoS Class:                   BestEffort",
        "  Ready                       True",
    ] {
        assert!(pod.contains(part), "no {part:?} in:\n{pod}");
    }
    let node = namespace.kubectl("describe nodes").ok();
    for part in ["Conditions:", "Capacity:", "Non-terminated Pods:"] {
        assert!(node.contains(part), "no {part:?} in:\n{node}");
    }
    // The columns are as wide as the longest condition.
    let mut lines = node.lines().map(|line| line.split_whitespace());
    assert!(
        lines.any(|mut words| words.next() == Some("Ready") && words.next() == Some("True")),
        "no condition Ready in:\n{node}"
    );
}

#[test]
fn deleting_a_deployment_deletes_its_pods() {
    let namespace = web("cascade", 2);
    namespace.kubectl("delete deployment web").ok();
    until("replica sets and pods to be collected", || {
        equals(namespace.kubectl("get replicasets,pods -o name").ok(), "")
    });
}
