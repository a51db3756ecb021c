//! Keeps containers' logs from filling the disk: a log that has grown too large is put aside, the
//! runtime opens a new one, and only so many old ones are kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::client::{CriClient, Of};
use super::{labels, logs};

/// `containerLogMaxSize` in bytes, `containerLogMaxFiles`.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub max_size: u64,
    pub max_files: usize,
}

/// Logs that have grown too large: `<root>/<pod>/<container>/<n>.log`.
fn grown(root: &Path, max_size: u64) -> Vec<PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    };
    let files = list(root)
        .into_iter()
        .flat_map(|pod| list(&pod))
        .flat_map(|container| list(&container));
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| {
            path.metadata()
                .is_ok_and(|metadata| metadata.len() > max_size)
        })
        .collect()
}

/// Looks for logs to rotate until `stop`, with a pause of `every` between two looks.
pub async fn run(
    runtime: CriClient,
    root: PathBuf,
    policy: Policy,
    every: Duration,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        rotate(&runtime, &root, policy).await;
    }
}

/// Rotates what is due.
async fn rotate(client: &CriClient, root: &Path, policy: Policy) {
    let due = grown(root, policy.max_size);
    if due.is_empty() {
        return;
    }
    let running = match client
        .list_containers(Of {
            pod_uid: None,
            running: true,
        })
        .await
    {
        Ok(running) => running,
        Err(error) => {
            warn!(%error, "cannot rotate logs: the runtime does not list its containers");
            return;
        }
    };
    for path in due {
        let container = running.iter().find(|container| {
            let attempt = container.metadata.as_ref().map_or(0, |m| m.attempt);
            let name = container
                .labels
                .get(labels::CONTAINER_NAME)
                .map_or("", String::as_str);
            let uid = container
                .labels
                .get(labels::POD_UID)
                .map_or("", String::as_str);
            let relative = logs::relative_path(name, i32::try_from(attempt).unwrap_or_default());
            let of_pod = path
                .ancestors()
                .nth(2)
                .and_then(Path::file_name)
                .map(|n| n.to_string_lossy().into_owned());
            path.ends_with(relative)
                && of_pod.is_some_and(|directory| logs::uid_of_directory(&directory) == uid)
        });
        // The log of a container that ended grows no more.
        let Some(container) = container else { continue };
        if let Err(error) = rotate_one(client, &container.id, &path, policy).await {
            warn!(path = %path.display(), %error, "cannot rotate a log");
        }
    }
}

async fn rotate_one(client: &CriClient, id: &str, path: &Path, policy: Policy) -> io::Result<()> {
    tidy(path, policy.max_files)?;
    let aside = PathBuf::from(format!(
        "{}.{}",
        path.display(),
        Timestamp::now().strftime("%Y%m%d-%H%M%S")
    ));
    fs::rename(path, &aside)?;
    if let Err(error) = client.reopen_log(id).await {
        // The runtime goes on writing where it was: put it back.
        fs::rename(&aside, path)?;
        return Err(io::Error::other(error));
    }
    Ok(())
}

/// Compresses logs put aside before, and removes the oldest so that one more has room.
fn tidy(path: &Path, max_files: usize) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut aside: Vec<PathBuf> = fs::read_dir(directory)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    aside.sort();
    // One is written to, and one is about to be put aside.
    let keep = max_files.saturating_sub(2);
    for old in aside.drain(..aside.len().saturating_sub(keep)) {
        fs::remove_file(old)?;
    }
    for plain in aside.iter().filter(|path| {
        path.extension()
            .is_none_or(|extension| extension != "gz" && extension != "tmp")
    }) {
        let packed = PathBuf::from(format!("{}.gz", plain.display()));
        let unfinished = PathBuf::from(format!("{}.tmp", plain.display()));
        let mut encoder = GzEncoder::new(fs::File::create(&unfinished)?, Compression::default());
        io::copy(&mut fs::File::open(plain)?, &mut encoder)?;
        encoder.finish()?;
        fs::rename(&unfinished, packed)?;
        fs::remove_file(plain)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_logs_are_packed_and_few() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("n_p_u/c");
        fs::create_dir_all(&directory).unwrap();
        let log = directory.join("0.log");
        fs::write(&log, vec![b'x'; 100]).unwrap();
        fs::write(directory.join("1.log"), "short").unwrap();
        assert_eq!(grown(root.path(), 50), std::slice::from_ref(&log));
        for stamp in [
            "20260101-000000.gz",
            "20260102-000000.gz",
            "20260103-000000",
        ] {
            fs::write(directory.join(format!("0.log.{stamp}")), "old").unwrap();
        }
        tidy(&log, 4).unwrap();
        let mut names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "0.log",
                "0.log.20260102-000000.gz",
                "0.log.20260103-000000.gz",
                "1.log"
            ]
        );
    }
}
