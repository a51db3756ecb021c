use serde_json::{Value, json};

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    super::apply(schema::kind(group, "v1", kind).unwrap(), &mut object);
    object
}

#[test]
fn a_pod_gets_what_upstream_gives_it() {
    let pod = defaulted(
        "",
        "Pod",
        json!({"spec": {"containers": [{
            "name": "web",
            "image": "web",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "100.5m"}},
            "readinessProbe": {"httpGet": {"port": 80}},
        }]}}),
    );
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "web",
                "image": "web",
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "101m"}, "requests": {"cpu": "101m"}},
                "readinessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10,
                    "successThreshold": 1, "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        })
    );
}

#[test]
fn a_negative_grace_period_is_one_of_a_second() {
    let grace = "terminationGracePeriodSeconds";
    let spec = json!({grace: -1});
    let pod = defaulted("", "Pod", json!({"spec": spec}));
    assert_eq!(pod["spec"][grace], 1);
    let template = defaulted("", "PodTemplate", json!({"template": {"spec": spec}}));
    assert_eq!(template["template"]["spec"][grace], -1);
}

#[test]
fn a_template_is_defaulted_as_a_spec_but_not_as_a_pod() {
    let deployment = defaulted(
        "apps",
        "Deployment",
        json!({"spec": {"template": {"spec": {"containers": [{"image": "a/b:1@sha256:0"}]}}}}),
    );
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"]["rollingUpdate"],
        json!({"maxSurge": "25%", "maxUnavailable": "25%"})
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["dnsPolicy"], "ClusterFirst");
    assert_eq!(pod["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert!(pod.get("enableServiceLinks").is_none());
}

#[test]
fn an_unset_volume_is_an_empty_dir_and_a_status_gets_its_phase() {
    let pod = defaulted(
        "",
        "Pod",
        json!({"spec": {"containers": [], "volumes": [{"name": "v"}]}}),
    );
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {}}])
    );
    let namespace = defaulted("", "Namespace", json!({"metadata": {"name": "a"}}));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "a"
    );
}

#[test]
fn what_is_set_stays() {
    let service = json!({"spec": {
        "type": "LoadBalancer",
        "ports": [{"port": 80, "targetPort": "http", "protocol": "UDP"}],
        "sessionAffinity": "ClientIP",
    }});
    let spec = &defaulted("", "Service", service)["spec"];
    assert_eq!(
        spec["ports"][0],
        json!({"port": 80, "targetPort": "http", "protocol": "UDP"})
    );
    assert_eq!(
        spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
        10800
    );
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
}

#[test]
fn the_old_single_address_is_the_first_of_the_list() {
    let spec = |spec| defaulted("", "Node", json!({"spec": spec}))["spec"].clone();
    let both = json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]});
    assert_eq!(spec(json!({"podCIDR": "10.1.0.0/24"})), both);
    assert_eq!(spec(json!({"podCIDRs": ["10.1.0.0/24"]})), both);
    let torn = json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.2.0.0/24", "fd00::/64"]});
    assert_eq!(spec(torn), both);
    let pod = defaulted("", "Pod", json!({"status": {"podIP": "10.1.0.1"}}));
    assert_eq!(pod["status"]["podIPs"], json!([{"ip": "10.1.0.1"}]));
}

#[test]
fn claim_templates_are_the_same_whether_or_not_they_say_what_they_are() {
    let set = |template| {
        let set = json!({"spec": {"volumeClaimTemplates": [template]}});
        defaulted("apps", "StatefulSet", set)["spec"]["volumeClaimTemplates"].clone()
    };
    assert_eq!(
        set(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim"})),
        set(json!({}))
    );
}
