//! Into pods by kubectl: run, logs, exec.

use e2e::wait::equals;
use e2e::{Namespace, until};

fn pod(namespace: &Namespace, name: &str, script: &str) {
    pod_with(namespace, name, "", script);
}

fn pod_with(namespace: &Namespace, name: &str, more: &str, script: &str) {
    namespace.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  {more}
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, '{script}']
"#
    ));
}

#[test]
fn logs_of_a_finished_container() {
    let namespace = Namespace::new("logs");
    namespace
        .kubectl("run once --image=ferrokube.local/demo:1 --restart=Never --command -- sh -c")
        .args(["echo one; echo two; echo three"])
        .ok();
    namespace.await_phase("once", "Succeeded");
    assert_eq!(namespace.kubectl("logs once").ok(), "one\ntwo\nthree");
    assert_eq!(namespace.kubectl("logs once --tail=1").ok(), "three");
    let stamped = namespace.kubectl("logs once --timestamps --tail=1").ok();
    assert!(
        stamped.starts_with("20") && stamped.ends_with("Z three"),
        "{stamped}"
    );
    let error = namespace.kubectl("logs once -c other").fails();
    assert_eq!(
        error,
        "error: container other is not valid for pod once out of: once"
    );
}

#[test]
fn logs_are_followed_to_the_end() {
    let namespace = Namespace::new("follow");
    pod(
        &namespace,
        "talker",
        "i=0; while [ ! -e /tmp/stop ]; do echo line $i; i=$((i+1)); sleep 0.2; done; echo the end",
    );
    namespace.await_ready("talker");
    let mut logs = namespace.kubectl("logs -f talker").follow();
    logs.line(|line| line == "line 0");
    logs.line(|line| line == "line 3");
    namespace.kubectl("exec talker -- touch /tmp/stop").ok();
    logs.line(|line| line == "the end");
    // With restartPolicy Always another container follows; its log is another.
    assert!(
        logs.rest().is_empty(),
        "the log of a container that has ended goes on"
    );
}

#[test]
fn logs_of_the_container_before() {
    let namespace = Namespace::new("previous");
    pod(&namespace, "again", "echo life; exit 3");
    namespace.await_value("pod again", "/status/containerStatuses/0/restartCount", 1);
    until("the previous log", || {
        equals(
            namespace.kubectl("logs --previous again").run().success()?,
            "life",
        )
    });
}

#[test]
fn exec_runs_and_reports() {
    let namespace = Namespace::new("exec");
    pod(&namespace, "shell", "sleep 100000");
    namespace.await_ready("shell");

    assert_eq!(namespace.kubectl("exec shell -- hostname").ok(), "shell");
    let both = namespace
        .kubectl("exec shell -- sh -c")
        .args(["echo out; echo err >&2; exit 7"])
        .run();
    assert_eq!(
        (both.code, both.stdout.as_str()),
        (Some(7), "out"),
        "{both}"
    );
    assert!(
        both.stderr.starts_with("err\n") && both.stderr.contains("exit code 7"),
        "{both}"
    );

    let echoed = namespace
        .kubectl("exec -i shell -- sh -c")
        .args(["wc -c"])
        .stdin(&"x".repeat(200_000))
        .ok();
    assert_eq!(echoed, "200000");

    let missing = namespace.kubectl("exec shell -- /no/such/program").run();
    assert_ne!(missing.code, Some(0), "{missing}");
    assert!(
        missing.stderr.contains("no such file or directory"),
        "{missing}"
    );
}

/// kubectl begins with a WebSocket and falls back to SPDY where that is refused.
fn talks_over_a_websocket(namespace: &Namespace) {
    let done = namespace
        .kubectl("exec -i shell -v=6 -- cat")
        .stdin("to the end")
        .run();
    assert_eq!(done.stdout, "to the end", "{done}");
    assert!(done.stderr.contains("v5.channel.k8s.io"), "{done}");
    assert!(!done.stderr.contains("fallback"), "{done}");
}

#[test]
fn exec_over_websockets_whoever_translates() {
    let namespace = Namespace::new("websockets");
    pod(&namespace, "shell", "sleep 100000");
    let shell = namespace.await_ready("shell");
    talks_over_a_websocket(&namespace);

    // A node that does not say that its kubelet can is served by the API server.
    let node = shell["spec"]["nodeName"].as_str().unwrap();
    let count = || -> u64 {
        let metrics = namespace.kubectl("get --raw /metrics").ok();
        let series = metrics.lines().find_map(|l| {
            l.strip_prefix("apiserver_stream_translator_requests_total{code=\"200\"} ")
        });
        series.map_or(0, |n| n.parse().unwrap())
    };
    let before = count();
    until("a command that the API server translates", || {
        // The kubelet says it again soon.
        let forget = r#"[{"op": "replace", "path": "/status/declaredFeatures", "value": []}]"#;
        let patched = namespace
            .kubectl("patch node --subresource=status --type=json")
            .args([node, "-p", forget])
            .run();
        patched.success()?;
        talks_over_a_websocket(&namespace);
        match count() > before {
            true => Ok(()),
            false => Err("none yet".to_owned()),
        }
    });
}

#[test]
fn exec_at_a_terminal() {
    let namespace = Namespace::new("terminal");
    pod(&namespace, "shell", "sleep 100000");
    namespace.await_ready("shell");
    // `tty` prints a name only when its input is a terminal.
    let done = namespace
        .kubectl("exec -it shell -- sh")
        .run_at_terminal("tty; echo $((6*7)); exit 5\n");
    assert_eq!(done.code, Some(5), "{done}");
    assert!(
        done.stdout.contains("/dev/pts/") && done.stdout.contains("42"),
        "{done}"
    );
}

#[test]
fn get_pods_shows_what_they_do() {
    let namespace = Namespace::new("getpods");
    pod(&namespace, "ok", "sleep 100000");
    pod(&namespace, "crashing", "exit 1");
    namespace.await_ready("ok");
    let table = namespace.kubectl("get pod ok -o wide").ok();
    let status = namespace.get("pod ok").unwrap();
    for (column, value) in [
        ("READY", "1/1"),
        ("STATUS", "Running"),
        ("RESTARTS", "0"),
        ("IP", status["status"]["podIP"].as_str().unwrap()),
        ("NODE", status["spec"]["nodeName"].as_str().unwrap()),
        ("NOMINATED NODE", "<none>"),
    ] {
        assert_eq!(super::cell(&table, column), value, "{column} of:\n{table}");
    }
    until("a crash loop", || {
        equals(
            super::cell(&namespace.kubectl("get pod crashing").ok(), "STATUS"),
            "CrashLoopBackOff",
        )
    });
}

#[test]
fn get_watches_a_pod_through_its_life() {
    let namespace = Namespace::new("watchpod");
    // One that goes nowhere: its line says that the watch has begun.
    pod_with(
        &namespace,
        "first",
        "schedulingGates: [{name: example.com/hold}]",
        "true",
    );
    let mut watch = namespace.kubectl("get pods -w --no-headers").follow();
    watch.line(|line| line.starts_with("first"));
    namespace
        .kubectl("run brief --image=ferrokube.local/demo:1 --restart=Never --command -- true")
        .ok();
    for status in ["Pending", "ContainerCreating", "Completed"] {
        watch.line(|line| line.split_whitespace().nth(2) == Some(status));
    }
}

#[test]
fn copying_out_of_a_pod() {
    let namespace = Namespace::new("cp");
    pod(
        &namespace,
        "files",
        "echo precious > /tmp/file; sleep 100000",
    );
    namespace.await_ready("files");
    let target = std::env::temp_dir().join(format!("{}-copy", namespace.name));
    namespace
        .kubectl("cp files:/tmp/file")
        .args([target.to_str().unwrap()])
        .ok();
    let copied = std::fs::read_to_string(&target).unwrap();
    std::fs::remove_file(&target).unwrap();
    assert_eq!(copied, "precious\n");
}
