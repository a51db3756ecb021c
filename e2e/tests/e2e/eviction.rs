//! Pods that end because they take more of their node than they may.

use e2e::{Namespace, until};

/// A pod with a volume at `/data` and one container, `a`, that runs `command` and then sleeps.
fn pod(name: &str, size_limit: &str, limit: &str, command: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{name: data, emptyDir: {{sizeLimit: {size_limit}}}}}]
  containers:
  - name: a
    image: ferrokube.local/demo:1
    command: [sh, -c, '{command}; exec sleep 100000']
    volumeMounts: [{{name: data, mountPath: /data}}]
    resources: {{limits: {{ephemeral-storage: {limit}}}}}
{more}---"#
    )
}

#[test]
fn what_takes_more_of_the_disk_than_it_may_is_evicted() {
    let namespace = Namespace::new("eviction");
    let write = |to: &str| format!("head -c 2097152 /dev/zero > {to}");
    let print = r#"head -c 2097152 /dev/zero | tr "\0" x; echo"#;
    let beside = r#"
  - {name: b, image: "ferrokube.local/demo:1", resources: {limits: {ephemeral-storage: 64Mi}}}
"#;
    let pods = [
        pod("modest", "4Mi", "64Mi", &write("/data/file"), ""),
        pod("volume", "1Mi", "64Mi", &write("/data/file"), ""),
        pod("all", "4Mi", "1Mi", &write("/data/file"), ""),
        pod("logs", "4Mi", "1Mi", print, beside),
    ];
    namespace.apply(&pods.concat());
    for (name, message) in [
        (
            "volume",
            r#"Usage of EmptyDir volume "data" exceeds the limit "1Mi". "#,
        ),
        (
            "all",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
        (
            "logs",
            r#"Container a exceeded its local ephemeral storage limit "1Mi". "#,
        ),
    ] {
        let status = &namespace.await_phase(name, "Failed")["status"];
        assert_eq!(status["reason"], "Evicted", "{status}");
        assert_eq!(status["message"], message, "{status}");
        until("an event that says so", || {
            let events = namespace
                .kubectl("get events -o jsonpath={.items[*].message}")
                .args([format!(
                    "--field-selector=involvedObject.name={name},reason=Evicted,type=Warning"
                )])
                .ok();
            // The last blank does not survive being printed.
            match events.trim() == message.trim() {
                true => Ok(()),
                false => Err(events),
            }
        });
    }
    let modest = namespace.get("pod modest").unwrap();
    assert_eq!(modest["status"]["phase"], "Running", "{modest}");
}
