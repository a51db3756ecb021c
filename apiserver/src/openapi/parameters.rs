//! The parameters of API operations.
//!
//! What must not be here: which operation has which (`operations.rs`).

/// A parameter in the path or the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: &'static str,
    pub in_path: bool,
    /// `string`, `boolean` or `integer`.
    pub ty: &'static str,
    pub description: &'static str,
}

const fn query(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        in_path: false,
        ty,
        description,
    }
}

const fn path(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        in_path: true,
        ty: "string",
        description,
    }
}

pub const NAMESPACE: Parameter = path("namespace", "the namespace of the object");
pub const PROXY_PATH: Parameter = path("path", "what follows in the path is sent on");
pub const PRETTY: Parameter = query("pretty", "string", "'true' indents the answer for reading");
pub const DRY_RUN: Parameter = query(
    "dryRun",
    "string",
    "'All' goes through every step of the request but persists nothing",
);
pub const FIELD_MANAGER: Parameter = query(
    "fieldManager",
    "string",
    "who makes the change, for the fields' ownership; at most 128 printable characters",
);
pub const FORCE: Parameter = query(
    "force",
    "boolean",
    "of an apply: takes fields from managers that own them",
);
pub const FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "what unknown and duplicate fields lead to: 'Ignore', 'Warn' (the default) or 'Strict'",
);

pub const WATCH_BOOKMARKS: Parameter = query(
    "allowWatchBookmarks",
    "boolean",
    "of a watch: events of type BOOKMARK may tell how far it has come",
);
pub const WATCH: Parameter = query(
    "watch",
    "boolean",
    "changes as a stream of events, instead of the list",
);

/// What lists and collection deletions have in common, by name.
pub const LIST: &[Parameter] = &[
    query(
        "continue",
        "string",
        "the token of the previous page, to go on with the same query; 410 when it has expired",
    ),
    query(
        "fieldSelector",
        "string",
        "restricts the list by fields of the objects",
    ),
    query(
        "labelSelector",
        "string",
        "restricts the list by labels of the objects",
    ),
    query(
        "limit",
        "integer",
        "how many items to return at most; a token in the answer tells how to go on",
    ),
    query(
        "resourceVersion",
        "string",
        "how fresh the answer must be, see https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions",
    ),
    query(
        "resourceVersionMatch",
        "string",
        "how resourceVersion is meant: 'Exact' or 'NotOlderThan'",
    ),
    query(
        "sendInitialEvents",
        "boolean",
        "of a watch: begins with what there is as ADDED events, ended by a bookmark",
    ),
    query(
        "shardSelector",
        "string",
        "restricts the list to a range of hashes of a field (alpha)",
    ),
    query(
        "timeoutSeconds",
        "integer",
        "how long the call may take, whatever happens",
    ),
];

/// What deletions have in common, beside `dryRun`.
pub const DELETE: &[Parameter] = &[
    query(
        "gracePeriodSeconds",
        "integer",
        "how long the object may take to finish; 0 deletes at once",
    ),
    query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "deletes even an object that cannot be read from storage, with no regard to finalizers",
    ),
    query(
        "orphanDependents",
        "boolean",
        "deprecated: use propagationPolicy",
    ),
    query(
        "propagationPolicy",
        "string",
        "what becomes of dependents: 'Orphan', 'Background' or 'Foreground'",
    ),
];

/// The object's name, told of its kind.
pub const NAME: Parameter = path("name", "the name of the object");
