//! Admission of connections: what a request asks for in its query is an object of its own
//! kind (`PodExecOptions`, `ServiceProxyOptions`, …), and the plugins that care for CONNECT
//! see it before anything is connected.
//!
//! What must not be here: the connections themselves (`proxy/`).

use meta::Status;
use schema::Resource;
use serde_json::{Value, json};

use super::super::chain::Chain;
use super::super::context::RequestContext;
use super::super::query::Query;
use crate::admission::{Attributes, Operation};

/// # Errors
/// The request asks for what cannot be, or a plugin refuses it.
pub(super) async fn admit(
    chain: &Chain,
    resource: &'static Resource,
    request: &RequestContext,
) -> Result<(), Status> {
    let info = &request.info;
    let subresources = resource.subresources.iter();
    let Some(subresource) = subresources
        .filter(|s| is_connection(s.name))
        .find(|s| s.name == info.subresource)
    else {
        return Ok(());
    };
    if request.query.all("dryRun").any(|value| !value.is_empty()) {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    let path = match subresource.name {
        "proxy" => Some(path(request)),
        _ => None,
    };
    let mut options = options(subresource.kind, &request.query, path)?;
    let attributes = Attributes {
        operation: Operation::Connect,
        resource,
        subresource: subresource.name,
        namespace: &info.namespace,
        name: &info.name,
        user: &request.user,
        old: None,
        dry_run: false,
        warnings: &request.warnings,
    };
    let admission = &chain.env.admission;
    admission.mutate(&attributes, Some(&mut options)).await?;
    admission.validate(&attributes, Some(&options)).await
}

/// Subresources that connect to something; logs are got, not connected to.
fn is_connection(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward" | "proxy")
}

/// What is behind `…/proxy`, as proxy options name it.
fn path(request: &RequestContext) -> String {
    let parts = request.info.parts.get(3..).unwrap_or_default();
    let mut path = parts.join("/");
    if !path.is_empty() && !path.starts_with('/') {
        path.insert(0, '/');
    }
    if request.info.path.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// The query as the kind of the subresource.
fn options(kind: &str, query: &Query, path: Option<String>) -> Result<Value, Status> {
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if let Some(path) = path.filter(|p| !p.is_empty()) {
        options["path"] = path.into();
    }
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                if query.flag(flag) {
                    options[flag] = true.into();
                }
            }
            if let Some(container) = query.get("container").filter(|c| !c.is_empty()) {
                options["container"] = container.into();
            }
            if kind == "PodExecOptions" {
                options["command"] = query.all("command").collect();
            }
        }
        "PodPortForwardOptions" => {
            let mut ports = Vec::new();
            for port in query.all("ports").flat_map(|list| list.split(',')) {
                let port: i32 = port.parse().map_err(|_| {
                    Status::bad_request(format!(
                        "cannot convert to []int32: strconv.ParseUint: parsing {port:?}: invalid syntax"
                    ))
                })?;
                ports.push(Value::from(port));
            }
            if !ports.is_empty() {
                options["ports"] = ports.into();
            }
        }
        _ => {}
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_an_object_of_the_subresources_kind() {
        let query = Query::parse("command=sh&command=-c&stdin=1&tty=false&container=a");
        assert_eq!(
            options("PodExecOptions", &query, None).unwrap(),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true,
                "container": "a", "command": ["sh", "-c"]})
        );
        let ports = Query::parse("ports=80&ports=81");
        assert_eq!(
            options("PodPortForwardOptions", &ports, None).unwrap()["ports"],
            json!([80, 81])
        );
        let bad = options("PodPortForwardOptions", &Query::parse("ports=x"), None);
        assert_eq!(bad.unwrap_err().code, 400);
        let proxy = options("PodProxyOptions", &Query::default(), Some("/a/".to_owned()));
        assert_eq!(proxy.unwrap()["path"], "/a/");
    }
}
