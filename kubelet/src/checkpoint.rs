//! What the files have in common that outlive the kubelet. Their formats are upstream's, so that
//! either kubelet goes on where the other stopped.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cri::hash::fnv1a_32;

/// Upstream's checksum: not of a file's text but of Go's dump of what it says (`%#v` of go-spew).
pub fn checksum(dump: &str) -> u64 {
    u64::from(fnv1a_32(dump.as_bytes()))
}

/// Replaces a file as a whole: whoever is killed in between leaves the old one.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// The file's text; `None` where it is not there.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Go's dump of a map: its entries in order.
pub fn dump_map<'a, K: 'a, V: 'a>(
    entries: impl IntoIterator<Item = (&'a K, &'a V)>,
    key: impl Fn(&K) -> String,
    value: impl Fn(&V) -> String,
) -> String {
    let entries = entries.into_iter();
    let entries = entries.map(|(k, v)| format!("{}:{}", key(k), value(v)));
    format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
}

/// What a manager keeps of one policy's decisions. It serializes as upstream's file has it, but for
/// the policy's name and the checksum.
pub trait State: Serialize + DeserializeOwned + Default + Clone + PartialEq {
    /// Upstream's name of the file below the root directory.
    const FILE: &'static str;
    /// The manager, as messages name it.
    const MANAGER: &'static str;
    /// What upstream's manager begins its own messages with.
    const PREFIX: &'static str;

    /// Go's dump of the file with this policy's name, and without a checksum.
    fn dump(&self, policy: &str) -> String;
}

/// What every such file says beside the state.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    policy_name: String,
    checksum: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a, S> {
    policy_name: &'a str,
    #[serde(flatten)]
    state: &'a S,
    checksum: u64,
}

/// The file of a manager's state.
#[derive(Debug)]
pub struct StateFile<S> {
    path: PathBuf,
    policy: &'static str,
    state: PhantomData<S>,
}

impl<S: State> StateFile<S> {
    /// The file of this policy, and what it says after the policy has begun with it; it is made
    /// where there is none.
    ///
    /// # Errors
    /// When there is one and it is not whole, or another policy's, or the policy does not take it.
    pub fn open(
        root: &Path,
        policy: &'static str,
        begin: impl FnOnce(&mut S) -> Result<(), String>,
    ) -> Result<(Self, S), String> {
        let file = Self {
            path: root.join(S::FILE),
            policy,
            state: PhantomData,
        };
        let read = file.read().map_err(|why| {
            format!(
                "could not restore state from checkpoint: {why}, please drain this node and delete the {} manager \
                 checkpoint file {:?} before restarting Kubelet",
                S::MANAGER,
                file.path
            )
        })?;
        let mut state = read.clone().unwrap_or_default();
        begin(&mut state)?;
        if read.as_ref() != Some(&state) {
            file.write(&state).map_err(|error| error.to_string())?;
        }
        Ok((file, state))
    }

    fn read(&self) -> Result<Option<S>, String> {
        let Some(text) = read(&self.path).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let header: Header = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let state: S = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        // Before there was one, it was left out.
        if header.checksum != 0 && header.checksum != checksum(&state.dump(&header.policy_name)) {
            return Err("checkpoint is corrupted".into());
        }
        if header.policy_name != self.policy {
            return Err(format!(
                "{}configured policy {:?} differs from state checkpoint policy {:?}",
                S::PREFIX,
                self.policy,
                header.policy_name
            ));
        }
        Ok(Some(state))
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &S) -> io::Result<()> {
        let whole = Whole {
            policy_name: self.policy,
            state,
            checksum: checksum(&state.dump(self.policy)),
        };
        write(&self.path, &serde_json::to_vec(&whole)?)
    }
}
