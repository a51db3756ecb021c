//! Defaults of the autoscaling group.

use serde_json::{Value, json};

use super::{Defaulter, Fields, is_set, object, set_empty, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    (
        "io.k8s.api.autoscaling.v1.HorizontalPodAutoscalerSpec",
        v1_spec,
    ),
    (
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec",
        v2_spec,
    ),
];

fn v1_spec(spec: &mut Fields) {
    set_unset(spec, "minReplicas", 1);
}

fn v2_spec(spec: &mut Fields) {
    set_unset(spec, "minReplicas", 1);
    let average_cpu = json!([{
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }]);
    set_empty(spec, "metrics", average_cpu);
    if is_set(spec, "behavior") {
        let behavior = object(spec, "behavior");
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let up = object(behavior, "scaleUp");
        set_unset(up, "stabilizationWindowSeconds", 0);
        scaling_rules(up, json!([pods, percent.clone()]));
        // How long scaling down is held back is the controller's flag to say.
        scaling_rules(object(behavior, "scaleDown"), json!([percent]));
    }
}

fn scaling_rules(rules: &mut Fields, policies: Value) {
    set_unset(rules, "selectPolicy", "Max");
    if !is_set(rules, "policies") {
        rules.insert("policies".to_owned(), policies);
    }
}
