use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn parses_and_displays() {
    for (input, want) in [
        ("", ""),
        ("a", "a"),
        ("!a", "!a"),
        ("b,a", "a,b"),
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        ("x==a", "x==a"),
        ("x!=a", "x!=a"),
        ("x=", "x="),
        ("x= ,z= ", "x=,z="),
        ("x>1", "x>1"),
        ("x<1,z", "x<1,z"),
        ("x in (c,a, b)", "x in (a,b,c)"),
        ("x notin (a)", "x notin (a)"),
        ("x in ()", "x in ()"),
        ("x in (,a)", "x in (,a)"),
        ("x in (a,,b)", "x in (,a,b)"),
        ("x in (in,notin)", "x in (in,notin)"),
        ("example.com/x = a", "example.com/x=a"),
        ("!x,y", "!x,y"),
    ] {
        assert_eq!(Selector::parse(input).unwrap().to_string(), want, "{input}");
    }
}

#[test]
fn errors_are_upstreams() {
    let err = |s: &str| Selector::parse(s).unwrap_err().to_string();
    assert_eq!(
        err("=a"),
        "found '=', expected: !, identifier, or 'end of string'"
    );
    assert_eq!(err("x=a=b"), "found '=', expected: ',' or 'end of string'");
    assert_eq!(err("x,"), "found '', expected: identifier after ','");
    assert_eq!(
        err("x y"),
        "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"
    );
    assert_eq!(
        err("x in a"),
        "unable to parse requirement: found 'a' expected: '('"
    );
    assert_eq!(
        err("x in (a"),
        "unable to parse requirement: found '', expected: ',' or ')'"
    );
    assert_eq!(err("!x=a"), "found '=', expected: ',' or 'end of string'");
    assert_eq!(
        err("x>a"),
        "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer"
    );
    assert_eq!(
        err("x=-a"),
        "unable to parse requirement: values[0][x]: Invalid value: \"-a\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    );
    assert!(err("-x").starts_with(
        "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of"
    ));
}

#[test]
fn values_in_any_order_are_found() {
    let values = ["c", "a", "b"].map(str::to_owned).to_vec();
    let requirement = Requirement::new("k", Operator::In, values).unwrap();
    for listed in ["a", "b", "c"] {
        assert!(requirement.matches(Some(listed)), "{listed}");
    }
    assert!(!requirement.matches(Some("d")));
    assert_eq!(Selector::new([requirement]).to_string(), "k in (a,b,c)");
}

#[test]
fn matches() {
    let l = labels(&[("app", "web"), ("tier", "1")]);
    for (s, want) in [
        ("", true),
        ("app", true),
        ("!app", false),
        ("app=web", true),
        ("app!=web", false),
        ("none!=web", true),
        ("app in (db,web)", true),
        ("app notin (db)", true),
        ("none notin (db)", true),
        ("none in (db)", false),
        ("tier>0,tier<2", true),
        ("tier>1", false),
        ("app>1", false),
        ("app=web,tier=2", false),
    ] {
        assert_eq!(
            Selector::parse(s).unwrap().matches_labels(Some(&l)),
            want,
            "{s}"
        );
    }
    assert!(!Selector::nothing().matches_labels(Some(&l)));
    assert!(Selector::from_set(&l).matches_labels(Some(&l)));
    assert!(!Selector::from_set(&l).matches_labels(None));
    assert_eq!(
        Selector::parse("app in (web)")
            .unwrap()
            .requires_exact_match("app"),
        Some("web")
    );
}

#[test]
fn from_the_api_type() {
    assert!(Selector::from_label_selector(None).unwrap().is_nothing());
    assert!(
        Selector::from_label_selector(Some(&LabelSelector::default()))
            .unwrap()
            .is_empty()
    );
    let expr = |op: &str, values: &[&str]| LabelSelectorRequirement {
        key: "k".into(),
        operator: op.into(),
        values: Some(values.iter().map(|s| (*s).to_owned()).collect()),
    };
    let selector = |e| LabelSelector {
        match_labels: Some(labels(&[("a", "b")])),
        match_expressions: Some(vec![e]),
    };
    let s = Selector::from_label_selector(Some(&selector(expr("NotIn", &["x"])))).unwrap();
    assert_eq!(s.to_string(), "a=b,k notin (x)");
    let e = Selector::from_label_selector(Some(&selector(expr("Like", &[])))).unwrap_err();
    assert_eq!(
        e.to_string(),
        "\"Like\" is not a valid label selector operator"
    );
    let e = Selector::from_label_selector(Some(&selector(expr("In", &[])))).unwrap_err();
    assert_eq!(
        e.to_string(),
        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
    );
}

proptest! {
    #[test]
    fn display_parses_back(s in "[ab!=<>(), ]{0,16}|[ab]+ (in|notin) \\([a-c,]{0,6}\\)") {
        if let Ok(selector) = Selector::parse(&s) {
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap().to_string(), selector.to_string());
        }
    }
}
