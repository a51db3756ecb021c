//! What is known of an image that was pulled: `ImagePulledRecord` and `ImagePullIntent`
//! (kubelet.config.k8s.io). Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::images::keyring::{Coordinates, Credential, Login, Source};

pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullIntent {
    pub kind: String,
    pub api_version: String,
    pub image: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PulledRecord {
    pub kind: String,
    pub api_version: String,
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub last_updated_time: Timestamp,
    /// What the runtime calls it.
    pub image_ref: String,
    /// By names of the image, without tag and digest: a registry lets those in who may use it under
    /// that name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credential_mapping: BTreeMap<String, Access>,
}

fn write_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Who may use an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<PullSecret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_service_accounts: Vec<PullAccount>,
    /// Everybody.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    uid: String,
    namespace: String,
    name: String,
    /// Of what a registry was told.
    credential_hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullAccount {
    uid: String,
    namespace: String,
    name: String,
}

impl PullSecret {
    fn order(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.name, &self.uid)
    }
}

impl PullAccount {
    fn of(of: &Coordinates) -> Self {
        Self {
            uid: of.uid.clone(),
            namespace: of.namespace.clone(),
            name: of.name.clone(),
        }
    }

    fn order(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.name, &self.uid)
    }
}

/// In what a pod's secret is one that is known.
pub struct Found {
    pub by_content: bool,
    pub by_name: bool,
}

impl Found {
    pub fn is_same(&self) -> bool {
        self.by_content && self.by_name
    }
}

impl Access {
    /// What a pull with this credential, or with none, proves.
    pub fn of(credential: Option<&Credential>) -> Self {
        let mut access = Self::default();
        match credential.map(|c| (&c.source, &c.login)) {
            None | Some((Source::Node, _)) => access.node_pods_accessible = true,
            Some((Source::Secret(of), login)) => access.kubernetes_secrets.push(PullSecret {
                uid: of.uid.clone(),
                namespace: of.namespace.clone(),
                name: of.name.clone(),
                credential_hash: hash(login),
            }),
            Some((Source::ServiceAccount(of), _)) => {
                access.kubernetes_service_accounts.push(PullAccount::of(of));
            }
        }
        access
    }

    pub fn is_empty(&self) -> bool {
        self.kubernetes_secrets.is_empty()
            && self.kubernetes_service_accounts.is_empty()
            && !self.node_pods_accessible
    }

    /// The secret that a credential comes from, or one that says the same.
    pub fn find_secret(&self, credential: &Credential) -> Option<Found> {
        let own = Self::of(Some(credential)).kubernetes_secrets.pop()?;
        let found = self.kubernetes_secrets.iter().map(|known| Found {
            by_content: !known.credential_hash.is_empty()
                && known.credential_hash == own.credential_hash,
            by_name: known.order() == own.order(),
        });
        let mut found = found.filter(|found| found.by_content || found.by_name);
        found.next()
    }

    /// Whether the pod's service account, of which there is one, is among those.
    pub fn has_account(&self, credentials: &[Credential]) -> bool {
        let account = credentials.iter().find_map(|c| match &c.source {
            Source::ServiceAccount(of) => Some(PullAccount::of(of)),
            _ => None,
        });
        account.is_some_and(|account| self.kubernetes_service_accounts.contains(&account))
    }

    /// Whether anything has come to it.
    fn merge(&mut self, more: Self) -> bool {
        if self.node_pods_accessible {
            return false;
        }
        if more.node_pods_accessible {
            *self = more;
            return true;
        }
        let before = self.clone();
        for secret in more.kubernetes_secrets {
            let known = &mut self.kubernetes_secrets;
            match known.iter_mut().find(|k| k.order() == secret.order()) {
                Some(known) => *known = secret,
                None => known.push(secret),
            }
        }
        for account in more.kubernetes_service_accounts {
            if !self.kubernetes_service_accounts.contains(&account) {
                self.kubernetes_service_accounts.push(account);
            }
        }
        let changed = *self != before;
        self.kubernetes_secrets
            .sort_by(|a, b| a.order().cmp(&b.order()));
        self.kubernetes_service_accounts
            .sort_by(|a, b| a.order().cmp(&b.order()));
        changed
    }
}

impl PulledRecord {
    /// The record once more is known; `None`: it is as it was. Without `access` it is only known
    /// that the kubelet has pulled it.
    pub fn with(
        known: Option<Self>,
        image_ref: &str,
        name: &str,
        access: Option<Access>,
        now: Timestamp,
    ) -> Option<Self> {
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| Self {
            kind: "ImagePulledRecord".into(),
            api_version: API_VERSION.into(),
            last_updated_time: now,
            image_ref: image_ref.to_owned(),
            credential_mapping: BTreeMap::new(),
        });
        let changed = access.is_some_and(|access| {
            let mapping = &mut record.credential_mapping;
            match mapping.get_mut(name) {
                Some(known) => known.merge(access),
                None => mapping.insert(name.to_owned(), access).is_none(),
            }
        });
        record.last_updated_time = now;
        record.api_version = API_VERSION.into();
        (is_new || changed).then_some(record)
    }
}

/// Upstream's hash of a login: of Go's JSON, which escapes what would be markup in HTML.
fn hash(login: &Login) -> String {
    let mut fields = Vec::new();
    for (name, value) in [
        ("username", &login.username),
        ("password", &login.password),
        ("email", &login.email),
    ] {
        if !value.is_empty() {
            fields.push(format!("\"{name}\":{}", serde_json::json!(value)));
        }
    }
    let mut text = format!("{{{}}}", fields.join(","));
    for c in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        text = text.replace(c, &format!("\\u{:04x}", u32::from(c)));
    }
    let digest = sha2::Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_upstreams() {
        let text = r#"{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1","lastUpdatedTime":"2024-10-21T12:26:40Z","imageRef":"testimageref","credentialMapping":{"docker.io/testing/test":{"kubernetesSecrets":[{"uid":"testsecretuid","namespace":"default","name":"pull-secret","credentialHash":"testsecrethash"}]}}}"#;
        let record: PulledRecord = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }

    #[test]
    fn logins_are_hashed_as_go_writes_them() {
        let login = Login {
            username: "u".into(),
            password: "a&b<c>".into(),
            email: String::new(),
        };
        let go = br#"{"username":"u","password":"a\u0026b\u003cc\u003e"}"#;
        let digest = sha2::Sha256::digest(go);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash(&login), hex);
    }
}
