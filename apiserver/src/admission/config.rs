//! `--admission-control-config-file`: an `AdmissionConfiguration`, in which each plugin finds
//! its own configuration, in place or in a file of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use component::config_file::{self, ConfigFileError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error("{0}")]
    Invalid(String),
}

/// What the plugins are told, by their names.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    plugins: BTreeMap<String, Text>,
}

/// A plugin's configuration as it was written, and where.
#[derive(Debug, Clone)]
struct Text {
    path: String,
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginConfiguration {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    configuration: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl Configuration {
    /// Reads the file and those that it names, relative to itself.
    pub fn load(path: &Path) -> Result<Configuration, ConfigError> {
        let versions = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
        let file: AdmissionConfiguration =
            config_file::load(path, &versions, "AdmissionConfiguration")?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut plugins = BTreeMap::new();
        for PluginConfiguration {
            name,
            path: other,
            configuration,
        } in file.plugins
        {
            let text = match configuration {
                Some(inline) => Text {
                    path: path.display().to_string(),
                    text: inline.to_string(),
                },
                None if other.is_empty() => continue,
                None => read(folder.join(other))?,
            };
            // The first of a name counts.
            plugins.entry(name).or_insert(text);
        }
        Ok(Configuration { plugins })
    }

    /// A plugin's configuration, decoded strictly as the one of `kinds` (group version and
    /// kind) that it says it is.
    pub fn of<T: DeserializeOwned>(
        &self,
        plugin: &str,
        kinds: &[(&str, &str)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(Text { path, text }) = self.plugins.get(plugin) else {
            return Ok(None);
        };
        let head: Option<TypeMeta> = serde_saphyr::from_str(text).ok();
        let named = head.and_then(|head| {
            let mut kinds = kinds.iter();
            kinds.find(|(version, kind)| head.api_version == *version && head.kind == *kind)
        });
        let (version, kind) = named.or(kinds.first()).unwrap_or(&("", ""));
        Ok(Some(config_file::parse(text, path, &[version], kind)?))
    }

    /// Of one plugin, for tests.
    #[cfg(test)]
    pub fn one(plugin: &str, configuration: Value) -> Configuration {
        let text = Text {
            path: "test".into(),
            text: configuration.to_string(),
        };
        Configuration {
            plugins: BTreeMap::from([(plugin.to_owned(), text)]),
        }
    }
}

fn read(path: PathBuf) -> Result<Text, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|source| ConfigFileError::Read {
        path: shown.clone(),
        source,
    })?;
    Ok(Text { path: shown, text })
}

#[cfg(test)]
mod tests {
    use api::quota::config::Configuration as QuotaConfiguration;

    use super::*;

    #[test]
    fn plugins_find_theirs() {
        let folder = std::env::temp_dir().join(format!("admission-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("all.yaml");
        std::fs::write(
            &file,
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
             - name: ResourceQuota\n  path: quota.yaml\n\
             - name: Other\n  configuration:\n    a: b\n",
        )
        .unwrap();
        let quota = "apiVersion: resourcequota.admission.k8s.io/v1beta1\nkind: Configuration\n\
                     limitedResources:\n- resource: pods\n  matchContains: [cpu]\n";
        std::fs::write(folder.join("quota.yaml"), quota).unwrap();
        let loaded = Configuration::load(&file).unwrap();
        let kinds = QuotaConfiguration::KINDS;
        let read: QuotaConfiguration = loaded.of("ResourceQuota", kinds).unwrap().unwrap();
        assert_eq!(read.limited_resources[0].match_contains, ["cpu"]);
        assert!(loaded.of::<Value>("Absent", kinds).unwrap().is_none());
        // Of no kind that it can be.
        assert!(loaded.of::<Value>("Other", kinds).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
