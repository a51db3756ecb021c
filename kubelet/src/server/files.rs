//! A file as an answer, as upstream's file server makes it: a part of it where one is asked for,
//! nothing where the client has it, and read in pieces off the workers.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use component::serving::Body;
use futures::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::answer::{answer, error_line};

/// What is read at once: enough that a copy costs little, and not more than a client that reads
/// slowly may keep in memory.
const PIECE: u64 = 64 * 1024;

/// What a client wants of a file.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// From the first number to before the second.
    Part(u64, u64),
    NotChanged,
    Failed,
    OutOfRange,
}

/// Answers with the file; the name says what kind it is. Blocks for a first look at the content.
///
/// # Errors
/// When it cannot be read.
pub fn serve(mut file: File, name: &str, headers: &HeaderMap) -> io::Result<Response<Body>> {
    let metadata = file.metadata()?;
    let size = metadata.len();
    let modified = modified(&metadata);
    let wanted = wanted(headers, modified, size);
    let (status, start, end) = match wanted {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::NotChanged => return Ok(with_date(empty(StatusCode::NOT_MODIFIED), modified)),
        Wanted::Failed => return Ok(empty(StatusCode::PRECONDITION_FAILED)),
        Wanted::OutOfRange => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut response = error_line(status, "invalid range: failed to overlap");
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let content_type = content_type(&mut file, name)?;
    file.seek(SeekFrom::Start(start))?;
    let mut response = Response::new(pieces(file, end - start));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, content_type);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(
        &mut response,
        header::CONTENT_LENGTH,
        &(end - start).to_string(),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{size}", end - 1);
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    Ok(with_date(response, modified))
}

/// When it was last written to, and never: what has no such time is always new.
pub fn modified(metadata: &Metadata) -> Option<Timestamp> {
    let at = Timestamp::try_from(metadata.modified().ok()?).ok()?;
    (at.as_second() != 0).then_some(at)
}

/// Whether the client has seen what was last changed then.
pub fn is_known(headers: &HeaderMap, modified: Option<Timestamp>) -> bool {
    let since = date(headers, header::IF_MODIFIED_SINCE);
    let (Some(since), Some(modified)) = (since, modified) else {
        return false;
    };
    !headers.contains_key(header::IF_NONE_MATCH) && modified.as_second() <= since.as_second()
}

pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = answer(status, "", Bytes::new());
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

pub fn with_date(mut response: Response<Body>, modified: Option<Timestamp>) -> Response<Body> {
    if let Some(at) = modified {
        let at = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        set(&mut response, header::LAST_MODIFIED, &at);
    }
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A date of HTTP's usual form; upstream knows two older ones, which nobody sends.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?.strip_suffix(" GMT")?;
    let date = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", text).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn wanted(headers: &HeaderMap, modified: Option<Timestamp>, size: u64) -> Wanted {
    if let (Some(since), Some(modified)) = (date(headers, header::IF_UNMODIFIED_SINCE), modified)
        && modified.as_second() > since.as_second()
    {
        return Wanted::Failed;
    }
    if is_known(headers, modified) {
        return Wanted::NotChanged;
    }
    let Some(range) = headers.get(header::RANGE).and_then(|v| v.to_str().ok()) else {
        return Wanted::All;
    };
    if headers.contains_key(header::IF_RANGE) {
        let same = date(headers, header::IF_RANGE).map(|at| at.as_second())
            == modified.map(|at| at.as_second());
        if !same {
            return Wanted::All;
        }
    }
    let Some(range) = range.strip_prefix("bytes=") else {
        return Wanted::OutOfRange;
    };
    // Several parts are answered with the whole, as a server may (RFC 9110, 14.2).
    if range.contains(',') {
        return Wanted::All;
    }
    part(range.trim(), size).unwrap_or(Wanted::OutOfRange)
}

/// One range: `1-2`, `1-`, or the last bytes as `-2`.
fn part(range: &str, size: u64) -> Option<Wanted> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let count = last.parse::<u64>().ok()?.min(size);
        return Some(match count {
            0 => Wanted::All,
            count => Wanted::Part(size - count, size),
        });
    }
    let first = first.parse::<u64>().ok()?;
    let end = match last {
        "" => size,
        last => {
            let last = last.parse::<u64>().ok().filter(|last| *last >= first)?;
            last.saturating_add(1).min(size)
        }
    };
    (first < size).then_some(Wanted::Part(first, end))
}

/// By the name's ending, or else by what the file begins with.
fn content_type(file: &mut File, name: &str) -> io::Result<&'static str> {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    Ok(match ending.unwrap_or_default() {
        "log" => "text/x-log; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "xml" => "text/xml; charset=utf-8",
        "gz" => "application/gzip",
        _ => {
            let mut head = Vec::new();
            file.by_ref().take(512).read_to_end(&mut head)?;
            let is_control = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
            if head.starts_with(&[0x1f, 0x8b, 8]) {
                "application/x-gzip"
            } else if head.iter().any(is_control) {
                "application/octet-stream"
            } else {
                "text/plain; charset=utf-8"
            }
        }
    })
}

/// So many bytes from where the file stands. A file that is shorter by then ends the answer early.
fn pieces(file: File, length: u64) -> Body {
    let pieces = stream::try_unfold((file, length), async |(file, left)| {
        if left == 0 {
            return Ok(None);
        }
        // One piece at a time: a client that does not read holds no thread.
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let mut part = file.take(left.min(PIECE));
            let read = part.read_to_end(&mut piece);
            read.map(|_| (part.into_inner(), piece))
        });
        let (file, piece) = read.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let left = left - piece.len() as u64;
        Ok(Some((Frame::data(Bytes::from(piece)), (file, left))))
    });
    StreamBody::new(Box::pin(pieces))
        .map_err(|error: io::Error| error.into())
        .boxed_unsync()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn ask(pairs: &[(HeaderName, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(name.clone(), value.parse().unwrap());
        }
        let modified: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        wanted(&headers, Some(modified), 10)
    }

    #[test]
    fn what_is_wanted() {
        let range = |text: &str| ask(&[(header::RANGE, text)]);
        assert_eq!(range("bytes=0-3"), Wanted::Part(0, 4));
        assert_eq!(range("bytes=4-"), Wanted::Part(4, 10));
        assert_eq!(range("bytes=-3"), Wanted::Part(7, 10));
        assert_eq!(range("bytes=8-99"), Wanted::Part(8, 10));
        assert_eq!(range("bytes=10-"), Wanted::OutOfRange);
        assert_eq!(range("bytes=5-2"), Wanted::OutOfRange);
        assert_eq!(range("lines=5-2"), Wanted::OutOfRange);
        assert_eq!(range("bytes=0-1,3-4"), Wanted::All);
        let at = "Thu, 01 Jan 2026 00:00:00 GMT";
        assert_eq!(ask(&[(header::IF_MODIFIED_SINCE, at)]), Wanted::NotChanged);
        let before = "Wed, 31 Dec 2025 00:00:00 GMT";
        assert_eq!(ask(&[(header::IF_MODIFIED_SINCE, before)]), Wanted::All);
        let unmodified = [(header::IF_UNMODIFIED_SINCE, before)];
        assert_eq!(ask(&unmodified), Wanted::Failed);
        let part = [(header::RANGE, "bytes=1-1"), (header::IF_RANGE, before)];
        assert_eq!(ask(&part), Wanted::All);
    }

    #[tokio::test]
    async fn a_part_is_sent_in_pieces() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 200_000]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=1-150000".parse().unwrap());
        let response = serve(file, "a.log", &headers).unwrap();
        assert_eq!(response.status(), 206);
        let own = response.headers();
        assert_eq!(own[header::CONTENT_RANGE], "bytes 1-150000/200000");
        assert_eq!(own[header::CONTENT_TYPE], "text/x-log; charset=utf-8");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 150_000);
    }
}
