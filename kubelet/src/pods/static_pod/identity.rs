//! The uid of a static pod. It must equal upstream's bit for bit: a kubelet that computed another
//! one would end every static pod of a node that it takes over, the control plane among them.
//!
//! Upstream hashes (FNV-1a, 128 bits) a dump of the decoded pod as it lies in the memory of a Go
//! program: every field of every struct with its Go type, in the order of the internal version of
//! the API, set or not. `layout.txt` has these structs; the dump is written straight from JSON.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::LazyLock;

use jiff::Timestamp;
use meta::quantity::layout::{Layout, Number};
use meta::quantity::{Format, ParseQuantityError};
use serde_json::{Map, Value};

/// Seconds from the year 1, where Go's clock begins, to 1970.
const YEAR_ONE: i64 = 62_135_596_800;

/// Annotations of long ago that decoding takes away.
const DROPPED_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// The uid of `pod`, a decoded and defaulted manifest that has not been given its node yet.
/// `written` is the same as it was written, since Go remembers how quantities were spelled.
/// `origin` says where the manifest is from: `host:…file:…` or `url:…`.
///
/// A manifest that states times (`creationTimestamp`) has no uid that is upstream's: Go's dump of
/// a time holds the time zone's table and what has been looked up in it of late.
///
/// # Errors
/// When a quantity is none.
pub fn uid(pod: &Value, written: &Value, origin: &str) -> Result<String, ParseQuantityError> {
    let mut dump = Dump(String::with_capacity(32 << 10));
    dump.0.push_str("(*core.Pod)");
    let written = with_sums(pod, written);
    dump.body("core.Pod", Some(&internal(pod)), Some(&written))?;
    let hash = fnv1a_128(dump.0.bytes().chain(origin.bytes()));
    Ok(format!("{hash:032x}"))
}

/// FNV-1a with 128 bits.
fn fnv1a_128(bytes: impl Iterator<Item = u8>) -> u128 {
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul((1 << 88) | 0x13b)
    })
}

/// The pod with what has another place or form in the API's internal version.
fn internal(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(annotations) = pod
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.retain(|name, _| !DROPPED_ANNOTATIONS.contains(&name.as_str()));
    }
    if let Some(members) = pod.as_object_mut() {
        members.retain(|name, _| name != "kind" && name != "apiVersion");
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec_internal(spec);
    }
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        let first = status.get("podIP").filter(|ip| **ip != "").cloned();
        let listed = status.get("podIPs").and_then(|ips| ips.pointer("/0/ip"));
        if let Some(first) = first.filter(|first| listed != Some(first)) {
            status.insert("podIPs".into(), serde_json::json!([{"ip": first}]));
        }
    }
    pod
}

/// What was written, and for pod-level requests that are the sum of the containers' a list of those.
fn with_sums(pod: &Value, written: &Value) -> Value {
    let mut written = written.clone();
    let requests = pod
        .pointer("/spec/resources/requests")
        .and_then(Value::as_object);
    let has_init = pod["spec"]["initContainers"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    for (name, value) in requests.into_iter().flatten() {
        let containers = written["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten();
        let mut parts: Vec<Value> = containers
            .filter_map(|container| {
                let resources = &container["resources"];
                let own = [&resources["requests"][name], &resources["limits"][name]];
                own.into_iter().find(|own| !own.is_null()).cloned()
            })
            .collect();
        // Init containers may count more than all others together: then the sum is as we spell it.
        let spelled = match parts.len() {
            _ if has_init => value.clone(),
            0 => continue,
            1 => parts.remove(0),
            _ => Value::Array(parts),
        };
        if let Some(resources) = written
            .pointer_mut("/spec/resources")
            .and_then(Value::as_object_mut)
        {
            let requests = resources.entry("requests").or_insert(Value::Null);
            if requests[name].is_null() {
                requests[name] = spelled;
            }
        }
    }
    written
}

/// A quantity as it was written, or several that were added.
fn layout(written: &Value, rounded: bool) -> Result<Layout, ParseQuantityError> {
    let read = |text: &str| Layout::read(text.trim(), rounded);
    match written {
        Value::String(text) => read(text),
        Value::Array(parts) => {
            let mut parts = parts.iter().map(|part| layout(part, rounded));
            let first = parts.next().ok_or(ParseQuantityError::Format)??;
            parts.try_fold(first, |sum, part| Ok(sum.plus(&part?)))
        }
        other => read(&other.to_string()),
    }
}

fn spec_internal(spec: &mut Map<String, Value>) {
    let hosts = [
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "shareProcessNamespace",
        "hostUsers",
    ];
    let moved: Vec<_> = hosts
        .iter()
        .filter_map(|name| spec.remove_entry(*name))
        .collect();
    let context = spec
        .entry("securityContext")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(context) = context.as_object_mut() {
        context.extend(moved);
    }
    if spec.get("serviceAccountName").is_none_or(|name| name == "")
        && let Some(account) = spec.get("serviceAccount").cloned()
    {
        spec.insert("serviceAccountName".into(), account);
    }
    if let Some(grace) = spec.get_mut("terminationGracePeriodSeconds")
        && grace.as_i64().is_some_and(|grace| grace < 0)
    {
        *grace = 1.into();
    }
}

/// A field of a Go struct.
struct Field {
    name: &'static str,
    /// Its name in JSON; none if the fields of its struct are written beside the others.
    json: Option<String>,
    ty: &'static str,
}

/// The structs of the internal API by name, as of v1.36, in lines of
/// `name: Field type, Field=json type, +Embedded type`.
static STRUCTS: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let text = include_str!("layout.txt");
    let mut structs: HashMap<&str, Vec<Field>> = HashMap::new();
    let mut current = "";
    for line in text.lines() {
        let fields = match line.split_once(": ") {
            Some((name, fields)) if !name.starts_with(' ') => {
                current = name;
                fields
            }
            _ => line,
        };
        let fields = fields
            .split(',')
            .filter_map(|field| field.trim().split_once(' '));
        let fields = fields.map(|(name, ty)| {
            let (name, json) = match (name.strip_prefix('+'), name.split_once('=')) {
                (Some(name), _) => (name, None),
                (None, Some((name, json))) => (name, Some(json.to_owned())),
                (None, None) => (name, Some(json_name(name))),
            };
            Field { name, json, ty }
        });
        structs.entry(current).or_default().extend(fields);
    }
    structs
});

/// The API's rule for names: `FSType` is `fsType`, `IP` is `ip`.
fn json_name(go: &str) -> String {
    let capitals = go.bytes().take_while(u8::is_ascii_uppercase).count();
    let lowered = match capitals {
        n if n == go.len() => n,
        0 | 1 => capitals,
        n => n - 1,
    };
    go[..lowered].to_ascii_lowercase() + &go[lowered..]
}

type Done = Result<(), ParseQuantityError>;

/// Go's dump, as it is written.
struct Dump(String);

impl Dump {
    /// A struct's field: its type and its value.
    fn field(&mut self, ty: &str, value: Option<&Value>, written: Option<&Value>) -> Done {
        let _ = write!(self.0, "({ty})");
        match ty.strip_prefix('*') {
            Some(_) if value.is_none() => self.0.push_str("<nil>"),
            Some(ty) => self.body(ty, value, written)?,
            None => self.body(ty, value, written)?,
        }
        Ok(())
    }

    fn body(&mut self, ty: &str, value: Option<&Value>, written: Option<&Value>) -> Done {
        if let Some(element) = ty.strip_prefix("[]") {
            return self.list(element, value, written);
        }
        if let Some((_, element)) = ty.strip_prefix("map[").and_then(|ty| ty.split_once(']')) {
            return self.map(element, value, written);
        }
        match ty {
            "core.ResourceList" => self.map("resource.Quantity", value, written)?,
            "core.ResourceRequirements" | "core.VolumeResourceRequirements" => {
                // Requests that are not stated are those of the limits, and spelled like them.
                let mut spelled = written.cloned().unwrap_or_default();
                if let Some(limits) = spelled.get("limits").and_then(Value::as_object).cloned() {
                    let requests = &mut spelled["requests"];
                    if requests.is_null() {
                        *requests = Value::Object(Map::new());
                    }
                    for (name, quantity) in limits {
                        if requests[&name].is_null() {
                            requests[&name] = quantity;
                        }
                    }
                }
                self.fields(ty, value, Some(&spelled))?;
            }
            "resource.Quantity" => self.quantity(value, written, false)?,
            "v1.Time" => self.time(value),
            "v1.FieldsV1" => self.raw(value),
            "intstr.IntOrString" => {
                let number = value.and_then(Value::as_i64);
                let text = value.and_then(Value::as_str).unwrap_or_default();
                let kind = i32::from(number.is_none() && value.is_some());
                let number = number.unwrap_or_default();
                let _ = write!(
                    self.0,
                    "{{Type:(intstr.Type){kind} IntVal:(int32){number} StrVal:(string){text}}}"
                );
            }
            "bool" => {
                let value = value.and_then(Value::as_bool).unwrap_or_default();
                let _ = write!(self.0, "{value}");
            }
            "int32" | "int64" => {
                let value = value.and_then(Value::as_i64).unwrap_or_default();
                let _ = write!(self.0, "{value}");
            }
            _ if STRUCTS.contains_key(ty) => self.fields(ty, value, written)?,
            // All other names are names of texts.
            _ => self
                .0
                .push_str(value.and_then(Value::as_str).unwrap_or_default()),
        }
        Ok(())
    }

    fn fields(&mut self, ty: &str, value: Option<&Value>, written: Option<&Value>) -> Done {
        self.0.push('{');
        for (i, field) in STRUCTS[ty].iter().enumerate() {
            if i > 0 {
                self.0.push(' ');
            }
            self.0.push_str(field.name);
            self.0.push(':');
            match &field.json {
                Some(json) => {
                    let [value, written] =
                        [value, written].map(|of| of.and_then(|of| of.get(json)));
                    self.field(field.ty, value, written)?;
                }
                None => self.field(field.ty, value, written)?,
            }
        }
        self.0.push('}');
        Ok(())
    }

    fn list(&mut self, element: &str, value: Option<&Value>, written: Option<&Value>) -> Done {
        let Some(items) = value.and_then(Value::as_array) else {
            self.0.push_str("<nil>");
            return Ok(());
        };
        self.0.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.0.push(' ');
            }
            self.body(element, Some(item), written.and_then(|w| w.get(i)))?;
        }
        self.0.push(']');
        Ok(())
    }

    fn map(&mut self, element: &str, value: Option<&Value>, written: Option<&Value>) -> Done {
        let Some(entries) = value.and_then(Value::as_object) else {
            self.0.push_str("<nil>");
            return Ok(());
        };
        let entries: BTreeMap<_, _> = entries.iter().collect();
        self.0.push_str("map[");
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 {
                self.0.push(' ');
            }
            self.0.push_str(key);
            self.0.push(':');
            let written = written.and_then(|w| w.get(key));
            match element {
                "resource.Quantity" => self.quantity(Some(value), written, true)?,
                _ => self.body(element, Some(value), written)?,
            }
        }
        self.0.push(']');
        Ok(())
    }

    fn quantity(&mut self, value: Option<&Value>, written: Option<&Value>, rounded: bool) -> Done {
        let mut small = (0, 0);
        let mut dec = "(*inf.Dec)<nil>".to_owned();
        let (mut text, mut format) = (String::new(), "");
        if let Some(value) = written.filter(|w| !w.is_null()).or(value) {
            let layout = layout(value, rounded)?;
            match layout.number {
                Number::Small { value, scale } => small = (value, scale),
                Number::Big {
                    negative,
                    words,
                    scale,
                } => {
                    let words: Vec<_> = words.iter().map(u64::to_string).collect();
                    dec = format!(
                        "(*inf.Dec){{unscaled:(big.Int){{neg:(bool){negative} \
                         abs:(big.nat)[{}]}} scale:(inf.Scale){scale}}}",
                        words.join(" ")
                    );
                }
            }
            text = layout.text;
            format = match layout.format {
                Format::DecimalSI => "DecimalSI",
                Format::BinarySI => "BinarySI",
                Format::DecimalExponent => "DecimalExponent",
            };
        }
        let (value, scale) = small;
        let _ = write!(
            self.0,
            "{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}} \
             d:(resource.infDecAmount){{Dec:{dec}}} s:(string){text} \
             Format:(resource.Format){format}}}"
        );
        Ok(())
    }

    fn time(&mut self, value: Option<&Value>) {
        let time = value
            .and_then(Value::as_str)
            .and_then(|time| time.parse::<Timestamp>().ok());
        let seconds = time.map_or(0, |time| time.as_second() + YEAR_ONE);
        let _ = write!(
            self.0,
            "{{Time:(time.Time){{wall:(uint64)0 ext:(int64){seconds} loc:(*time.Location)<nil>}}}}"
        );
    }

    /// A field set, which Go keeps as bytes of JSON.
    fn raw(&mut self, value: Option<&Value>) {
        let json = value.map(Value::to_string).unwrap_or_default();
        let bytes: Vec<_> = json.bytes().map(|byte| byte.to_string()).collect();
        let _ = write!(self.0, "{{Raw:([]uint8)[{}]}}", bytes.join(" "));
    }
}
