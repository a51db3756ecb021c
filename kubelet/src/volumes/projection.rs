//! The files of configMap, secret, downwardAPI and projected volumes, before they are written.
//! Pure, given the objects.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod};
use thiserror::Error;

use crate::resources::downward::{self, FieldContext, FieldError};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, where it is not root.
    pub uid: Option<u32>,
}

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, File>;

/// Why a volume's files cannot be told.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProjectionError {
    #[error("configmap references non-existent config key: {0}")]
    NoConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Mode of files where the volume does not say.
pub const DEFAULT_MODE: u32 = 0o644;

/// The API has modes as signed numbers.
pub fn mode(own: Option<i32>, default: u32) -> u32 {
    own.and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(default)
        & 0o7777
}

/// A config map's entries as files: all of them, or those that `items` picks.
///
/// # Errors
/// When an item that is not optional is not there.
pub fn config_map(
    data: &BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    default_mode: u32,
    optional: bool,
) -> Result<Payload, ProjectionError> {
    keys(
        data,
        items,
        default_mode,
        optional,
        ProjectionError::NoConfigKey,
    )
}

/// A secret's entries as files.
///
/// # Errors
/// As [`config_map`].
pub fn secret(
    data: &BTreeMap<String, ByteString>,
    items: &[KeyToPath],
    default_mode: u32,
    optional: bool,
) -> Result<Payload, ProjectionError> {
    let data = data
        .iter()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    keys(
        &data,
        items,
        default_mode,
        optional,
        ProjectionError::NoSecretKey,
    )
}

fn keys(
    data: &BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    default_mode: u32,
    optional: bool,
    missing: impl Fn(String) -> ProjectionError,
) -> Result<Payload, ProjectionError> {
    if items.is_empty() {
        let file = |data: &Vec<u8>| File {
            data: data.clone(),
            mode: default_mode,
            uid: None,
        };
        return Ok(data
            .iter()
            .map(|(key, data)| (key.clone(), file(data)))
            .collect());
    }
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let file = File {
                    data: data.clone(),
                    mode: mode(item.mode, default_mode),
                    uid: None,
                };
                payload.insert(item.path.clone(), file);
            }
            None if optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(payload)
}

/// A pod's own fields as files.
///
/// # Errors
/// For a field that the downward API does not know.
pub fn downward_api(
    items: &[DownwardAPIVolumeFile],
    pod: &Pod,
    context: &FieldContext<'_>,
    default_mode: u32,
) -> Result<Payload, ProjectionError> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, context)?,
            (None, Some(resource)) => downward::resource(pod, None, resource, context)?,
            (None, None) => String::new(),
        };
        payload.insert(
            item.path.clone(),
            File {
                data: text.into_bytes(),
                mode: mode(item.mode, default_mode),
                uid: None,
            },
        );
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_files() {
        let data = BTreeMap::from([
            ("a".to_owned(), b"1".to_vec()),
            ("b".to_owned(), b"2".to_vec()),
        ]);
        let all = config_map(&data, &[], 0o600, false).unwrap();
        assert_eq!(
            all["a"],
            File {
                data: b"1".to_vec(),
                mode: 0o600,
                uid: None
            }
        );
        let item = |key: &str| KeyToPath {
            key: key.into(),
            path: format!("dir/{key}"),
            mode: Some(0o400),
        };
        let picked = config_map(&data, &[item("b")], 0o600, false).unwrap();
        assert_eq!(picked.keys().collect::<Vec<_>>(), ["dir/b"]);
        assert_eq!(picked["dir/b"].mode, 0o400);
        assert_eq!(
            config_map(&data, &[item("c")], 0, false),
            Err(ProjectionError::NoConfigKey("c".into()))
        );
        assert!(config_map(&data, &[item("c")], 0, true).unwrap().is_empty());
    }
}
