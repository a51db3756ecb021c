//! The Kubernetes v1.36 API as data: every message, field, kind and subresource.
//!
//! `proto/schema/api/**/*.proto` hold the facts; `build.rs` compiles them into the
//! `static` tables of this crate, so looking something up costs no start-up time and
//! no heap. The codecs, patches, discovery, OpenAPI and selectors are engines over
//! these tables. A CustomResourceDefinition is compiled into the same types (leaked
//! or arena-allocated by the API server), which is why everything is `&'static`.
//!
//! What must not be here: behaviour. No encoding, no validation, no I/O.

mod tables;
#[cfg(test)]
mod tests;

/// A message (Go struct): an API object or a part of one.
#[derive(Debug)]
pub struct Message {
    /// The OpenAPI model name, such as `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    /// In the order in which upstream writes them as JSON.
    pub fields: &'static [Field],
    /// Indexes into `fields`, sorted by protobuf number.
    pub by_number: &'static [u16],
    /// Indexes into `fields`, sorted by JSON name (inlined messages' fields are not included).
    pub by_json: &'static [u16],
    /// `+structType=atomic`: server-side apply owns the whole of it, or nothing.
    pub atomic: bool,
    pub unions: &'static [Union],
    /// Somewhere in it is a [`Special::RawExtension`].
    pub holds_raw: bool,
    /// Somewhere in it is a [`Special::FieldsV1`].
    pub holds_field_sets: bool,
    /// Somewhere in it is a field of bytes that JSON leaves out when they are empty.
    pub holds_bytes: bool,
    /// The kinds that this message is (`x-kubernetes-group-version-kind`); empty for a part of a kind.
    pub gvks: &'static [GroupVersionKind],
}

/// `x-kubernetes-unions`: of these fields, at most one is set.
#[derive(Debug)]
pub struct Union {
    /// The field that says which member is set.
    pub discriminator: Option<&'static str>,
    /// JSON name and the discriminator's value.
    pub members: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

/// One field of a [`Message`].
#[derive(Debug)]
pub struct Field {
    /// The JSON name; for an inlined message (`json:",inline"`) the empty string.
    pub json: &'static str,
    /// The protobuf field number; 0 for a field that protobuf does not carry (`TypeMeta`).
    pub number: u32,
    pub ty: Type,
    pub cardinality: Cardinality,
    /// A Go pointer: absent on both wires when unset. A value that is no pointer is
    /// always written to protobuf, even when it is empty.
    pub pointer: bool,
    /// When JSON leaves the field out.
    pub omit: Omit,
    /// Required by OpenAPI.
    pub required: bool,
    /// `+listType` / `+mapType` / `+structType`.
    pub list_type: ListType,
    /// `+listMapKey`s, in declaration order.
    pub list_map_keys: &'static [&'static str],
    /// Strategic merge patch.
    pub patch_strategy: PatchStrategy,
    pub patch_merge_key: Option<&'static str>,
    /// `+default` as a JSON literal. OpenAPI v3 shows, where there is none, `{}` for a message
    /// that is no pointer, and the zero value for a scalar (but bytes) that is no pointer and
    /// always written; for lists, maps and specials it shows nothing.
    pub default: Option<&'static str>,
    /// The values of a `+enum` string type, sorted.
    pub enum_values: &'static [&'static str],
    /// OpenAPI `format` of a scalar (`int32`, `int64`, `byte`, `double`, `date-time`, …), if any.
    pub format: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    One,
    List,
    /// Keys are strings; protobuf writes entries `{1: key, 2: value}` sorted by key.
    Map,
}

/// The type of a field's value, of a list's items or of a map's values.
#[derive(Clone, Copy)]
pub enum Type {
    Bool,
    Int32,
    Int64,
    Float64,
    String,
    /// base64 in JSON.
    Bytes,
    Message(&'static Message),
    Special(Special),
}

/// Names a message instead of printing it: messages may contain themselves.
impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Type::Bool => f.write_str("Bool"),
            Type::Int32 => f.write_str("Int32"),
            Type::Int64 => f.write_str("Int64"),
            Type::Float64 => f.write_str("Float64"),
            Type::String => f.write_str("String"),
            Type::Bytes => f.write_str("Bytes"),
            Type::Message(m) => write!(f, "Message({})", m.name),
            Type::Special(s) => write!(f, "Special({s:?})"),
        }
    }
}

/// Types whose two wire forms differ by more than the schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `resource.Quantity`: JSON string or number; protobuf `{1: string}`.
    Quantity,
    /// `intstr.IntOrString`: JSON number or string; protobuf `{1: type, 2: int, 3: string}`.
    IntOrString,
    /// RFC 3339 with seconds; protobuf `{1: seconds, 2: nanos}`; the zero time is `null`.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// `metav1.Duration`: Go duration string; protobuf `{1: int64 nanoseconds}`.
    Duration,
    /// `runtime.RawExtension`: any JSON; protobuf `{1: bytes}`.
    RawExtension,
    /// `metav1.FieldsV1`: any JSON; protobuf `{1: bytes}`.
    FieldsV1,
    /// `apiextensions.JSON`: any JSON; protobuf `{1: bytes}`.
    Json,
    /// `apiextensions.JSONSchemaPropsOrBool`: protobuf `{1: bool, 2: schema}`.
    JsonSchemaPropsOrBool,
    /// `apiextensions.JSONSchemaPropsOrArray`: protobuf `{1: schema, 2: [schema]}`.
    JsonSchemaPropsOrArray,
    /// `apiextensions.JSONSchemaPropsOrStringArray`: protobuf `{1: schema, 2: [string]}`.
    JsonSchemaPropsOrStringArray,
    /// A Go slice type that is a message of its own in protobuf (`ExtraValue`,
    /// `Verbs`-like types): JSON `[string]`; protobuf `{1: repeated string}`.
    StringList,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omit {
    /// Always written: `null` for an unset list, map or pointer.
    Never,
    /// `omitempty`: left out when zero, empty or nil; has no effect on a struct value.
    Empty,
    /// `omitzero`.
    Zero,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Not declared: granular for maps and structs, atomic for lists.
    Unset,
    Atomic,
    Set,
    Map,
    /// Declared granular (`+mapType=granular`, `+structType=granular`).
    Granular,
}

/// `x-kubernetes-patch-strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchStrategy {
    Unset,
    Merge,
    Replace,
    RetainKeys,
    MergeRetainKeys,
}

/// One kind served in one group version under one resource name.
#[derive(Debug)]
pub struct Resource {
    /// The empty string is the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The plural resource name in paths.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// As discovery lists them; empty when only subresources are served.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    pub message: &'static Message,
    /// `None` for kinds that cannot be listed (`TokenReview`, `Binding`, …).
    pub list_message: Option<&'static Message>,
    /// Served when no `--runtime-config` says otherwise (GA, and beta that is on by default).
    pub enabled: bool,
    /// The feature gate without which it is not served even where its group version is enabled.
    pub feature_gate: Option<&'static str>,
    /// The `apiVersion` in which etcd holds it, whichever version wrote it; empty for a
    /// kind that is never stored.
    pub storage_version: &'static str,
    /// What follows `/registry/` in its keys, such as `services/specs`; empty for a kind
    /// that is never stored.
    pub storage_prefix: &'static str,
    /// Stored as JSON whatever the storage media type is.
    pub storage_json: bool,
    /// What field selectors may name beyond `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
}

/// A subresource of a [`Resource`], such as `status` or `scale`.
#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// The kind that the subresource speaks, which may be of another group (`autoscaling/v1` `Scale`).
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// A group version.
#[derive(Debug)]
pub struct GroupVersion {
    pub group: &'static str,
    pub version: &'static str,
    /// What the names of its messages begin with, such as `io.k8s.api.core.v1`.
    pub model: &'static str,
    /// `groupPriorityMinimum` and `versionPriority` of its APIService; 0 when it is not served.
    /// `apiregistration.k8s.io` has no APIService, and comes before any that may have one.
    pub group_priority: u32,
    pub version_priority: u32,
    /// Served when no `--runtime-config` says otherwise.
    pub enabled: bool,
    first: usize,
    end: usize,
}

impl GroupVersion {
    /// Its resources, sorted by plural name; none for a group version that is not served.
    pub fn resources(&self) -> &'static [Resource] {
        &tables::RESOURCES[self.first..self.end]
    }

    /// As `apiVersion` says it: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl Special {
    /// The OpenAPI model name (the served version's, for the `apiextensions` types); a list of
    /// strings has none.
    pub fn model(self) -> Option<&'static str> {
        Some(match self {
            Special::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity",
            Special::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            Special::Time => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
            Special::MicroTime => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
            Special::Duration => "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
            Special::RawExtension => "io.k8s.apimachinery.pkg.runtime.RawExtension",
            Special::FieldsV1 => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
            Special::Json => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
            Special::JsonSchemaPropsOrBool => {
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
            }
            Special::JsonSchemaPropsOrArray => {
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
            }
            Special::JsonSchemaPropsOrStringArray => {
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray"
            }
            Special::StringList => return None,
        })
    }
}

/// Every resource of every group version, grouped by group version, groups in
/// upstream's discovery priority.
pub fn resources() -> &'static [Resource] {
    tables::RESOURCES
}

/// Every group version, those that are served first, in discovery's order; then those
/// that are only read and written (`extensions/v1beta1`, `admission.k8s.io/v1`, …).
pub fn group_versions() -> &'static [GroupVersion] {
    tables::GROUP_VERSIONS
}

/// Every message, sorted by name.
pub fn messages() -> &'static [&'static Message] {
    tables::MESSAGES
}

/// The message of a kind, list kinds and option kinds (`DeleteOptions`) included.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    tables::kind(group, version, kind)
}

/// A message by its OpenAPI model name.
pub fn message(name: &str) -> Option<&'static Message> {
    tables::message(name)
}

impl Message {
    /// The field of a JSON name, looking through inlined messages.
    pub fn field(&self, json: &str) -> Option<&'static Field> {
        if let Ok(i) = self
            .by_json
            .binary_search_by(|i| self.fields[*i as usize].json.cmp(json))
        {
            return Some(&self.fields[self.by_json[i] as usize]);
        }
        self.fields
            .iter()
            .filter(|f| f.json.is_empty())
            .find_map(|f| match f.ty {
                Type::Message(m) => m.field(json),
                _ => None,
            })
    }

    /// The field of a protobuf number.
    pub fn numbered(&self, number: u32) -> Option<&'static Field> {
        let i = self
            .by_number
            .binary_search_by(|i| self.fields[*i as usize].number.cmp(&number))
            .ok()?;
        Some(&self.fields[self.by_number[i] as usize])
    }
}
