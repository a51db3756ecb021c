//! What a body is whose backend does not say it: upstream's server looks at how it begins (WHATWG
//! MIME Sniffing, as far as Go's net/http takes it).
//!
//! What must not be here: what is done for a media type.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Body as _;

use crate::http::body::Body;

/// More is not looked at.
const LOOKED_AT: usize = 512;

const PAGE: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const UNKNOWN: &str = "application/octet-stream";
const MP4: &str = "video/mp4";
const RAR: &str = "application/x-rar-compressed";

/// How pages begin, in any letters, up to a space or `>`.
const TAGS: [&str; 17] = [
    "<!doctype html",
    "<html",
    "<head",
    "<script",
    "<iframe",
    "<h1",
    "<div",
    "<font",
    "<table",
    "<a",
    "<style",
    "<title",
    "<b",
    "<body",
    "<br",
    "<p",
    "<!--",
];

/// How others begin: bytes at the start, and bytes at a place behind it.
const BEGINNINGS: [(&[u8], usize, &[u8], &str); 32] = [
    (b"%PDF-", 0, b"", "application/pdf"),
    (b"%!PS-Adobe-", 0, b"", "application/postscript"),
    (b"\xFE\xFF", 4, b"", "text/plain; charset=utf-16be"),
    (b"\xFF\xFE", 4, b"", "text/plain; charset=utf-16le"),
    (b"\xEF\xBB\xBF", 4, b"", TEXT),
    (b"\x00\x00\x01\x00", 0, b"", "image/x-icon"),
    (b"\x00\x00\x02\x00", 0, b"", "image/x-icon"),
    (b"BM", 0, b"", "image/bmp"),
    (b"GIF87a", 0, b"", "image/gif"),
    (b"GIF89a", 0, b"", "image/gif"),
    (b"RIFF", 8, b"WEBPVP", "image/webp"),
    (b"\x89PNG\r\n\x1A\n", 0, b"", "image/png"),
    (b"\xFF\xD8\xFF", 0, b"", "image/jpeg"),
    (b"FORM", 8, b"AIFF", "audio/aiff"),
    (b"ID3", 0, b"", "audio/mpeg"),
    (b"OggS\x00", 0, b"", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", 0, b"", "audio/midi"),
    (b"RIFF", 8, b"AVI ", "video/avi"),
    (b"RIFF", 8, b"WAVE", "audio/wave"),
    (b"", 4, b"ftyp", MP4),
    (b"\x1A\x45\xDF\xA3", 0, b"", "video/webm"),
    (b"", 34, b"LP", "application/vnd.ms-fontobject"),
    (b"\x00\x01\x00\x00", 0, b"", "font/ttf"),
    (b"OTTO", 0, b"", "font/otf"),
    (b"ttcf", 0, b"", "font/collection"),
    (b"wOFF", 0, b"", "font/woff"),
    (b"wOF2", 0, b"", "font/woff2"),
    (b"\x1F\x8B\x08", 0, b"", "application/x-gzip"),
    (b"PK\x03\x04", 0, b"", "application/zip"),
    (b"Rar!\x1A\x07\x00", 0, b"", RAR),
    (b"Rar!\x1A\x07\x01\x00", 0, b"", RAR),
    (b"\x00asm", 0, b"", "application/wasm"),
];

/// A backend that says nothing for so long shall not have its headers held back: upstream sends
/// them then.
const PATIENCE: Duration = Duration::from_millis(200);

/// Says what the body is where the backend does not, if it begins soon.
pub async fn with_type(response: Response<Body>) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    let is_coded = head.headers.get(header::CONTENT_ENCODING);
    let without_body = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    if head.headers.contains_key(header::CONTENT_TYPE)
        || is_coded.is_some_and(|coding| !coding.is_empty())
        || without_body
        || body.is_end_stream()
    {
        return Response::from_parts(head, body);
    }
    let Ok(first) = tokio::time::timeout(PATIENCE, body.frame()).await else {
        return Response::from_parts(head, body);
    };
    if let Some(Ok(frame)) = &first
        && let Some(data) = frame.data_ref().filter(|data| !data.is_empty())
    {
        let found = HeaderValue::from_static(media_type(data));
        head.headers.insert(header::CONTENT_TYPE, found);
    }
    let frames = stream::iter(first).chain(BodyStream::new(body));
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}

/// What begins so.
fn media_type(data: &[u8]) -> &'static str {
    let data = &data[..data.len().min(LOOKED_AT)];
    let bare = data.trim_ascii_start();
    if TAGS.iter().any(|tag| begins_with_tag(bare, tag)) {
        return PAGE;
    }
    if bare.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    let known = BEGINNINGS.iter().find(|(start, at, behind, media)| {
        let has_rest = data.get(*at..).is_some_and(|rest| rest.starts_with(behind));
        data.starts_with(start) && has_rest && (*media != MP4 || is_mp4(data))
    });
    match known {
        Some((.., media)) => media,
        None if bare.iter().copied().any(is_binary) => UNKNOWN,
        None => TEXT,
    }
}

fn begins_with_tag(data: &[u8], tag: &str) -> bool {
    let begins = data
        .get(..tag.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(tag.as_bytes()));
    begins && matches!(data.get(tag.len()), Some(b' ' | b'>'))
}

/// One of the brands of the box that the data begins with, the version left out, is an MP4's.
fn is_mp4(data: &[u8]) -> bool {
    let Some((length, _)) = data.split_first_chunk() else {
        return false;
    };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(brands) = data.get(8..length) else {
        return false;
    };
    let mut brands = brands.chunks(4).enumerate();
    length.is_multiple_of(4) && brands.any(|(at, brand)| at != 1 && brand.starts_with(b"mp4"))
}

/// Control characters that no text has.
fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::body::Frame;

    use super::*;

    async fn type_of(body: Body) -> Option<HeaderValue> {
        let (mut head, body) = with_type(Response::new(body)).await.into_parts();
        drop(body);
        head.headers.remove(header::CONTENT_TYPE)
    }

    #[tokio::test(start_paused = true)]
    async fn headers_do_not_wait_for_a_body_that_does_not_begin() {
        let begun = stream::iter([Ok(Frame::data(Bytes::from("a")))]);
        let begun = StreamBody::new(begun.chain(stream::pending()));
        assert_eq!(type_of(begun.boxed_unsync()).await.unwrap(), TEXT);
        let silent = StreamBody::new(stream::pending());
        assert_eq!(type_of(silent.boxed_unsync()).await, None);
    }

    #[test]
    fn what_a_body_is_shows_in_how_it_begins() {
        let types: [(&[u8], &str); 17] = [
            (b" \n<!DOCTYPE HTML>", PAGE),
            (b"<a href=x>", PAGE),
            (b"<abbr>", TEXT),
            (b"<a", TEXT),
            (b" <?xml version", "text/xml; charset=utf-8"),
            (b"{\"a\": 1}", TEXT),
            (b"\x0c\x1b[1m", TEXT),
            (b"a\x00", UNKNOWN),
            (b"\xEF\xBB\xBFa", TEXT),
            (b"\xFE\xFFab", "text/plain; charset=utf-16be"),
            (b"%PDF-1.7", "application/pdf"),
            (b"RIFF1234WEBPVP8", "image/webp"),
            (b"RIFF1234WAVE", "audio/wave"),
            (b"RIFF\x001234", UNKNOWN),
            (b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00mp42", MP4),
            (b"\x00\x00\x00\x10ftypisommp42", UNKNOWN),
            (&[0; 600], UNKNOWN),
        ];
        for (data, media) in types {
            assert_eq!(media_type(data), media, "{data:?}");
        }
    }
}
