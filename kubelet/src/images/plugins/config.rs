//! `CredentialProviderConfig` (kubelet.config.k8s.io): which plugins there are, which images they
//! are for, and whether that makes sense. Upstream's words.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use component::flags::GoDuration;
use meta::field::{BadValue, ErrorList, FieldError, Path as Field};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::images::keyring::check_pattern;

/// One plugin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Provider {
    /// The program's, too.
    pub name: String,
    pub match_images: Vec<String>,
    /// How long credentials are kept where the plugin does not say.
    pub default_cache_duration: Option<GoDuration>,
    /// Of requests and responses.
    pub api_version: String,
    pub args: Vec<String>,
    pub env: Vec<Variable>,
    pub token_attributes: Option<TokenAttributes>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub value: String,
}

/// A plugin that is told of the pod's service account, with a token of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TokenAttributes {
    pub service_account_token_audience: String,
    /// `ServiceAccount` or `Token`: whose the credentials are.
    pub cache_type: String,
    pub require_service_account: Option<bool>,
    pub required_service_account_annotation_keys: Vec<String>,
    pub optional_service_account_annotation_keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

pub const V1: &str = "credentialprovider.kubelet.k8s.io/v1";
/// Of requests and responses.
const API_VERSIONS: [&str; 3] = [
    V1,
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];
const CACHE_TYPES: [&str; 2] = ["ServiceAccount", "Token"];

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("credential provider config path is empty")]
    NoPath,
    #[error("unable to access path {0:?}: {1}")]
    Access(PathBuf, std::io::Error),
    #[error("no configuration files found in directory {0:?}")]
    Empty(PathBuf),
    #[error("unable to read file {0:?}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("error decoding config {0:?}: {1}")]
    Decode(PathBuf, String),
    #[error("duplicate provider name {0:?} found in configuration file(s)")]
    Duplicate(String),
    #[error("failed to validate credential provider config: {0}")]
    Invalid(ErrorList),
}

/// What the file, or all files of the directory together, say; and the hash of it all.
///
/// # Errors
/// When one cannot be read, or it does not make sense.
pub fn read(path: &Path, tokens: bool) -> Result<(Vec<Provider>, String), ConfigError> {
    let mut hash = Sha256::new();
    let mut providers: Vec<Provider> = Vec::new();
    for path in files(path)? {
        let text = fs::read(&path).map_err(|error| ConfigError::Read(path.clone(), error))?;
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(&text);
        let read = decode(&text).map_err(|why| ConfigError::Decode(path, why))?;
        for provider in read {
            if providers.iter().any(|known| known.name == provider.name) {
                return Err(ConfigError::Duplicate(provider.name));
            }
            providers.push(provider);
        }
    }
    let errors = validate(&providers, tokens);
    errors.into_result().map_err(ConfigError::Invalid)?;
    let digest = hash.finalize();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((providers, format!("sha256:{hex}")))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    if path.as_os_str().is_empty() {
        return Err(ConfigError::NoPath);
    }
    let access = |error| ConfigError::Access(path.to_owned(), error);
    if !fs::metadata(path).map_err(access)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(access)? {
        let entry = entry.map_err(access)?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        if !is_dir && matches!(extension, "json" | "yaml" | "yml") {
            found.push(path);
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(ConfigError::Empty(path.to_owned())),
        false => Ok(found),
    }
}

fn decode(text: &[u8]) -> Result<Vec<Provider>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let version = file.api_version.strip_prefix("kubelet.config.k8s.io/");
    match (version, file.kind.as_str()) {
        (Some("v1" | "v1beta1" | "v1alpha1"), "CredentialProviderConfig") => Ok(file.providers),
        (_, kind) => Err(format!(
            "no kind {kind:?} is registered for version {:?}",
            file.api_version
        )),
    }
}

/// Pure. `tokens`: whether plugins may be given tokens at all.
pub fn validate(providers: &[Provider], tokens: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Field::new("providers");
    if providers.is_empty() {
        let why = "at least 1 item in plugins is required";
        errors.push(FieldError::required(&path, why));
    }
    let mut seen = HashSet::new();
    for provider in providers {
        let (name, at) = (provider.name.as_str(), path.child("name"));
        for (wrong, why) in [
            (name.contains('/'), "provider name cannot contain '/'"),
            (name.contains(' '), "provider name cannot contain spaces"),
            (name == ".", "provider name cannot be '.'"),
            (name == "..", "provider name cannot be '..'"),
        ] {
            if wrong {
                errors.push(FieldError::invalid(&at, name, why));
            }
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
        let (version, at) = (provider.api_version.as_str(), path.child("apiVersion"));
        if version.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if !API_VERSIONS.contains(&version) {
            errors.push(FieldError::not_supported(&at, version, &API_VERSIONS));
        }
        let at = path.child("matchImages");
        if provider.match_images.is_empty() {
            let why = "at least 1 item in matchImages is required";
            errors.push(FieldError::required(&at, why));
        }
        for pattern in &provider.match_images {
            if let Err(why) = check_pattern(pattern) {
                let why = format!("match image is invalid: {why}");
                errors.push(FieldError::invalid(&at, pattern.as_str(), why));
            }
        }
        let at = path.child("defaultCacheDuration");
        match provider.default_cache_duration {
            None => errors.push(FieldError::required(&at, "")),
            Some(duration) if duration.to_string().starts_with('-') => {
                let why = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(&at, duration.to_string(), why));
            }
            Some(_) => {}
        }
        if let Some(attributes) = &provider.token_attributes {
            errors.extend(token(attributes, version, tokens, &path.child("tokenAttributes")).0);
        }
    }
    errors
}

fn token(attributes: &TokenAttributes, version: &str, tokens: bool, path: &Field) -> ErrorList {
    let mut errors = ErrorList::new();
    if !tokens {
        let why = "tokenAttributes is not supported when KubeletServiceAccountTokenForCredentialProviders feature \
                   gate is disabled";
        errors.push(FieldError::forbidden(path, why));
    }
    if attributes.service_account_token_audience.is_empty() {
        let at = path.child("serviceAccountTokenAudience");
        errors.push(FieldError::required(&at, ""));
    }
    if attributes.require_service_account.is_none() {
        let at = path.child("requireServiceAccount");
        errors.push(FieldError::required(&at, ""));
    }
    if version != V1 {
        let why = format!("tokenAttributes is only supported for {V1} API version");
        errors.push(FieldError::forbidden(path, why));
    }
    let required = &attributes.required_service_account_annotation_keys;
    let optional = &attributes.optional_service_account_annotation_keys;
    let at = path.child("requiredServiceAccountAnnotationKeys");
    if attributes.require_service_account == Some(false) && !required.is_empty() {
        let why = "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set";
        errors.push(FieldError::forbidden(&at, why));
    }
    keys(required, &at, &mut errors);
    let at = path.child("optionalServiceAccountAnnotationKeys");
    keys(optional, &at, &mut errors);
    let mut both: Vec<&str> = required.iter().map(String::as_str).collect();
    both.retain(|key| optional.iter().any(|other| other == key));
    both.sort_unstable();
    both.dedup();
    if !both.is_empty() {
        let why = "annotation keys cannot be both required and optional";
        errors.push(FieldError::invalid(path, BadValue::json(&both), why));
    }
    let (kind, at) = (attributes.cache_type.as_str(), path.child("cacheType"));
    if kind.is_empty() {
        let why = format!(
            "cacheType is required to be set when tokenAttributes is specified. Supported values are: {}",
            CACHE_TYPES.join(", ")
        );
        errors.push(FieldError::required(&at, why));
    } else if !CACHE_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&at, kind, &CACHE_TYPES));
    }
    errors
}

fn keys(keys: &[String], at: &Field, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for key in keys {
        for why in meta::validation::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(at, key.as_str(), why));
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(at, key.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{"name": "a", "matchImages": ["*.io"], "defaultCacheDuration": "1m",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "args": ["x"], "env": [{"name": "A", "value": "b"}],
        "tokenAttributes": {"serviceAccountTokenAudience": "aud", "cacheType": "Token", "requireServiceAccount": true}}]}"#;

    fn provider() -> Provider {
        decode(GOOD.as_bytes()).unwrap().remove(0)
    }

    fn errors(change: impl Fn(&mut Provider)) -> String {
        let mut provider = provider();
        change(&mut provider);
        validate(&[provider], true).to_string()
    }

    #[test]
    fn files_of_a_directory_are_one_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let fails = |path: &Path| read(path, true).unwrap_err().to_string();
        assert!(fails(path).starts_with("no configuration files found"));
        fs::write(path.join("b.json"), GOOD).unwrap();
        fs::write(path.join("ignored.txt"), "nonsense").unwrap();
        let other = GOOD.replace(r#""name": "a""#, r#""name": "first""#);
        fs::write(path.join("a.yaml"), other).unwrap();
        let (providers, hash) = read(path, true).unwrap();
        let names: Vec<&str> = providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["first", "a"]);
        assert!(hash.starts_with("sha256:") && hash.len() == 71);
        fs::write(path.join("c.yml"), GOOD).unwrap();
        assert_eq!(
            fails(path),
            r#"duplicate provider name "a" found in configuration file(s)"#
        );
        fs::write(path.join("a.yaml"), GOOD.replace("args", "arguments")).unwrap();
        assert!(fails(path).starts_with("error decoding config"));
        assert!(fails(&path.join("none")).starts_with("unable to access path"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(errors(|_| {}), "");
        assert_eq!(
            validate(&[], true).to_string(),
            "providers: Required value: at least 1 item in plugins is required"
        );
        assert_eq!(
            errors(|p| p.name = "a/b".into()),
            r#"providers.name: Invalid value: "a/b": provider name cannot contain '/'"#
        );
        assert_eq!(errors(|p| p.api_version = "v9".into()).lines().count(), 1);
        assert_eq!(
            errors(|p| p.match_images = vec!["a b".into()]),
            r#"providers.matchImages: Invalid value: "a b": match image is invalid: parse "https://a b": invalid character " " in host name"#
        );
        assert_eq!(
            errors(|p| p.default_cache_duration = None),
            "providers.defaultCacheDuration: Required value"
        );
        let told = errors(|p| {
            if let Some(attributes) = &mut p.token_attributes {
                attributes.cache_type = "None".into();
                attributes.require_service_account = None;
            }
        });
        assert_eq!(
            told,
            "[providers.tokenAttributes.requireServiceAccount: Required value, providers.tokenAttributes.cacheType: \
             Unsupported value: \"None\": supported values: \"ServiceAccount\", \"Token\"]"
        );
        let off = validate(&[provider()], false).to_string();
        assert!(off.starts_with("providers.tokenAttributes: Forbidden"));
    }
}
