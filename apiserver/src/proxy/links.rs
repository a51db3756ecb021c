//! What comes through a proxy names its own places: links of pages and `Location`s without a
//! host are led through the proxy again.
//!
//! A page is changed piece by piece as it comes, whatever its length.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use futures::stream;
use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame};
use percent_encoding::{CONTROLS, percent_encode};

use super::html::Rewriter;
use crate::http::body::{Body, BoxError};

/// Where the proxied place is for the client, and for us.
#[derive(Debug, Clone)]
pub struct Links {
    /// The path up to `…/proxy`, without a slash at its end.
    pub prefix: String,
    /// The backend's address and port.
    pub backend: String,
    /// Whom the client believes to ask.
    pub host: String,
}

/// What a backend says about whom it serves is not so for who asks the API server.
const CROSS_ORIGIN: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

impl Links {
    /// The URL by which the client gets to where `url` leads from the backend; `None` where it
    /// is that already: elsewhere, or relative to the page.
    fn through(&self, url: &str) -> Option<String> {
        let (origin, rest) = split(url);
        let host = origin.rsplit_once("//").map_or("", |(_, host)| host);
        if !rest.starts_with('/') || !(host.is_empty() || host == self.backend || host == self.host)
        {
            return None;
        }
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, more) = rest.split_at(end);
        let kept = if host == self.host { origin } else { "" };
        if path.starts_with(&self.prefix) {
            return (kept != origin).then(|| format!("{kept}{rest}"));
        }
        Some(format!("{kept}{}{}{more}", self.prefix, clean(path)))
    }

    /// Leads an answer of the backend through the proxy.
    pub fn lead(&self, response: Response<Body>) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        for name in CROSS_ORIGIN {
            head.headers.remove(name);
        }
        if let Some(location) = head.headers.get(header::LOCATION) {
            // Addresses are of ASCII; where they are not, browsers write them so.
            let location = percent_encode(location.as_bytes(), CONTROLS).to_string();
            let location = self.through(&location).map(HeaderValue::try_from);
            if let Some(Ok(location)) = location {
                head.headers.insert(header::LOCATION, location);
            }
            return Response::from_parts(head, body);
        }
        let kind = text(&head.headers, &header::CONTENT_TYPE).unwrap_or_default();
        let is_page = kind.split(';').next().unwrap_or_default().trim() == "text/html";
        let coding = text(&head.headers, &header::CONTENT_ENCODING).map(str::to_owned);
        if !is_page {
            return Response::from_parts(head, body);
        }
        if body.is_end_stream() {
            // An answer to HEAD: the page will have another length.
            head.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(head, body);
        }
        let body = match Page::new(self.clone(), coding.as_deref().unwrap_or_default(), body) {
            Ok(page) => {
                head.headers.remove(header::CONTENT_LENGTH);
                page.into_body()
            }
            Err(body) => {
                tracing::warn!(
                    ?coding,
                    "the links of a page in this coding are not changed"
                );
                body
            }
        };
        Response::from_parts(head, body)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Scheme and host of a URL, and what follows them.
fn split(url: &str) -> (&str, &str) {
    let slashes = match url.find("//") {
        Some(0) => 0,
        Some(at) if url[..at].ends_with(':') && !url[..at].contains(['/', '?', '#']) => at,
        _ => return ("", url),
    };
    let host = slashes + 2;
    let end = url[host..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| host + at);
    url.split_at(end)
}

/// A path without `.`, `..` and empty parts.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{slash}", parts.join("/"))
}

/// Text that is changed without a pause. What comes of it may be thirty times as long.
const PIECE: usize = 4 << 10;

/// What has been changed is sent when it is as long as this, or when there is no more of it yet.
const FRAME: usize = 16 << 10;

/// A page as it goes to the client, in the coding in which it came.
enum Encoder {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(DeflateEncoder<Vec<u8>>),
}

impl Encoder {
    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Encoder::Plain(out) => out,
            Encoder::Gzip(out) => out.get_mut(),
            Encoder::Deflate(out) => out.get_mut(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Encoder::Plain(out) => out.write_all(bytes),
            Encoder::Gzip(out) => out.write_all(bytes),
            Encoder::Deflate(out) => out.write_all(bytes),
        }
    }

    fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Encoder::Plain(_) => Ok(()),
            Encoder::Gzip(out) => out.try_finish(),
            Encoder::Deflate(out) => out.try_finish(),
        }
    }
}

/// A page as it comes.
enum Decoder {
    Plain(Vec<u8>),
    Gzip(MultiGzDecoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>),
}

impl Decoder {
    /// Unpacks some of it, to no more than twice what flate2 has room for (32 KiB), and says how
    /// much that was; none where the packed page has ended.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Decoder::Plain(out) => out.write(&bytes[..bytes.len().min(FRAME)]),
            Decoder::Gzip(out) => out.write(bytes),
            Decoder::Deflate(out) => out.write(bytes),
        }
    }

    fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Decoder::Plain(_) => Ok(()),
            Decoder::Gzip(out) => out.try_finish(),
            Decoder::Deflate(out) => out.try_finish(),
        }
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Decoder::Plain(out) => out,
            Decoder::Gzip(out) => out.get_mut(),
            Decoder::Deflate(out) => out.get_mut(),
        }
    }
}

/// Lets others have their turn, and tokio look at what has come for them, after each millisecond.
/// That of sending what has been made counts too: where nobody needs to be waited for, it is most.
struct Turns {
    began: Instant,
}

impl Turns {
    const LENGTH: Duration = Duration::from_millis(1);

    async fn next(&mut self) {
        if self.began.elapsed() >= Self::LENGTH {
            // As a task of its own: this one is also woken by the backend's, which is no turn of
            // those whose sockets nobody has looked at yet.
            let _ = tokio::spawn(tokio::task::yield_now()).await;
            self.began = Instant::now();
        }
    }
}

/// A page whose links are changed while it is read.
struct Page {
    body: Body,
    /// Packed, as it came.
    come: Bytes,
    input: Decoder,
    /// The page behind `come` has come already.
    has_ended: bool,
    /// Unpacked, and how much of it has been changed.
    text: Vec<u8>,
    changed: usize,
    rewriter: Rewriter,
    output: Encoder,
    /// All of it has been sent.
    is_whole: bool,
    /// What follows the page.
    trailers: Option<Frame<Bytes>>,
    turns: Turns,
}

impl Page {
    /// # Errors
    /// The body, as its coding is not known.
    fn new(links: Links, coding: &str, body: Body) -> Result<Page, Body> {
        let best = Compression::best();
        let (input, output) = match coding {
            "" => (Decoder::Plain(Vec::new()), Encoder::Plain(Vec::new())),
            "gzip" => (
                Decoder::Gzip(MultiGzDecoder::new(Vec::new())),
                Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
            ),
            "deflate" => (
                Decoder::Deflate(DeflateDecoder::new(Vec::new())),
                Encoder::Deflate(DeflateEncoder::new(Vec::new(), best)),
            ),
            _ => return Err(body),
        };
        Ok(Page {
            body,
            come: Bytes::new(),
            input,
            has_ended: false,
            text: Vec::new(),
            changed: 0,
            rewriter: Rewriter::new(move |url| links.through(url)),
            output,
            is_whole: false,
            trailers: None,
            turns: Turns {
                began: Instant::now(),
            },
        })
    }

    /// The page as it goes to the client, changed as it is read.
    fn into_body(self) -> Body {
        let frames = stream::try_unfold(Some(self), |page| async {
            match page {
                Some(page) => page.frame().await.map(Some),
                None => Ok(None),
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }

    /// The next part of the page, and what is behind it.
    async fn frame(mut self) -> Result<(Frame<Bytes>, Option<Page>), BoxError> {
        if self.is_whole
            && let Some(trailers) = self.trailers.take()
        {
            return Ok((trailers, None));
        }
        loop {
            let ready = self.output.buffer().len();
            let left = self.changed < self.text.len() || !self.come.is_empty();
            if ready >= FRAME || ready > 0 && !left && !self.has_ended {
                let bytes = std::mem::take(self.output.buffer());
                return Ok((Frame::data(bytes.into()), Some(self)));
            }
            self.turns.next().await;
            if left {
                self.step()?;
            } else if self.has_ended {
                self.end()?;
                self.is_whole = true;
                let bytes = std::mem::take(self.output.buffer());
                let behind = self.trailers.is_some().then_some(self);
                return Ok((Frame::data(bytes.into()), behind));
            } else {
                match self.body.frame().await.transpose()? {
                    None => self.input_ended()?,
                    Some(frame) => match frame.into_data() {
                        Ok(data) => self.come = data,
                        Err(frame) => self.trailers = Some(frame),
                    },
                }
            }
        }
    }

    /// Changes a piece of what has been unpacked, or unpacks some more.
    fn step(&mut self) -> std::io::Result<()> {
        if self.changed < self.text.len() {
            let end = self.text.len().min(self.changed + PIECE);
            let mut changed = Vec::with_capacity(2 * PIECE);
            let piece = &self.text[self.changed..end];
            self.rewriter.write(piece, &mut changed);
            self.changed = end;
            return self.output.write(&changed);
        }
        match self.input.write(&self.come)? {
            // What stands behind a packed page is none of it.
            0 => self.input_ended()?,
            taken => {
                self.come.advance(taken);
                self.unpacked();
            }
        }
        Ok(())
    }

    fn input_ended(&mut self) -> std::io::Result<()> {
        self.come.clear();
        self.has_ended = true;
        self.input.finish()?;
        self.unpacked();
        Ok(())
    }

    fn unpacked(&mut self) {
        self.text.clear();
        self.changed = 0;
        std::mem::swap(&mut self.text, self.input.buffer());
    }

    fn end(&mut self) -> std::io::Result<()> {
        let mut held_back = Vec::new();
        self.rewriter.finish(&mut held_back);
        self.output.write(&held_back)?;
        self.output.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/a/pods/b/proxy".into(),
            backend: "10.0.0.1:80".into(),
            host: "localhost:8001".into(),
        }
    }

    #[test]
    fn urls_of_the_backend_lead_through_the_proxy() {
        let through = |url: &str| links().through(url);
        let prefixed = |path: &str| Some(format!("/api/v1/namespaces/a/pods/b/proxy{path}"));
        assert_eq!(through("/x/?q=/y#z"), prefixed("/x/?q=/y#z"));
        assert_eq!(through("/"), prefixed("/"));
        assert_eq!(through("/x/../../y//z"), prefixed("/y/z"));
        assert_eq!(through("http://10.0.0.1:80/x"), prefixed("/x"));
        assert_eq!(through("//10.0.0.1:80/x"), prefixed("/x"));
        assert_eq!(
            through("http://localhost:8001/x").as_deref(),
            Some("http://localhost:8001/api/v1/namespaces/a/pods/b/proxy/x")
        );
        let already = "/api/v1/namespaces/a/pods/b/proxy/x";
        for url in [
            "x",
            "../x",
            "?x",
            "#x",
            "",
            "mailto:x@y//z",
            "https://example.com/x",
            already,
        ] {
            assert_eq!(through(url), None, "{url}");
        }
    }

    #[test]
    fn no_location_leads_out_of_the_proxy() {
        let led = |location: &[u8]| {
            let mut response = Response::new(crate::http::body::empty());
            let location = HeaderValue::from_bytes(location).unwrap();
            response.headers_mut().insert(header::LOCATION, location);
            let response = links().lead(response);
            text(response.headers(), &header::LOCATION).map(str::to_owned)
        };
        let prefixed = |path: &str| Some(format!("/api/v1/namespaces/a/pods/b/proxy{path}"));
        assert_eq!(led(b"/x"), prefixed("/x"));
        assert_eq!(led("/\u{e4}".as_bytes()), prefixed("/%C3%A4"));
        assert_eq!(led(b"/\xff?q"), prefixed("/%FF?q"));
    }

    async fn page(coding: &str, pieces: Vec<Vec<u8>>) -> (HeaderMap, Vec<u8>) {
        let frames = pieces.into_iter().map(|p| Ok(Frame::data(Bytes::from(p))));
        let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(
            "content-type",
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert("content-length", HeaderValue::from_static("7"));
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        if !coding.is_empty() {
            headers.insert("content-encoding", HeaderValue::try_from(coding).unwrap());
        }
        let (head, body) = links().lead(response).into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        (head.headers, body)
    }

    const BEFORE: &str = "<p class=x>/a<A Href='/a'>b</A><img src=/i.png /><script>\"<a href='/c'>\"</script><a href=\"d\">";
    const AFTER: &str = "<p class=x>/a<A Href=\"/api/v1/namespaces/a/pods/b/proxy/a\">b</A><img src=\"/api/v1/namespaces/a/pods/b/proxy/i.png\" /><script>\"<a href='/c'>\"</script><a href=\"d\">";

    #[tokio::test]
    async fn pages_are_changed_however_they_are_cut() {
        for size in [1, 7, BEFORE.len()] {
            let pieces = BEFORE.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            let (headers, body) = page("", pieces).await;
            assert_eq!(String::from_utf8(body).unwrap(), AFTER);
            let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(left, ["content-type"]);
        }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn gunzip(packed: &[u8]) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[tokio::test]
    async fn long_pages_are_never_there_as_a_whole() {
        let packed = gzip(&"<a href=/x>".repeat(100_000));
        let body = crate::http::body::full(packed);
        let Ok(page) = Page::new(links(), "gzip", body) else {
            panic!("gzip is known");
        };
        let (mut next, mut gone) = (Some(page), Vec::new());
        while let Some(page) = next {
            let (frame, behind) = page.frame().await.unwrap();
            let sent = frame.into_data().unwrap();
            assert!(sent.len() < 4 * FRAME);
            gone.extend_from_slice(&sent);
            next = behind;
            let held = next.as_ref().map_or(0, |page| page.text.len());
            assert!(held <= 64 << 10, "{held}");
        }
        let link = "<a href=\"/api/v1/namespaces/a/pods/b/proxy/x\">";
        assert_eq!(gunzip(&gone), link.repeat(100_000));
    }

    #[tokio::test]
    async fn trailers_follow_the_page() {
        let trailers = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("x"))]);
        let frames = [
            Frame::data(BEFORE.into()),
            Frame::trailers(trailers.clone()),
        ];
        let body = StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync();
        let Ok(page) = Page::new(links(), "", body) else {
            panic!("no coding is known");
        };
        let sent = page.into_body().collect().await.unwrap();
        assert_eq!(sent.trailers(), Some(&trailers));
        assert_eq!(sent.to_bytes(), AFTER);
    }

    #[tokio::test]
    async fn pages_stay_in_their_coding() {
        let (_, body) = page("gzip", vec![gzip(BEFORE)]).await;
        assert_eq!(gunzip(&body), AFTER);
        let twice = [gzip(BEFORE), gzip(BEFORE)].concat();
        let (_, body) = page("gzip", vec![twice]).await;
        assert_eq!(gunzip(&body), [AFTER, AFTER].concat());
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
        packed.write_all(BEFORE.as_bytes()).unwrap();
        let followed = [packed.finish().unwrap(), b"more".to_vec()].concat();
        let (_, body) = page("deflate", vec![followed]).await;
        let mut text = String::new();
        flate2::read::DeflateDecoder::new(&*body)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, AFTER);
        let unknown = page("br", vec![BEFORE.as_bytes().to_vec()]).await.1;
        assert_eq!(unknown, BEFORE.as_bytes());
    }
}
