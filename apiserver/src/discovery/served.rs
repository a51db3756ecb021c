//! Which resources this server serves: the schema's, as `--runtime-config` and the feature
//! gates say.
//!
//! What must not be here: the documents that list them (`documents.rs`).

use std::collections::BTreeMap;

use component::flags::parse_bool;
use schema::Resource;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeConfigError {
    #[error("invalid value {0}={1}")]
    Value(String, String),
    #[error("group version {0} that has not been registered")]
    Unregistered(String),
    #[error(
        "invalid key {0}: group/version/resource and resource is always lowercase plural, not \"{1}\""
    )]
    NotLowercase(String, String),
    #[error("unknown api groups {0}")]
    UnknownGroups(String),
}

/// A group version with what is served of it.
#[derive(Debug, Clone)]
pub struct Version {
    pub group: &'static str,
    pub version: &'static str,
    /// Sorted by plural name; never empty.
    pub resources: Vec<&'static Resource>,
}

impl Version {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Stability, read from the name of a version.
fn level(version: &str) -> &'static str {
    if version.contains("alpha") {
        "api/alpha"
    } else if version.contains("beta") {
        "api/beta"
    } else {
        "api/ga"
    }
}

/// The served group versions, in discovery's order. `runtime_config` is the flag's map;
/// `gate` says whether a feature is on.
pub fn served(
    runtime_config: &BTreeMap<String, String>,
    gate: impl Fn(&str) -> bool,
) -> Result<Vec<Version>, RuntimeConfigError> {
    let known = schema::group_versions();
    let mut preferences: BTreeMap<&str, bool> = BTreeMap::new();
    let mut unknown: Vec<&str> = Vec::new();
    for (key, value) in runtime_config {
        let on = match value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            // Only the whole-API keys insist on a value, and on one of these.
            _ if key.starts_with("api/") => None,
            "" => Some(true),
            other => parse_bool(other),
        };
        let Some(on) = on else {
            return Err(RuntimeConfigError::Value(key.clone(), value.clone()));
        };
        preferences.insert(key, on);
        if key.starts_with("api/") {
            continue;
        }
        let mut tokens = key.split('/');
        let (group, version) = (tokens.next().unwrap_or_default(), tokens.next());
        if !known.iter().any(|gv| gv.group == group) {
            unknown.push(group);
            continue;
        }
        let Some(version) = version else { continue };
        if !known
            .iter()
            .any(|gv| (gv.group, gv.version) == (group, version))
        {
            return Err(RuntimeConfigError::Unregistered(format!(
                "{group}/{version}"
            )));
        }
        if let Some(resource) = tokens.next()
            && resource.chars().any(char::is_uppercase)
        {
            return Err(RuntimeConfigError::NotLowercase(
                key.clone(),
                resource.to_owned(),
            ));
        }
    }
    if !unknown.is_empty() {
        return Err(RuntimeConfigError::UnknownGroups(unknown.join(",")));
    }

    let on = |resource: &Resource| {
        let group_version = format!("{}/{}", resource.group, resource.version);
        let explicit = preferences
            .get(format!("{group_version}/{}", resource.plural).as_str())
            .or_else(|| preferences.get(group_version.as_str()))
            .or_else(|| preferences.get(level(resource.version)))
            .or_else(|| preferences.get("api/all"));
        explicit.copied().unwrap_or(resource.enabled) && resource.feature_gate.is_none_or(&gate)
    };
    Ok(known
        .iter()
        .map(|gv| Version {
            group: gv.group,
            version: gv.version,
            resources: gv.resources().iter().filter(|r| on(r)).collect(),
        })
        .filter(|v| !v.resources.is_empty())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(config: &[(&str, &str)]) -> Vec<String> {
        let config = config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        served(&config, |_| true)
            .unwrap()
            .iter()
            .map(Version::api_version)
            .collect()
    }

    #[test]
    fn defaults_are_the_stable_versions() {
        let default = with(&[]);
        assert!(default.contains(&"v1".into()));
        assert!(default.contains(&"apps/v1".into()));
        assert!(
            default
                .iter()
                .all(|v| !v.contains("alpha") && !v.contains("beta"))
        );
    }

    #[test]
    fn the_more_specific_key_wins() {
        let all = with(&[("api/all", "true")]);
        assert!(all.contains(&"resource.k8s.io/v1beta1".into()));
        let config = [
            ("api/all", "true"),
            ("api/beta", "false"),
            ("resource.k8s.io/v1beta1", "true"),
        ];
        let some = with(&config);
        assert!(some.contains(&"resource.k8s.io/v1beta1".into()));
        assert!(!some.contains(&"resource.k8s.io/v1beta2".into()));
        assert!(!with(&[("batch/v1", "false")]).contains(&"batch/v1".into()));
    }

    #[test]
    fn one_resource_can_be_switched() {
        let config = BTreeMap::from([("batch/v1/cronjobs".to_owned(), "false".to_owned())]);
        let versions = served(&config, |_| true).unwrap();
        let batch = versions.iter().find(|v| v.group == "batch").unwrap();
        let names: Vec<_> = batch.resources.iter().map(|r| r.plural).collect();
        assert_eq!(names, ["jobs"]);
    }

    #[test]
    fn mistakes_are_told() {
        let check = |key: &str, value: &str| {
            served(
                &BTreeMap::from([(key.to_owned(), value.to_owned())]),
                |_| true,
            )
            .unwrap_err()
        };
        assert!(matches!(
            check("apps/v7", "true"),
            RuntimeConfigError::Unregistered(_)
        ));
        assert!(matches!(
            check("api/all", "maybe"),
            RuntimeConfigError::Value(..)
        ));
        assert!(matches!(
            check("nope/v1", "true"),
            RuntimeConfigError::UnknownGroups(_)
        ));
    }
}
