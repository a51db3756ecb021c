//! A pod's volumes: drivers that are gone, files that hide one another.

use std::collections::BTreeMap;

use meta::field::Path;
use meta::gofmt::quote;
use serde_json::Value;

use super::{Warnings, items, list, storage, text};

/// Volumes whose drivers are gone, and since when.
const GONE: &[(&str, &str)] = &[
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// A source of a volume whose driver is gone.
pub(super) fn gone(warnings: &mut Warnings, volume: &Value, path: &Path, source: &'static str) {
    let since = GONE.iter().find(|(gone, _)| *gone == source);
    if let Some((_, since)) = since.filter(|_| volume[source].is_object()) {
        // Upstream spells this one as Go does.
        let name = match source {
            "storageos" => "storageOS",
            source => source,
        };
        warnings.add(&path.child(name), since);
    }
}

/// The sources of all volumes, then what is within them.
pub(super) fn warn(warnings: &mut Warnings, spec: &Value, path: &Path) {
    for (volume, at) in list(spec, path, "volumes") {
        for (source, _) in GONE {
            gone(warnings, volume, &at, source);
        }
        let template = &volume["ephemeral"]["volumeClaimTemplate"];
        let at = at.child("ephemeral").child("volumeClaimTemplate");
        storage::claim_spec(warnings, &template["spec"], &at.child("spec"));
    }
    for (volume, _) in items(&spec["volumes"], path) {
        overlaps(warnings, volume);
    }
}

/// A file of a volume; `from` is empty where there is but one source.
#[derive(Clone)]
struct File<'a> {
    path: &'a str,
    from: String,
}

impl<'a> File<'a> {
    fn new(path: &'a str, from: impl Into<String>) -> Self {
        Self {
            path: path.trim_end_matches('/'),
            from: from.into(),
        }
    }
}

/// The files of a volume so far, by path: each ends with a slash, so that what is within another
/// begins with it.
#[derive(Default)]
struct Files<'a> {
    all: Vec<File<'a>>,
    by_path: BTreeMap<String, Vec<usize>>,
}

impl<'a> Files<'a> {
    fn push(&mut self, file: File<'a>) {
        let path = format!("{}/", file.path);
        self.by_path.entry(path).or_default().push(self.all.len());
        self.all.push(file);
    }

    /// Those that are this one, around it or within it, in their order.
    fn overlapping(&self, file: &File<'_>) -> impl Iterator<Item = &File<'a>> {
        let path = format!("{}/", file.path);
        let mut found: Vec<usize> = Vec::new();
        if !file.path.is_empty() {
            let around = path[..path.len() - 1]
                .match_indices('/')
                .filter(|(at, _)| *at > 0);
            for (at, _) in around {
                found.extend(
                    self.by_path
                        .get(&path[..=at])
                        .into_iter()
                        .flatten()
                        .copied(),
                );
            }
            let within = self.by_path.range(path.clone()..);
            let within = within.take_while(|(other, _)| other.starts_with(&path));
            found.extend(within.flat_map(|(_, files)| files.iter().copied()));
        }
        found.sort_unstable();
        found.into_iter().map(|i| &self.all[i])
    }
}

impl std::fmt::Display for File<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&quote(self.path))?;
        match self.from.as_str() {
            "" => Ok(()),
            from => write!(f, " ({from})"),
        }
    }
}

fn item_paths(source: &Value) -> Option<impl Iterator<Item = &str>> {
    let items = source["items"].as_array()?;
    Some(items.iter().map(|item| text(item, "path")))
}

fn overlaps(warnings: &mut Warnings, volume: &Value) {
    let of = |kind: &str, name: &str| format!("{kind} {}", quote(name));
    let (config, secret) = (&volume["configMap"], &volume["secret"]);
    for (source, from) in [
        (config, of("ConfigMap", text(config, "name"))),
        (secret, of("Secret", text(secret, "secretName"))),
        (&volume["downwardAPI"], "DownwardAPI".to_owned()),
    ] {
        let paths = item_paths(source).into_iter().flatten();
        clashes(warnings, volume, &from, paths.map(|p| File::new(p, "")));
    }
    let mut files = Files::default();
    // Both are told in the order of the sources.
    for (source, _) in items(&volume["projected"]["sources"], &Path::root()) {
        let is_empty = source
            .as_object()
            .is_none_or(|s| s.values().all(Value::is_null));
        if is_empty {
            warnings.say(format!(
                "volume {} (Projected) has no sources provided",
                quote(text(volume, "name"))
            ));
        }
        for file in projected(source) {
            clash(warnings, volume, "Projected", &files, &file);
            files.push(file);
        }
    }
}

/// The files of one source of a projected volume.
fn projected(source: &Value) -> Vec<File<'_>> {
    let named = |kind: &str, source: &Value| format!("{kind} {}", quote(text(source, "name")));
    let (config, secret) = (&source["configMap"], &source["secret"]);
    for (source, from) in [
        (config, named("ConfigMap", config)),
        (secret, named("Secret", secret)),
        (&source["downwardAPI"], "DownwardAPI".to_owned()),
    ] {
        if let Some(paths) = item_paths(source) {
            return paths.map(|path| File::new(path, from.as_str())).collect();
        }
    }
    let (token, bundle) = (
        &source["serviceAccountToken"],
        &source["clusterTrustBundle"],
    );
    if token.is_object() {
        return vec![File::new(text(token, "path"), "ServiceAccountToken")];
    }
    if bundle.is_object() {
        let name = bundle["name"].as_str();
        let name = name.unwrap_or_else(|| text(bundle, "signerName"));
        let from = format!("ClusterTrustBundle {}", quote(name));
        return vec![File::new(text(bundle, "path"), from)];
    }
    let certificate = &source["podCertificate"];
    [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ]
    .into_iter()
    .map(|(field, from)| (text(certificate, field), from))
    .filter(|(path, _)| !path.is_empty())
    .map(|(path, from)| File::new(path, from))
    .collect()
}

fn clashes<'a>(
    warnings: &mut Warnings,
    volume: &Value,
    from: &str,
    files: impl Iterator<Item = File<'a>>,
) {
    let mut seen = Files::default();
    for file in files {
        clash(warnings, volume, from, &seen, &file);
        seen.push(file);
    }
}

fn clash(
    warnings: &mut Warnings,
    volume: &Value,
    from: &str,
    earlier: &Files<'_>,
    file: &File<'_>,
) {
    if warnings.is_full() {
        return;
    }
    let name = quote(text(volume, "name"));
    for other in earlier.overlapping(file) {
        warnings.say(format!(
            "volume {name} ({from}): overlapping paths: {file} with {other}"
        ));
    }
}
