//! Tables: what `kubectl get` prints (`meta.k8s.io` `Table`). The columns of each kind are
//! `registry/columns`'.

use std::sync::Arc;

use meta::Status;
use schema::Resource;
use serde_json::{Value, json};

use super::super::encode::{ListMeta, View};
use super::read::meta_version;
use crate::registry;
use crate::registry::columns::{self, Column, Row};
use crate::registry::convert::{bare_metadata, convert};
use crate::storage::cache::Object;

/// The annotation of the bookmark after a watch's initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// `includeObject`: what a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    /// As `meta.k8s.io/v1`, or as its beta.
    Metadata {
        beta: bool,
    },
    Object,
}

impl Include {
    /// `beta` is what the table is asked for in.
    pub fn parse(text: &str, beta: bool) -> Result<Include, Status> {
        match text {
            "None" => Ok(Include::None),
            "" | "Metadata" => Ok(Include::Metadata { beta }),
            "Object" => Ok(Include::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// A row per object.
pub fn rows(view: View, objects: &[Arc<Object>], include: Include) -> Result<Vec<Value>, Status> {
    let now = jiff::Timestamp::now();
    objects
        .iter()
        .map(|object| {
            let tree = view.tree(object).map_err(Status::internal)?;
            Ok(row(view.served, &tree, include, now))
        })
        .collect()
}

/// The row of one tree of the served version.
pub fn row(
    served: &'static Resource,
    object: &Value,
    include: Include,
    now: jiff::Timestamp,
) -> Value {
    // Columns are written for one version of a kind.
    let shown = registry::stored_version(served)
        .filter(|stored| stored.group == served.group && stored.version != served.version)
        .map(|stored| convert(object.clone(), served, stored));
    let mut row = json!({
        "cells": cells(columns::of(served), shown.as_ref().unwrap_or(object), now),
        "object": match include {
            // The mark is in the metadata: without it nobody would know.
            Include::None if ends_initial_events(object) => {
                partial(bare_metadata(served, object), false)
            }
            Include::None => Value::Null,
            Include::Metadata { beta } => partial(bare_metadata(served, object), beta),
            Include::Object => whole(served.message, object),
        },
    });
    if let Some(completed) = completed(served, object) {
        row["conditions"] = json!([completed]);
    }
    row
}

/// Whether this is no object but the bookmark after a watch's initial events.
fn ends_initial_events(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["name"].is_null() && metadata["annotations"][INITIAL_EVENTS_END] == "true"
}

/// The condition by which clients may tell rows of pods that have ended.
fn completed(served: &Resource, object: &Value) -> Option<Value> {
    if (served.group, served.plural) != ("", "pods") {
        return None;
    }
    let reason = object["status"]["phase"].as_str()?;
    let message = match reason {
        "Succeeded" => "The containers of the pod have all ended without a failure.",
        "Failed" => "The pod has ended with a failure.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// The row of an object whose kind is no resource's own (`Scale`).
pub fn row_of_kind(
    columns: &[Column],
    message: &'static schema::Message,
    object: &Value,
    include: Include,
    now: jiff::Timestamp,
) -> Value {
    json!({
        "cells": cells(columns, object, now),
        "object": match include {
            Include::None => Value::Null,
            Include::Metadata { beta } => partial(object["metadata"].clone(), beta),
            Include::Object => whole(message, object),
        },
    })
}

fn cells(columns: &[Column], object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let row = Row { object, now };
    columns.iter().map(|column| (column.cell)(&row)).collect()
}

fn partial(metadata: Value, beta: bool) -> Value {
    let mut partial = json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": meta_version(beta),
        "metadata": metadata,
    });
    codec::tree::expand_managed_fields(&mut partial);
    partial
}

fn whole(message: &'static schema::Message, object: &Value) -> Value {
    let mut object = object.clone();
    codec::tree::complete(message, &mut object);
    codec::tree::expand_field_sets(message, &mut object);
    codec::tree::expand_raw(message, &mut object);
    object
}

/// A table of rows; `headers` is false for all but the first event of a watch.
pub fn table(served: &Resource, meta: &ListMeta, rows: Vec<Value>, headers: bool) -> Value {
    let headers = if headers { columns::of(served) } else { &[] };
    table_of(headers, meta, rows)
}

/// A table of rows that have these columns.
pub fn table_of(columns: &[Column], meta: &ListMeta, rows: Vec<Value>) -> Value {
    let definitions = columns.iter().filter(|c| !c.name.is_empty()).map(|c| {
        json!({
            "name": c.name, "type": c.kind, "format": c.format,
            "description": c.description, "priority": c.priority,
        })
    });
    json!({
        "metadata": meta.to_value(),
        "columnDefinitions": match columns {
            [] => Value::Null,
            _ => definitions.collect(),
        },
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_maps() -> &'static Resource {
        let all = schema::resources().iter();
        let mut named = all.filter(|r| (r.group, r.plural) == ("", "configmaps"));
        named.next().unwrap()
    }

    #[test]
    fn the_end_of_the_initial_events_is_told_in_rows_without_objects() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let shown =
            |object: Value| row(config_maps(), &object, Include::None, now)["object"].take();
        let mark = json!({INITIAL_EVENTS_END: "true"});
        let bookmark = json!({"metadata": {"resourceVersion": "7", "annotations": mark}});
        let annotations = &shown(bookmark)["metadata"]["annotations"];
        assert_eq!(annotations[INITIAL_EVENTS_END], "true");
        let object = json!({"metadata": {"name": "a", "annotations": mark}});
        assert_eq!(shown(object), Value::Null);
    }

    #[test]
    fn a_watch_states_its_columns_once() {
        let table = |headers| table(config_maps(), &ListMeta::default(), Vec::new(), headers);
        assert_eq!(table(false)["columnDefinitions"], Value::Null);
        let columns = table(true)["columnDefinitions"].take();
        assert_eq!(columns.as_array().unwrap().len(), 3);
    }
}
