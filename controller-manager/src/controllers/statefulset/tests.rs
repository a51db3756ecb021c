//! Plans of StatefulSets, as words: what is done about which pod.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::claims::{self, Claims, new_owners, wanted};
use super::identity::{self, Member};
use super::plan::{Observed, Plan, Step, plan};
use crate::kinds::Pod;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// Of three replicas.
fn set(spec: Value) -> StatefulSet {
    let mut value = json!({
        "metadata": {"name": "s", "namespace": "n", "uid": "s"},
        "spec": {"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
    });
    for (k, v) in spec.as_object().unwrap() {
        value["spec"][k] = v.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// `s-0:new`, `s-1:old!` (being deleted), `s-2:new?` (not ready), `s-3:new%` (pending),
/// `s-4:new#` (failed).
fn pod(text: &str) -> Arc<Pod> {
    let (name, rest) = text.split_once(':').unwrap();
    let revision = rest.trim_end_matches(['!', '?', '%', '#']);
    let is = |mark: char| rest.contains(mark);
    let phase = match () {
        () if is('%') => "Pending",
        () if is('#') => "Failed",
        () => "Running",
    };
    let ready = if is('?') || is('%') || is('#') {
        "False"
    } else {
        "True"
    };
    let ordinal = name.rsplit_once('-').unwrap().1;
    let deleted = is('!').then_some("2026-01-01T00:00:00Z");
    let value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": text, "deletionTimestamp": deleted,
            "labels": {"controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name}},
        "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-s-{ordinal}")}}]},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2025-12-31T23:59:50Z"}]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn planned(set: &StatefulSet, pods: &str, claims: &Claims, max_unavailable: bool) -> Plan {
    let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
    plan(&Observed {
        set,
        pods: &pods,
        claims,
        current: "old",
        update: "new",
        collisions: 0,
        max_unavailable,
        now: now(),
    })
}

fn words(plan: &Plan) -> String {
    let word = |step: &Step| match step {
        Step::Create { member, updated } => {
            format!("+{}{}", member.name, if *updated { "" } else { ":old" })
        }
        Step::Delete(pod) => format!("-{}", pod.metadata.name),
        Step::Repair(member) => format!("~{}", member.name),
        Step::Claims(member) => format!("claims {}", member.name),
        Step::Owners(member) => format!("owners {}", member.name),
    };
    let steps = plan.stages.iter().flatten().flatten().map(word);
    let replaced = plan.replace.iter().map(|p| format!("!{}", p.metadata.name));
    steps.chain(replaced).collect::<Vec<_>>().join(" ")
}

#[test]
fn ordered() {
    for (spec, pods, want) in [
        (json!({}), "", "+s-0"),
        (json!({}), "s-0:new?", ""),
        (json!({}), "s-0:new%", "claims s-0"),
        (json!({}), "s-0:new", "+s-1"),
        (json!({}), "s-0:new s-2:new", "+s-1"),
        (json!({}), "s-0:new s-1:new# s-2:new", "-s-1"),
        (json!({}), "s-0:new s-1:new#! s-2:new", ""),
        (json!({}), "s-0:new! s-1:new s-2:new", ""),
        (json!({}), "s-0:new s-1:new s-2:new", ""),
        // Scaled down from the highest, once all are well.
        (json!({"replicas": 1}), "s-0:new s-1:new s-2:new", "-s-2"),
        (json!({"replicas": 1}), "s-0:new s-1:new s-2:new!", ""),
        (json!({"replicas": 1}), "s-0:new? s-1:new s-2:new", ""),
        (json!({"replicas": 1}), "s-0:new s-1:new s-2:new?", "-s-2"),
        (json!({"replicas": 1}), "s-0:new s-1:new? s-2:new?", ""),
        (json!({"replicas": 0}), "s-0:new", "-s-0"),
        // Updated from the highest, one at a time.
        (json!({}), "s-0:old s-1:old s-2:old", "!s-2"),
        (json!({}), "s-0:old s-1:old s-2:new?", ""),
        (json!({}), "s-0:old s-1:old s-2:new", "!s-1"),
        (json!({}), "s-0:old s-1:old", "+s-2"),
        (
            json!({"updateStrategy": {"type": "OnDelete"}}),
            "s-0:old s-1:old s-2:old",
            "",
        ),
        (
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
            "s-0:old s-1:old s-2:new",
            "",
        ),
        (
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
            "s-0:old",
            "+s-1:old",
        ),
        // Ordinals that do not begin at zero.
        (json!({"ordinals": {"start": 5}}), "s-5:new", "+s-6"),
        (
            json!({"ordinals": {"start": 5}}),
            "s-0:new s-5:new s-6:new s-7:new",
            "-s-0",
        ),
        // Ready is not yet available.
        (json!({"minReadySeconds": 30}), "s-0:new", ""),
        (json!({"minReadySeconds": 5}), "s-0:new", "+s-1"),
    ] {
        let got = planned(&set(spec.clone()), pods, &Claims::new(), false);
        assert_eq!(words(&got), want, "{spec} {pods}");
    }
}

#[test]
fn parallel() {
    for (spec, pods, want) in [
        (json!({}), "", "+s-0 +s-1 +s-2"),
        (json!({}), "s-0:new? s-2:new!", "+s-1"),
        (json!({}), "s-0:new# s-1:new s-2:new", "-s-0"),
        (
            json!({"replicas": 1}),
            "s-0:new? s-1:new s-2:new?",
            "-s-2 -s-1",
        ),
        (json!({}), "s-0:old s-1:old s-2:old", "!s-2"),
        (json!({}), "s-0:old? s-1:old s-2:new", "!s-1"),
        // What has failed goes once only.
        (json!({}), "s-0:old s-1:old s-2:old#", "-s-2"),
    ] {
        let mut spec = spec;
        spec["podManagementPolicy"] = "Parallel".into();
        let got = planned(&set(spec.clone()), pods, &Claims::new(), false);
        assert_eq!(words(&got), want, "{spec} {pods}");
    }
}

#[test]
fn several_may_be_unavailable() {
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}});
    for (policy, pods, want) in [
        ("OrderedReady", "s-0:old s-1:old s-2:old", "!s-2 !s-1"),
        ("Parallel", "s-0:old s-1:old s-2:new?", "!s-1"),
        ("Parallel", "s-0:old s-1:old? s-2:new?", ""),
    ] {
        let spec = json!({"updateStrategy": rolling, "podManagementPolicy": policy});
        let got = planned(&set(spec), pods, &Claims::new(), true);
        assert_eq!(words(&got), want, "{policy} {pods}");
    }
}

#[test]
fn a_set_that_goes_does_nothing() {
    let mut set = set(json!({}));
    set.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(words(&planned(&set, "s-0:new", &Claims::new(), false)), "");
}

#[test]
fn counts() {
    let status = |pods| {
        planned(
            &set(json!({"minReadySeconds": 20})),
            pods,
            &Claims::new(),
            false,
        )
        .status
    };
    let s = status("s-0:old s-1:new? s-2:new!");
    assert_eq!(
        (s.replicas, s.ready_replicas, s.available_replicas),
        (3, Some(2), Some(0))
    );
    assert_eq!((s.current_replicas, s.updated_replicas), (Some(1), Some(1)));
    assert_eq!(s.current_revision.as_deref(), Some("old"));
    let s = status("s-0:new s-1:new s-2:new");
    assert_eq!(
        (s.current_replicas, s.current_revision.as_deref()),
        (Some(3), Some("new"))
    );
}

fn claim(name: &str, owners: Value) -> (String, Arc<PersistentVolumeClaim>) {
    let value = json!({"metadata": {"name": name, "ownerReferences": owners}});
    (
        name.to_owned(),
        Arc::new(serde_json::from_value(value).unwrap()),
    )
}

fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
    let version = if kind == "Pod" { "v1" } else { "apps/v1" };
    json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller})
}

fn with_claims(scaled: &str, deleted: &str) -> StatefulSet {
    set(json!({
        "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"l": "m"}}}],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": deleted},
    }))
}

#[test]
fn claims_follow_the_policy() {
    let (of_set, of_pod) = (
        owner("StatefulSet", "s", "s", true),
        owner("Pod", "s-0", "p", true),
    );
    let none = || json!([]);
    // Whether the pod stays, the owners now, and then; `None`: no change.
    for (policy, stays, now, then) in [
        (("Retain", "Retain"), true, none(), None),
        (("Retain", "Retain"), true, json!([of_set]), Some("")),
        (("Retain", "Delete"), true, none(), Some("s")),
        (("Retain", "Delete"), false, json!([of_set]), None),
        (("Delete", "Retain"), true, none(), None),
        (("Delete", "Retain"), false, none(), Some("p")),
        (("Delete", "Delete"), true, none(), Some("s")),
        (("Delete", "Delete"), false, json!([of_set]), Some("p")),
        (("Delete", "Delete"), true, json!([of_pod]), Some("s")),
        (
            ("Retain", "Delete"),
            true,
            json!([owner("StatefulSet", "s", "s", false)]),
            Some("s"),
        ),
        // Of a set of the same name that is gone.
        (
            ("Retain", "Delete"),
            true,
            json!([owner("StatefulSet", "s", "before", true)]),
            None,
        ),
        (
            ("Retain", "Delete"),
            true,
            json!([owner("X", "x", "x", true)]),
            None,
        ),
        (
            ("Retain", "Delete"),
            true,
            json!([
                owner("X", "x", "x", true),
                owner("StatefulSet", "s", "s", false)
            ]),
            Some("x"),
        ),
        (
            ("Retain", "Delete"),
            true,
            json!([owner("X", "x", "x", false)]),
            Some("x s"),
        ),
    ] {
        let member = Member {
            name: "s-0".into(),
            uid: "p".into(),
            ordinal: 0,
            stays,
        };
        let set = with_claims(policy.0, policy.1);
        let got = new_owners(&claim("data-s-0", now.clone()).1, &set, &member);
        let uids = |o: Vec<_>| {
            let uids: Vec<String> = o
                .into_iter()
                .map(|r: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| r.uid)
                .collect();
            uids.join(" ")
        };
        assert_eq!(got.map(uids).as_deref(), then, "{policy:?} {stays} {now}");
    }
}

#[test]
fn a_claim_that_goes_with_the_pod_before_is_waited_for() {
    let set = with_claims("Delete", "Retain");
    let claims: Claims = [claim(
        "data-s-0",
        json!([owner("Pod", "s-0", "before", true)]),
    )]
    .into();
    assert_eq!(words(&planned(&set, "", &claims, false)), "");
    let claims: Claims = [claim("data-s-0", json!([]))].into();
    assert_eq!(words(&planned(&set, "", &claims, false)), "+s-0");
}

#[test]
fn pods_are_put_right() {
    let set = with_claims("Retain", "Delete");
    let claims: Claims = [claim("data-s-0", json!([]))].into();
    assert_eq!(
        words(&planned(&set, "s-0:new", &claims, false)),
        "~s-0 +s-1"
    );
    let other = self::set(json!({"volumeClaimTemplates": [{"metadata": {"name": "more"}}]}));
    assert_eq!(
        words(&planned(&other, "s-0:new", &claims, false)),
        "~s-0 +s-1"
    );
}

#[test]
fn pods_and_claims_are_made_of_templates() {
    let set = with_claims("Retain", "Retain");
    let template = set.spec.clone().unwrap().template;
    let pod = identity::pod(&set, &template, "rev", 2);
    let value = serde_json::to_value(&pod).unwrap();
    assert_eq!(value["metadata"]["name"], "s-2");
    assert_eq!(
        value["metadata"]["labels"],
        json!({"a": "b", "controller-revision-hash": "rev", "apps.kubernetes.io/pod-index": "2",
            "statefulset.kubernetes.io/pod-name": "s-2"})
    );
    assert_eq!(
        (&value["spec"]["hostname"], &value["spec"]["subdomain"]),
        (&json!("s-2"), &json!("svc"))
    );
    assert_eq!(
        value["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-s-2"}}])
    );
    let claim = serde_json::to_value(wanted(&set, 2)).unwrap();
    assert_eq!(claim[0]["metadata"]["labels"], json!({"a": "b", "l": "m"}));
    assert_eq!(claims::names(&set, 2).next().unwrap().1, "data-s-2");
}

#[test]
fn ordinals_are_read_from_names() {
    for (name, ordinal) in [
        ("s-0", Some(0)),
        ("s-12", Some(12)),
        ("s-x", None),
        ("s-", None),
        ("t-1", None),
        ("s-1-2", None),
        ("s-+1", None),
    ] {
        assert_eq!(identity::ordinal("s", name), ordinal, "{name}");
    }
}
