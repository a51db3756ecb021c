//! What kubectl does to any object: apply, get, watch, label, annotate, edit,
//! diff, delete, explain.

use std::fs;

use e2e::{Cluster, Namespace, until};
use serde_json::{Value, json};

use super::cell;

const CONFIG: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  labels: {tier: front}
data:
  colour: green
  size: "3"
"#;

#[test]
fn apply_creates_changes_and_leaves_alone() {
    let namespace = Namespace::new("apply");
    assert_eq!(namespace.apply(CONFIG), "configmap/settings created");
    assert_eq!(namespace.apply(CONFIG), "configmap/settings unchanged");

    // A field that was applied and is so no longer goes away; others' stay.
    namespace
        .kubectl("annotate configmap settings owner=somebody")
        .ok();
    assert_eq!(
        namespace.apply(&CONFIG.replace("  size: \"3\"\n", "  shape: round\n")),
        "configmap/settings configured"
    );
    let settings = namespace.get("configmap settings").unwrap();
    assert_eq!(
        settings["data"],
        json!({"colour": "green", "shape": "round"})
    );
    assert_eq!(settings["metadata"]["annotations"]["owner"], "somebody");
}

#[test]
fn apply_reads_many_objects_and_stops_at_none() {
    let namespace = Namespace::new("apply-many");
    let secret = "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: correct horse}\n";
    let printed = namespace.apply(&format!("{CONFIG}{secret}"));
    assert_eq!(printed, "configmap/settings created\nsecret/key created");
    assert_eq!(
        namespace.get("secret key").unwrap()["data"]["password"],
        "Y29ycmVjdCBob3JzZQ=="
    );

    let error = namespace
        .kubectl("apply -f -")
        .stdin(&CONFIG.replace("\ndata:", "\ndada:"))
        .fails();
    assert!(error.contains(r#"unknown field "dada""#), "{error}");
}

#[test]
fn a_dry_run_stores_nothing() {
    let namespace = Namespace::new("dryrun");
    let printed = namespace
        .kubectl("apply --dry-run=server -f -")
        .stdin(CONFIG)
        .ok();
    assert_eq!(printed, "configmap/settings created (server dry run)");
    let missing = namespace.kubectl("get configmap settings").fails();
    assert_eq!(
        missing,
        r#"Error from server (NotFound): configmaps "settings" not found"#
    );
}

#[test]
fn get_prints_tables_and_objects() {
    let namespace = Namespace::new("get");
    namespace.apply(CONFIG);

    let table = namespace.kubectl("get configmap settings").ok();
    assert_eq!(
        (cell(&table, "NAME"), cell(&table, "DATA")),
        ("settings".into(), "2".into())
    );

    let yaml = namespace.kubectl("get configmap settings -o yaml").ok();
    assert!(
        yaml.starts_with(
            "apiVersion: v1\ndata:\n  colour: green\n  size: \"3\"\nkind: ConfigMap\n"
        ),
        "{yaml}"
    );

    let list: Value = serde_json::from_str(
        &namespace
            .kubectl("get configmaps -o json -l tier=front")
            .ok(),
    )
    .unwrap();
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("List"), &json!("settings"))
    );
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    let names = namespace
        .kubectl("get configmaps --field-selector metadata.name=settings -o name")
        .ok();
    assert_eq!(names, "configmap/settings");
    let labels = namespace
        .kubectl("get cm -L tier --no-headers -l tier")
        .ok();
    assert!(labels.ends_with("front"), "{labels}");
    assert_eq!(
        namespace.kubectl("get pods").run().stderr,
        format!("No resources found in {} namespace.", namespace.name)
    );
}

#[test]
fn get_prints_nodes_widely() {
    let cluster = Cluster::get();
    let node = &cluster.nodes()[0];
    let table = cluster
        .kubectl("get nodes -o wide")
        .args(["--field-selector", &format!("metadata.name={node}")])
        .ok();
    assert_eq!(cell(&table, "NAME"), *node);
    assert_eq!(cell(&table, "STATUS"), "Ready");
    assert_eq!(cell(&table, "INTERNAL-IP"), cluster.node_ip(node));
    assert!(cell(&table, "VERSION").starts_with("v1.36."), "{table}");
    assert!(
        cell(&table, "CONTAINER-RUNTIME").starts_with("containerd://"),
        "{table}"
    );
}

#[test]
fn get_watches() {
    let namespace = Namespace::new("watch");
    namespace.apply(CONFIG);
    let mut watch = namespace
        .kubectl("get configmaps -w --output-watch-events -l tier=front")
        .follow();
    watch.line(|line| line.starts_with("ADDED") && line.contains("settings"));
    namespace.apply(&CONFIG.replace("name: settings", "name: other"));
    watch.line(|line| line.starts_with("ADDED") && line.contains("other"));
    namespace.kubectl("label configmap other more=yes").ok();
    watch.line(|line| line.starts_with("MODIFIED") && line.contains("other"));
    // Out of the selector is as good as deleted.
    namespace
        .kubectl("label configmap settings --overwrite tier=back")
        .ok();
    watch.line(|line| line.starts_with("DELETED") && line.contains("settings"));
    namespace.kubectl("delete configmap other").ok();
    watch.line(|line| line.starts_with("DELETED") && line.contains("other"));
}

#[test]
fn label_and_annotate() {
    let namespace = Namespace::new("label");
    namespace.apply(CONFIG);
    assert_eq!(
        namespace
            .kubectl("label configmap settings tier=back --overwrite")
            .ok(),
        "configmap/settings labeled"
    );
    let error = namespace
        .kubectl("label configmap settings tier=middle")
        .fails();
    assert_eq!(
        error,
        "error: 'tier' already has a value (back), and --overwrite is false"
    );
    namespace.kubectl("label configmap settings tier-").ok();
    namespace
        .kubectl("annotate configmap settings why=because")
        .ok();
    let metadata = &namespace.get("configmap settings").unwrap()["metadata"];
    assert_eq!(
        (metadata.get("labels"), &metadata["annotations"]["why"]),
        (None, &json!("because"))
    );
}

#[test]
fn edit_applies_what_the_editor_wrote() {
    let namespace = Namespace::new("edit");
    namespace.apply(CONFIG);
    let edit = |editor: &str| {
        namespace
            .kubectl("edit configmap settings")
            .env("KUBE_EDITOR", editor)
            .run()
    };

    assert_eq!(
        edit("sed -i s/green/blue/").success().unwrap(),
        "configmap/settings edited"
    );
    assert_eq!(
        namespace.get("configmap settings").unwrap()["data"]["colour"],
        "blue"
    );
    let unchanged = edit("touch");
    assert_eq!(
        (unchanged.code, unchanged.stderr.as_str()),
        (Some(0), "Edit cancelled, no changes made.")
    );
}

#[test]
fn diff_shows_and_changes_nothing() {
    let namespace = Namespace::new("diff");
    namespace.apply(CONFIG);
    let same = namespace.kubectl("diff -f -").stdin(CONFIG).run();
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""), "{same}");

    let other = namespace
        .kubectl("diff -f -")
        .stdin(&CONFIG.replace("green", "red"))
        .run();
    assert_eq!(other.code, Some(1), "{other}");
    assert!(
        other
            .stdout
            .contains("\n-  colour: green\n+  colour: red\n"),
        "{other}"
    );
    assert_eq!(
        namespace.get("configmap settings").unwrap()["data"]["colour"],
        "green"
    );
}

#[test]
fn delete_by_name_and_by_selector() {
    let namespace = Namespace::new("delete");
    for name in ["a", "b", "c"] {
        namespace.kubectl("create configmap").args([name]).ok();
    }
    namespace.kubectl("label configmap a b group=ab").ok();
    let printed = namespace.kubectl("delete configmaps -l group=ab").ok();
    assert!(
        printed.contains(r#"configmap "a" deleted"#)
            && printed.contains(r#"configmap "b" deleted"#),
        "{printed}"
    );
    namespace.kubectl("delete configmap c").ok();
    assert_eq!(
        namespace.kubectl("delete configmap c").fails(),
        r#"Error from server (NotFound): configmaps "c" not found"#
    );
    assert_eq!(
        namespace
            .kubectl("delete configmap c --ignore-not-found")
            .ok(),
        ""
    );
}

#[test]
fn explain_tells_of_fields() {
    let cluster = Cluster::get();
    let spec = cluster.kubectl("explain pod.spec").ok();
    assert!(
        spec.starts_with("KIND:       Pod\nVERSION:    v1\n\nFIELD: spec <PodSpec>\n"),
        "{spec}"
    );
    for line in [
        "containers\t<[]Container> -required-",
        "nodeSelector\t<map[string]string>",
        "hostNetwork\t<boolean>",
    ] {
        assert!(spec.contains(line), "no {line:?} in:\n{spec}");
    }
    let replicas = cluster.kubectl("explain deployment.spec.replicas").ok();
    assert!(
        replicas.contains("GROUP:      apps") && replicas.contains("FIELD: replicas <integer>"),
        "{replicas}"
    );
    let unknown = cluster.kubectl("explain pod.spec.wings").fails();
    assert_eq!(unknown, r#"error: field "wings" does not exist"#);
}

#[test]
fn api_resources_lists_the_kinds() {
    let cluster = Cluster::get();
    let table = cluster.kubectl("api-resources --no-headers").ok();
    let rows: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for row in [
        vec!["pods", "po", "v1", "true", "Pod"],
        vec!["nodes", "no", "v1", "false", "Node"],
        vec!["deployments", "deploy", "apps/v1", "true", "Deployment"],
        vec![
            "endpointslices",
            "discovery.k8s.io/v1",
            "true",
            "EndpointSlice",
        ],
        vec!["leases", "coordination.k8s.io/v1", "true", "Lease"],
        vec![
            "clusterroles",
            "rbac.authorization.k8s.io/v1",
            "false",
            "ClusterRole",
        ],
    ] {
        assert!(rows.contains(&row), "no {row:?} in:\n{table}");
    }
    let of_apps = cluster
        .kubectl("api-resources --api-group apps -o name")
        .ok();
    assert_eq!(
        of_apps.lines().collect::<Vec<_>>(),
        [
            "controllerrevisions.apps",
            "daemonsets.apps",
            "deployments.apps",
            "replicasets.apps",
            "statefulsets.apps"
        ]
    );
    let versions = cluster.kubectl("api-versions").ok();
    for version in [
        "v1",
        "apps/v1",
        "authentication.k8s.io/v1",
        "rbac.authorization.k8s.io/v1",
    ] {
        assert!(
            versions.lines().any(|line| line == version),
            "no {version} in:\n{versions}"
        );
    }
}

#[test]
fn version_and_health() {
    let cluster = Cluster::get();
    let version: Value = serde_json::from_str(&cluster.kubectl("version -o json").ok()).unwrap();
    let server = &version["serverVersion"];
    assert_eq!(
        (&server["major"], &server["minor"]),
        (&json!("1"), &json!("36")),
        "{server}"
    );
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(cluster.kubectl("get --raw").args([path]).ok(), "ok");
    }
    let ready = cluster.kubectl("get --raw /readyz?verbose").ok();
    assert!(
        ready.starts_with("[+]ping ok") && ready.ends_with("readyz check passed"),
        "{ready}"
    );
    let metrics = cluster.kubectl("get --raw /metrics").ok();
    assert!(
        metrics.contains("apiserver_request_total{"),
        "no apiserver_request_total in /metrics"
    );
}

#[test]
fn create_and_replace() {
    let namespace = Namespace::new("create");
    assert_eq!(
        namespace.kubectl("create -f -").stdin(CONFIG).ok(),
        "configmap/settings created"
    );
    assert_eq!(
        namespace.kubectl("create -f -").stdin(CONFIG).fails(),
        r#"Error from server (AlreadyExists): error when creating "STDIN": configmaps "settings" already exists"#
    );
    namespace
        .kubectl("replace -f -")
        .stdin(&CONFIG.replace("green", "black"))
        .ok();
    assert_eq!(
        namespace.get("configmap settings").unwrap()["data"]["colour"],
        "black"
    );

    for (kind, patch) in [
        ("merge", r#"{"data":{"size":null,"colour":"white"}}"#),
        (
            "json",
            r#"[{"op":"add","path":"/data/weight","value":"7"}]"#,
        ),
        (
            "strategic",
            r#"{"metadata":{"labels":{"tier":null,"row":"1"}}}"#,
        ),
    ] {
        namespace
            .kubectl("patch configmap settings --type")
            .args([kind, "-p", patch])
            .ok();
    }
    let settings = namespace.get("configmap settings").unwrap();
    assert_eq!(settings["data"], json!({"colour": "white", "weight": "7"}));
    assert_eq!(settings["metadata"]["labels"], json!({"row": "1"}));
}

#[test]
fn events_are_listed() {
    let namespace = Namespace::new("events");
    namespace
        .kubectl("run web --image=ferrokube.local/demo:1")
        .ok();
    until("the pod's events", || {
        let events = namespace.kubectl("get events --no-headers").ok();
        let reasons: Vec<_> = events
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        let missing: Vec<_> = ["Scheduled", "Pulled", "Created", "Started"]
            .into_iter()
            .filter(|want| !reasons.contains(want))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("no {missing:?} in:\n{events}"))
        }
    });
    let events = namespace
        .kubectl("events --for pod/web --types Normal")
        .ok();
    assert!(events.contains("Successfully assigned"), "{events}");
}

#[test]
fn whoami_and_can_i() {
    let cluster = Cluster::get();
    let who: Value = serde_json::from_str(&cluster.kubectl("auth whoami -o json").ok()).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(cluster.kubectl("auth can-i create pods").ok(), "yes");
    let no = cluster
        .kubectl("auth can-i list secrets --as=system:serviceaccount:default:default")
        .run();
    assert_eq!((no.code, no.stdout.as_str()), (Some(1), "no"), "{no}");
}

#[test]
fn apply_reads_files_and_directories() {
    let namespace = Namespace::new("files");
    let directory = std::env::temp_dir().join(&namespace.name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("one.yaml"), CONFIG).unwrap();
    fs::write(
        directory.join("two.json"),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"two"}}"#,
    )
    .unwrap();
    let printed = namespace
        .kubectl("apply -f")
        .args([directory.to_str().unwrap()])
        .run();
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(
        printed.success().unwrap(),
        "configmap/settings created\nconfigmap/two created"
    );
}
