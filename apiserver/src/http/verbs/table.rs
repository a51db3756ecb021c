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
