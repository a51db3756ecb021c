//! The files: `<root>/image_manager/{pulling,pulled}/sha256-<hash of the image>`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest as _;
use tracing::error;

use super::record::{API_VERSION, PullIntent, PulledRecord};

const PREFIX: &str = "sha256-";
/// Files that were not completed.
const HALF: &str = ".tmp";

pub struct Files {
    pulling: PathBuf,
    pulled: PathBuf,
}

impl Files {
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let files = Self {
            pulling: directory.join("pulling"),
            pulled: directory.join("pulled"),
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&files.pulling)?;
        builder.create(&files.pulled)?;
        Ok(files)
    }

    pub fn write_intent(&self, image: &str) -> io::Result<()> {
        let intent = PullIntent {
            kind: "ImagePullIntent".into(),
            api_version: API_VERSION.into(),
            image: image.to_owned(),
        };
        write(&self.pulling, image, &intent)
    }

    pub fn has_intent(&self, image: &str) -> io::Result<bool> {
        let intent = read::<PullIntent>(&path(&self.pulling, image))?;
        Ok(intent.is_some_and(|intent| intent.image == image))
    }

    /// The images whose pull was begun.
    pub fn intents(&self) -> Vec<String> {
        let intents = all::<PullIntent>(&self.pulling).into_iter();
        intents.map(|intent| intent.image).collect()
    }

    pub fn remove_intent(&self, image: &str) -> io::Result<()> {
        remove(&path(&self.pulling, image))
    }

    pub fn record(&self, image_ref: &str) -> io::Result<Option<PulledRecord>> {
        let record = read::<PulledRecord>(&path(&self.pulled, image_ref))?;
        Ok(record.filter(|record| record.image_ref == image_ref))
    }

    pub fn write_record(&self, record: &PulledRecord) -> io::Result<()> {
        write(&self.pulled, &record.image_ref, record)
    }

    pub fn records(&self) -> Vec<PulledRecord> {
        all(&self.pulled)
    }

    pub fn remove_record(&self, image_ref: &str) -> io::Result<()> {
        remove(&path(&self.pulled, image_ref))
    }
}

fn path(directory: &Path, image: &str) -> PathBuf {
    let digest = sha2::Sha256::digest(image.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join(format!("{PREFIX}{hex}"))
}

fn write(directory: &Path, image: &str, content: &impl Serialize) -> io::Result<()> {
    use io::Write as _;
    let path = path(directory, image);
    let mut text = serde_json::to_vec(content)?;
    text.push(b'\n');
    let half = path.with_extension(HALF.trim_start_matches('.'));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&half)?.write_all(&text)?;
    fs::rename(&half, &path)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match crate::checkpoint::read(path)? {
        Some(text) => Ok(Some(serde_json::from_slice(&text)?)),
        None => Ok(None),
    }
}

/// All that can be read.
fn all<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(PREFIX) && !name.ends_with(HALF)
    });
    let read = |path: PathBuf| {
        read(&path)
            .inspect_err(
                |error| error!(%error, path = %path.display(), "cannot read a record of a pull"),
            )
            .ok()
            .flatten()
    };
    ours.filter_map(|entry| read(entry.path())).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
