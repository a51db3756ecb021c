//! Which operations there are on which paths: what the verbs of the served resources come
//! to in OpenAPI.
//!
//! What must not be here: JSON (`v2.rs`, `v3.rs`).

use schema::{Cardinality, Message, Resource, Subresource, Type};

use super::parameters::*;
use crate::discovery::Version;

/// A path with its operations, in the order in which upstream lists methods.
#[derive(Debug)]
pub struct PathItem {
    pub path: String,
    /// Of every operation on the path.
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
}

#[derive(Debug)]
pub struct Operation {
    /// `get`, `post`, …
    pub method: &'static str,
    pub id: String,
    pub description: String,
    /// `x-kubernetes-action`, with the kind; none for documents.
    pub action: Option<(&'static str, Kind)>,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
    /// Answers 200, and what follows.
    pub answer: Answer,
    /// 201 Created and 202 Accepted are possible too.
    pub created: bool,
    pub accepted: bool,
    pub consumes: &'static [&'static str],
    pub produces: &'static [&'static str],
    pub tag: String,
}

#[derive(Debug, Clone)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

#[derive(Debug)]
pub struct Body {
    pub model: &'static str,
    pub required: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Model(&'static str),
    Text,
}

pub const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

pub const ANY: &[&str] = &["*/*"];
pub const OBJECT: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const LOG: &[&str] = &[
    "text/plain",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const STREAM: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
pub const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Kinds whose DELETE answers with the object that went.
const RETURNS_DELETED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ResourceQuota",
            "Service",
            "ServiceAccount",
        ],
    ),
    (
        "resource.k8s.io",
        &[
            "DeviceClass",
            "DeviceTaintRule",
            "ResourceClaim",
            "ResourceClaimTemplate",
            "ResourcePoolStatusRequest",
            "ResourceSlice",
        ],
    ),
    (
        "storage.k8s.io",
        &[
            "CSIDriver",
            "CSINode",
            "StorageClass",
            "VolumeAttachment",
            "VolumeAttributesClass",
        ],
    ),
];

/// The words of a group version in operation ids (`AppsV1`) and tags (`apps_v1`).
struct Words {
    id: String,
    tag: String,
}

fn words(group: &str, version: &str) -> Words {
    let group = match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    let pieces: String = group.split('.').map(capital).collect();
    let mut tag = pieces.clone();
    tag[..1].make_ascii_lowercase();
    if !version.is_empty() {
        tag.push('_');
        tag.push_str(version);
    }
    Words {
        id: format!("{pieces}{}", capital(version)),
        tag,
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an"
    } else {
        "a"
    }
}

/// The document of available groups, of a group, or of a group version's resources.
pub fn document(path: &str, group: Option<&str>, version: Option<&str>) -> PathItem {
    let meta = |kind: &'static str| match kind {
        "APIVersions" => "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions",
        "APIGroupList" => "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList",
        "APIGroup" => "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup",
        _ => "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList",
    };
    let (id, tag, description, model) = match (group, version) {
        (Some(group), Some(version)) => {
            let words = words(group, version);
            let id = format!("get{}APIResources", words.id);
            (
                id,
                words.tag,
                "get available resources",
                meta("APIResourceList"),
            )
        }
        (Some(""), None) => (
            "getCoreAPIVersions".to_owned(),
            "core".to_owned(),
            "get available API versions",
            meta("APIVersions"),
        ),
        (Some(group), None) => {
            let words = words(group, "");
            let id = format!("get{}APIGroup", words.id);
            (
                id,
                words.tag,
                "get information of a group",
                meta("APIGroup"),
            )
        }
        (None, _) => (
            "getAPIVersions".to_owned(),
            "apis".to_owned(),
            "get available API versions",
            meta("APIGroupList"),
        ),
    };
    single(
        path,
        id,
        tag,
        description,
        Answer::Model(model),
        OBJECT,
        OBJECT,
    )
}

/// A path with one plain GET.
pub fn single(
    path: &str,
    id: String,
    tag: String,
    description: &str,
    answer: Answer,
    consumes: &'static [&'static str],
    produces: &'static [&'static str],
) -> PathItem {
    PathItem {
        path: path.to_owned(),
        parameters: Vec::new(),
        operations: vec![Operation {
            method: "get",
            id,
            description: description.to_owned(),
            action: None,
            parameters: Vec::new(),
            body: None,
            answer,
            created: false,
            accepted: false,
            consumes,
            produces,
            tag,
        }],
    }
}

/// Every path of a group version's resources.
pub fn of_version(version: &Version) -> Vec<PathItem> {
    let root = match version.group {
        "" => format!("/api/{}", version.version),
        group => format!("/apis/{group}/{}", version.version),
    };
    let mut paths = vec![document(
        &format!("{root}/"),
        Some(version.group),
        Some(version.version),
    )];
    let words = words(version.group, version.version);
    for resource in &version.resources {
        Builder {
            root: &root,
            words: &words,
            resource,
        }
        .paths(&mut paths);
    }
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    paths
}

struct Builder<'a> {
    root: &'a str,
    words: &'a Words,
    resource: &'static Resource,
}

impl Builder<'_> {
    fn has(&self, verb: &str) -> bool {
        self.resource.verbs.contains(&verb)
    }

    fn kind(&self) -> Kind {
        Kind {
            group: self.resource.group,
            version: self.resource.version,
            kind: self.resource.kind,
        }
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String) -> Operation {
        Operation {
            method,
            id,
            description: String::new(),
            action: Some((action, self.kind())),
            parameters: Vec::new(),
            body: None,
            answer: Answer::Model(self.resource.message.name),
            created: false,
            accepted: false,
            consumes: ANY,
            produces: OBJECT,
            tag: self.words.tag.clone(),
        }
    }

    /// `verb`, group version, scope, kind and what follows, joined.
    fn id(&self, verb: &str, before_kind: &str, after_kind: &str) -> String {
        let (gv, kind) = (&self.words.id, self.resource.kind);
        format!("{verb}{gv}{before_kind}{kind}{after_kind}")
    }

    fn scope(&self) -> &'static str {
        if self.resource.namespaced {
            "Namespaced"
        } else {
            ""
        }
    }

    fn paths(&self, out: &mut Vec<PathItem>) {
        let plural = self.resource.plural;
        let (base, watch_base) = if self.resource.namespaced {
            (
                format!("{}/namespaces/{{namespace}}/{plural}", self.root),
                format!("{}/watch/namespaces/{{namespace}}/{plural}", self.root),
            )
        } else {
            (
                format!("{}/{plural}", self.root),
                format!("{}/watch/{plural}", self.root),
            )
        };
        let mut common = vec![PRETTY];
        if self.resource.namespaced {
            common.insert(0, NAMESPACE);
        }
        let mut named = common.clone();
        named.insert(0, NAME);

        if self.resource.namespaced && self.has("list") {
            let id = self.id("list", "", "ForAllNamespaces");
            push(
                out,
                format!("{}/{plural}", self.root),
                vec![PRETTY],
                vec![self.list(id)],
            );
            if self.has("watch") {
                let id = self.id("watch", "", "ListForAllNamespaces");
                let path = format!("{}/watch/{plural}", self.root);
                push(out, path, vec![PRETTY], vec![self.watch("watchlist", id)]);
            }
        }
        push(out, base.clone(), common.clone(), self.collection());
        push(
            out,
            format!("{base}/{{name}}"),
            named.clone(),
            self.single(),
        );
        if self.has("watch") {
            let id = self.id("watch", self.scope(), "List");
            push(
                out,
                watch_base.clone(),
                common,
                vec![self.watch("watchlist", id)],
            );
            // Only what is read by name is watched by name.
            if self.has("get") {
                let id = self.id("watch", self.scope(), "");
                let path = format!("{watch_base}/{{name}}");
                push(out, path, named.clone(), vec![self.watch("watch", id)]);
            }
        }
        for subresource in self.resource.subresources {
            self.subresource(subresource, &base, &named, out);
        }
    }

    fn list(&self, id: String) -> Operation {
        let mut operation = self.operation("get", "list", id);
        let or_watch = if self.has("watch") { " or watch" } else { "" };
        operation.description = format!("list{or_watch} objects of kind {}", self.resource.kind);
        operation.parameters = list_parameters();
        if let Some(list) = self.resource.list_message {
            operation.answer = Answer::Model(list.name);
        }
        operation.produces = STREAM;
        operation
    }

    fn watch(&self, action: &'static str, id: String) -> Operation {
        let mut operation = self.operation("get", action, id);
        let kind = self.resource.kind;
        operation.description = if action == "watch" {
            format!(
                "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter \
                 with a list operation instead, filtered to a single item with the \
                 'fieldSelector' parameter."
            )
        } else {
            format!(
                "watch individual changes to a list of {kind}. deprecated: use the 'watch' \
                 parameter with a list operation instead."
            )
        };
        operation.parameters = list_parameters();
        operation.answer = Answer::Model(WATCH_EVENT);
        operation.produces = STREAM;
        operation
    }

    /// What is done to the collection.
    fn collection(&self) -> Vec<Operation> {
        let kind = self.resource.kind;
        let mut operations = Vec::new();
        if self.has("list") {
            operations.push(self.list(self.id("list", self.scope(), "")));
        }
        if self.has("create") {
            let mut create = self.operation("post", "post", self.id("create", self.scope(), ""));
            create.description = format!("create {} {kind}", article(kind));
            self.writes(&mut create, self.resource.message.name);
            create.accepted = true;
            operations.push(create);
        }
        if self.has("deletecollection") {
            let before = format!("Collection{}", self.scope());
            let id = self.id("delete", &before, "");
            let mut delete = self.operation("delete", "deletecollection", id);
            delete.description = format!("delete collection of {kind}");
            delete.parameters = vec![DRY_RUN];
            delete.parameters.extend_from_slice(DELETE);
            delete.parameters.extend_from_slice(LIST);
            delete.parameters.sort_by_key(|p| p.name);
            delete.body = Some(Body {
                model: DELETE_OPTIONS,
                required: false,
            });
            delete.answer = Answer::Model(STATUS);
            operations.push(delete);
        }
        operations
    }

    /// What is done to one object.
    fn single(&self) -> Vec<Operation> {
        let kind = self.resource.kind;
        let mut operations = Vec::new();
        if self.has("get") {
            let mut read = self.operation("get", "get", self.id("read", self.scope(), ""));
            read.description = format!("read the specified {kind}");
            operations.push(read);
        }
        if self.has("update") {
            let mut replace = self.operation("put", "put", self.id("replace", self.scope(), ""));
            replace.description = format!("replace the specified {kind}");
            self.writes(&mut replace, self.resource.message.name);
            operations.push(replace);
        }
        if self.has("patch") {
            let mut patch = self.operation("patch", "patch", self.id("patch", self.scope(), ""));
            patch.description = format!("partially update the specified {kind}");
            patches(&mut patch);
            operations.push(patch);
        }
        if self.has("delete") {
            let mut delete =
                self.operation("delete", "delete", self.id("delete", self.scope(), ""));
            delete.description = format!("delete {} {kind}", article(kind));
            delete.parameters = vec![DRY_RUN];
            delete.parameters.extend_from_slice(DELETE);
            delete.body = Some(Body {
                model: DELETE_OPTIONS,
                required: false,
            });
            let returned = RETURNS_DELETED
                .iter()
                .any(|(group, kinds)| *group == self.resource.group && kinds.contains(&kind));
            if !returned {
                delete.answer = Answer::Model(STATUS);
            }
            delete.accepted = true;
            operations.push(delete);
        }
        operations
    }

    fn writes(&self, operation: &mut Operation, model: &'static str) {
        operation.parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        operation.body = Some(Body {
            model,
            required: true,
        });
        operation.created = true;
    }

    fn subresource(
        &self,
        sub: &'static Subresource,
        base: &str,
        named: &[Parameter],
        out: &mut Vec<PathItem>,
    ) {
        let path = format!("{base}/{{name}}/{}", sub.name);
        let title = capital(sub.name);
        let kind = Kind {
            group: sub.group,
            version: sub.version,
            kind: sub.kind,
        };
        let Some(message) = schema::kind(sub.group, sub.version, sub.kind) else {
            return;
        };
        // What takes options instead of a body is a connection.
        if sub.kind.ends_with("Options") {
            let without_pretty = named.iter().filter(|p| **p != PRETTY).cloned();
            let mut parameters: Vec<Parameter> = without_pretty.collect();
            parameters.extend(options(message));
            parameters.sort_by_key(|p| p.name);
            let proxy = sub.name == "proxy";
            let connect = |suffix: &str| self.connect(sub, &kind, &title, suffix, proxy);
            push(out, path.clone(), parameters.clone(), connect(""));
            if proxy {
                parameters.push(PROXY_PATH);
                push(
                    out,
                    format!("{path}/{{path}}"),
                    parameters,
                    connect("WithPath"),
                );
            }
            return;
        }

        let parent = self.resource.kind;
        let (name, scope) = (sub.name, self.scope());
        let mut operations = Vec::new();
        for verb in sub.verbs {
            let mut operation = match *verb {
                "get" => {
                    let id = self.id("read", scope, &title);
                    let mut read = self.operation("get", "get", id);
                    read.description = format!("read {name} of the specified {parent}");
                    read
                }
                "create" => {
                    let id = self.id("create", scope, &title);
                    let mut create = self.operation("post", "post", id);
                    create.description = format!("create {name} of {} {parent}", article(parent));
                    self.writes(&mut create, message.name);
                    create.accepted = true;
                    create
                }
                "update" => {
                    let id = self.id("replace", scope, &title);
                    let mut replace = self.operation("put", "put", id);
                    replace.description = format!("replace {name} of the specified {parent}");
                    self.writes(&mut replace, message.name);
                    replace
                }
                "patch" => {
                    let id = self.id("patch", scope, &title);
                    let mut patch = self.operation("patch", "patch", id);
                    patch.description =
                        format!("partially update {name} of the specified {parent}");
                    patches(&mut patch);
                    patch
                }
                _ => continue,
            };
            operation.action = operation.action.map(|(action, _)| (action, kind.clone()));
            operation.answer = Answer::Model(message.name);
            operations.push(operation);
        }
        let mut parameters = named.to_vec();
        if (self.resource.plural, name) == ("pods", "log") {
            for operation in &mut operations {
                operation.answer = Answer::Text;
                operation.produces = LOG;
            }
            if let Some(message) = schema::message("io.k8s.api.core.v1.PodLogOptions") {
                parameters.extend(options(message));
                parameters.sort_by_key(|p| p.name);
            }
        }
        operations.sort_by_key(|o| {
            ["get", "put", "post", "patch"]
                .iter()
                .position(|m| *m == o.method)
        });
        push(out, path, parameters, operations);
    }

    fn connect(
        &self,
        sub: &Subresource,
        kind: &Kind,
        title: &str,
        suffix: &str,
        proxy: bool,
    ) -> Vec<Operation> {
        const ALL: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
        const TWO: [&str; 2] = ["get", "post"];
        let methods: &[&'static str] = if proxy { &ALL } else { &TWO };
        let one = |method: &&'static str| {
            let before = format!("{}{}", capital(method), self.scope());
            let after = format!("{title}{suffix}");
            let id = self.id("connect", &before, &after);
            let mut operation = self.operation(method, "connect", id);
            operation.action = Some(("connect", kind.clone()));
            operation.description = format!(
                "connect {} requests to {} of {}",
                method.to_uppercase(),
                sub.name,
                self.resource.kind
            );
            operation.answer = Answer::Text;
            operation.produces = ANY;
            operation
        };
        methods.iter().map(one).collect()
    }
}

fn push(
    out: &mut Vec<PathItem>,
    path: String,
    parameters: Vec<Parameter>,
    operations: Vec<Operation>,
) {
    if !operations.is_empty() {
        out.push(PathItem {
            path,
            parameters,
            operations,
        });
    }
}

fn list_parameters() -> Vec<Parameter> {
    let mut parameters = vec![WATCH_BOOKMARKS];
    parameters.extend_from_slice(LIST);
    parameters.push(WATCH);
    parameters
}

fn patches(operation: &mut Operation) {
    operation.parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
    operation.body = Some(Body {
        model: PATCH,
        required: true,
    });
    operation.created = true;
    operation.consumes = PATCHES;
}

/// An options kind's fields as query parameters.
fn options(message: &'static Message) -> Vec<Parameter> {
    let fields = message.fields.iter();
    let mut parameters: Vec<Parameter> = fields
        .filter(|f| !matches!(f.json, "" | "kind" | "apiVersion"))
        .filter_map(|field| {
            let ty = match field.ty {
                Type::Bool => "boolean",
                Type::Int32 | Type::Int64 => "integer",
                Type::String => "string",
                // A time is told by the parameter beside it (sinceSeconds).
                _ => return None,
            };
            (field.cardinality != Cardinality::Map).then_some(Parameter {
                name: field.json,
                in_path: false,
                ty,
                description: "see the kind of the options",
            })
        })
        .collect();
    parameters.sort_by_key(|p| p.name);
    parameters
}
