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
    let none = parse(&["--concurrent-validating-admission-policy-status-syncs=0"]).validate();
    assert_eq!(none, Err(OptionsError::NoPolicyWorkers));
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
