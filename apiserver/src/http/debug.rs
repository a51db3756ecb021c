//! `/debug/flags` and `/debug/pprof`, with `--profiling`: the verbosity of the log can be set
//! while the server runs.
//!
//! Profiles are Go's, of goroutines and its heap, and there are none here: the index says so,
//! and what asks for one is told that it is unknown. `perf` and the allocator's own profiles
//! look at this process from outside.
//!
//! What must not be here: who may ask (authorization has said so before).

use component::logs;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::{self, Body};
use super::context::RequestContext;

const FLAGS: &str = "<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n\
    /debug/flags/<br>\nv: PUT a number\n</body>\n</html>\n";
const PROFILES: &str = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n\
    /debug/pprof/\n<p>This server keeps no profiles.</p>\n</body>\n</html>\n";

/// `None` for other paths.
pub async fn serve(request: &mut RequestContext) -> Option<Response<Body>> {
    let path = request.info.path.strip_prefix("/debug/")?;
    match path {
        "flags/v" => Some(verbosity(request).await),
        "pprof" => {
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::FOUND;
            let to = HeaderValue::from_static("/debug/pprof/");
            response.headers_mut().insert(header::LOCATION, to);
            Some(response)
        }
        "pprof/" => Some(html(PROFILES)),
        "pprof/symbol" => Some(body::text(StatusCode::OK, "num_symbols: 0\n")),
        "flags" => Some(html(FLAGS)),
        other if other.starts_with("flags/") => Some(html(FLAGS)),
        other if other.starts_with("pprof/") => {
            let mut response = body::text(StatusCode::NOT_FOUND, "Unknown profile\n");
            let name = HeaderName::from_static("x-go-pprof");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("1"));
            Some(response)
        }
        _ => None,
    }
}

/// Sets the verbosity to what the body says.
async fn verbosity(request: &mut RequestContext) -> Response<Body> {
    if request.method != Method::PUT {
        return plain(StatusCode::NOT_ACCEPTABLE, "unsupported http method");
    }
    let body = match request.read_body().await {
        Ok(body) => body,
        Err(e) => {
            let text = format!("error reading request body: {e}");
            return plain(StatusCode::BAD_REQUEST, &text);
        }
    };
    match logs::set_verbosity(&String::from_utf8_lossy(&body)) {
        Ok(text) => plain(StatusCode::OK, &text),
        Err(text) => plain(StatusCode::BAD_REQUEST, &text),
    }
}

fn plain(status: StatusCode, line: &str) -> Response<Body> {
    let mut response = body::text(status, format!("{line}\n"));
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn html(page: &'static str) -> Response<Body> {
    let mut response = body::text(StatusCode::OK, page);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}
