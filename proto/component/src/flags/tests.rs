use super::*;

#[derive(clap::Args, Debug)]
struct Options {
    #[arg(long)]
    profiling: bool,
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    leader_elect: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    spelt_out: bool,
    #[arg(long, default_value = "15s")]
    period: GoDuration,
    #[arg(long, default_value = "*")]
    controllers: CommaList,
    #[arg(long, default_value_t = 5)]
    count: i32,
    #[arg(long, default_value = "")]
    labels: StringMap,
    #[arg(long)]
    name: Option<String>,
    #[arg(long, default_value = "")]
    gates: crate::features::FeatureGates,
    #[arg(long)]
    path: Option<std::path::PathBuf>,
    #[arg(long)]
    address: Option<std::net::IpAddr>,
    #[command(flatten)]
    logs: crate::logs::Options,
}

fn run(args: &[&str]) -> Result<Parsed<Options>, Exit> {
    parse_tracked(
        "demo",
        std::iter::once("demo")
            .chain(args.iter().copied())
            .map(Into::into),
    )
}

#[test]
fn go_style_flags() {
    let p = run(&[]).unwrap();
    assert!(!p.options.profiling && p.options.leader_elect && p.options.spelt_out);
    let p = run(&[
        "--profiling",
        "--leader-elect=false",
        "--spelt-out=0",
        "--count",
        "-1",
    ])
    .unwrap();
    assert!(p.options.profiling && !p.options.leader_elect && !p.options.spelt_out);
    assert_eq!(p.options.count, -1);
    let p = run(&[
        "--leader_elect=F",
        "--period=1m",
        "--period=2m",
        "--controllers=a,b",
        "--labels",
        "a=b,c=d",
    ])
    .unwrap();
    assert!(!p.options.leader_elect);
    assert_eq!(p.options.period.get().as_secs(), 120);
    assert_eq!(p.options.controllers.0, ["a", "b"]);
    assert_eq!(p.options.labels.0.len(), 2);
    assert!(p.is_set("leader-elect") && p.is_set("period") && !p.is_set("count"));
    let p = run(&["--name", "--odd", "-v", "3", "--vmodule=a=2"]).unwrap();
    assert_eq!(p.options.name.as_deref(), Some("--odd"));
    assert_eq!(p.options.logs.verbosity, 3);
    let p = run(&["-v=4", "--log-text-split-stream"]).unwrap();
    assert_eq!(p.options.logs.verbosity, 4);
    assert!(p.options.logs.text_split_stream);
}

#[test]
fn lists_and_maps_grow_when_they_are_given_again() {
    for (args, controllers) in [
        (&["--controllers=a", "--controllers", "b,c"][..], "a,b,c"),
        (&["--controllers", "a", "--controllers=b"], "a,b"),
        // An empty one adds nothing; the first replaces the default all the same.
        (&["--controllers="], ""),
        (&["--controllers=", "--controllers=a"], "a"),
        (&["--controllers", "", "--controllers=a"], "a"),
        (&["--controllers=a", "--controllers="], "a"),
        (&["--controllers=a=", "--controllers=b"], "a=,b"),
        // What belongs to another flag is its value.
        (&["--name", "--controllers=x", "--controllers=a"], "a"),
        (&["-v", "3", "--controllers=a", "--controllers=a"], "a,a"),
        (&[], "*"),
    ] {
        let p = run(args).unwrap();
        assert_eq!(p.options.controllers.to_string(), controllers, "{args:?}");
    }
    let p = run(&["--labels=a=b,c=d", "--labels=a=e"]).unwrap();
    let labels: Vec<_> = p.options.labels.0.into_iter().collect();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(labels, [pair("a", "e"), pair("c", "d")]);
    let gates = ["--gates=WatchList=false", "--gates=kube:AllAlpha=true"];
    assert!(!run(&gates).unwrap().options.gates.enabled("WatchList"));
    let exit = run(&["--controllers=a", "--controllers"]).unwrap_err();
    assert_eq!(exit.text, "Error: flag needs an argument: --controllers");
}

#[test]
fn an_empty_path_or_address_is_none() {
    let path = |args: &[&str]| run(args).unwrap().options.path;
    assert_eq!(path(&["--path="]), None);
    assert_eq!(path(&["--path=/x", "--path", ""]), None);
    assert_eq!(path(&["--path=", "--path=/x"]), Some("/x".into()));
    let address = |args: &[&str]| run(args).unwrap().options.address;
    assert_eq!(address(&["--address="]), None);
    let given = address(&["--address=192.0.2.1", "--address="]);
    assert_eq!(given, Some([192, 0, 2, 1].into()));
}

#[test]
fn mistakes_are_told_as_upstream_does() {
    let err = |args: &[&str]| {
        let exit = run(args).unwrap_err();
        assert!(exit.failure);
        exit.text
    };
    assert_eq!(err(&["--nope"]), "Error: unknown flag: --nope");
    assert_eq!(err(&["--nope=1"]), "Error: unknown flag: --nope");
    assert_eq!(err(&["-x"]), "Error: unknown shorthand flag: 'x' in -x");
    assert_eq!(
        err(&["word"]),
        r#"Error: "demo" does not take any arguments, got ["word"]"#
    );
    assert_eq!(
        err(&["--leader-elect=maybe"]),
        r#"Error: invalid argument "maybe" for "--leader-elect" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
    );
    assert_eq!(
        err(&["--period=5"]),
        r#"Error: invalid argument "5" for "--period" flag: time: missing unit in duration "5""#
    );
    assert_eq!(err(&["--count"]), "Error: flag needs an argument: --count");
}

#[test]
fn version_and_help_succeed() {
    let exit = run(&["--version"]).unwrap_err();
    assert_eq!(
        (exit.failure, exit.text.as_str()),
        (false, "Kubernetes v1.36.2")
    );
    assert!(
        run(&["--version=raw"])
            .unwrap_err()
            .text
            .contains("git_version: \"v1.36.2\"")
    );
    assert!(run(&["--version=false"]).is_ok());
    let help = run(&["--help"]).unwrap_err();
    assert!(!help.failure && help.text.contains("--leader-elect"));
}
