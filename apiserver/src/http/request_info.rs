//! What a request is about, read from its method and path alone
//! (`endpoints/request.RequestInfoFactory`): authorization, flow control, metrics and
//! the verbs all start from it.
//!
//! What must not be here: whether such a resource exists.

use http::Method;

use super::query::Query;

/// What a request asks for. Strings are empty where the path has no such part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// The path names a resource: `/api/v1/…`, `/apis/<group>/<version>/…`.
    pub is_resource: bool,
    pub path: String,
    /// The API's verb (`get`, `list`, `watch`, …), or the lower-case method when the path
    /// names no resource.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The resource and everything behind it.
    pub parts: Vec<String>,
    /// The verb came from a legacy path prefix (`/watch/`, `/proxy/`).
    pub verb_in_path: bool,
}

/// Subresources of a namespace, as opposed to resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// The error is what upstream logs; the request is then served as far as it was understood.
    pub fn new(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let mut info = RequestInfo {
            path: path.to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            ..RequestInfo::default()
        };
        let trimmed = path.trim_matches('/');
        let mut parts: Vec<&str> = match trimmed {
            "" => return info,
            _ => trimmed.split('/').collect(),
        };
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return info;
        }
        info.prefix = parts.remove(0).to_owned();
        if info.prefix == "apis" {
            if parts.len() < 3 {
                return info;
            }
            info.group = parts.remove(0).to_owned();
        }
        info.is_resource = true;
        info.version = parts.remove(0).to_owned();

        if matches!(parts[0], "proxy" | "watch") {
            if parts.len() < 2 {
                return info;
            }
            info.verb = parts.remove(0).to_owned();
            info.verb_in_path = true;
        } else {
            info.verb = match *method {
                Method::POST => "create",
                Method::GET | Method::HEAD => "get",
                Method::PUT => "update",
                Method::PATCH => "patch",
                Method::DELETE => "delete",
                _ => "",
            }
            .to_owned();
        }

        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = parts[1].to_owned();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        info.resource = parts[0].to_owned();
        info.name = parts.get(1).map(|s| (*s).to_owned()).unwrap_or_default();
        if info.verb != "proxy" {
            info.subresource = parts.get(2).map(|s| (*s).to_owned()).unwrap_or_default();
        }
        info.parts = parts.into_iter().map(str::to_owned).collect();

        if info.name.is_empty() && info.verb == "get" {
            info.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
            if let Some(name) = single_name(query.get("fieldSelector").unwrap_or_default()) {
                info.name = name;
            }
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_owned();
        }
        info
    }

    /// Served without a deadline (`genericfilters.BasicLongRunningRequestCheck` with
    /// kube-apiserver's verbs and subresources).
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || (self.is_resource
                && matches!(
                    self.subresource.as_str(),
                    "attach" | "exec" | "proxy" | "log" | "portforward"
                ))
            || (!self.is_resource && self.path.starts_with("/debug/pprof/"))
    }

    /// Counted against `--max-requests-inflight`, not `--max-mutating-requests-inflight`.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// What metrics call the extent of a request: `resource`, `namespace`, `cluster` or nothing.
    pub fn scope(&self) -> &'static str {
        if !self.name.is_empty() || self.verb == "create" {
            "resource"
        } else {
            self.collection_scope()
        }
    }

    /// The extent of what is at the request's path: of a collection even where a field selector
    /// wants one object of it by name.
    pub fn route_scope(&self) -> &'static str {
        match self.verb.as_str() {
            "list" | "watch" if !self.verb_in_path => self.collection_scope(),
            _ => self.scope(),
        }
    }

    fn collection_scope(&self) -> &'static str {
        if !self.namespace.is_empty() {
            "namespace"
        } else if self.is_resource {
            "cluster"
        } else {
            ""
        }
    }
}

/// The name in a field selector that requires `metadata.name` to be exactly one.
fn single_name(selector: &str) -> Option<String> {
    let selector = meta::fields::Selector::parse(selector).ok()?;
    let name = selector.requires_exact_match("metadata.name")?;
    meta::validation::path_segment_name(name)
        .is_empty()
        .then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        RequestInfo::new(&method.parse().unwrap(), path, &Query::parse(query))
    }

    /// verb, prefix, group, version, namespace, resource, subresource, name, parts
    #[track_caller]
    fn check(method: &str, uri: &str, want: [&str; 8], parts: &[&str]) {
        let i = info(method, uri);
        let got = [
            &*i.verb,
            &*i.prefix,
            &*i.group,
            &*i.version,
            &*i.namespace,
            &*i.resource,
            &*i.subresource,
            &*i.name,
        ];
        assert_eq!(got, want, "{method} {uri}");
        assert_eq!(i.parts, parts, "{method} {uri}");
        assert!(i.is_resource);
    }

    #[test]
    fn resource_paths() {
        check(
            "GET",
            "/api/v1/namespaces",
            ["list", "api", "", "v1", "", "namespaces", "", ""],
            &["namespaces"],
        );
        check(
            "GET",
            "/api/v1/namespaces/other",
            ["get", "api", "", "v1", "other", "namespaces", "", "other"],
            &["namespaces", "other"],
        );
        check(
            "PUT",
            "/api/v1/namespaces/other/finalize",
            [
                "update",
                "api",
                "",
                "v1",
                "other",
                "namespaces",
                "finalize",
                "other",
            ],
            &["namespaces", "other", "finalize"],
        );
        check(
            "GET",
            "/api/v1/namespaces/other/pods",
            ["list", "api", "", "v1", "other", "pods", "", ""],
            &["pods"],
        );
        check(
            "HEAD",
            "/api/v1/namespaces/other/pods/foo",
            ["get", "api", "", "v1", "other", "pods", "", "foo"],
            &["pods", "foo"],
        );
        check(
            "POST",
            "/apis/apps/v1/namespaces/other/deployments",
            [
                "create",
                "apis",
                "apps",
                "v1",
                "other",
                "deployments",
                "",
                "",
            ],
            &["deployments"],
        );
        check(
            "GET",
            "/api/v1/namespaces/other/pods/foo/proxy/a/b",
            ["get", "api", "", "v1", "other", "pods", "proxy", "foo"],
            &["pods", "foo", "proxy", "a", "b"],
        );
        check(
            "GET",
            "/api/v1/watch/namespaces/other/pods",
            ["watch", "api", "", "v1", "other", "pods", "", ""],
            &["pods"],
        );
        check(
            "DELETE",
            "/api/v1/namespaces/other/pods",
            ["deletecollection", "api", "", "v1", "other", "pods", "", ""],
            &["pods"],
        );
        check(
            "GET",
            "/api/v1/nodes/n/status",
            ["get", "api", "", "v1", "", "nodes", "status", "n"],
            &["nodes", "n", "status"],
        );
    }

    #[test]
    fn queries_turn_get_into_list_or_watch() {
        assert_eq!(info("GET", "/api/v1/pods?watch=true").verb, "watch");
        assert_eq!(info("GET", "/api/v1/pods?watch").verb, "watch");
        assert_eq!(info("GET", "/api/v1/pods?watch=0").verb, "list");
        let named = info("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1");
        assert_eq!((&*named.verb, &*named.name), ("list", "n1"));
        assert_eq!(
            info("GET", "/api/v1/nodes?fieldSelector=metadata.name!%3Dn1").name,
            ""
        );
        assert_eq!(
            info("GET", "/api/v1/nodes?fieldSelector=metadata.name%3D..").name,
            ""
        );
    }

    #[test]
    fn other_paths_keep_the_method() {
        for path in [
            "/",
            "/healthz",
            "/api",
            "/api/v1",
            "/apis/apps/v1",
            "/metrics",
            "/other/a/b/c",
        ] {
            let i = info("GET", path);
            assert!(!i.is_resource, "{path}");
            assert_eq!(i.verb, "get");
        }
    }

    #[test]
    fn long_running_requests() {
        assert!(info("GET", "/api/v1/pods?watch=1").is_long_running());
        assert!(info("GET", "/api/v1/namespaces/a/pods/b/log").is_long_running());
        assert!(!info("GET", "/api/v1/namespaces/a/pods/b/status").is_long_running());
        assert!(!info("GET", "/api/v1/pods").is_long_running());
    }
}
