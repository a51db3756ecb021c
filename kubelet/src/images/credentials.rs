//! Registry credentials out of a pod's pull secrets. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grpc::cri::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
}

/// Credentials that fit a repository (`host/path`), the most specific first.
pub fn for_repository(secrets: &[impl AsRef<Secret>], repository: &str) -> Vec<AuthConfig> {
    let mut matching: Vec<(String, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret.as_ref()) {
            let pattern = pattern(&server);
            if matches(&pattern, repository) {
                matching.push((pattern, auth(entry)));
            }
        }
    }
    // Upstream's order: what goes on where another ends comes before it.
    matching.sort_by(|(one, _), (other, _)| other.cmp(one));
    matching.into_iter().map(|(_, auth)| auth).collect()
}

/// A secret's entries, of either type of pull secret. One that does not parse has none.
fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
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
        BTreeMap::new()
    }
}

/// `https://index.docker.io/v1/` stands for `docker.io`.
fn pattern(server: &str) -> String {
    let bare = server
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    match bare.strip_prefix("index.docker.io") {
        Some(rest) => format!("docker.io{rest}"),
        None => bare.to_owned(),
    }
}

/// The host part by part, where `*` stands for any one part or its end; then the path's beginning.
fn matches(pattern: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        (host.to_owned(), path.to_owned())
    };
    let ((pattern_host, pattern_path), (host, path)) = (split(pattern), split(repository));
    let (pattern_parts, parts): (Vec<_>, Vec<_>) =
        (pattern_host.split('.').collect(), host.split('.').collect());
    let part = |(pattern, part): (&&str, &&str)| match pattern.split_once('*') {
        Some((start, end)) => {
            part.len() >= start.len() + end.len() && part.starts_with(start) && part.ends_with(end)
        }
        None => pattern == part,
    };
    pattern_parts.len() == parts.len()
        && pattern_parts.iter().zip(&parts).all(part)
        && path.starts_with(&pattern_path)
}

/// What the runtime is told. It is not told for which server: the runtime would hold that against
/// the one that it asks, whose name may be spelled otherwise, or be a mirror's.
fn auth(entry: Entry) -> AuthConfig {
    let decoded = STANDARD
        .decode(&entry.auth)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded
        .as_deref()
        .and_then(|text| text.trim_end_matches('\0').split_once(':'))
    {
        Some((username, password)) => (username.to_owned(), password.to_owned()),
        None => (entry.username, entry.password),
    };
    AuthConfig {
        username,
        password,
        ..AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::ByteString;

    use super::*;

    fn secret(json: &str) -> Arc<Secret> {
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(json.into()))]);
        Arc::new(Secret {
            data: Some(data),
            ..Default::default()
        })
    }

    #[test]
    fn the_most_specific_first() {
        let secrets = [
            secret(
                r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "*.example.com": {"username": "wild"}}}"#,
            ),
            secret(r#"{"auths": {"a.example.com/team": {"username": "team"}}}"#),
            secret("garbage"),
        ];
        let of = |repository| {
            for_repository(&secrets, repository)
                .into_iter()
                .map(|a| a.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("docker.io/library/nginx"), ["u"]);
        assert_eq!(of("a.example.com/team/app"), ["team", "wild"]);
        assert_eq!(of("a.example.com/teamwork"), ["team", "wild"]);
        assert!(of("b.c.example.com/x").is_empty());
    }
}
