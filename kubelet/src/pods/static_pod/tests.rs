use std::path::PathBuf;

use super::*;

/// Manifests by file name with the uids that upstream v1.36 gives them on the node `node-1`: as
/// `/etc/kubernetes/manifests/<name>`, and from `http://127.0.0.1/pods`.
const UIDS: &[(&str, &str, &str, &str)] = &[
    (
        "containers.yaml",
        include_str!("testdata/containers.yaml"),
        "0e9131c349aa943b5f4c901c9cbf4b7a",
        "c03f267669765f5b5a48aac78d8e1538",
    ),
    (
        "etcd.yaml",
        include_str!("testdata/etcd.yaml"),
        "aed6069fa1c4c525ae5ea040c464bad8",
        "3de39d4405c5691a91807b261384a04c",
    ),
    (
        "kube-apiserver.yaml",
        include_str!("testdata/kube-apiserver.yaml"),
        "9cfa9875c69392da4aa93bd5e1eefcd3",
        "b085a217840bf44cd7f15a64c81b2314",
    ),
    (
        "kube-controller-manager.yaml",
        include_str!("testdata/kube-controller-manager.yaml"),
        "71461b931663eaf74d12d17ce460dc24",
        "8df0de9a5915bcb984b9de15c0c713ae",
    ),
    (
        "kube-scheduler.yaml",
        include_str!("testdata/kube-scheduler.yaml"),
        "27b4c90ff26641e4c9976eb36511df49",
        "454dc615a541ba99b4c7b9b298ef95c8",
    ),
    (
        "minimal.json",
        include_str!("testdata/minimal.json"),
        "a9169a819e314c9cd501958bf110ff68",
        "1c0c1907a85665543866139494f65f28",
    ),
    (
        "placement.yaml",
        include_str!("testdata/placement.yaml"),
        "5e925df2bf0f818f3660e92855823163",
        "49c084177e5c14309c880b1f1aedf0b6",
    ),
    (
        "pod-level.yaml",
        include_str!("testdata/pod-level.yaml"),
        "4c8985d6812b8ac6c65958a4a34063d4",
        "39f296b10407dd40d15471d07e53b538",
    ),
    (
        "quantities.yaml",
        include_str!("testdata/quantities.yaml"),
        "497f6d67645184c887c2b5f4ed377f71",
        "b6ed77f2bc8c943407be095687641058",
    ),
    (
        "unknown-fields.yaml",
        include_str!("testdata/unknown-fields.yaml"),
        "12ff6d39b8d155469e7b8385ad995112",
        "e97fcc8afd761832e175f70204401448",
    ),
    (
        "volumes.yaml",
        include_str!("testdata/volumes.yaml"),
        "57710db09a20903a33b7270558f94182",
        "88eb5e064e636334b276c410b50494f1",
    ),
    (
        "with-status.yaml",
        include_str!("testdata/with-status.yaml"),
        "dc3aa4fe77708dabc80324ded8b3db12",
        "7c37df8b2580a3f6b19dd465dcae4337",
    ),
];

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {a: b}}, spec: {containers: [{name: c, image: 'nginx:1'}]}}";

fn terms() -> Terms {
    Terms {
        node_name: "node-1".into(),
        may_refer: false,
    }
}

fn parse(text: &str) -> Result<Pod, ManifestError> {
    terms().pod(text.as_bytes(), Origin::File(Path::new("/m/web.yaml")))
}

#[test]
fn uids_are_upstreams() {
    for (name, manifest, of_file, of_url) in UIDS {
        let path = PathBuf::from(format!("/etc/kubernetes/manifests/{name}"));
        for (origin, uid) in [
            (Origin::File(&path), of_file),
            (Origin::Url("http://127.0.0.1/pods"), of_url),
        ] {
            let pod = terms().pod(manifest.as_bytes(), origin).unwrap();
            assert_eq!(pod.uid(), *uid, "{name}");
            assert_eq!(pod.annotation(CONFIG_HASH), Some(*uid));
        }
    }
    let own = POD.replace("name: web", "name: web, uid: mine");
    assert_eq!(parse(&own).unwrap().uid(), "mine");
}

#[test]
fn a_manifest_becomes_a_pod_of_this_node() {
    let pod = parse(POD).unwrap();
    assert_eq!((pod.name(), pod.namespace()), ("web-node-1", "default"));
    assert!(pod.is_static() && !pod.is_mirror());
    assert_eq!(pod.pod_spec().node_name.as_deref(), Some("node-1"));
    assert_eq!(pod.pod_spec().restart_policy.as_deref(), Some("Always"));
    assert_eq!(pod.phase(), "Pending");
    let tolerations = pod.pod_spec().tolerations.as_ref().unwrap();
    assert_eq!(tolerations[0].effect.as_deref(), Some("NoExecute"));
    // One that ends some day is made one that does not.
    let own =
        "tolerations: [{operator: Exists, effect: NoExecute, tolerationSeconds: 5}], containers";
    let pod = parse(&POD.replace("containers", own)).unwrap();
    let tolerations = pod.pod_spec().tolerations.as_ref().unwrap();
    assert_eq!(
        (tolerations.len(), tolerations[0].toleration_seconds),
        (1, None)
    );
}

#[test]
fn nonsense_is_refused() {
    assert!(matches!(parse("a: ["), Err(ManifestError::Syntax(_))));
    for other in ["Service", "PodList"] {
        let other = POD.replace("kind: Pod", &format!("kind: {other}"));
        assert!(matches!(parse(&other), Err(ManifestError::Kind)));
    }
    for invalid in [
        POD.replace("name: web", "name: web, uid: ../../tmp"),
        POD.replace("name: web", "name: web, uid: .."),
        POD.replace("name: web", "name: ''"),
        POD.replace("name: c", "name: C_"),
    ] {
        assert!(matches!(parse(&invalid), Err(ManifestError::Invalid(_))));
    }
    let long = " ".repeat(MAX_MANIFEST + 1);
    assert!(matches!(parse(&long), Err(ManifestError::TooLong)));
}

#[test]
fn objects_of_the_api_are_out_of_reach() {
    for (spec, what) in [
        ("serviceAccountName: s", "serviceaccounts"),
        ("imagePullSecrets: [{name: s}]", "secrets"),
        ("volumes: [{name: v, configMap: {name: c}}]", "configmaps"),
        (
            "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]",
            "persistentvolumeclaims",
        ),
        (
            "volumes: [{name: v, csi: {driver: d}}]",
            "csidrivers (via CSI volumes)",
        ),
        (
            "volumes: [{name: v, projected: {sources: [{configMap: {name: c}}]}}]",
            "configmaps",
        ),
    ] {
        let manifest = POD.replace("containers", &format!("{spec}, containers"));
        match parse(&manifest) {
            Err(ManifestError::Reference(found)) => assert_eq!(found, what),
            other => panic!("{spec}: {other:?}"),
        }
        let may_refer = Terms {
            may_refer: true,
            ..terms()
        };
        assert!(may_refer.pod(manifest.as_bytes(), Origin::Url("u")).is_ok());
    }
}

#[test]
fn some_references_have_never_been_possible() {
    let may_refer = Terms {
        may_refer: true,
        ..terms()
    };
    let of = |spec: &str| {
        let manifest = POD.replace("containers", &format!("{spec}, containers"));
        may_refer.pod(manifest.as_bytes(), Origin::Url("u"))
    };
    let claims = of("resourceClaims: [{name: r, resourceClaimName: c}]");
    assert!(
        matches!(claims, Err(ManifestError::ResourceClaims)),
        "{claims:?}"
    );
    let bundles = of(
        "volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {name: b, path: p}}]}}]",
    );
    assert!(
        matches!(bundles, Err(ManifestError::TrustBundles)),
        "{bundles:?}"
    );
}

#[test]
fn only_changes_are_told() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut known = Known::new(Source::File, told);
    let own = POD.replace("name: web", "name: web, uid: mine");
    let mut next = |pods: &[&str]| {
        known.replace(pods.iter().map(|pod| parse(pod).unwrap()).collect());
        let events = std::iter::from_fn(|| heard.try_recv().ok());
        let names = events.map(|event| match event {
            Event::PodSet(_, pod) => format!(
                "set {} {}",
                pod.uid(),
                pod.containers()[0].image.clone().unwrap_or_default()
            ),
            Event::PodGone(_, pod) => format!("gone {}", pod.uid()),
            Event::SourceReady(_) => "ready".into(),
            other => panic!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(next(&[&own]), ["set mine nginx:1", "ready"]);
    assert!(next(&[&own]).is_empty());
    assert_eq!(
        next(&[&own.replace("nginx:1", "nginx:2")]),
        ["set mine nginx:2"]
    );
    assert_eq!(next(&[]), ["gone mine"]);
}
