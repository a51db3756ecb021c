//! `cases.txt` has expressions, and below each what upstream's checker of admission policies
//! says of it for a Deployment: the place and the message. Where nothing follows, all is well.

use super::{Environment, Field, ObjectTypes, Type, overloads};

/// The objects of the cases: their names, fields and the fields' types.
const OBJECTS: &str = "
    Deployment kind string
    Deployment apiVersion string
    Deployment metadata Deployment.metadata
    Deployment spec Deployment.spec
    Deployment status Deployment.status
    Deployment.metadata name string
    Deployment.metadata namespace string
    Deployment.metadata __namespace__ string
    Deployment.metadata labels map(string,string)
    Deployment.metadata annotations map(string,string)
    Deployment.metadata finalizers list(string)
    Deployment.metadata generation int
    Deployment.metadata creationTimestamp timestamp
    Deployment.metadata ownerReferences list(Owner)
    Deployment.metadata managedFields list(Manager)
    Owner controller bool
    Manager fieldsV1 Fields
    Deployment.spec replicas int
    Deployment.spec strategy Strategy
    Deployment.spec selector Selector
    Deployment.spec template Template
    Strategy rollingUpdate Update
    Update maxSurge dyn
    Selector matchLabels map(string,string)
    Template spec Deployment.spec.template.spec
    Deployment.spec.template.spec containers list(Deployment.spec.template.spec.containers.@idx)
    Deployment.spec.template.spec volumes list(Volume)
    Deployment.spec.template.spec.containers.@idx name string
    Deployment.spec.template.spec.containers.@idx image string
    Deployment.spec.template.spec.containers.@idx env list(Env)
    Deployment.spec.template.spec.containers.@idx ports list(Port)
    Deployment.spec.template.spec.containers.@idx resources Resources
    Deployment.spec.template.spec.containers.@idx livenessProbe Probe
    Env valueFrom From
    From secretKeyRef Key
    Key key string
    Port containerPort int
    Port hostPort int
    Probe httpGet Get
    Get port dyn
    Volume hostPath HostPath
    HostPath path string
    Deployment.status conditions list(Condition)
    Condition type string
    Condition lastUpdateTime timestamp
    Request operation string
    Request namespace string
    Request dryRun bool
    Request options dyn
    Request kind Kind
    Request userInfo User
    Kind group string
    User groups list(string)
    User extra map(string,list(string))
    Namespace metadata Namespace.metadata
    Namespace spec Namespace.spec
    Namespace status Namespace.status
    Namespace.metadata labels map(string,string)
    Namespace.metadata UID string
    Namespace.spec finalizers list(string)
    Namespace.status conditions list(NamespaceCondition)
    NamespaceCondition status string
";

struct Table;

fn of(text: &str) -> Type {
    overloads::of_text(text, &mut 0)
}

impl ObjectTypes for Table {
    fn field(&self, object: &str, field: &str) -> Field {
        if object.starts_with("kubernetes.") {
            return Field::UnknownObject;
        }
        let mut lines = OBJECTS.lines().map(|line| line.split_whitespace());
        lines
            .find_map(|mut words| {
                let is = (words.next(), words.next()) == (Some(object), Some(field));
                words.next().filter(|_| is)
            })
            .map_or(Field::Undefined, |text| Field::Is(of(text)))
    }
}

fn environment() -> Environment<'static> {
    Environment::new(&Table)
        .variable("object", Type::object("Deployment"))
        .variable("oldObject", Type::object("Deployment"))
        .variable("request", Type::object("Request"))
        .variable("namespaceObject", Type::object("Namespace"))
        .variable("authorizer", of("kubernetes.authorization.Authorizer"))
}

#[test]
fn what_upstream_says() {
    let environment = environment();
    let mut cases: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in include_str!("cases.txt").lines() {
        match (line.strip_prefix("  "), cases.last_mut()) {
            (Some(message), Some((_, expected))) => expected.push(message),
            _ => cases.push((line, Vec::new())),
        }
    }
    assert!(cases.len() > 200);
    let mut differing = String::new();
    for (expression, expected) in cases {
        let found: Vec<String> = match environment.check(expression) {
            Ok(_) => Vec::new(),
            Err(issues) => issues
                .iter()
                .map(|i| format!("{}:{} {}", i.line, i.column, i.message))
                .collect(),
        };
        if found != expected {
            differing += &format!("{expression}\n  ours {found:#?}\n  upstream {expected:#?}\n");
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

#[test]
fn types_of_expressions() {
    for (expression, expected) in [
        ("1 + 2", "int"),
        ("1 < 2.0", "bool"),
        ("[]", "list(dyn)"),
        ("{}", "map(dyn, dyn)"),
        ("[[], ['a']]", "list(list(string))"),
        ("object", "Deployment"),
        ("object.metadata.labels.map(k, k.size())", "list(int)"),
        (
            "object.metadata.labels.transformMap(k, v, [v])",
            "map(string, list(string))",
        ),
        ("object.?spec.?replicas", "optional_type(int)"),
        (
            "object.metadata.labels[?'a'].optMap(v, v + 'b').orValue('')",
            "string",
        ),
        ("type(object.spec.replicas)", "type(int)"),
        ("true ? dyn(1) : 'a'", "dyn"),
        ("quantity('1').add(1)", "kubernetes.Quantity"),
        ("ip('10.0.0.1')", "net.IP"),
        (
            "timestamp('2020-01-01T00:00:00Z') - duration('1h')",
            "timestamp",
        ),
        ("object.spec.strategy.rollingUpdate.maxSurge", "dyn"),
        ("null", "null"),
    ] {
        match environment().check(expression) {
            Ok(found) => assert_eq!(found.to_string(), expected, "{expression}"),
            Err(issues) => panic!("{expression}: {issues}"),
        }
    }
}

#[test]
fn what_is_wrong_is_shown_below_its_line() {
    let shown = |text| environment().check(text).unwrap_err().to_string();
    assert_eq!(
        shown("object.spec.replicas\n  == 'a' &&\n\tobject.foo == 1"),
        "ERROR: <input>:2:3: found no matching overload for '_==_' applied to '(int, string)'\n \
         |   == 'a' &&\n | ..^\n\
         ERROR: <input>:3:8: undefined field 'foo'\n |  object.foo == 1\n | .......^"
    );
    assert_eq!(
        shown("'ünïcödé' == object.foo"),
        "ERROR: <input>:1:20: undefined field 'foo'\n | 'ünïcödé' == object.foo\n \
         | .．.．.．.．...........^"
    );
    assert_eq!(
        shown("1 +"),
        "ERROR: <input>:1:4: Syntax error: unexpected <EOF>\n | 1 +\n | ...^"
    );
}

#[test]
fn a_variable_may_have_a_dot_in_its_name() {
    let check = of("kubernetes.authorization.ResourceCheck");
    let environment = environment().variable("authorizer.requestResource", check);
    let of = environment.check("authorizer.requestResource.check('get').allowed()");
    assert_eq!(of, Ok(Type::Bool));
}

#[test]
fn a_type_does_not_grow_beyond_measure() {
    let doubled = |n: usize| format!(".map(v{n}, {{v{n}: v{n}}})");
    let text: String = (0..60).map(doubled).collect();
    let text = format!("[1]{text}.size()");
    assert_eq!(environment().check(&text), Ok(Type::Int));
}

#[test]
fn a_long_expression_is_checked_in_no_time() {
    let terms: Vec<String> = (0..2000).map(|n| format!("[{n}] == [{n}]")).collect();
    assert_eq!(environment().check(&terms.join(" && ")), Ok(Type::Bool));
    let deep = ["1"; 400].join(" + ");
    let issues = environment().check(&deep).unwrap_err();
    assert!(issues.to_string().contains("max recursion depth exceeded"));
    assert_eq!(environment().check(&["1"; 250].join(" + ")), Ok(Type::Int));
    let chain = |first: &str| format!("{first}{}.hasValue()", ".optMap(x, x)".repeat(100));
    assert_eq!(
        environment().check(&chain("optional.of(1)")),
        Ok(Type::Bool)
    );
    assert!(environment().check(&chain("optional.of(a)")).is_err());
}
