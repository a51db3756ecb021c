//! The files of a configuration: `--config`, and the `*.conf` below `--config-dir` that are merged
//! over it (KEP-3983). Read as upstream reads them: a field that does not exist or is written twice
//! is a warning in the first and none of anybody's business in the others.

use std::path::{Path, PathBuf};

use meta::gofmt::Quoted;
use serde_json::{Value, json};
use serde_saphyr::DuplicateKeyPolicy;
use thiserror::Error;

use super::decode::{DecodeError, decode};
use super::{API_VERSION, KIND, KubeletConfiguration};

/// Why the files cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    #[error(
        "failed to load kubelet config file, path: {path}, error: failed to load Kubelet config file {path}, error {why}"
    )]
    Config { path: String, why: String },
    #[error("{MERGING} {}: {source}", Quoted(.directory))]
    Walk {
        directory: String,
        source: std::io::Error,
    },
    #[error(
        "{MERGING} {}: failed to load kubelet dropin file, path: {path}, {why}",
        Quoted(.directory)
    )]
    DropIn {
        directory: String,
        path: String,
        why: String,
    },
    #[error(
        "failed to merge kubelet configs: failed to unmarshal merged JSON into kubelet configuration: {0}"
    )]
    Merged(DecodeError),
}

const MERGING: &str =
    "failed to merge kubelet configs: failed to walk through kubelet dropin directory";

/// Why a file is no tree.
#[derive(Debug, Error)]
enum ReadError {
    #[error("failed to read kubelet config file {}, error: {source}", Quoted(.path))]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("kubelet config file {} was empty", Quoted(.0))]
    Empty(String),
    #[error("failed to decode: {0}")]
    Yaml(Box<serde_saphyr::Error>),
}

/// What a file says it is.
fn type_of(tree: &Value) -> (&str, &str) {
    let text = |field: &str| tree[field].as_str().unwrap_or_default();
    (text("apiVersion"), text("kind"))
}

/// A configuration as its files have it, defaults filled in, and what an operator should be told.
#[derive(Debug)]
pub struct Loaded {
    pub config: KubeletConfiguration,
    pub warnings: Vec<String>,
}

/// Reads `--config`.
///
/// # Errors
/// When the file is not there, or is no configuration.
pub fn load(path: &Path) -> Result<Loaded, FileError> {
    // Relative paths in the file start where it lies.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let shown = path.display().to_string();
    let wrong = |why| FileError::Config {
        path: shown.clone(),
        why,
    };
    let (tree, twice) = read(&path).map_err(|error| wrong(error.to_string()))?;
    match type_of(&tree) {
        (API_VERSION, KIND) => {}
        (_, "") => return Err(wrong("failed to decode: Object 'Kind' is missing".into())),
        (version, kind) => {
            return Err(wrong(format!(
                "failed to decode: no kind {} is registered for version {}",
                Quoted(kind),
                Quoted(version)
            )));
        }
    }
    let decoded = decode::<KubeletConfiguration>(&tree);
    let (config, unknown) = decoded.map_err(|error| wrong(format!("failed to decode: {error}")))?;
    let mut config = config.complete();
    if let Some(folder) = path.parent() {
        resolve_paths(&mut config, folder);
    }
    let problems: Vec<String> = twice.into_iter().chain(unknown).collect();
    let mut warnings = Vec::new();
    if !problems.is_empty() {
        let problems = problems.join(", ");
        warnings.push(format!(
            "using lenient decoding as strict decoding failed: strict decoding error: {problems}"
        ));
    }
    Ok(Loaded { config, warnings })
}

/// Merges what lies below `--config-dir` over a configuration that has its defaults, in the order
/// of the paths: RFC 7396, so that a list replaces a list.
///
/// # Errors
/// When the directory or one of its files cannot be used.
pub fn merge(config: &KubeletConfiguration, directory: &Path) -> Result<Loaded, FileError> {
    let shown = directory.display().to_string();
    let mut files = Vec::new();
    walk(directory, &mut files).map_err(|source| FileError::Walk {
        directory: shown.clone(),
        source,
    })?;
    let mut merged = json!(config);
    let mut warnings = Vec::new();
    for path in files {
        let wrong = |why| FileError::DropIn {
            directory: shown.clone(),
            path: path.display().to_string(),
            why,
        };
        let (tree, twice) = read(&path).map_err(|error| wrong(format!("error: {error}")))?;
        if let Some(twice) = twice {
            return Err(wrong(format!("error: strict decoding error: {twice}")));
        }
        match type_of(&tree) {
            (API_VERSION, KIND) => {}
            (_, "") => return Err(wrong("error: Object 'Kind' is missing".into())),
            (version, kind) => {
                // The core group has no name.
                let slash = if version.contains('/') { "" } else { "/" };
                return Err(wrong(format!(
                    "unknown apiVersion/kind: {slash}{version}, Kind={kind}"
                )));
            }
        }
        // What else does not fit is an error of all files together.
        if let Ok((_, unknown)) = decode::<KubeletConfiguration>(&tree)
            && !unknown.is_empty()
        {
            warnings.push(format!("{}: {}", path.display(), unknown.join(", ")));
        }
        patch(&mut merged, tree);
    }
    let decoded = decode::<KubeletConfiguration>(&merged);
    let (config, _) = decoded.map_err(FileError::Merged)?;
    Ok(Loaded {
        config: config.complete(),
        warnings,
    })
}

/// Every `*.conf`, in the order of names, those of a folder where the folder stands.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|suffix| suffix == "conf") {
            files.push(path);
        }
    }
    Ok(())
}

/// A file as a tree, and the first key that is written twice; the later one counts.
fn read(path: &Path) -> Result<(Value, Option<String>), ReadError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ReadError::Read {
        path: shown.clone(),
        source,
    })?;
    if text.is_empty() {
        return Err(ReadError::Empty(shown));
    }
    let error = match serde_saphyr::from_str::<Value>(&text) {
        Ok(tree) => return Ok((tree, None)),
        Err(error) => error,
    };
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() else {
        return Err(ReadError::Yaml(error.into()));
    };
    let key = key.as_deref().unwrap_or_default();
    let twice = format!(
        "line {}: key {} already set in map",
        location.line(),
        Quoted(key)
    );
    let lenient = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let tree = serde_saphyr::from_str_with_options::<Value>(&text, lenient);
    let tree = tree.map_err(|error| ReadError::Yaml(error.into()))?;
    Ok((tree, Some(twice)))
}

/// RFC 7396.
fn patch(target: &mut Value, with: Value) {
    let Value::Object(fields) = with else {
        *target = with;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(object) = target {
        for (name, value) in fields {
            match value {
                Value::Null => drop(object.remove(&name)),
                value => patch(object.entry(name).or_insert(Value::Null), value),
            }
        }
    }
}

fn resolve_paths(config: &mut KubeletConfiguration, folder: &Path) {
    for path in [
        &mut config.static_pod_path,
        &mut config.authentication.x509.client_ca_file,
        &mut config.tls_cert_file,
        &mut config.tls_private_key_file,
        &mut config.resolv_conf,
        &mut config.volume_plugin_dir,
        &mut config.pod_logs_dir,
    ] {
        if !path.is_empty() && !Path::new(path.as_str()).is_absolute() {
            *path = clean(&folder.join(path.as_str()));
        }
    }
}

/// Without `.` and `..`, as Go's `filepath.Clean`.
pub fn clean(path: &Path) -> String {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            // Above the root is the root.
            std::path::Component::ParentDir => {
                cleaned.pop();
            }
            part => cleaned.push(part),
        }
    }
    cleaned.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn typed(text: &str) -> String {
        format!("{HEAD}{text}")
    }

    #[test]
    fn a_file_is_read_leniently() {
        let text = "maxPods: 5\nmaxPods: 6\nnoSuchField: 1\nresolvConf: ../resolv.conf\n\
                    evictionHard:\nfailSwapOn: no\nsystemReserved: {cpu: \"1\"}\n";
        let folder = folder(&[("a/kubelet.yaml", &typed(text))]);
        let loaded = load(&folder.path().join("a/kubelet.yaml")).unwrap();
        assert_eq!(loaded.config.max_pods, 6);
        assert!(!loaded.config.fail_swap_on);
        assert_eq!(loaded.config.eviction_hard.unwrap().len(), 5);
        let resolv_conf = folder.path().join("resolv.conf");
        assert_eq!(Path::new(&loaded.config.resolv_conf), resolv_conf);
        let warning = loaded.warnings.join("\n");
        assert!(
            warning.contains(
                r#"line 4: key "maxPods" already set in map, unknown field "noSuchField""#
            ),
            "{warning}"
        );
    }

    #[test]
    fn what_is_no_configuration() {
        for (text, message) in [
            ("", "was empty"),
            ("maxPods: 5\n", "Object 'Kind' is missing"),
            (
                "apiVersion: v1\nkind: Pod\n",
                r#"no kind "Pod" is registered for version "v1""#,
            ),
            (&typed("maxPods: \"5\"\n"), "maxPods of type int32"),
            (&typed("maxPods: [\n"), "failed to decode"),
        ] {
            let folder = folder(&[("kubelet.yaml", text)]);
            let error = load(&folder.path().join("kubelet.yaml")).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        let error = load(Path::new("/no/such")).unwrap_err().to_string();
        assert!(error.contains(r#"failed to read kubelet config file "/no/such""#));
    }

    #[test]
    fn later_files_win() {
        let folder = folder(&[
            (
                "10-first.conf",
                &typed(
                    "maxPods: 5\nclusterDNS: [1.1.1.1]\nsystemReserved: {cpu: 1, memory: 1Gi}\n",
                )
                .replace("cpu: 1", "cpu: \"1\""),
            ),
            ("15-more/a.conf", &typed("maxPods: 6\nport: 1\n")),
            (
                "20-last.conf",
                &typed(
                    "port: 2\nclusterDNS: [2.2.2.2]\nsystemReserved: {cpu: \"2\"}\nhealthzPort: null\n",
                ),
            ),
            ("30-ignored.yaml", "nonsense"),
        ]);
        let base = KubeletConfiguration {
            healthz_port: 1,
            event_burst: 7,
            ..KubeletConfiguration::default()
        };
        let c = merge(&base.complete(), folder.path()).unwrap().config;
        assert_eq!((c.max_pods, c.port, c.event_burst), (6, 2, 7));
        assert_eq!(c.healthz_port, 10248);
        assert_eq!(c.cluster_dns, ["2.2.2.2"]);
        assert_eq!(c.system_reserved["cpu"], "2");
        assert_eq!(c.system_reserved["memory"], "1Gi");
    }

    #[test]
    fn drop_ins_that_do_not_fit() {
        let base = KubeletConfiguration::default().complete();
        for (text, message) in [
            ("maxPods: 1\n", "a.conf, error: Object 'Kind' is missing"),
            (
                "apiVersion: v1\nkind: Pod\n",
                "a.conf, unknown apiVersion/kind: /v1, Kind=Pod",
            ),
            (&typed("maxPods: x\n"), "failed to unmarshal merged JSON"),
            (&typed("maxPods: 1\nmaxPods: 2\n"), "already set in map"),
        ] {
            let folder = folder(&[("a.conf", text)]);
            let error = merge(&base, folder.path()).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        assert!(merge(&base, Path::new("/no/such")).is_err());
    }
}
