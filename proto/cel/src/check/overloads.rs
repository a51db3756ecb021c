//! What functions there are, and which types they take and give: the language's own, those of
//! cel-go's extensions and those of Kubernetes
//! (<https://kubernetes.io/docs/reference/using-api/cel/>).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::{Type, named};

/// One way of calling a function.
#[derive(Debug)]
pub struct Overload {
    /// Whether the first argument stands before the function's name.
    pub method: bool,
    pub arguments: Vec<Type>,
    pub result: Type,
    /// How many types it has that are to be found out: [`Type::Param`] from 0.
    pub params: usize,
}

/// The ways of calling a function of this name; `None` when there is no such function.
pub fn of(function: &str) -> Option<&'static [Overload]> {
    OVERLOADS.get(function).map(Vec::as_slice)
}

/// Where the order matters it is cel-go's: the first overload that fits decides what an empty
/// list is a list of.
static OVERLOADS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    let tables = [LANGUAGE, CONVERSIONS, TIME, EXTENSIONS, KUBERNETES];
    let lines = tables.iter().flat_map(|table| table.lines());
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        let (name, overloads) = line.split_once(": ").unwrap_or((line, ""));
        let overloads = overloads.split(" | ").flat_map(expand);
        all.entry(name).or_default().extend(overloads);
    }
    for name in ["_<_", "_<=_", "_>_", "_>=_"] {
        let overloads = COMPARABLE.split(" | ").flat_map(|pair| {
            let pair = format!("({pair}) -> bool");
            expand(&pair)
        });
        all.insert(name, overloads.collect());
    }
    all
});

const COMPARABLE: &str = "bool, bool | int, int | int, double | int, uint | uint, uint | \
    uint, double | uint, int | double, double | double, int | double, uint | string, string | \
    bytes, bytes | timestamp, timestamp | duration, duration";

const LANGUAGE: &str = "
    _?_:_: (bool, A, A) -> A
    _&&_: (bool, bool) -> bool
    _||_: (bool, bool) -> bool
    !_: (bool) -> bool
    -_: (double) -> double | (int) -> int
    _==_: (A, A) -> bool
    _!=_: (A, A) -> bool
    _+_: (bytes, bytes) -> bytes | (double, double) -> double | (duration, duration) -> duration | (duration, timestamp) -> timestamp | (timestamp, duration) -> timestamp | (int, int) -> int | (list(A), list(A)) -> list(A) | (string, string) -> string | (uint, uint) -> uint
    _-_: (double, double) -> double | (duration, duration) -> duration | (int, int) -> int | (timestamp, duration) -> timestamp | (timestamp, timestamp) -> duration | (uint, uint) -> uint
    _*_: (double, double) -> double | (int, int) -> int | (uint, uint) -> uint
    _/_: (double, double) -> double | (int, int) -> int | (uint, uint) -> uint
    _%_: (int, int) -> int | (uint, uint) -> uint
    _[_]: (list(A), int) -> A | (map(A, B), A) -> B | (optional(list(A)), int) -> optional(A) | (optional(map(A, B)), A) -> optional(B)
    _[?_]: (list(A), int) -> optional(A) | (optional(list(A)), int) -> optional(A) | (map(A, B), A) -> optional(B) | (optional(map(A, B)), A) -> optional(B)
    @in: (A, list(A)) -> bool | (A, map(A, B)) -> bool
    size: (bytes) -> int | bytes.() -> int | (list(A)) -> int | list(A).() -> int | (map(A, B)) -> int | map(A, B).() -> int | (string) -> int | string.() -> int
    contains: string.(string) -> bool
    endsWith: string.(string) -> bool
    startsWith: string.(string) -> bool
    matches: (string, string) -> bool | string.(string) -> bool
";

const CONVERSIONS: &str = "
    type: (A) -> type(A)
    dyn: (A) -> dyn
    bool: (bool) -> bool | (string) -> bool
    bytes: (bytes) -> bytes | (string) -> bytes
    double: (double) -> double | (int) -> double | (string) -> double | (uint) -> double
    duration: (duration) -> duration | (int) -> duration | (string) -> duration
    int: (int) -> int | (double) -> int | (duration) -> int | (string) -> int | (timestamp) -> int | (uint) -> int
    string: (string) -> string | (bool) -> string | (bytes) -> string | (double) -> string | (duration) -> string | (int) -> string | (timestamp) -> string | (uint) -> string | (net.IP) -> string | (net.CIDR) -> string
    timestamp: (timestamp) -> timestamp | (int) -> timestamp | (string) -> timestamp
    uint: (uint) -> uint | (double) -> uint | (int) -> uint | (string) -> uint
";

const TIME: &str = "
    getFullYear: timestamp.() -> int | timestamp.(string) -> int
    getMonth: timestamp.() -> int | timestamp.(string) -> int
    getDayOfYear: timestamp.() -> int | timestamp.(string) -> int
    getDayOfMonth: timestamp.() -> int | timestamp.(string) -> int
    getDate: timestamp.() -> int | timestamp.(string) -> int
    getDayOfWeek: timestamp.() -> int | timestamp.(string) -> int
    getHours: timestamp.() -> int | timestamp.(string) -> int | duration.() -> int
    getMinutes: timestamp.() -> int | timestamp.(string) -> int | duration.() -> int
    getSeconds: timestamp.() -> int | timestamp.(string) -> int | duration.() -> int
    getMilliseconds: timestamp.() -> int | timestamp.(string) -> int | duration.() -> int
";

/// Of cel-go: strings (version 2), lists (version 3), sets, optional values, two-variable
/// comprehensions.
const EXTENSIONS: &str = "
    charAt: string.(int) -> string
    indexOf: list(A).(A) -> int | string.(string) -> int | string.(string, int) -> int
    lastIndexOf: list(A).(A) -> int | string.(string) -> int | string.(string, int) -> int
    lowerAscii: string.() -> string
    upperAscii: string.() -> string
    replace: string.(string, string) -> string | string.(string, string, int) -> string
    split: string.(string) -> list(string) | string.(string, int) -> list(string)
    substring: string.(int) -> string | string.(int, int) -> string
    trim: string.() -> string
    format: string.(list(dyn)) -> string
    strings.quote: (string) -> string
    join: list(string).() -> string | list(string).(string) -> string
    sets.contains: (list(A), list(A)) -> bool
    sets.equivalent: (list(A), list(A)) -> bool
    sets.intersects: (list(A), list(A)) -> bool
    slice: list(A).(int, int) -> list(A)
    flatten: list(list(A)).() -> list(A) | list(dyn).(int) -> list(dyn)
    sort: list(@).() -> list(@)
    @sortByAssociatedKeys: list(A).(list(@)) -> list(A)
    lists.range: (int) -> list(int)
    reverse: list(A).() -> list(A)
    distinct: list(A).() -> list(A)
    first: list(A).() -> optional(A)
    last: list(A).() -> optional(A)
    optional.of: (A) -> optional(A)
    optional.ofNonZeroValue: (A) -> optional(A)
    optional.none: () -> optional(A)
    optional.unwrap: (list(optional(A))) -> list(A)
    unwrapOpt: list(optional(A)).() -> list(A)
    value: optional(A).() -> A
    hasValue: optional(A).() -> bool
    or: optional(A).(optional(A)) -> optional(A)
    orValue: optional(A).(A) -> A
    cel.@mapInsert: (map(A, B), A, B) -> map(A, B) | (map(A, B), map(A, B)) -> map(A, B)
";

const KUBERNETES: &str = "
    isSorted: list(@).() -> bool
    min: list(@).() -> @
    max: list(@).() -> @
    sum: list(int).() -> int | list(uint).() -> uint | list(double).() -> double | list(duration).() -> duration
    find: string.(string) -> string
    findAll: string.(string) -> list(string) | string.(string, int) -> list(string)
    url: (string) -> kubernetes.URL
    isURL: (string) -> bool
    getScheme: kubernetes.URL.() -> string
    getHost: kubernetes.URL.() -> string
    getHostname: kubernetes.URL.() -> string
    getPort: kubernetes.URL.() -> string
    getEscapedPath: kubernetes.URL.() -> string
    getQuery: kubernetes.URL.() -> map(string, list(string))
    path: kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck
    group: kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck
    serviceAccount: kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer
    resource: kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck
    subresource: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
    namespace: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
    name: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
    fieldSelector: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
    labelSelector: kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
    check: kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision | kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision
    errored: kubernetes.authorization.Decision.() -> bool
    error: kubernetes.authorization.Decision.() -> string
    allowed: kubernetes.authorization.Decision.() -> bool
    reason: kubernetes.authorization.Decision.() -> string
    quantity: (string) -> kubernetes.Quantity
    isQuantity: (string) -> bool
    sign: (kubernetes.Quantity) -> int
    isGreaterThan: kubernetes.Quantity.(kubernetes.Quantity) -> bool | kubernetes.Semver.(kubernetes.Semver) -> bool
    isLessThan: kubernetes.Quantity.(kubernetes.Quantity) -> bool | kubernetes.Semver.(kubernetes.Semver) -> bool
    compareTo: kubernetes.Quantity.(kubernetes.Quantity) -> int | kubernetes.Semver.(kubernetes.Semver) -> int
    asApproximateFloat: kubernetes.Quantity.() -> double
    asInteger: kubernetes.Quantity.() -> int
    isInteger: kubernetes.Quantity.() -> bool
    add: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity | kubernetes.Quantity.(int) -> kubernetes.Quantity
    sub: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity | kubernetes.Quantity.(int) -> kubernetes.Quantity
    ip: (string) -> net.IP | net.CIDR.() -> net.IP
    ip.isCanonical: (string) -> bool
    isIP: (string) -> bool
    family: net.IP.() -> int
    isUnspecified: net.IP.() -> bool
    isLoopback: net.IP.() -> bool
    isLinkLocalMulticast: net.IP.() -> bool
    isLinkLocalUnicast: net.IP.() -> bool
    isGlobalUnicast: net.IP.() -> bool
    cidr: (string) -> net.CIDR
    isCIDR: (string) -> bool
    containsIP: net.CIDR.(string) -> bool | net.CIDR.(net.IP) -> bool
    containsCIDR: net.CIDR.(string) -> bool | net.CIDR.(net.CIDR) -> bool
    prefixLength: net.CIDR.() -> int
    masked: net.CIDR.() -> net.CIDR
    format.named: (string) -> optional(kubernetes.NamedFormat)
    format.dns1123Label: () -> kubernetes.NamedFormat
    format.dns1123Subdomain: () -> kubernetes.NamedFormat
    format.dns1035Label: () -> kubernetes.NamedFormat
    format.qualifiedName: () -> kubernetes.NamedFormat
    format.dns1123LabelPrefix: () -> kubernetes.NamedFormat
    format.dns1123SubdomainPrefix: () -> kubernetes.NamedFormat
    format.dns1035LabelPrefix: () -> kubernetes.NamedFormat
    format.labelValue: () -> kubernetes.NamedFormat
    format.uri: () -> kubernetes.NamedFormat
    format.uuid: () -> kubernetes.NamedFormat
    format.byte: () -> kubernetes.NamedFormat
    format.date: () -> kubernetes.NamedFormat
    format.datetime: () -> kubernetes.NamedFormat
    validate: kubernetes.NamedFormat.(string) -> optional(list(string))
    semver: (string) -> kubernetes.Semver | (string, bool) -> kubernetes.Semver
    isSemver: (string) -> bool | (string, bool) -> bool
    major: kubernetes.Semver.() -> int
    minor: kubernetes.Semver.() -> int
    patch: kubernetes.Semver.() -> int
";

/// What `@` stands for, one after the other: types that have an order.
const ORDERED: [&str; 8] = [
    "int",
    "uint",
    "double",
    "bool",
    "duration",
    "timestamp",
    "string",
    "bytes",
];

fn expand(overload: &str) -> Vec<Overload> {
    if overload.contains('@') {
        let each = ORDERED.iter().map(|of| overload.replace('@', of));
        return each.map(|overload| parse(&overload)).collect();
    }
    vec![parse(overload)]
}

/// `target.(arguments) -> result`, the target and its dot only where there is one.
fn parse(overload: &str) -> Overload {
    let (call, result) = overload.split_once(" -> ").unwrap_or((overload, "dyn"));
    let (target, arguments) = match call.split_once(".(") {
        Some((target, arguments)) => (Some(target), arguments),
        None => (None, call.trim_start_matches('(')),
    };
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let mut params = 0;
    let mut read = |text: &str| of_text(text, &mut params);
    let mut all: Vec<Type> = target.iter().map(|target| read(target)).collect();
    all.extend(parts(arguments).into_iter().map(&mut read));
    let result = read(result);
    Overload {
        method: target.is_some(),
        arguments: all,
        result,
        params,
    }
}

/// What stands between commas that are not within parentheses.
fn parts(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list.trim().is_empty() {
        parts.push(list[start..].trim());
    }
    parts
}

pub(super) fn of_text(text: &str, params: &mut usize) -> Type {
    if let Some((name, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let mut inner = parts(inner).into_iter().map(|text| of_text(text, params));
        let first = inner.next().unwrap_or(Type::Dyn);
        return match name {
            "list" => Type::list(first),
            "map" => Type::map(first, inner.next().unwrap_or(Type::Dyn)),
            "type" => Type::Type(Some(first.into())),
            _ => Type::optional(first),
        };
    }
    match text {
        "A" | "B" => {
            let param = usize::from(text == "B");
            *params = (*params).max(param + 1);
            Type::Param(param)
        }
        _ => named(text).unwrap_or_else(|| Type::object(text)),
    }
}
