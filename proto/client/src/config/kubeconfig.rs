//! The kubeconfig file (`v1` `Config`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Auth, Config, ConfigError, Impersonation, Pem, read};

/// A kubeconfig file. Unknown fields are ignored, as upstream does.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubeconfig {
    pub kind: String,
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub clusters: Vec<NamedCluster>,
    #[serde(deserialize_with = "null_as_default")]
    pub users: Vec<NamedAuthInfo>,
    #[serde(deserialize_with = "null_as_default")]
    pub contexts: Vec<NamedContext>,
    #[serde(rename = "current-context", deserialize_with = "null_as_default")]
    pub current_context: String,
}

/// An entry of one of the kubeconfig's lists.
pub trait Named {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($entry:ident, $field:ident: $value:ident) => {
        #[doc = concat!("A [`", stringify!($value), "`] with the name it is referred to by.")]
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $entry {
            pub name: String,
            #[serde(deserialize_with = "null_as_default")]
            pub $field: $value,
        }

        impl Named for $entry {
            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}
named!(NamedCluster, cluster: Cluster);
named!(NamedAuthInfo, user: AuthInfo);
named!(NamedContext, context: Context);

/// How to reach an API server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
}

/// Who to be.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AuthInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<String>,
    #[serde(rename = "as-uid", skip_serializing_if = "Option::is_none")]
    pub impersonate_uid: Option<String>,
    #[serde(
        rename = "as-groups",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub impersonate_groups: Vec<String>,
    #[serde(
        rename = "as-user-extra",
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub impersonate_extra: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<serde_json::Value>,
}

impl std::fmt::Debug for AuthInfo {
    /// Never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthInfo")
            .field("client_certificate", &self.client_certificate)
            .field("client_key", &self.client_key)
            .field("token_file", &self.token_file)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A cluster and a user that go together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    pub cluster: String,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Bytes that are base64 in the file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl std::fmt::Debug for Base64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl Kubeconfig {
    /// Reads a file. Paths in it become relative to its directory, as they are meant.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read(path)?;
        let parse_error = |message: String| ConfigError::Parse {
            path: path.to_owned(),
            message,
        };
        let text = String::from_utf8(bytes).map_err(|e| parse_error(e.to_string()))?;
        let mut config: Self =
            serde_saphyr::from_str(&text).map_err(|e| parse_error(e.to_string()))?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn resolve_paths(&mut self, dir: &Path) {
        let clusters = self
            .clusters
            .iter_mut()
            .map(|c| &mut c.cluster.certificate_authority);
        let users = self.users.iter_mut().flat_map(|u| {
            [
                &mut u.user.client_certificate,
                &mut u.user.client_key,
                &mut u.user.token_file,
            ]
        });
        for path in clusters.chain(users) {
            match path {
                Some(p) if p.as_os_str().is_empty() => *path = None,
                Some(p) => *p = dir.join(&p),
                None => {}
            }
        }
    }

    /// What a context means; the current one if none is named.
    pub fn config(&self, context: Option<&str>) -> Result<Config, ConfigError> {
        let missing = |what: &str, name: &str| {
            ConfigError::Missing(format!("{what} {name:?} does not exist"))
        };
        let name = context.unwrap_or(&self.current_context);
        if name.is_empty() {
            return Err(ConfigError::Missing("no current-context is set".to_owned()));
        }
        let context = &find(&self.contexts, name)
            .ok_or_else(|| missing("context", name))?
            .context;
        let cluster = &find(&self.clusters, &context.cluster)
            .ok_or_else(|| missing("cluster", &context.cluster))?
            .cluster;
        let anonymous = AuthInfo::default();
        let user = if context.user.is_empty() {
            &anonymous
        } else {
            &find(&self.users, &context.user)
                .ok_or_else(|| missing("user", &context.user))?
                .user
        };
        if cluster.server.is_empty() {
            return Err(ConfigError::Missing(format!(
                "cluster {:?} has no server",
                context.cluster
            )));
        }
        if cluster.proxy_url.as_ref().is_some_and(|p| !p.is_empty()) {
            return Err(ConfigError::Unsupported("proxy-url"));
        }
        if user.exec.is_some() {
            return Err(ConfigError::Unsupported("a user with an exec plugin"));
        }

        let mut config = Config::new(&cluster.server);
        config.tls_server_name = cluster.tls_server_name.clone().filter(|n| !n.is_empty());
        config.insecure_skip_tls_verify = cluster.insecure_skip_tls_verify;
        config.certificate_authority = pem(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        );
        config.client_certificate = match (
            pem(&user.client_certificate_data, &user.client_certificate),
            pem(&user.client_key_data, &user.client_key),
        ) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(ConfigError::Missing(format!(
                    "user {:?} needs both a client certificate and its key",
                    context.user
                )));
            }
        };
        // The file wins over the literal, as upstream.
        config.auth = match (&user.token_file, &user.token, &user.username) {
            (Some(path), _, _) => Auth::TokenFile(path.clone()),
            (_, Some(token), _) if !token.is_empty() => Auth::Token(token.clone()),
            (_, _, Some(username)) if !username.is_empty() => Auth::Basic {
                username: username.clone(),
                password: user.password.clone().unwrap_or_default(),
            },
            _ => Auth::None,
        };
        config.impersonate = user
            .impersonate
            .as_ref()
            .filter(|u| !u.is_empty())
            .map(|name| Impersonation {
                user: name.clone(),
                uid: user.impersonate_uid.clone(),
                groups: user.impersonate_groups.clone(),
                extra: user.impersonate_extra.clone(),
            });
        if let Some(ns) = context.namespace.as_ref().filter(|n| !n.is_empty()) {
            config.namespace = ns.clone();
        }
        Ok(config)
    }
}

fn find<'a, T: Named>(entries: &'a [T], name: &str) -> Option<&'a T> {
    entries.iter().find(|e| e.name() == name)
}

/// Inline data wins over a file, as upstream.
fn pem(data: &Option<Base64>, file: &Option<PathBuf>) -> Option<Pem> {
    match (data, file) {
        (Some(Base64(data)), _) if !data.is_empty() => Some(Pem::Data(data.clone())),
        (_, Some(path)) => Some(Pem::File(path.clone())),
        _ => None,
    }
}
