//! Credentials in Docker's files: those of pull secrets, and those that lie on the node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::keyring::{Coordinates, Credential, Keyring, Login, Source};

/// With or without padding, as both are written.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: Entries,
}

type Entries = BTreeMap<String, Entry>;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    email: String,
    auth: String,
}

impl Entry {
    fn login(self) -> Login {
        let decoded = BASE64.decode(self.auth.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (username, password) = match pair {
            Some((username, password)) => {
                (username.to_owned(), password.trim_matches('\0').to_owned())
            }
            None => (self.username, self.password),
        };
        Login {
            username,
            password,
            email: self.email,
        }
    }
}

fn add(keyring: &mut Keyring, entries: Entries, source: &Source) {
    for (server, entry) in entries {
        let credential = Credential {
            login: entry.login(),
            source: source.clone(),
        };
        keyring.add(&server, credential);
    }
}

/// Those of pull secrets. A secret that does not parse has none.
pub fn of_secrets(secrets: &[impl AsRef<Secret>]) -> Keyring {
    let mut keyring = Keyring::default();
    for secret in secrets {
        let secret = secret.as_ref();
        let meta = &secret.metadata;
        let source = Source::Secret(Coordinates {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        });
        add(&mut keyring, entries(secret), &source);
    }
    keyring
}

/// A secret's entries, of either type of pull secret.
fn entries(secret: &Secret) -> Entries {
    let data = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|bytes| bytes.0.as_slice())
    };
    if let Some(json) = data(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfig>(json)
            .unwrap_or_default()
            .auths
    } else if let Some(json) = data(".dockercfg") {
        serde_json::from_slice(json).unwrap_or_default()
    } else {
        Entries::new()
    }
}

/// Files that hold the node's own: the first of each kind that is there and makes sense.
pub struct NodeFiles {
    /// `config.json`
    pub new: Vec<PathBuf>,
    /// `.dockercfg`
    pub old: Vec<PathBuf>,
}

impl NodeFiles {
    /// Where upstream looks: below the kubelet's root, the working directory, the home of its user,
    /// and the machine's root.
    pub fn usual(root: &Path) -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let home = home.unwrap_or_default();
        let (here, top) = (Path::new(""), Path::new("/"));
        let hidden = |dir: &Path| dir.join(".docker");
        let new = [root.to_owned(), here.to_owned(), hidden(&home), hidden(top)];
        let old = [root, here, &home, top];
        Self {
            new: new.map(|dir| dir.join("config.json")).to_vec(),
            old: old.map(|dir| dir.join(".dockercfg")).to_vec(),
        }
    }

    pub fn read(&self) -> Keyring {
        let text = |path: &PathBuf| std::fs::read(path).ok();
        let new = self.new.iter().filter_map(text);
        let mut new = new.filter_map(|text| serde_json::from_slice::<DockerConfig>(&text).ok());
        let old = self.old.iter().filter_map(text);
        let mut old = old.filter_map(|text| serde_json::from_slice::<Entries>(&text).ok());
        let entries = new.next().map(|config| config.auths);
        let mut keyring = Keyring::default();
        let entries = entries.or_else(|| old.next()).unwrap_or_default();
        add(&mut keyring, entries, &Source::Node);
        keyring
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::ByteString;

    use super::*;

    fn secret(key: &str, json: &str) -> Arc<Secret> {
        let data = BTreeMap::from([(key.to_owned(), ByteString(json.into()))]);
        Arc::new(Secret {
            data: Some(data),
            ..Default::default()
        })
    }

    fn logins(keyring: &Keyring, repository: &str) -> Vec<(String, String)> {
        let found = keyring.lookup(repository).into_iter();
        found
            .map(|c| (c.login.username, c.login.password))
            .collect()
    }

    #[test]
    fn both_types_of_pull_secrets() {
        let keyring = of_secrets(&[
            secret(
                ".dockerconfigjson",
                r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "a.io": {"auth": "dTpwOnE"}}}"#,
            ),
            secret(
                ".dockercfg",
                r#"{"a.io": {"username": "n", "password": "s"}}"#,
            ),
            secret(".dockerconfigjson", "garbage"),
        ]);
        let pair = |username: &str, password: &str| (username.to_owned(), password.to_owned());
        assert_eq!(logins(&keyring, "docker.io/x"), [pair("u", "p")]);
        let both = [pair("u", "p:q"), pair("n", "s")];
        assert_eq!(logins(&keyring, "a.io/x"), both);
    }

    #[test]
    fn the_node_has_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let files = NodeFiles {
            new: vec![directory.path().join("config.json")],
            old: vec![directory.path().join(".dockercfg")],
        };
        assert!(files.read().lookup("a.io/x").is_empty());
        std::fs::write(&files.old[0], r#"{"a.io": {"username": "old"}}"#).unwrap();
        assert_eq!(logins(&files.read(), "a.io/x")[0].0, "old");
        std::fs::write(&files.new[0], r#"{"auths": {"a.io": {"username": "new"}}}"#).unwrap();
        assert_eq!(logins(&files.read(), "a.io/x")[0].0, "new");
        assert_eq!(files.read().lookup("a.io/x")[0].source, Source::Node);
    }
}
