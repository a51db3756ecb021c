//! Configuration files: YAML or JSON of a declared kind, decoded strictly.

use std::path::Path;

use serde::de::DeserializeOwned;

#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("failed to load config file {path}: {source}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to decode config file {path}: {message}")]
    Decode { path: String, message: String },
    #[error(
        "config file {path}: no kind {kind:?} is registered for version {api_version:?}; want {want}"
    )]
    Kind {
        path: String,
        kind: String,
        api_version: String,
        want: String,
    },
}

/// The head of every configuration file.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// Reads a configuration file of one of `versions` of `kind`. `T` should deny unknown
/// fields and have fields for `apiVersion` and `kind`, or flatten them away.
///
/// Relative paths in the file are the caller's to resolve, against the file's folder
/// where upstream does so.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    versions: &[&str],
    kind: &str,
) -> Result<T, ConfigFileError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Read {
        path: shown.clone(),
        source,
    })?;
    parse(&text, &shown, versions, kind)
}

/// The same for a text that has been read already; `path` is for messages.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &str,
    versions: &[&str],
    kind: &str,
) -> Result<T, ConfigFileError> {
    let decode = |error: serde_saphyr::Error| ConfigFileError::Decode {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let head: TypeMeta = serde_saphyr::from_str(text).map_err(decode)?;
    if head.kind != kind || !versions.contains(&head.api_version.as_str()) {
        return Err(ConfigFileError::Kind {
            path: path.to_owned(),
            kind: head.kind,
            api_version: head.api_version,
            want: format!("{kind} of {}", versions.join(" or ")),
        });
    }
    serde_saphyr::from_str(text).map_err(decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[allow(dead_code, reason = "only decoding is looked at")]
    struct Config {
        api_version: String,
        kind: String,
        mode: String,
    }

    fn read(text: &str) -> Result<Config, ConfigFileError> {
        parse(text, "x.yaml", &["example.io/v1"], "Config")
    }

    #[test]
    fn kind_and_fields_must_be_right() {
        let good = read("apiVersion: example.io/v1\nkind: Config\nmode: a\n").unwrap();
        assert_eq!(good.mode, "a");
        let kind = read("apiVersion: example.io/v1\nkind: Other\nmode: a\n").unwrap_err();
        assert!(
            kind.to_string().contains("no kind \"Other\" is registered"),
            "{kind}"
        );
        let field = read("apiVersion: example.io/v1\nkind: Config\nmood: a\n").unwrap_err();
        assert!(field.to_string().contains("mood"), "{field}");
    }
}
