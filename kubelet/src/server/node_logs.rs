//! `/logs/`: what lies in the machine's log directory, and nothing else. Links may lead about in
//! it and not out of it; what is no regular file is not opened. Blocks on file operations.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use component::serving::Body;
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::{answer, error_line, escaped, page_not_found, redirect};
use super::files;
use crate::sys::fs::{open_beneath, reopen_regular};

/// Where the machine's own logs lie.
pub const ROOT: &str = "/var/log";

/// As Go writes a path into a URL.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// What is at a path below the log directory.
enum Found {
    File(File),
    /// By the path that links have led to.
    Directory(PathBuf),
}

/// Answers for `path`, which is decoded and relative to `root`.
pub fn serve(root: &Path, path: &str, query: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    try_serve(root, path, query, headers).unwrap_or_else(|error| failed(&error))
}

fn try_serve(
    root: &Path,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> io::Result<Response<Body>> {
    if path == "index.html" || path.ends_with("/index.html") {
        return Ok(moved("./", query));
    }
    let relative = cleaned(path);
    let name = relative.file_name().unwrap_or_default().to_string_lossy();
    let slash = path.is_empty() || path.ends_with('/');
    match find(root, &relative)? {
        Found::File(_) if slash => Ok(moved(&format!("../{name}"), query)),
        Found::File(file) => files::serve(file, &name, headers),
        Found::Directory(_) if !slash => Ok(moved(&format!("{name}/"), query)),
        Found::Directory(directory) => {
            if let Ok(Found::File(page)) = find(root, &relative.join("index.html")) {
                return files::serve(page, "index.html", headers);
            }
            list(&directory, headers)
        }
    }
}

/// The path without parts that climb, as if the log directory were all there is.
pub fn cleaned(path: &str) -> PathBuf {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.into_iter().collect()
}

/// Opens a regular file below the log directory.
///
/// # Errors
/// `NotFound` also for what links lead out of it.
pub fn open(root: &Path, relative: &Path) -> io::Result<File> {
    match find(root, relative)? {
        Found::File(file) => Ok(file),
        Found::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
    }
}

fn find(root: &Path, relative: &Path) -> io::Result<Found> {
    let root = root.canonicalize()?;
    let real = root.join(relative).canonicalize()?;
    let Ok(inside) = real.strip_prefix(&root) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    // Whatever has been put there since: no link is followed any more.
    let found = open_beneath(&root, inside, None)?;
    let is_dir = File::from(found.try_clone()?).metadata()?.is_dir();
    Ok(if is_dir {
        Found::Directory(real)
    } else {
        Found::File(reopen_regular(found)?)
    })
}

fn list(directory: &Path, headers: &HeaderMap) -> io::Result<Response<Body>> {
    let modified = files::modified(&directory.metadata()?);
    if files::is_known(headers, modified) {
        let unchanged = files::empty(StatusCode::NOT_MODIFIED);
        return Ok(files::with_date(unchanged, modified));
    }
    let entries = std::fs::read_dir(directory)?.flatten().map(|entry| {
        let slash = match entry.file_type() {
            Ok(kind) if kind.is_dir() => "/",
            _ => "",
        };
        format!("{}{slash}", entry.file_name().to_string_lossy())
    });
    let mut names: Vec<String> = entries.collect();
    names.sort();
    let mut page = String::from(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n",
    );
    for name in names {
        let link = utf8_percent_encode(&name, IN_PATH).to_string();
        // A colon in the first part would make it the name of a scheme.
        let dot = if link.contains(':') { "./" } else { "" };
        page += &format!("<a href=\"{dot}{link}\">{}</a>\n", escaped(&name));
    }
    page += "</pre>\n";
    let response = answer(StatusCode::OK, "text/html; charset=utf-8", page);
    Ok(files::with_date(response, modified))
}

/// Relative to where the client is: whoever stands in between may have another prefix.
fn moved(to: &str, query: Option<&str>) -> Response<Body> {
    let encoded = utf8_percent_encode(to, IN_PATH).to_string();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let to = format!("{encoded}{query}");
    redirect(StatusCode::MOVED_PERMANENTLY, &to, String::new())
}

fn failed(error: &io::Error) -> Response<Body> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => page_not_found(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            error_line(StatusCode::FORBIDDEN, "403 Forbidden")
        }
        _ => error_line(
            StatusCode::INTERNAL_SERVER_ERROR,
            "500 Internal Server Error",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use http::header;
    use http_body_util::BodyExt;
    use nix::sys::stat::Mode;

    use super::*;

    async fn ask(root: &Path, path: &str) -> (u16, String, String) {
        let response = serve(root, path, None, &HeaderMap::new());
        let status = response.status().as_u16();
        let location = response.headers().get(header::LOCATION);
        let location = location.map_or("", |to| to.to_str().unwrap()).to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            location,
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    #[tokio::test]
    async fn logs_stay_in_their_directory() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("pods")).unwrap();
        std::fs::write(root.join("a.log"), "l1\n").unwrap();
        symlink(root.join("a.log"), root.join("pods/link")).unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        symlink(outside.path().join("secret"), root.join("file-out")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        for (path, status, location) in [
            ("a.log", 200, ""),
            ("a.log/", 301, "../a.log"),
            ("pods", 301, "pods/"),
            ("pods/link", 200, ""),
            ("pods/../a.log", 200, ""),
            ("../../a.log", 200, ""),
            ("nope", 404, ""),
            ("a.log/x", 404, ""),
            ("out/secret", 404, ""),
            ("file-out", 404, ""),
            ("fifo", 403, ""),
            ("", 200, ""),
        ] {
            let (code, to, body) = ask(root, path).await;
            assert_eq!((code, to.as_str()), (status, location), "{path}: {body}");
        }
    }

    #[tokio::test]
    async fn names_are_no_markup() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a<img src=x>"), "").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let (_, _, page) = ask(dir.path(), "").await;
        let links =
            "<a href=\"a%3Cimg%20src=x%3E\">a&lt;img src=x&gt;</a>\n<a href=\"d/\">d/</a>\n";
        assert!(page.contains(links), "{page}");
    }
}
