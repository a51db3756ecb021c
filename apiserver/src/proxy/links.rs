//! What comes through a proxy names its own places: links of pages and `Location`s without a
//! host are led through the proxy again.
//!
//! A page is changed piece by piece as it comes, whatever its length.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use futures::stream;
use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use lol_html::html_content::Element;
use lol_html::send::{HtmlRewriter, SendHandlerTypes, Settings};
use lol_html::{OutputSink, element};

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

/// Attributes that hold a URL (HTML 4.01's index of attributes, and HTML 5's), by element.
const URLS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

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
        if let Some(location) = text(&head.headers, &header::LOCATION) {
            let location = self.through(location).map(HeaderValue::try_from);
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
        match Page::new(self.clone(), coding.as_deref().unwrap_or_default()) {
            Some(page) => {
                head.headers.remove(header::CONTENT_LENGTH);
                Response::from_parts(head, page.of(body))
            }
            None => {
                tracing::warn!(
                    ?coding,
                    "the links of a page in this coding are not changed"
                );
                Response::from_parts(head, body)
            }
        }
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

    fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Encoder::Plain(_) => Ok(()),
            Encoder::Gzip(out) => out.try_finish(),
            Encoder::Deflate(out) => out.try_finish(),
        }
    }
}

/// What has been changed and not yet sent.
#[derive(Clone)]
struct Output(Arc<Mutex<Encoder>>);

impl Output {
    fn with<T>(&self, act: impl FnOnce(&mut Encoder) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> Bytes {
        self.with(|encoder| std::mem::take(encoder.buffer()).into())
    }
}

impl OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        // Writing to memory does not fail.
        let _ = self.with(|encoder| match encoder {
            Encoder::Plain(out) => out.write_all(chunk),
            Encoder::Gzip(out) => out.write_all(chunk),
            Encoder::Deflate(out) => out.write_all(chunk),
        });
    }
}

/// Changes links. Whatever is no page is passed on as it is.
struct Rewriter(HtmlRewriter<'static, Output>);

impl Write for Rewriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A page as it comes.
enum Decoder {
    Plain(Rewriter),
    Gzip(GzDecoder<Rewriter>),
    Deflate(DeflateDecoder<Rewriter>),
}

impl Decoder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Decoder::Plain(to) => to.write_all(bytes),
            Decoder::Gzip(to) => to.write_all(bytes),
            Decoder::Deflate(to) => to.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        let rewriter = match self {
            Decoder::Plain(to) => to,
            Decoder::Gzip(to) => to.finish()?,
            Decoder::Deflate(to) => to.finish()?,
        };
        rewriter.0.end().map_err(std::io::Error::other)
    }
}

struct Page {
    input: Decoder,
    output: Output,
}

impl Page {
    /// `None` for a coding that is not known.
    fn new(links: Links, coding: &str) -> Option<Page> {
        let best = Compression::best();
        let encoder = match coding {
            "" => Encoder::Plain(Vec::new()),
            "gzip" => Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
            "deflate" => Encoder::Deflate(DeflateEncoder::new(Vec::new(), best)),
            _ => return None,
        };
        let output = Output(Arc::new(Mutex::new(encoder)));
        let change = move |element: &mut Element<'_, '_, SendHandlerTypes>| change(&links, element);
        let settings = Settings::new_send()
            .with_strict(false)
            .append_element_content_handler(element!("*", change));
        let rewriter = Rewriter(HtmlRewriter::new(settings, output.clone()));
        let input = match coding {
            "gzip" => Decoder::Gzip(GzDecoder::new(rewriter)),
            "deflate" => Decoder::Deflate(DeflateDecoder::new(rewriter)),
            _ => Decoder::Plain(rewriter),
        };
        Some(Page { input, output })
    }

    /// The page's body, changed as it is read.
    fn of(self, body: Body) -> Body {
        let step = |state: Option<(Page, Body)>| async move {
            let Some((mut page, mut body)) = state else {
                return Ok::<_, BoxError>(None);
            };
            let next = loop {
                match body.frame().await.transpose()? {
                    None => {
                        page.input.finish()?;
                        page.output.with(Encoder::finish)?;
                        break None;
                    }
                    Some(frame) => {
                        let Ok(bytes) = frame.into_data() else {
                            continue;
                        };
                        page.input.write(&bytes)?;
                        let bytes = page.output.take();
                        if !bytes.is_empty() {
                            return Ok(Some((Frame::data(bytes), Some((page, body)))));
                        }
                    }
                }
            };
            Ok(Some((Frame::data(page.output.take()), next)))
        };
        StreamBody::new(stream::try_unfold(Some((self, body)), step)).boxed_unsync()
    }
}

fn change(links: &Links, element: &mut Element<'_, '_, SendHandlerTypes>) -> Result<(), BoxError> {
    let name = element.tag_name();
    let Some((_, attributes)) = URLS.iter().find(|(element, _)| *element == name) else {
        return Ok(());
    };
    for attribute in *attributes {
        let url = element.get_attribute(attribute);
        if let Some(url) = url.and_then(|url| links.through(&url)) {
            element.set_attribute(attribute, &url)?;
        }
    }
    Ok(())
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

    #[tokio::test]
    async fn pages_stay_in_their_coding() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(BEFORE.as_bytes()).unwrap();
        let (_, body) = page("gzip", vec![packed.finish().unwrap()]).await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*body)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, AFTER);
        let unknown = page("br", vec![BEFORE.as_bytes().to_vec()]).await.1;
        assert_eq!(unknown, BEFORE.as_bytes());
    }
}
