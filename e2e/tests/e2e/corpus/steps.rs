//! What a file of the corpus says: documents in YAML, each of them one request.
//!
//! * `apiVersion` and `kind`: an object, created in its namespace or in `default`;
//! * `change`, perhaps `subresource`: a merge patch that is made here, of the last
//!   object as the server has it; the result is put;
//! * `path`, perhaps `method` and `body`: just that request, `POST` unless said so;
//!   a `PATCH` is a strategic merge patch.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use e2e::stand::http::{Ask, JSON, STRATEGIC};
use http::Method;
use serde_json::Value;

use super::server::Server;

/// One document, and where it is.
#[derive(Debug)]
pub struct Step {
    pub file: String,
    pub number: usize,
    pub document: Value,
}

/// Every document of a directory, in the order of the files' names.
pub fn read(directory: &Path) -> Result<Vec<Step>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut steps = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path)?;
        let file = path.file_name().context("a file")?.to_string_lossy();
        // `y` and `n` are names like any other.
        let options = serde_saphyr::options! { strict_booleans: true };
        let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(&text, options)
            .with_context(|| file.clone().into_owned())?;
        for (n, document) in documents.into_iter().enumerate() {
            steps.push(Step {
                file: file.clone().into_owned(),
                number: n + 1,
                document,
            });
        }
    }
    Ok(steps)
}

/// Where the objects of a kind are.
pub struct Kinds(HashMap<(String, String), (String, bool)>);

impl Kinds {
    /// As a server's discovery has it.
    pub async fn of(server: &Server) -> Result<Self> {
        let mut versions = vec!["/api/v1".to_owned()];
        let groups = server.ask(&Ask::get("/apis")).await?.body;
        for group in groups["groups"].as_array().context("groups")? {
            for version in group["versions"].as_array().context("versions")? {
                versions.push(format!("/apis/{}", text(&version["groupVersion"])));
            }
        }
        let mut kinds = HashMap::new();
        for version in versions {
            let list = server.ask(&Ask::get(&version)).await?.body;
            for resource in list["resources"].as_array().context("resources")? {
                let name = text(&resource["name"]);
                if !name.contains('/') {
                    let key = (text(&list["groupVersion"]), text(&resource["kind"]));
                    let namespaced = resource["namespaced"] == true;
                    kinds.insert(key, (format!("{version}/{name}"), namespaced));
                }
            }
        }
        Ok(Self(kinds))
    }

    fn collection(&self, object: &Value) -> Result<String> {
        let key = (text(&object["apiVersion"]), text(&object["kind"]));
        let (path, namespaced) = self
            .0
            .get(&key)
            .with_context(|| format!("upstream serves no {key:?}"))?;
        if !namespaced {
            return Ok(path.clone());
        }
        let namespace = object["metadata"]["namespace"].as_str();
        let (version, name) = path.rsplit_once('/').context("a path")?;
        let namespace = namespace.unwrap_or("default");
        Ok(format!("{version}/namespaces/{namespace}/{name}"))
    }
}

/// A request that is the same for every server, but for what it has stored.
pub struct Request {
    pub title: String,
    kind: Kind,
}

enum Kind {
    Ask(Ask),
    Change {
        path: String,
        to: String,
        patch: Value,
    },
}

impl Request {
    /// What a step asks for; `last` is the path of the last object.
    pub fn new(step: &Step, kinds: &Kinds, last: &mut String) -> Result<Self> {
        let document = &step.document;
        let place = format!("{}#{}", step.file, step.number);
        if let Some(patch) = document.get("change") {
            let to = match document.get("subresource") {
                Some(name) => format!("{last}/{}", text(name)),
                None => last.clone(),
            };
            return Ok(Self {
                title: format!("{place} PUT {to} {patch}"),
                kind: Kind::Change {
                    path: last.clone(),
                    to,
                    patch: patch.clone(),
                },
            });
        }
        if let Some(path) = document.get("path") {
            let path = text(path);
            let method = document.get("method").map_or("POST".into(), text);
            let title = format!("{place} {method} {path}");
            let method: Method = method.parse()?;
            let kind = if method == Method::PATCH {
                STRATEGIC
            } else {
                JSON
            };
            let ask = match document.get("body") {
                Some(body) => Ask::send(method, path, kind, body.to_string()),
                None if method == Method::GET => Ask::get(path),
                None if method == Method::DELETE => Ask::delete(path),
                None => Ask::send(method, path, kind, ""),
            };
            return Ok(Self {
                title,
                kind: Kind::Ask(ask),
            });
        }
        let collection = kinds.collection(document).context(place.clone())?;
        let name = text(&document["metadata"]["name"]);
        let ask = Ask::post(&collection, document);
        let title = format!(
            "{place} {} {} {name}",
            text(&document["apiVersion"]),
            text(&document["kind"])
        );
        *last = format!("{collection}/{name}");
        Ok(Self {
            title,
            kind: Kind::Ask(ask),
        })
    }

    /// The request as one server gets it.
    pub async fn ask(&self, server: &Server) -> Result<Ask> {
        match &self.kind {
            Kind::Ask(ask) => Ok(ask.clone()),
            Kind::Change { path, to, patch } => {
                let mut object = server.ask(&Ask::get(path)).await?.body;
                merge(&mut object, patch);
                Ok(Ask::send(Method::PUT, to, JSON, object.to_string()))
            }
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (key, value) in patch {
        if let Value::Object(fields) = target {
            if value.is_null() {
                fields.remove(key);
            } else {
                merge(fields.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
