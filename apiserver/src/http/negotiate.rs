//! Content negotiation: which media type (and which transformation: Table, partial
//! metadata) an answer has, and what a body is read as.
//!
//! What must not be here: encoding.

use component::aside::LONG;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use meta::{GroupResource, Status};

use super::query::Query;

/// The wire forms of objects, in upstream's order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    pub const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

    pub fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// To read or write more bytes than this takes a millisecond or more.
    pub fn long(self) -> usize {
        match self {
            Media::Json | Media::Protobuf => LONG,
            Media::Yaml => LONG / 16,
        }
    }

    /// The content type of a watch; YAML is not streamed.
    pub fn stream_name(self) -> Option<&'static str> {
        match self {
            Media::Json => Some("application/json"),
            Media::Yaml => None,
            Media::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
        }
    }
}

/// `as=`, `g=` and `v=` of an Accept clause: what the answer shall be converted to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Convert {
    pub kind: String,
    pub group: String,
    pub version: String,
}

impl Convert {
    /// Table, PartialObjectMetadata or its list, of a version that the server knows.
    fn is_meta(&self) -> bool {
        self.group == "meta.k8s.io" && matches!(self.version.as_str(), "v1" | "v1beta1")
    }
}

/// The outcome of a negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub media: Media,
    pub pretty: bool,
    pub convert: Option<Convert>,
    /// `profile=` of aggregated discovery.
    pub profile: String,
}

/// What an endpoint can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Plain objects only: errors.
    Plain,
    /// Objects that can also be shown as partial metadata: reviews.
    Metadata,
    /// Objects that can also be shown as tables (JSON, YAML) or partial metadata.
    Objects,
    /// The same of lists, which can be streamed as well.
    Collection,
}

impl Offer {
    fn allows(self, media: Media, convert: Option<&Convert>) -> bool {
        match convert {
            None => true,
            Some(convert) if self != Offer::Plain && convert.is_meta() => {
                match convert.kind.as_str() {
                    "Table" => media != Media::Protobuf && self != Offer::Metadata,
                    "PartialObjectMetadata" | "PartialObjectMetadataList" => true,
                    _ => false,
                }
            }
            Some(_) => false,
        }
    }
}

/// One clause of an Accept header.
#[derive(Debug, Clone, PartialEq)]
struct Clause<'a> {
    ty: &'a str,
    subtype: &'a str,
    quality: f32,
    params: Vec<(&'a str, &'a str)>,
}

/// The clauses, best first; malformed ones are passed over.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.trim().split(';');
            let media = pieces.next()?;
            let (ty, subtype) = match media.split_once('/') {
                Some((_, subtype)) if subtype.contains('/') => return None,
                Some((ty, subtype)) => (ty.trim(), subtype.trim()),
                None if media.trim() == "*" => ("*", "*"),
                None => return None,
            };
            let mut clause = Clause {
                ty,
                subtype,
                quality: 1.0,
                params: Vec::new(),
            };
            for (key, value) in pieces.filter_map(|p| p.split_once('=')) {
                match key.trim() {
                    "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                    key => clause.params.push((key, value.trim())),
                }
            }
            Some(clause)
        })
        .collect();
    let wildcards = |c: &Clause<'_>| (c.ty == "*") as u8 + (c.subtype == "*") as u8;
    clauses.sort_by(|a, b| {
        b.quality
            .total_cmp(&a.quality)
            .then(wildcards(a).cmp(&wildcards(b)))
    });
    clauses
}

/// The best that the client accepts and `allows` permits; `None` is 406.
pub fn accept(header: &str, allows: impl Fn(Media, Option<&Convert>) -> bool) -> Option<Accepted> {
    let accepted = |media| Accepted {
        media,
        pretty: false,
        convert: None,
        profile: String::new(),
    };
    if header.is_empty() {
        return Some(accepted(Media::Json));
    }
    for clause in clauses(header) {
        for media in Media::ALL {
            let (ty, subtype) = media.name().split_once('/').expect("a media type");
            let matches = (clause.ty == ty && (clause.subtype == subtype || clause.subtype == "*"))
                || (clause.ty == "*" && clause.subtype == "*");
            if !matches {
                continue;
            }
            if let Some(found) = options(accepted(media), &clause.params, &allows) {
                return Some(found);
            }
        }
    }
    None
}

/// Reads a clause's parameters; `None` when one of them cannot be granted.
fn options(
    mut accepted: Accepted,
    params: &[(&str, &str)],
    allows: &impl Fn(Media, Option<&Convert>) -> bool,
) -> Option<Accepted> {
    for (key, value) in params {
        match *key {
            "as" | "g" | "v" => {
                let convert = accepted.convert.get_or_insert_default();
                match *key {
                    "as" => convert.kind = (*value).to_owned(),
                    "g" => convert.group = (*value).to_owned(),
                    _ => convert.version = (*value).to_owned(),
                }
            }
            "stream" if *value != "watch" || accepted.media == Media::Yaml => return None,
            "sv" if *value != "v1" => return None,
            "pretty" => accepted.pretty = *value == "1",
            "profile" => accepted.profile = (*value).to_owned(),
            _ => {}
        }
    }
    // `as=` without a kind asks for nothing.
    accepted.convert = accepted.convert.filter(|c| !c.kind.is_empty());
    allows(accepted.media, accepted.convert.as_ref()).then_some(accepted)
}

/// Negotiates an object's or a list's form.
pub fn output(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Accepted, Status> {
    let wanted = header(headers, ACCEPT);
    let mut accepted = accept(wanted, |m, c| offer.allows(m, c))
        .filter(|_| is_routed(wanted))
        .ok_or_else(|| not_acceptable(wanted, offer, &Media::ALL.map(Media::name)))?;
    accepted.pretty |= is_pretty(headers, query);
    accepted.pretty &= accepted.media == Media::Json;
    Ok(accepted)
}

/// What a watch is answered with.
const STREAMS: [&str; 2] = [
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// Negotiates a watch's form.
pub fn output_stream(headers: &HeaderMap, offer: Offer) -> Result<Accepted, Status> {
    let wanted = header(headers, ACCEPT);
    let accepted = accept(wanted, |m, c| offer.allows(m, c))
        .filter(|_| is_routed(wanted))
        .ok_or_else(|| not_acceptable(wanted, offer, &Media::ALL.map(Media::name)))?;
    match accepted.media {
        Media::Yaml => Err(not_acceptable(wanted, offer, &STREAMS)),
        _ => Ok(accepted),
    }
}

/// Whether the answer may be text as it comes (logs). Upstream's router takes `text/plain` from
/// a client, and its negotiation does not.
///
/// # Errors
/// It may not.
pub fn output_text(headers: &HeaderMap) -> Result<(), Status> {
    let wanted = header(headers, ACCEPT);
    let names = Media::ALL.map(Media::name);
    let is_text = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default();
        media.trim() == "text/plain"
    };
    if !is_routed(wanted) && !wanted.split(',').any(is_text) {
        let text = format!(
            "406: Not Acceptable\n\nAvailable representations: text/plain, {}",
            names.join(", ")
        );
        return Err(router_status(406, &text));
    }
    accept(wanted, |m, c| Offer::Plain.allows(m, c))
        .map(drop)
        .ok_or_else(|| Status::not_acceptable(&names))
}

/// Documents that upstream's router knows as JSON alone: what else a client may want of them.
///
/// # Errors
/// 406: the client takes no JSON.
pub fn json_only(headers: &HeaderMap) -> Result<(), Status> {
    let wanted = header(headers, ACCEPT);
    let takes_json = wanted.is_empty()
        || wanted.split(',').any(|clause| {
            let media = clause.split(';').next().unwrap_or_default().trim();
            matches!(media, "*/*" | "application/json")
        });
    if takes_json {
        return Ok(());
    }
    let text = "406: Not Acceptable\n\nAvailable representations: application/json";
    Err(router_status(406, text))
}

/// A refusal (406). A media type that no object has is refused in the words of upstream's router,
/// parameters that cannot be granted in those of its negotiation.
fn not_acceptable(accept: &str, offer: Offer, offered: &[&str]) -> Status {
    if is_routed(accept) {
        return Status::not_acceptable(offered);
    }
    let mut offered: Vec<&str> = Media::ALL.iter().map(|m| m.name()).collect();
    if offer == Offer::Collection {
        offered.extend(STREAMS);
    }
    let text = format!(
        "406: Not Acceptable\n\nAvailable representations: {}",
        offered.join(", ")
    );
    router_status(406, &text)
}

/// Whether upstream's router lets a request through. It knows `*/*` and whole media types,
/// but no `application/*`.
fn is_routed(accept: &str) -> bool {
    accept.is_empty()
        || accept.split(',').any(|clause| {
            let media = clause.split(';').next().unwrap_or_default().trim();
            media == "*/*" || Media::ALL.iter().any(|m| m.name() == media)
        })
}

/// What upstream makes of an error of its router.
fn router_status(code: i32, text: &str) -> Status {
    Status::generic_server_response(code, "", &GroupResource::default(), "", text, 0, false)
}

/// A refusal (415) of a patch, in the words of upstream's router.
pub fn unsupported_patch() -> Status {
    router_status(415, "415: Unsupported Media Type")
}

/// What a body is; JSON when the client does not say.
pub fn input(headers: &HeaderMap) -> Result<Media, Status> {
    let content_type = header(headers, CONTENT_TYPE);
    if content_type.is_empty() {
        return Ok(Media::Json);
    }
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let mut parameters = parameters.split(';').map(str::trim);
    let well_formed = parameters.all(|p| p.is_empty() || p.contains('='));
    Media::ALL
        .into_iter()
        .find(|m| well_formed && m.name().eq_ignore_ascii_case(essence.trim()))
        .ok_or_else(|| Status::unsupported_media_type(&Media::ALL.map(Media::name)))
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    header(headers, ACCEPT_ENCODING)
        .split(',')
        .any(|token| token.trim() == "gzip")
}

/// `?pretty=`, or a client behind which a person sits.
pub fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.get("pretty") {
        Some(value) if !value.is_empty() => {
            matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
        }
        _ => {
            let agent = header(headers, USER_AGENT);
            ["curl", "Wget", "Mozilla/5.0"]
                .iter()
                .any(|a| agent.starts_with(a))
        }
    }
}

/// A header's text; empty when it is absent or not ASCII.
pub fn header(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> &str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(header: &str) -> Option<(Media, Option<String>)> {
        accept(header, |m, c| Offer::Objects.allows(m, c))
            .map(|a| (a.media, a.convert.map(|c| c.kind)))
    }

    #[test]
    fn kubectls_tables_and_their_fallback() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(objects(kubectl), Some((Media::Json, Some("Table".into()))));
        let plain = accept(kubectl, |m, c| Offer::Plain.allows(m, c)).unwrap();
        assert_eq!((plain.media, plain.convert), (Media::Json, None));
    }

    #[test]
    fn preferences_and_wildcards() {
        assert_eq!(objects(""), Some((Media::Json, None)));
        assert_eq!(objects("*/*"), Some((Media::Json, None)));
        assert_eq!(
            objects("application/vnd.kubernetes.protobuf, */*"),
            Some((Media::Protobuf, None))
        );
        assert_eq!(
            objects("*/*;q=0.8, application/yaml;q=0.9"),
            Some((Media::Yaml, None))
        );
        assert_eq!(objects("text/html"), None);
        assert_eq!(
            objects("application/json;as=Nonsense;v=v1;g=meta.k8s.io"),
            None
        );
        assert_eq!(
            objects("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"),
            None
        );
    }

    #[test]
    fn unknown_bodies_are_refused_with_what_is_known() {
        let mut headers = HeaderMap::new();
        assert_eq!(input(&headers), Ok(Media::Json));
        headers.insert(
            CONTENT_TYPE,
            "application/yaml; charset=utf-8".parse().unwrap(),
        );
        assert_eq!(input(&headers), Ok(Media::Yaml));
        headers.insert(CONTENT_TYPE, "application/json;charset".parse().unwrap());
        assert_eq!(input(&headers).unwrap_err().code, 415);
        headers.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(
            input(&headers).unwrap_err().message,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn the_router_knows_whole_media_types_only() {
        let refused = |accept: &str, offer| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            output(&headers, &Query::parse(""), offer)
                .unwrap_err()
                .message
        };
        assert_eq!(
            refused("application/*", Offer::Objects),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert!(refused("text/html", Offer::Collection).ends_with("protobuf;stream=watch"));
        assert_eq!(
            refused(
                "application/json;as=Nonsense;v=v1;g=meta.k8s.io",
                Offer::Objects
            ),
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn watches_are_not_yaml() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "application/yaml".parse().unwrap());
        assert_eq!(
            output_stream(&headers, Offer::Objects).unwrap_err().code,
            406
        );
        headers.insert(ACCEPT, "application/json;stream=watch".parse().unwrap());
        assert_eq!(
            output_stream(&headers, Offer::Objects).unwrap().media,
            Media::Json
        );
    }
}
