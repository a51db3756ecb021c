use super::*;

fn parse(args: &[&str]) -> Options {
    let args = std::iter::once("kube-controller-manager").chain(args.iter().copied());
    component::flags::parse("kube-controller-manager", args.map(Into::into)).unwrap()
}

fn enabled(list: &str) -> Vec<&'static str> {
    let options = parse(&["--controllers", list]);
    registry::CONTROLLERS
        .iter()
        .filter(|c| options.is_enabled(c))
        .map(|c| c.name)
        .collect()
}

#[test]
fn controllers_are_chosen_as_upstream_does() {
    let all = enabled("*");
    assert!(all.contains(&"deployment-controller") && !all.contains(&"token-cleaner-controller"));
    assert!(enabled("*,tokencleaner").contains(&"token-cleaner-controller"));
    assert!(!enabled("*,-deployment").contains(&"deployment-controller"));
    assert_eq!(
        enabled("deployment,replicaset-controller"),
        ["deployment-controller", "replicaset-controller"]
    );
    let bad = parse(&["--controllers=*,-nope"]).validate();
    assert_eq!(bad, Err(OptionsError::UnknownController("nope".to_owned())));
}

#[test]
fn flags_are_refused_in_upstream_s_words() {
    for (args, wanted) in [
        (
            vec!["--concurrent-job-syncs=0"],
            "concurrent-job-syncs must be greater than 0, but got 0",
        ),
        (
            vec!["--concurrent-cron-job-syncs=0"],
            "concurrent-cron-job-syncs must be greater than 0, but got 0",
        ),
        (
            vec!["--concurrent-horizontal-pod-autoscaler-syncs=-2"],
            "concurrent-horizontal-pod-autoscaler-syncs must be greater than 0, but got -2",
        ),
        (
            vec!["--concurrent-service-endpoint-syncs=0"],
            "concurrent-service-endpoint-syncs must not be less than 1, but got 0",
        ),
        (
            vec!["--concurrent-service-endpoint-syncs=51"],
            "concurrent-service-endpoint-syncs must not be more than 50, but got 51",
        ),
        (
            vec!["--max-endpoints-per-slice=0"],
            "max-endpoints-per-slice must not be less than 1, but got 0",
        ),
        (
            vec!["--max-endpoints-per-slice=1001"],
            "max-endpoints-per-slice must not be more than 1000, but got 1001",
        ),
        (
            vec!["--mirroring-max-endpoints-per-subset=0"],
            "mirroring-max-endpoints-per-subset must not be less than 1, but got 0",
        ),
        (
            vec!["--cidr-allocator-type=Foo"],
            "built-in cloud providers are disabled. The ipam Foo is not available",
        ),
        (
            vec!["--kube-api-burst=0"],
            "burst is required to be greater than 0 when RateLimiter is not set and QPS is set to greater than 0",
        ),
        (
            vec!["--attach-detach-reconcile-sync-period=10ms"],
            "duration time must be greater than one second as set via command line option reconcile-sync-loop-period",
        ),
        (
            vec!["--service-cluster-ip-range=10.0.0.0/16,10.1.0.0/16,10.2.0.0/16"],
            "--service-cluster-ip-range can not contain more than two entries",
        ),
        (
            vec![
                "--concurrent-cron-job-syncs=0",
                "--concurrent-statefulset-syncs=0",
            ],
            "[concurrent-statefulset-syncs must be greater than 0, but got 0, concurrent-cron-job-syncs must be greater than 0, but got 0]",
        ),
    ] {
        let error = parse(&args).validate().unwrap_err();
        assert_eq!(error.to_string(), wanted, "{args:?}");
    }
    // Nobody would expect these to be taken, but they are.
    for arg in [
        "--concurrent-deployment-syncs=-1",
        "--large-cluster-size-threshold=-1",
        "--concurrent-validating-admission-policy-status-syncs=0",
    ] {
        assert_eq!(parse(&[arg]).validate(), Ok(()), "{arg}");
    }
}

#[test]
fn node_cidrs() {
    let resolve = |args: &[&str]| {
        let mut all = vec!["--allocate-node-cidrs"];
        all.extend(args);
        parse(&all).node_cidrs()
    };
    let masks = |args: &[&str]| {
        let plan = resolve(args).unwrap().unwrap();
        plan.clusters
            .iter()
            .map(|(net, mask)| format!("{net} {mask}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(parse(&[]).node_cidrs(), Ok(None));
    assert_eq!(masks(&["--cluster-cidr=10.0.0.0/16"]), ["10.0.0.0/16 24"]);
    assert_eq!(
        masks(&["--cluster-cidr=10.0.0.0/16", "--node-cidr-mask-size=26"]),
        ["10.0.0.0/16 26"]
    );
    assert_eq!(masks(&["--cluster-cidr=fd00::/56"]), ["fd00::/56 64"]);
    assert_eq!(
        masks(&[
            "--cluster-cidr=10.0.0.0/16,fd00::/56",
            "--node-cidr-mask-size-ipv6=60"
        ]),
        ["10.0.0.0/16 24", "fd00::/56 60"]
    );
    assert_eq!(resolve(&[]), Err(OptionsError::NoClusterCidr));
    assert_eq!(
        resolve(&["--cluster-cidr=10.0.0.0/16,10.1.0.0/16"]),
        Err(OptionsError::NotDualStack)
    );
    assert_eq!(
        resolve(&[
            "--cluster-cidr=10.0.0.0/16,fd00::/56",
            "--node-cidr-mask-size=24"
        ]),
        Err(OptionsError::MaskWithDualStack)
    );
    assert_eq!(
        resolve(&[
            "--cluster-cidr=10.0.0.0/16",
            "--node-cidr-mask-size-ipv6=64"
        ]),
        Err(OptionsError::MaskOfOtherFamily("ipv6"))
    );
}
