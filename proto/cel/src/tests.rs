use meta::quantity::Quantity;

use crate::{EvalError, Key, Map, Program, Value, Version};

const LIMIT: u64 = 100_000;

fn device() -> Value {
    let inner: Map = [
        (Key::from("model"), Value::from("a100")),
        (Key::from("index"), Value::Int(3)),
        (Key::from("ready"), Value::Bool(true)),
        (
            Key::from("driverVersion"),
            "1.2.3-beta.2".parse::<Version>().unwrap().into(),
        ),
    ]
    .into_iter()
    .collect();
    let capacity: Map = [(
        Key::from("memory"),
        "40Gi".parse::<Quantity>().unwrap().into(),
    )]
    .into_iter()
    .collect();
    let mut attributes: Map = [(Key::from("gpu.example.com"), inner.into())]
        .into_iter()
        .collect();
    attributes.otherwise = Some(Map::default().into());
    let mut capacities: Map = [(Key::from("gpu.example.com"), capacity.into())]
        .into_iter()
        .collect();
    capacities.otherwise = Some(Map::default().into());
    let device: Map = [
        (Key::from("driver"), Value::from("gpu.example.com")),
        (Key::from("attributes"), attributes.into()),
        (Key::from("capacity"), capacities.into()),
    ]
    .into_iter()
    .collect();
    device.into()
}

fn value(text: &str) -> Result<Value, EvalError> {
    let program = Program::compile(text, &["device"]).unwrap_or_else(|e| panic!("{text}: {e}"));
    program.evaluate(&[("device", device())], LIMIT)
}

#[track_caller]
fn holds(text: &str) {
    match value(text) {
        Ok(Value::Bool(true)) => {}
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn fails(text: &str, why: &str) {
    match value(text) {
        Err(error) => assert_eq!(error.to_string(), why, "{text}"),
        Ok(value) => panic!("{text}: {value:?}"),
    }
}

#[test]
fn selectors_of_devices() {
    for text in [
        r#"device.driver == "gpu.example.com""#,
        r#"device.attributes["gpu.example.com"].model == 'a100'"#,
        r#"device.attributes[device.driver].index in [1, 2, 3]"#,
        r#"device.capacity["gpu.example.com"].memory.compareTo(quantity("10Gi")) >= 0"#,
        r#"device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("40G"))"#,
        r#"!has(device.attributes["other.example.com"].model)"#,
        r#"has(device.attributes["gpu.example.com"].model) && device.attributes["gpu.example.com"].model.matches("^a[0-9]+$")"#,
        r#"device.attributes["gpu.example.com"].driverVersion.isLessThan(semver("1.2.3"))"#,
        r#"cel.bind(dra, device.attributes["gpu.example.com"], dra.ready && dra.index > 2)"#,
        r#"device.attributes["gpu.example.com"].?missing.orValue("none") == "none""#,
        r#"device.attributes["gpu.example.com"][?"model"].hasValue()"#,
        r#""model" in device.attributes["gpu.example.com"]"#,
        r#"device.attributes["gpu.example.com"].?index.optMap(i, i * 2).orValue(0) == 6"#,
    ] {
        holds(text);
    }
    fails(
        r#"device.attributes["other.example.com"].model == "a""#,
        "no such key: model",
    );
    fails("device.nothing", "no such key: nothing");
}

#[test]
fn arithmetic_and_comparison() {
    for text in [
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 % 3 == -1",
        "1 == 1.0 && 1u == 1 && 2u > 1",
        "'a' != 1",
        "-9223372036854775808 < 0",
        "0x1F == 31",
        "1.5e3 == 1500.0",
        "true ? 1 == 1 : 1 / 0 == 1",
        "'ab' + 'c' == \"abc\"",
        "[1, 2] + [3] == [1, 2, 3]",
        "{'a': 1, 'b': [2]}.b[0] == 2",
        "size('äöü') == 3 && [1, 2].size() == 2",
        "type(1) == int && type('') != bytes",
        "int('12') == 12 && string(1.5) == '1.5' && uint(3) == 3u",
        r#"r'\d' == '\\d' && '\u00e4' == 'ä' && b'\xff' == b'\377'"#,
        "'''long\n'text' ''' == \"long\\n'text' \"",
        "1 < 2 // is so",
    ] {
        holds(text);
    }
    fails("1 / 0", "division by zero");
    fails("9223372036854775807 + 1", "integer overflow");
    fails("1 + 1.0", "no such overload");
    fails("[1][1]", "index out of bounds: 1");
}

#[test]
fn an_error_on_one_side_may_not_matter() {
    holds("true || 1 / 0 == 1");
    holds("1 / 0 == 1 || true");
    holds("!(false && 1 / 0 == 1)");
    holds("[0, 1].exists(x, 1 / x == 1)");
    fails("1 / 0 == 1 || false", "division by zero");
    fails("[0, 1].all(x, 1 / x == 1)", "division by zero");
}

#[test]
fn macros() {
    for text in [
        "[1, 2, 3].all(x, x > 0)",
        "[1, 2, 3].exists_one(x, x > 2)",
        "[1, 2, 3].filter(x, x > 1).map(x, x * x) == [4, 9]",
        "[1, 2, 3].map(x, x != 2, -x) == [-1, -3]",
        "{'a': 1, 'b': 2}.all(k, k < 'c')",
        "[[1], [2, 3]].exists(x, x.exists(y, y == 3))",
        "[1, ?optional.none(), 2] == [1, 2]",
    ] {
        holds(text);
    }
}

#[test]
fn strings_lists_and_sets() {
    for text in [
        "'hello'.charAt(1) == 'e' && 'hello'.substring(1, 3) == 'el'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "['a', 'b'].join('-') == 'a-b'",
        "'Ab '.trim().lowerAscii() == 'ab'",
        "'abab'.indexOf('b') == 1 && 'abab'.lastIndexOf('b') == 3 && 'a'.indexOf('x') == -1",
        "'abab'.replace('a', 'c', 1) == 'cbab'",
        "'x1y22'.findAll('[0-9]+') == ['1', '22'] && 'x1'.find('[0-9]') == '1'",
        "[3, 1, 2].min() == 1 && [1, 2].isSorted() && [1, 2].sum() == 3",
        "sets.contains([1, 2, 3], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
    ] {
        holds(text);
    }
}

#[test]
fn quantities_and_versions() {
    for text in [
        "quantity('1.5Gi').add(quantity('512Mi')) == quantity('2Gi')",
        "quantity('2k').sub(1).asInteger() == 1999",
        "!quantity('1.5').isInteger() && quantity('-1').sign() == -1",
        "isQuantity('1Ki') && !isQuantity('1KB')",
        "semver('1.2.3').major() == 1 && semver('1.2.3').patch() == 3",
        "semver('1.0.0-rc.1').isLessThan(semver('1.0.0-rc.11'))",
        "semver('1.0.0+a') == semver('1.0.0+b')",
        "!isSemver('v1.0') && isSemver('v1.0', true)",
    ] {
        holds(text);
    }
}

#[test]
fn what_is_no_expression() {
    let error = |text| Program::compile(text, &["device"]).unwrap_err().to_string();
    assert_eq!(
        error("noSuchVariable"),
        "ERROR: <input>:1:1: undeclared reference to 'noSuchVariable' (in container '')"
    );
    assert_eq!(
        error("device.\n  + 1"),
        "ERROR: <input>:2:3: Syntax error: unexpected '+'"
    );
    assert_eq!(
        error("noSuchFunction(1)"),
        "ERROR: <input>:1:15: undeclared reference to 'noSuchFunction' (in container '')"
    );
    assert!(error("'a").contains("unterminated"));
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    assert!(error(&deep).contains("recursion limit"));
}

#[test]
fn costs_are_limited() {
    let list: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let list = format!("[{}]", list.join(","));
    let text = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
    assert_eq!(value(&text).unwrap_err(), EvalError::TooCostly);
}
