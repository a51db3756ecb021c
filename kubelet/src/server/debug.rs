//! `/debug/flags/v` and `/debug/pprof/`: the verbosity of the log can be set while the kubelet runs.
//!
//! Profiles are Go's, of goroutines and its heap, and there are none here: who asks for one is told
//! that it is unknown. `perf` and the allocator's own profiles look at this process from outside.

use component::logs;
use component::serving::Body;
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::answer::{answer, error_line, text};

/// A number, and room for one that is none.
const LONGEST: usize = 1024;

/// Sets the verbosity to what the body says.
pub async fn verbosity(request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::PUT {
        return line(StatusCode::NOT_ACCEPTABLE, "unsupported http method");
    }
    let body = match Limited::new(request.into_body(), LONGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let why = format!("error reading request body: {error}");
            return line(StatusCode::BAD_REQUEST, &why);
        }
    };
    match logs::set_verbosity(&String::from_utf8_lossy(&body)) {
        Ok(done) => line(StatusCode::OK, &done),
        Err(why) => line(StatusCode::BAD_REQUEST, &why),
    }
}

fn line(status: StatusCode, text: &str) -> Response<Body> {
    answer(status, "text/plain", format!("{text}\n"))
}

pub fn profile(name: &str) -> Response<Body> {
    if name == "symbol" {
        return text("num_symbols: 0\n");
    }
    let mut response = error_line(StatusCode::NOT_FOUND, "Unknown profile");
    let go = HeaderValue::from_static("1");
    response.headers_mut().insert("x-go-pprof", go);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_profiles() {
        assert_eq!(profile("heap").status(), 404);
        assert_eq!(profile("symbol").status(), 200);
    }
}
