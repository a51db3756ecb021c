//! Bootstrap tokens: `id.secret`, kept in secrets of kube-system, with which a node joins.
//!
//! What must not be here: removing expired tokens (a controller's work).

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Clock, User, constant_time_eq};
use crate::lookup::Lookup;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";
const GROUP_PREFIX: &str = "system:bootstrappers:";

pub struct BootstrapTokens {
    pub lookup: Arc<dyn Lookup>,
    pub clock: Clock,
}

impl BootstrapTokens {
    /// `None` when the token is no bootstrap token or is not good (any more).
    pub fn verify(&self, token: &str) -> Option<User> {
        let (id, secret) = parse(token)?;
        let name = format!("bootstrap-token-{id}");
        let stored = self.lookup.get("", "secrets", "kube-system", &name)?;
        match check(&stored, id, secret, (self.clock)()) {
            Ok(user) => Some(user),
            Err(reason) => {
                tracing::info!(
                    secret = name,
                    reason,
                    "bootstrap secret matching bearer token is not usable"
                );
                None
            }
        }
    }
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str| {
        s.bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn check(
    stored: &Value,
    id: &str,
    secret: &str,
    now: jiff::Timestamp,
) -> Result<User, &'static str> {
    let data = |key: &str| {
        stored["data"][key]
            .as_str()
            .and_then(|v| STANDARD.decode(v).ok())
            .and_then(|v| String::from_utf8(v).ok())
            .unwrap_or_default()
    };
    if stored["metadata"]["deletionTimestamp"].is_string() {
        return Err("is deleted and awaiting removal");
    }
    if stored["type"] != SECRET_TYPE || !stored["data"].is_object() {
        return Err("has invalid type, expected bootstrap.kubernetes.io/token");
    }
    if !constant_time_eq(data("token-secret").as_bytes(), secret.as_bytes()) {
        return Err("has invalid value for key token-secret");
    }
    if data("token-id") != id {
        return Err("has invalid value for key token-id");
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        // A time that cannot be read counts as passed.
        match meta::time::parse_rfc3339(&expiration) {
            Some(expires) if now < expires => {}
            _ => return Err("has expired"),
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true");
    }
    let mut groups = BTreeSet::from([DEFAULT_GROUP.to_owned()]);
    for group in data("auth-extra-groups")
        .split(',')
        .filter(|g| !g.is_empty())
    {
        if !valid_group(group) {
            return Err("has invalid value for key auth-extra-groups");
        }
        groups.insert(group.to_owned());
    }
    Ok(User {
        name: format!("system:bootstrap:{id}"),
        groups: groups.into_iter().collect(),
        ..User::default()
    })
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`.
fn valid_group(group: &str) -> bool {
    group.strip_prefix(GROUP_PREFIX).is_some_and(|rest| {
        rest.len() <= 256
            && rest
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b':' || b == b'-')
            && rest
                .bytes()
                .last()
                .is_some_and(|b| b.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(changes: Value) -> Value {
        let mut data = json!({
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "expiration": "2026-05-01T00:00:00Z",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        });
        for (key, value) in changes.as_object().unwrap() {
            data[key] = value.clone();
        }
        for (_, value) in data.as_object_mut().unwrap() {
            *value = STANDARD.encode(value.as_str().unwrap()).into();
        }
        json!({"type": SECRET_TYPE, "data": data})
    }

    fn at(time: &str, changes: Value) -> Result<User, &'static str> {
        check(
            &stored(changes),
            "abcdef",
            "0123456789abcdef",
            time.parse().unwrap(),
        )
    }

    #[test]
    fn a_good_token_is_a_bootstrapper() {
        let user = at("2026-04-30T00:00:00Z", json!({})).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(
            user.groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:kubeadm:default-node-token"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let before = "2026-04-30T00:00:00Z";
        assert!(at("2026-05-01T00:00:00Z", json!({})).is_err());
        assert!(at(before, json!({"token-secret": "x"})).is_err());
        assert!(at(before, json!({"usage-bootstrap-authentication": "yes"})).is_err());
        assert!(at(before, json!({"auth-extra-groups": "system:masters"})).is_err());
        assert!(at(before, json!({"expiration": "soon"})).is_err());
    }

    #[test]
    fn tokens_have_a_form() {
        assert!(parse("abcdef.0123456789abcdef").is_some());
        assert!(parse("abcdef.0123456789abcde").is_none());
        assert!(parse("Abcdef.0123456789abcdef").is_none());
    }
}
