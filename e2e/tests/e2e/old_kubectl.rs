//! The kubectl that Debian 12 ships: 1.20, far outside the supported skew, which
//! people have on their machines all the same. It knows the API of its day: plain
//! discovery, OpenAPI v2 in protobuf form, SPDY.

use e2e::kubectl::Kubectl;
use e2e::wait::equals;
use e2e::{Namespace, until};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: old
  labels: {app: old}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'echo hello; sleep 100000']
"#;

fn old(namespace: &Namespace, arguments: &str) -> Kubectl {
    namespace.kubectl(arguments).version("1.20")
}

#[test]
fn apply_get_logs_exec_delete() {
    let namespace = Namespace::new("old");
    assert_eq!(
        old(&namespace, "apply -f -").stdin(POD).ok(),
        "pod/old created"
    );
    namespace.await_ready("old");
    assert_eq!(
        old(&namespace, "apply -f -").stdin(POD).ok(),
        "pod/old unchanged"
    );

    let table = old(&namespace, "get pods").ok();
    assert!(
        table.starts_with("NAME") && table.contains("old    1/1     Running"),
        "{table}"
    );
    let wide = old(&namespace, "get pods -o wide -l app=old").ok();
    assert!(wide.contains("NOMINATED NODE"), "{wide}");
    let yaml = old(&namespace, "get pod old -o yaml").ok();
    assert!(yaml.contains("phase: Running"), "{yaml}");

    until("the log", || {
        equals(old(&namespace, "logs old").run().success()?, "hello")
    });
    assert_eq!(old(&namespace, "exec old -- hostname").ok(), "old");
    let done = old(&namespace, "exec -i old -- cat")
        .stdin("through and back")
        .run();
    assert_eq!(done.success().unwrap(), "through and back");

    assert_eq!(
        old(&namespace, "delete pod old").ok(),
        r#"pod "old" deleted"#
    );
    assert!(namespace.get("pod old").unwrap_err().contains("NotFound"));
}

#[test]
fn it_validates_by_the_published_description() {
    let namespace = Namespace::new("oldvalid");
    let error = old(&namespace, "apply -f -")
        .stdin(&POD.replace("containers:", "containres:"))
        .fails();
    assert!(error.contains(r#"unknown field "containres""#), "{error}");
}

#[test]
fn it_applies_deployments() {
    let namespace = Namespace::new("olddeploy");
    old(
        &namespace,
        "create deployment web --image=ferrokube.local/demo:1 --replicas=2",
    )
    .ok();
    namespace.await_rollout("web");
    let table = old(&namespace, "get deployment web").ok();
    assert!(table.contains("2/2"), "{table}");
    old(&namespace, "delete deployment web").ok();
    until("its pods to go", || {
        equals(namespace.kubectl("get pods -o name").ok(), "")
    });
}
