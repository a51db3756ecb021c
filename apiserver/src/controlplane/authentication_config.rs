//! `kube-system/extension-apiserver-authentication`: what aggregated API servers and
//! delegated authentication need to know of how this server tells who asks.

use std::sync::Arc;

use meta::Status;
use serde_json::{Map, Value, json};

use super::ControlPlane;

const NAME: &str = "extension-apiserver-authentication";
const NAMESPACE: &str = "kube-system";

/// What is published.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    pub client_ca: Option<String>,
    pub request_header: Option<RequestHeader>,
}

#[derive(Debug, Clone, Default)]
pub struct RequestHeader {
    pub ca: String,
    pub allowed_names: Vec<String>,
    pub extra_prefixes: Vec<String>,
    pub group: Vec<String>,
    pub uid: Vec<String>,
    pub username: Vec<String>,
}

impl Authentication {
    /// The config map's entries: bundles as they are, lists as JSON.
    fn data(&self) -> Map<String, Value> {
        let mut data = Map::new();
        let mut put = |key: &str, text: String| {
            data.insert(key.to_owned(), json!(text));
        };
        if let Some(ca) = &self.client_ca {
            put("client-ca-file", ca.clone());
        }
        if let Some(r) = &self.request_header {
            put("requestheader-client-ca-file", r.ca.clone());
            let list = |items: &[String]| json!(items).to_string();
            put("requestheader-allowed-names", list(&r.allowed_names));
            put(
                "requestheader-extra-headers-prefix",
                list(&r.extra_prefixes),
            );
            put("requestheader-group-headers", list(&r.group));
            put("requestheader-username-headers", list(&r.username));
            if !r.uid.is_empty() {
                put("requestheader-uid-headers", list(&r.uid));
            }
        }
        data
    }
}

pub(super) async fn ensure(cp: Arc<ControlPlane>) -> Result<(), Status> {
    let data = cp.authentication.data();
    let found = cp.local.get("", "configmaps", NAMESPACE, NAME).await?;
    match found {
        None => {
            let map = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data});
            cp.local.ensure("", "configmaps", NAMESPACE, map).await
        }
        Some(mut map) => {
            let before = map["data"].as_object().cloned().unwrap_or_default();
            let mut after = before.clone();
            // Another server's bundles may be there; ours must be among them.
            for (key, value) in data {
                let ours = value.as_str().unwrap_or_default();
                let theirs = before.get(&key).and_then(Value::as_str).unwrap_or_default();
                if key.ends_with("-file") && theirs.contains(ours.trim()) {
                    continue;
                }
                let merged = match key.ends_with("-file") && !theirs.is_empty() {
                    true => format!("{}\n{}", theirs.trim_end(), ours),
                    false => ours.to_owned(),
                };
                after.insert(key, json!(merged));
            }
            if after == before {
                return Ok(());
            }
            map["data"] = Value::Object(after);
            cp.local.update("", "configmaps", NAMESPACE, map).await?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_json() {
        let data = Authentication {
            client_ca: Some("PEM".into()),
            request_header: Some(RequestHeader {
                allowed_names: vec!["front-proxy-client".into()],
                ..RequestHeader::default()
            }),
        }
        .data();
        assert_eq!(data["client-ca-file"], "PEM");
        assert_eq!(
            data["requestheader-allowed-names"],
            r#"["front-proxy-client"]"#
        );
        assert!(!data.contains_key("requestheader-uid-headers"));
    }
}
