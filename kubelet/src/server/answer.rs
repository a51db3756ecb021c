//! Answers of the node's API, in the forms that upstream's have.

use bytes::Bytes;
use component::serving::{Body, full};
use http::header::{self, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;

/// An answer, or the status and text of a refusal.
pub type Answer = Result<Response<Body>, Refusal>;

/// Why a request is refused: status and text.
pub type Refusal = (StatusCode, String);

const TEXT: &str = "text/plain; charset=utf-8";

pub fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn text(body: impl Into<Bytes>) -> Response<Body> {
    answer(StatusCode::OK, TEXT, body)
}

pub fn as_json(value: &Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", value.to_string())
}

pub fn refused((status, body): Refusal) -> Response<Body> {
    answer(status, TEXT, body)
}

/// As Go's `http.Error`: a line, and nobody may take it for anything but text.
pub fn error_line(status: StatusCode, line: &str) -> Response<Body> {
    let mut response = answer(status, TEXT, format!("{line}\n"));
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

pub fn page_not_found() -> Response<Body> {
    error_line(StatusCode::NOT_FOUND, "404 page not found")
}

/// Sends a client elsewhere.
pub fn redirect(status: StatusCode, to: &str, body: String) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(to) else {
        return page_not_found();
    };
    let mut response = Response::new(full(body.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    if !body.is_empty() {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(CONTENT_TYPE, html);
    }
    response
}

/// What must not become markup where it stands in a page.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
