//! Services: the same answers from a pod, from another node's pod and from the
//! machine.

use std::collections::BTreeSet;

use e2e::wait::equals;
use e2e::{Cluster, Namespace, net, until};

/// A deployment of web servers behind a Service, one pod per node at least.
fn web(theme: &str, service: &str) -> (Namespace, String) {
    let namespace = Namespace::new(theme);
    namespace.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: ferrokube.local/demo:1
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
{service}
"#
    ));
    namespace.await_rollout("web");
    let address = namespace.get("service web").unwrap()["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();
    (namespace, address)
}

fn pods(namespace: &Namespace) -> BTreeSet<String> {
    let names = namespace
        .kubectl("get pods -l app=web -o jsonpath={.items[*].metadata.name}")
        .ok();
    names.split(' ').map(str::to_owned).collect()
}

/// Asks until every one of `pods` has answered.
fn all_answer(what: &str, pods: &BTreeSet<String>, ask: impl Fn() -> Result<String, String>) {
    let mut heard = BTreeSet::new();
    until(&format!("every pod to answer {what}"), || {
        heard.insert(ask()?);
        if heard == *pods {
            Ok(())
        } else {
            Err(format!("{heard:?} of {pods:?}"))
        }
    });
}

#[test]
fn a_cluster_ip_reaches_every_pod() {
    let (namespace, address) = web("clusterip", "");
    let pods = pods(&namespace);
    all_answer("the machine", &pods, || net::get(&format!("{address}:80")));
    for pod in &pods {
        all_answer(&format!("pod {pod}, of which one is itself"), &pods, || {
            let wget = namespace
                .kubectl("exec")
                .args([pod, "--", "wget", "-q", "-T", "3", "-O", "-"]);
            wget.args([format!("http://{address}/")]).run().success()
        });
    }
}

#[test]
fn a_node_port_is_open_on_every_node() {
    let (namespace, _) = web("nodeport", "  type: NodePort");
    let service = namespace.get("service web").unwrap();
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
    let cluster = Cluster::get();
    let pods = pods(&namespace);
    for node in cluster.nodes() {
        let address = format!("{}:{port}", cluster.node_ip(&node));
        all_answer(&format!("at {node}"), &pods, || net::get(&address));
    }
}

#[test]
fn without_endpoints_it_refuses() {
    let (namespace, address) = web("refuse", "  type: NodePort");
    let port = namespace.get("service web").unwrap()["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .unwrap();
    let node = Cluster::get().node_ip("node1");
    until("an answer", || net::get(&format!("{address}:80")));
    namespace.kubectl("scale deployment web --replicas=0").ok();
    until("the service to refuse", || {
        net::refused(&format!("{address}:80"))
    });
    until("the node port to refuse", || {
        net::refused(&format!("{node}:{port}"))
    });
    namespace.kubectl("scale deployment web --replicas=1").ok();
    until("an answer again", || net::get(&format!("{address}:80")));
}

#[test]
fn a_pod_that_is_not_ready_gets_no_traffic() {
    let (namespace, address) = web("unready", "");
    let pods = pods(&namespace);
    let mut left = pods.clone();
    let sick = left.pop_first().unwrap();
    // The demo's page answers its probe; without it the pod is not ready.
    namespace
        .kubectl("exec")
        .args([&sick, "--", "mv", "/www", "/gone"])
        .ok();
    until("only the other pod to be an endpoint", || {
        let path = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}";
        let slices = namespace
            .kubectl("get endpointslices -l kubernetes.io/service-name=web -o")
            .args([path]);
        equals(slices.run().success()?, left.first().unwrap())
    });
    // kube-proxy follows; from then on nobody else may answer.
    until("eight answers in a row from the other", || {
        (0..8).try_for_each(|_| {
            equals(net::get(&format!("{address}:80"))?, left.first().unwrap()).map(drop)
        })
    });
    assert_eq!(
        namespace.get("deployment web").unwrap()["status"]["readyReplicas"],
        1
    );
}

#[test]
fn the_api_is_a_service_too() {
    let namespace = Namespace::new("api");
    namespace
        .kubectl("run shell --image=ferrokube.local/demo:1")
        .ok();
    namespace.await_ready("shell");
    // Environment of every pod, and the same address from within.
    let host = namespace
        .kubectl("exec shell -- sh -c")
        .args(["echo $KUBERNETES_SERVICE_HOST"])
        .ok();
    let service = Cluster::get()
        .kubectl("get service kubernetes -n default -o jsonpath={.spec.clusterIP}")
        .ok();
    assert_eq!(host, service);
    until("a connection to the API from a pod", || {
        namespace
            .kubectl("exec shell -- sh -c")
            .args([format!("nc -w 3 {host} 443 </dev/null")])
            .run()
            .success()
    });
}

#[test]
fn addresses_can_be_chosen_and_are_not_given_twice() {
    let (namespace, address) = web("chosen", "");
    let manifest = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: {address}\n  ports: [{{port: 80}}]\n"
        )
    };
    let error = namespace
        .kubectl("apply -f -")
        .stdin(&manifest("twice"))
        .fails();
    assert!(
        error.contains("provided IP is already allocated"),
        "{error}"
    );
    namespace.kubectl("delete service web").ok();
    until("the address to be free", || {
        namespace
            .kubectl("apply -f -")
            .stdin(&manifest("again"))
            .run()
            .success()
    });
}

#[test]
fn headless_services_have_endpoints_and_no_address() {
    let (namespace, address) = web("headless", "  clusterIP: None");
    assert_eq!(address, "None");
    let expected = pods(&namespace).len();
    until("an endpoint for each pod", || {
        let path = "jsonpath={.items[*].endpoints[*].addresses[0]}";
        let slices = namespace
            .kubectl("get endpointslices -l kubernetes.io/service-name=web -o")
            .args([path])
            .ok();
        equals(slices.split_whitespace().count(), &expected)
    });
}
