//! Random clusters, and random pods to be scheduled in them. Pure: the same seed makes the
//! same.

use serde_json::{Map, Value, json};

use super::random::Random;

/// Namespaces and the value of their label `team`.
pub const NAMESPACES: [(&str, &str); 2] = [("red", "r"), ("blue", "b")];
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const APPS: [&str; 3] = ["a", "b", "c"];

/// A cluster as it is found.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub nodes: Vec<Value>,
    /// Pods that have their nodes.
    pub pods: Vec<Value>,
    pub services: Vec<Value>,
    /// Budgets, and how many disruptions they allow.
    pub budgets: Vec<(Value, i64)>,
}

/// Makes a cluster of 1 to 12 nodes.
pub fn cluster(random: &mut Random) -> Cluster {
    let mut cluster = Cluster {
        nodes: Vec::new(),
        pods: Vec::new(),
        services: Vec::new(),
        budgets: Vec::new(),
    };
    let zones = random.between(1, 3);
    let nodes = random.between(1, 12);
    for i in 0..nodes {
        cluster.nodes.push(node(random, i, zones));
        let mut ports = Vec::new();
        for j in 0..random.between(0, 5) {
            let mut pod = pod(random, &format!("there-{i}-{j}"));
            pod["spec"]["nodeName"] = format!("n{i}").into();
            // Who is there has been let in; what it wishes is only for others to heed.
            pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
            let port = pod["spec"]["containers"][0]["ports"][0]["hostPort"].clone();
            if port.is_number() && ports.contains(&port) {
                // Nobody could have let two of them in.
                pod["spec"]["containers"][0]["ports"] = Value::Null;
            }
            ports.push(port);
            cluster.pods.push(pod);
        }
    }
    for (i, (namespace, _)) in NAMESPACES.iter().enumerate() {
        if random.percent(50) {
            cluster.services.push(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("s{i}"), "namespace": namespace},
                "spec": {"selector": {"app": *random.pick(&APPS)}, "ports": [{"port": 80}]},
            }));
        }
        if random.percent(40) {
            let budget = json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": format!("b{i}"), "namespace": namespace},
                "spec": {
                    "minAvailable": 1,
                    "selector": {"matchLabels": {"app": *random.pick(&APPS)}},
                },
            });
            let allowed = i64::from(random.percent(50));
            cluster.budgets.push((budget, allowed));
        }
    }
    cluster
}

fn node(random: &mut Random, i: usize, zones: usize) -> Value {
    let name = format!("n{i}");
    let mut labels = json!({HOST: name, "disk": *random.pick(&["ssd", "hdd"])});
    labels["cores"] = random.between(1, 9).to_string().into();
    if random.percent(90) {
        labels[ZONE] = format!("z{}", random.below(zones)).into();
    }
    let mut taints = Vec::new();
    if random.percent(25) {
        taints.push(taint(random));
    }
    let allocatable = json!({
        "cpu": random.between(1, 6).to_string(),
        "memory": format!("{}Gi", random.between(1, 8)),
        "ephemeral-storage": "10Gi",
        "pods": random.between(2, 9).to_string(),
        "example.com/gpu": random.below(3).to_string(),
    });
    let mut images = Vec::new();
    for app in APPS {
        if random.percent(30) {
            images.push(json!({
                "names": [format!("registry.example/{app}:1")],
                "sizeBytes": 50_000_000 * (1 + random.below(30)),
            }));
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": random.percent(8)},
        "status": {"allocatable": allocatable, "capacity": allocatable, "images": images},
    })
}

fn taint(random: &mut Random) -> Value {
    json!({
        "key": *random.pick(&["k", "l"]),
        "value": *random.pick(&["v", "w"]),
        "effect": *random.pick(&["NoSchedule", "NoExecute", "PreferNoSchedule"]),
    })
}

/// A pod that has no node yet.
pub fn pod(random: &mut Random, name: &str) -> Value {
    let app = *random.pick(&APPS);
    let mut requests = Map::new();
    if random.percent(80) {
        requests.insert(
            "cpu".into(),
            format!("{}m", 100 * random.between(1, 20)).into(),
        );
    }
    if random.percent(60) {
        let memory = format!("{}Mi", 128 * random.between(1, 16));
        requests.insert("memory".into(), memory.into());
    }
    let mut container = json!({
        "name": "c", "image": format!("registry.example/{app}:1"),
        "resources": {"requests": requests},
    });
    if random.percent(8) {
        container["resources"]["requests"]["example.com/gpu"] = "1".into();
        container["resources"]["limits"] = json!({"example.com/gpu": "1"});
    }
    if random.percent(15) {
        let port = 8000 + random.below(3);
        container["ports"] = json!([{"containerPort": 80, "hostPort": port}]);
    }
    let mut spec = json!({
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
    });
    match random.below(5) {
        0 => {}
        n => spec["priorityClassName"] = format!("p{}", super::objects::PRIORITIES[n - 1]).into(),
    }
    if random.percent(5) {
        spec["priorityClassName"] = "never".into();
    }
    if random.percent(15) {
        spec["nodeSelector"] = json!({"disk": *random.pick(&["ssd", "hdd"])});
    }
    if random.percent(40) {
        spec["tolerations"] = json!([toleration(random)]);
    }
    let affinity = affinity(random);
    if affinity.as_object().is_some_and(|a| !a.is_empty()) {
        spec["affinity"] = affinity;
    }
    if random.percent(35) {
        let n = random.between(1, 2);
        let mut constraints: Vec<Value> = Vec::new();
        for _ in 0..n {
            let constraint = spread(random);
            let same = |c: &Value| {
                c["topologyKey"] == constraint["topologyKey"]
                    && c["whenUnsatisfiable"] == constraint["whenUnsatisfiable"]
            };
            if !constraints.iter().any(same) {
                constraints.push(constraint);
            }
        }
        spec["topologySpreadConstraints"] = constraints.into();
    }
    let namespace = random.pick(&NAMESPACES).0;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"app": app, "tier": *random.pick(&["x", "y"])},
        },
        "spec": spec,
    })
}

fn toleration(random: &mut Random) -> Value {
    let key = *random.pick(&["k", "l"]);
    match random.below(3) {
        0 => json!({"key": key, "operator": "Exists"}),
        1 => json!({"key": key, "value": *random.pick(&["v", "w"]), "effect": "NoSchedule"}),
        _ => json!({"operator": "Exists", "effect": "NoSchedule"}),
    }
}

fn affinity(random: &mut Random) -> Value {
    let mut affinity = Map::new();
    if random.percent(15) {
        let terms: Vec<Value> = (0..random.between(1, 2))
            .map(|_| node_term(random))
            .collect();
        affinity.insert(
            "nodeAffinity".into(),
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}),
        );
    } else if random.percent(15) {
        let preferred =
            json!([{"weight": random.between(1, 100), "preference": node_term(random)}]);
        affinity.insert(
            "nodeAffinity".into(),
            json!({"preferredDuringSchedulingIgnoredDuringExecution": preferred}),
        );
    }
    for (kind, share) in [("podAffinity", 15), ("podAntiAffinity", 20)] {
        if !random.percent(share) {
            continue;
        }
        let value = if random.percent(60) {
            json!({"requiredDuringSchedulingIgnoredDuringExecution": [pod_term(random)]})
        } else {
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": random.between(1, 100), "podAffinityTerm": pod_term(random)},
            ]})
        };
        affinity.insert(kind.into(), value);
    }
    affinity.into()
}

fn node_term(random: &mut Random) -> Value {
    let expression = match random.below(4) {
        0 => json!({"key": ZONE, "operator": "In", "values": ["z0", "z1"]}),
        1 => json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]}),
        2 => json!({"key": ZONE, "operator": "Exists"}),
        _ => json!({"key": "cores", "operator": "Gt", "values": ["4"]}),
    };
    if random.percent(20) {
        let name = format!("n{}", random.below(6));
        return json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [name]},
        ]});
    }
    json!({"matchExpressions": [expression]})
}

fn selector(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
        1 => json!({"matchLabels": {"tier": *random.pick(&["x", "y"])}}),
        _ => json!({"matchLabels": {"app": *random.pick(&APPS)}}),
    }
}

fn pod_term(random: &mut Random) -> Value {
    let mut term = json!({
        "labelSelector": selector(random),
        "topologyKey": *random.pick(&[ZONE, HOST, "disk"]),
    });
    match random.below(5) {
        0 => term["namespaces"] = json!(["red", "blue"]),
        1 => term["namespaceSelector"] = json!({"matchLabels": {"team": "r"}}),
        2 => term["namespaceSelector"] = json!({}),
        _ => {}
    }
    term
}

fn spread(random: &mut Random) -> Value {
    let hard = random.percent(60);
    let mut constraint = json!({
        "topologyKey": *random.pick(&[ZONE, HOST, "disk"]),
        "maxSkew": random.between(1, 2),
        "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
        "labelSelector": selector(random),
    });
    if hard && random.percent(20) {
        constraint["minDomains"] = random.between(1, 4).into();
    }
    if random.percent(30) {
        constraint["nodeTaintsPolicy"] = (*random.pick(&["Honor", "Ignore"])).into();
    }
    if random.percent(30) {
        constraint["nodeAffinityPolicy"] = (*random.pick(&["Honor", "Ignore"])).into();
    }
    if random.percent(20) {
        constraint["matchLabelKeys"] = json!(["tier"]);
        constraint["labelSelector"] = json!({"matchLabels": {"app": *random.pick(&APPS)}});
    }
    constraint
}
