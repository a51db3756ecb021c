//! Printer columns: what `kubectl get` shows of each kind.
//!
//! A column is a name and a function from the object to a cell; a kind is a list of
//! columns in one of this folder's files. Kinds that are not listed show when they were made.
//!
//! What must not be here: the Table that carries the cells (`http/`).

mod apps;
mod cluster;
mod core;
mod format;
mod networking;
mod pods;
mod resource;
mod storage;

use jiff::Timestamp;
use schema::Resource;
use serde_json::Value;

/// A column of a Table (`metav1.TableColumnDefinition`).
#[derive(Debug)]
pub struct Column {
    /// Empty for a cell that no column is defined for.
    pub name: &'static str,
    /// OpenAPI type of the cells.
    pub kind: &'static str,
    /// `name` marks the column that names the object.
    pub format: &'static str,
    pub description: &'static str,
    /// Columns of priority 1 are shown with `-o wide` only.
    pub priority: i32,
    pub cell: fn(&Row<'_>) -> Value,
}

/// What a cell is made from.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub object: &'a Value,
    pub now: Timestamp,
}

impl Row<'_> {
    fn at(&self, pointer: &str) -> &Value {
        self.object.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// A number that is 0 when it is not there.
    fn count(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or(0)
    }

    fn list(&self, pointer: &str) -> &[Value] {
        self.at(pointer)
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The text there, or `unset` in its place.
    fn text_or(&self, pointer: &str, unset: &str) -> Value {
        match self.text(pointer) {
            "" => unset.into(),
            text => text.into(),
        }
    }

    /// How long ago the time there is, as `kubectl` writes it.
    fn since(&self, pointer: &str) -> String {
        format::since(self.at(pointer), self.now)
    }
}

const fn column(name: &'static str, kind: &'static str, cell: fn(&Row<'_>) -> Value) -> Column {
    Column {
        name,
        kind,
        format: "",
        description: "",
        priority: 0,
        cell,
    }
}

const fn wide(name: &'static str, kind: &'static str, cell: fn(&Row<'_>) -> Value) -> Column {
    Column {
        name,
        kind,
        format: "",
        description: "",
        priority: 1,
        cell,
    }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "The object's name, unique among its kind in its namespace.",
    priority: 0,
    cell: |row| row.text("/metadata/name").into(),
};

const AGE: Column = Column {
    name: "Age",
    kind: "string",
    format: "",
    description: "How long ago the object was created.",
    priority: 0,
    cell: |row| row.since("/metadata/creationTimestamp").into(),
};

/// Kinds with columns of their own: group, kind, columns. Versions of a kind share them.
type Kinds = &'static [(&'static str, &'static str, &'static [Column])];

const KINDS: &[Kinds] = &[
    apps::KINDS,
    cluster::KINDS,
    core::KINDS,
    networking::KINDS,
    pods::KINDS,
    resource::KINDS,
    storage::KINDS,
];

/// Kinds without a printer: the time of creation itself.
const OTHERS: &[Column] = &[
    NAME,
    column("Created At", "date", |row| {
        row.text("/metadata/creationTimestamp").into()
    }),
];

/// Kinds that show nothing else.
const NAME_AND_AGE: &[Column] = &[NAME, AGE];

/// The columns of a resource.
pub fn of(resource: &Resource) -> &'static [Column] {
    of_kind(resource.group, resource.kind)
}

/// The columns of a kind.
pub fn of_kind(group: &str, kind: &str) -> &'static [Column] {
    printed(group, kind).unwrap_or(OTHERS)
}

/// The columns of a kind that has some of its own.
pub fn printed(group: &str, kind: &str) -> Option<&'static [Column]> {
    KINDS
        .iter()
        .flat_map(|kinds| kinds.iter())
        .find(|(g, k, _)| *g == group && *k == kind)
        .map(|(_, _, columns)| *columns)
}

#[cfg(test)]
mod tests;
