//! Compiles `api/**/*.proto` into the `static` tables that `src/tables.rs` includes.
//!
//! The options are read through protox's descriptors (prost-types drops extensions).
//! What must not be here: facts. A fact that is in no `.proto` file does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    ReflectMessage, Value,
};

/// What `verb` means when it is unset.
const RESOURCE_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const SUBRESOURCE_VERBS: &[&str] = &["get", "patch", "update"];

fn main() {
    let root =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("api");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    find_protos(&root, &mut files);
    files.sort();

    let mut compiler = protox::Compiler::new([&root]).expect("the include path exists");
    compiler.include_imports(true);
    for file in &files {
        if let Err(e) = compiler.open_file(file) {
            panic!("{e:?}");
        }
    }
    let code = Tables::new(compiler.descriptor_pool()).write();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("tables.rs");
    std::fs::write(out, code).expect("OUT_DIR is writable");
}

fn find_protos(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("api/ is readable") {
        let path = entry.expect("api/ is readable").path();
        if path.is_dir() {
            println!("cargo::rerun-if-changed={}", path.display());
            find_protos(&path, files);
        } else if path.extension().is_some_and(|e| e == "proto") {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
}

/// A `.proto` file that describes a group version.
struct Api {
    group: String,
    version: String,
    model: String,
    group_priority: u32,
    version_priority: u32,
    enabled: bool,
    file: FileDescriptor,
}

struct Tables {
    pool: DescriptorPool,
    /// Served ones first, in discovery order.
    apis: Vec<Api>,
    /// The index of a message (by its protobuf name) among the `static`s.
    index: BTreeMap<String, usize>,
    /// `(group, version, kind)` to the message's index.
    kinds: BTreeMap<(String, String, String), usize>,
    /// The group versions that OpenAPI leaves out of the kinds of every group version.
    unlisted: BTreeSet<(String, String)>,
    code: String,
}

impl Tables {
    fn new(pool: DescriptorPool) -> Self {
        let mut apis: Vec<Api> = pool
            .files()
            .filter_map(|file| {
                let o = extension(&pool, &file.options(), "api")?;
                let o = o.as_message()?.clone();
                Some(Api {
                    group: text(&o, "group"),
                    version: text(&o, "version"),
                    model: text(&o, "model"),
                    group_priority: number(&o, "group_priority"),
                    version_priority: number(&o, "version_priority"),
                    enabled: flag(&o, "enabled"),
                    file,
                })
            })
            .collect();
        apis.sort_by(|a, b| {
            b.group_priority
                .cmp(&a.group_priority)
                .then_with(|| a.group.cmp(&b.group))
                .then_with(|| b.version_priority.cmp(&a.version_priority))
                .then_with(|| a.version.cmp(&b.version))
        });
        let mut tables = Tables {
            pool,
            apis,
            index: BTreeMap::new(),
            kinds: BTreeMap::new(),
            unlisted: BTreeSet::new(),
            code: String::new(),
        };
        tables.collect();
        tables
    }

    /// Numbers the messages and finds out which kinds they are.
    fn collect(&mut self) {
        for api in &self.apis {
            let o = extension(&self.pool, &api.file.options(), "api").expect("collected by it");
            if flag(o.as_message().expect("a message"), "unlisted") {
                self.unlisted
                    .insert((api.group.clone(), api.version.clone()));
            }
            for message in api.file.messages() {
                if self.special(&message).is_some() {
                    continue;
                }
                let i = self.index.len();
                self.index.insert(message.full_name().to_owned(), i);
                let o = message.options();
                let mut gvs = Vec::new();
                if self.is_set(&o, "is_kind") {
                    gvs.push((api.group.clone(), api.version.clone()));
                }
                if self.is_set(&o, "every_group_version") {
                    gvs.extend(
                        self.apis
                            .iter()
                            .filter(|a| !a.version.is_empty())
                            .map(|a| (a.group.clone(), a.version.clone())),
                    );
                }
                if let Some(kinds) = extension(&self.pool, &o, "kind") {
                    for gv in messages(&kinds) {
                        gvs.push((text(gv, "group"), text(gv, "version")));
                    }
                }
                for (group, version) in gvs {
                    let gvk = (group, version, message.name().to_owned());
                    // Another file's own kind wins over a kind of every group version.
                    let old = self.kinds.insert(gvk.clone(), i);
                    assert!(old.is_none(), "two messages claim to be {gvk:?}");
                }
            }
        }
    }

    fn write(mut self) -> String {
        let apis = std::mem::take(&mut self.apis);
        for api in &apis {
            for message in api.file.messages() {
                if self.index.contains_key(message.full_name()) {
                    self.write_message(api, &message);
                }
            }
        }
        self.write_lookups(&apis);
        self.write_resources(&apis);
        self.code
    }

    fn write_message(&mut self, api: &Api, message: &MessageDescriptor) {
        let i = self.index[message.full_name()];
        let o = message.options();
        let no_protobuf = self.is_set(&o, "no_protobuf");
        // (json name, number, literal)
        let mut fields = Vec::new();
        if self.is_set(&o, "is_kind") || self.is_set(&o, "type_meta") {
            let literal = format!(
                "Field {{ ty: Type::Message(&M{}), ..INLINE }}",
                self.index["meta.v1.TypeMeta"]
            );
            fields.push((String::new(), 0, literal));
        }
        for declared in &message.descriptor_proto().field {
            let field = message
                .get_field_by_name(declared.name())
                .expect("declared");
            let number = if no_protobuf { 0 } else { field.number() };
            let (json, literal) = self.field(&field, number);
            fields.push((json, number, literal));
        }
        let mut by_number: Vec<usize> = (0..fields.len()).filter(|i| fields[*i].1 != 0).collect();
        by_number.sort_by_key(|i| fields[*i].1);
        let mut by_json: Vec<usize> = (0..fields.len())
            .filter(|i| !fields[*i].0.is_empty())
            .collect();
        by_json.sort_by(|a, b| fields[*a].0.cmp(&fields[*b].0));

        let name = format!("{}.{}", api.model, message.name());
        let everywhere = self.is_set(&o, "every_group_version");
        let gvks: Vec<String> = self
            .kinds
            .iter()
            .filter(|(_, m)| **m == i)
            .filter(|((group, version, _), _)| {
                !(everywhere && self.unlisted.contains(&(group.clone(), version.clone())))
            })
            .map(|((group, version, kind), _)| {
                format!(
                    "GroupVersionKind {{ group: {group:?}, version: {version:?}, kind: {kind:?} }}"
                )
            })
            .collect();
        let unions = self.unions(&o);
        let literals: Vec<&str> = fields.iter().map(|f| f.2.as_str()).collect();
        let _ = writeln!(
            self.code,
            "static M{i}: Message = Message {{ name: {name:?}, by_number: &{by_number:?}, by_json: &{by_json:?}, \
             atomic: {}, unions: &[{unions}], holds_raw: {}, holds_field_sets: {}, holds_bytes: {}, gvks: &[{}], fields: &[\n{}\n] }};",
            self.is_set(&o, "atomic"),
            self.holds("RawExtension", message, &mut BTreeSet::new()),
            self.holds("FieldsV1", message, &mut BTreeSet::new()),
            self.holds_bytes(message, &mut BTreeSet::new()),
            gvks.join(", "),
            literals.join(",\n"),
        );
    }

    /// The JSON name and the literal of a [`schema::Field`].
    fn field(&self, field: &FieldDescriptor, number: u32) -> (String, String) {
        let o = field.options();
        if self.is_set(&o, "inline") {
            let (_, ty, _) = self.ty(field);
            return (
                String::new(),
                format!("Field {{ number: {number}, ty: {ty}, ..INLINE }}"),
            );
        }
        let json = match extension(&self.pool, &o, "json") {
            Some(v) => v.as_str().expect("a string").to_owned(),
            None => field.name().to_owned(),
        };
        let (cardinality, ty, format) = self.ty(field);
        let mut s = format!("Field {{ json: {json:?}, number: {number}, ty: {ty}");
        if cardinality != "One" {
            let _ = write!(s, ", cardinality: Cardinality::{cardinality}");
        }
        if field.field_descriptor_proto().proto3_optional() {
            s.push_str(", pointer: true");
        }
        let required = self.is_set(&o, "required");
        if required {
            s.push_str(", required: true");
        }
        let omit = match self.choice(&o, "omit").as_deref() {
            None if required => "Never",
            None | Some("EMPTY") => "Empty",
            Some("NEVER") => "Never",
            Some("ZERO") => "Zero",
            Some(other) => panic!("omit {other}"),
        };
        if omit != "Empty" {
            let _ = write!(s, ", omit: Omit::{omit}");
        }
        if let Some(list) = extension(&self.pool, &o, "list") {
            let list = list.as_message().expect("a message");
            let _ = write!(
                s,
                ", list_type: ListType::{}, list_map_keys: &{:?}",
                camel(&variant(list, "type")),
                texts(list, "key"),
            );
        }
        if let Some(patch) = extension(&self.pool, &o, "patch") {
            let patch = patch.as_message().expect("a message");
            let key = text(patch, "key");
            let _ = write!(
                s,
                ", patch_strategy: PatchStrategy::{}, patch_merge_key: {:?}",
                camel(&variant(patch, "strategy")),
                Some(key).filter(|k| !k.is_empty()),
            );
        }
        if let Some(default) = extension(&self.pool, &o, "default") {
            let _ = write!(
                s,
                ", default: Some({:?})",
                default.as_str().expect("a string")
            );
        }
        if let Some(values) = extension(&self.pool, &o, "enum") {
            let values = texts(values.as_message().expect("a message"), "value");
            let _ = write!(s, ", enum_values: &{values:?}");
        }
        if let Some(format) = format {
            let _ = write!(s, ", format: Some({format:?})");
        }
        s.push_str(", ..FIELD }");
        (json, s)
    }

    /// A field's cardinality, its `Type` and its OpenAPI format.
    fn ty(&self, field: &FieldDescriptor) -> (&'static str, String, Option<&'static str>) {
        if field.is_map() {
            let entry = field.kind();
            let value = entry
                .as_message()
                .expect("a map entry")
                .map_entry_value_field();
            let (_, ty, format) = self.ty(&value);
            return ("Map", ty, format);
        }
        let cardinality = if field.is_list() { "List" } else { "One" };
        let (ty, format) = match field.kind() {
            Kind::Bool => ("Type::Bool".into(), None),
            Kind::Int32 => ("Type::Int32".into(), Some("int32")),
            Kind::Int64 => ("Type::Int64".into(), Some("int64")),
            Kind::Double => ("Type::Float64".into(), Some("double")),
            Kind::String => ("Type::String".into(), None),
            Kind::Bytes => ("Type::Bytes".into(), Some("byte")),
            Kind::Message(m) => match self.special(&m) {
                Some(special) => {
                    let format = match special.as_str() {
                        "Time" | "MicroTime" => Some("date-time"),
                        "IntOrString" => Some("int-or-string"),
                        _ => None,
                    };
                    (format!("Type::Special(Special::{special})"), format)
                }
                None => (
                    format!("Type::Message(&M{})", self.index[m.full_name()]),
                    None,
                ),
            },
            other => panic!("{}: Kubernetes has no {other:?}", field.full_name()),
        };
        (cardinality, ty, format)
    }

    fn unions(&self, options: &DynamicMessage) -> String {
        let Some(unions) = extension(&self.pool, options, "union") else {
            return String::new();
        };
        let mut s = String::new();
        for union in messages(&unions) {
            let discriminator = Some(text(union, "discriminator")).filter(|d| !d.is_empty());
            let members = value(union, "member");
            let members: Vec<_> = messages(&members)
                .map(|m| (text(m, "field"), text(m, "name")))
                .collect();
            let _ = write!(
                s,
                "Union {{ discriminator: {discriminator:?}, members: &{members:?} }}, "
            );
        }
        s
    }

    fn write_lookups(&mut self, apis: &[Api]) {
        let mut by_name: Vec<(String, usize)> = apis
            .iter()
            .flat_map(|api| api.file.messages().map(move |m| (api, m)))
            .filter_map(|(api, m)| {
                Some((
                    format!("{}.{}", api.model, m.name()),
                    *self.index.get(m.full_name())?,
                ))
            })
            .collect();
        by_name.sort();
        let rows: Vec<String> = by_name.iter().map(|(_, i)| format!("&M{i}")).collect();
        let _ = writeln!(
            self.code,
            "pub static MESSAGES: &[&Message] = &[{}];",
            rows.join(", ")
        );

        let rows: Vec<String> = self
            .kinds
            .iter()
            .map(|((group, version, kind), i)| {
                format!("(({group:?}, {version:?}, {kind:?}), &M{i})")
            })
            .collect();
        let _ = writeln!(
            self.code,
            "pub static KINDS: &[((&str, &str, &str), &Message)] = &[{}];",
            rows.join(",\n")
        );
    }

    fn write_resources(&mut self, apis: &[Api]) {
        let mut rows = Vec::new();
        let mut group_versions = Vec::new();
        for api in apis.iter().filter(|a| !a.version.is_empty()) {
            let first = rows.len();
            let mut found: Vec<(String, MessageDescriptor, DynamicMessage)> = api
                .file
                .messages()
                .filter_map(|m| {
                    let o = extension(&self.pool, &m.options(), "served")?;
                    let o = o.as_message()?.clone();
                    Some((text(&o, "plural"), m, o))
                })
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            rows.extend(found.iter().map(|(_, m, o)| self.resource(api, m, o)));
            group_versions.push(format!(
                "GroupVersion {{ group: {:?}, version: {:?}, model: {:?}, group_priority: {}, version_priority: {}, \
                 enabled: {}, first: {first}, end: {} }}",
                api.group,
                api.version,
                api.model,
                api.group_priority,
                api.version_priority,
                api.enabled,
                rows.len()
            ));
        }
        let _ = writeln!(
            self.code,
            "pub static RESOURCES: &[Resource] = &[{}];\npub static GROUP_VERSIONS: &[GroupVersion] = &[{}];",
            rows.join(",\n"),
            group_versions.join(",\n")
        );
    }

    fn resource(&self, api: &Api, message: &MessageDescriptor, o: &DynamicMessage) -> String {
        let verbs = or(texts(o, "verb"), RESOURCE_VERBS);
        let kind = message.name();
        let list = self
            .kinds
            .get(&(
                api.group.clone(),
                api.version.clone(),
                format!("{kind}List"),
            ))
            .filter(|_| verbs.iter().any(|v| v == "list"));
        let list = match list {
            Some(i) => format!("Some(&M{i})"),
            None => "None".to_owned(),
        };
        let subresources = value(o, "subresource");
        let subresources: Vec<String> = messages(&subresources)
            .map(|s| {
                let own = text(s, "kind").is_empty();
                let of = value(s, "of");
                let of = of.as_message().expect("a message");
                let foreign = s.has_field_by_name("of");
                format!(
                    "Subresource {{ name: {:?}, group: {:?}, version: {:?}, kind: {:?}, verbs: &{:?} }}",
                    text(s, "name"),
                    if foreign { text(of, "group") } else { api.group.clone() },
                    if foreign { text(of, "version") } else { api.version.clone() },
                    if own { kind.to_owned() } else { text(s, "kind") },
                    or(texts(s, "verb"), SUBRESOURCE_VERBS),
                )
            })
            .collect();
        let gate = Some(text(o, "feature_gate")).filter(|g| !g.is_empty());
        format!(
            "Resource {{ group: {:?}, version: {:?}, kind: {kind:?}, plural: {:?}, singular: {:?}, short_names: &{:?}, \
             categories: &{:?}, namespaced: {}, verbs: &{verbs:?}, subresources: &[{}], message: &M{}, \
             list_message: {list}, enabled: {}, feature_gate: {gate:?}, storage_version: {:?}, storage_prefix: {:?}, storage_json: {}, \
             selectable_fields: &{:?} }}",
            api.group,
            api.version,
            text(o, "plural"),
            text(o, "singular"),
            texts(o, "short_name"),
            texts(o, "category"),
            flag(o, "namespaced"),
            subresources.join(", "),
            self.index[message.full_name()],
            api.enabled,
            text(o, "storage_version"),
            text(o, "storage_prefix"),
            flag(o, "storage_json"),
            texts(o, "selectable"),
        )
    }

    /// Whether a message with a form of its own is in the message, or in what it holds. Messages
    /// may hold themselves: those of `seen` are not looked into again.
    fn holds(
        &self,
        wanted: &str,
        message: &MessageDescriptor,
        seen: &mut BTreeSet<String>,
    ) -> bool {
        seen.insert(message.full_name().to_owned())
            && message.fields().any(|field| match field.kind() {
                Kind::Message(held) => match self.special(&held) {
                    Some(special) => special == wanted,
                    None => self.holds(wanted, &held, seen),
                },
                _ => false,
            })
    }

    /// Whether a field of bytes that may be left out is in the message, or in what it holds.
    fn holds_bytes(&self, message: &MessageDescriptor, seen: &mut BTreeSet<String>) -> bool {
        seen.insert(message.full_name().to_owned())
            && message.fields().any(|field| match field.kind() {
                Kind::Message(held) => {
                    self.special(&held).is_none() && self.holds_bytes(&held, seen)
                }
                Kind::Bytes => {
                    let o = field.options();
                    !field.is_list()
                        && !self.is_set(&o, "required")
                        && self.choice(&o, "omit").is_none()
                }
                _ => false,
            })
    }

    /// The variant of `schema::Special` of a message that has a form of its own.
    fn special(&self, message: &MessageDescriptor) -> Option<String> {
        let form = self.choice(&message.options(), "special")?;
        Some(match form.as_str() {
            "FIELDS_V1" => "FieldsV1".to_owned(),
            other => camel(other),
        })
    }

    fn is_set(&self, options: &DynamicMessage, name: &str) -> bool {
        extension(&self.pool, options, name).is_some_and(|v| v.as_bool() == Some(true))
    }

    /// The name of an enum extension's value.
    fn choice(&self, options: &DynamicMessage, name: &str) -> Option<String> {
        let n = extension(&self.pool, options, name)?
            .as_enum_number()
            .expect("an enum");
        let kind = self
            .pool
            .get_extension_by_name(name)
            .expect("in options.proto")
            .kind();
        let value = kind
            .as_enum()
            .expect("an enum")
            .get_value(n)
            .expect("a value of it");
        Some(value.name().to_owned())
    }
}

/// A custom option that is set.
fn extension(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Option<Value> {
    let extension = pool.get_extension_by_name(name).expect("in options.proto");
    options
        .has_extension(&extension)
        .then(|| options.get_extension(&extension).into_owned())
}

fn value(message: &DynamicMessage, name: &str) -> Value {
    message
        .get_field_by_name(name)
        .expect("in options.proto")
        .into_owned()
}

fn text(message: &DynamicMessage, name: &str) -> String {
    value(message, name).as_str().expect("a string").to_owned()
}

fn texts(message: &DynamicMessage, name: &str) -> Vec<String> {
    let list = value(message, name);
    let list = list.as_list().expect("a list");
    list.iter()
        .map(|v| v.as_str().expect("strings").to_owned())
        .collect()
}

fn flag(message: &DynamicMessage, name: &str) -> bool {
    value(message, name).as_bool().expect("a bool")
}

fn number(message: &DynamicMessage, name: &str) -> u32 {
    value(message, name).as_u32().expect("a number")
}

fn variant(message: &DynamicMessage, name: &str) -> String {
    let field = message
        .descriptor()
        .get_field_by_name(name)
        .expect("in options.proto");
    let n = value(message, name).as_enum_number().expect("an enum");
    let kind = field.kind();
    let value = kind
        .as_enum()
        .expect("an enum")
        .get_value(n)
        .expect("a value of it");
    value.name().to_owned()
}

fn messages(list: &Value) -> impl Iterator<Item = &DynamicMessage> {
    let list = list.as_list().expect("a list");
    list.iter().map(|v| v.as_message().expect("messages"))
}

fn or(list: Vec<String>, default: &[&str]) -> Vec<String> {
    if list.is_empty() {
        default.iter().map(|s| (*s).to_owned()).collect()
    } else {
        list
    }
}

/// `RETAIN_KEYS` to `RetainKeys`.
fn camel(upper: &str) -> String {
    upper
        .split('_')
        .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
        .collect()
}
