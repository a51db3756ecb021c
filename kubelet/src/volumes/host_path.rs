//! hostPath: a path of the node as it is.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use thiserror::Error;

/// Why the path is not what the pod says it is.
#[derive(Debug, Error)]
pub enum HostPathError {
    #[error("hostPath type check failed: {path} is not a {what}")]
    Type { path: String, what: &'static str },
    #[error("{0} is an invalid volume type")]
    Unknown(String),
    #[error("{path}: {source}")]
    Make {
        path: String,
        source: std::io::Error,
    },
}

/// Checks the path's type, and makes it where the type says so.
///
/// # Errors
/// When it is something else, or cannot be made.
pub fn check(path: &str, kind: &str) -> Result<(), HostPathError> {
    let exists = Path::new(path).exists();
    let make = |made: std::io::Result<()>| {
        made.map_err(|source| HostPathError::Make {
            path: path.into(),
            source,
        })
    };
    match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if !exists => {
            let mode = PermissionsExt::from_mode(0o755);
            return make(fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, mode)));
        }
        "FileOrCreate" if !exists => {
            let mode = PermissionsExt::from_mode(0o644);
            return make(fs::File::create(path).and_then(|file| file.set_permissions(mode)));
        }
        _ => {}
    }
    let file_type = fs::metadata(path).map(|metadata| metadata.file_type()).ok();
    let is = |check: fn(&fs::FileType) -> bool| file_type.as_ref().is_some_and(check);
    let (fits, what) = match kind {
        "DirectoryOrCreate" | "Directory" => (is(fs::FileType::is_dir), "directory"),
        "FileOrCreate" | "File" => (is(fs::FileType::is_file), "file"),
        "Socket" => (is(FileTypeExt::is_socket), "socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "block device"),
        _ => return Err(HostPathError::Unknown(kind.into())),
    };
    if fits {
        Ok(())
    } else {
        Err(HostPathError::Type {
            path: path.into(),
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        check(&path("d/e"), "DirectoryOrCreate").unwrap();
        check(&path("d/e"), "Directory").unwrap();
        check(&path("f"), "FileOrCreate").unwrap();
        check(&path("none"), "").unwrap();
        check("/dev/null", "CharDevice").unwrap();
        assert!(check(&path("f"), "Directory").is_err());
        assert!(check(&path("none"), "File").is_err());
        assert_eq!(
            check(&path("f"), "Socket").unwrap_err().to_string(),
            format!(
                "hostPath type check failed: {} is not a socket file",
                path("f")
            )
        );
    }
}
