//! List and watch: selectors, versions and continue tokens become a query of the cache.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use meta::{Status, fields, labels};
use schema::Resource;
use serde::Serialize;
use serde_json::Value;

use super::super::convert;
use super::super::options::{ListOptions, Match, parse_resource_version};
use super::errors::During;
use super::{Store, errors};
use crate::storage::StorageError;
use crate::storage::cache::{At, List, ListQuery, Selector, Start, WatchQuery, Watcher};

/// What a list or watch is about.
#[derive(Debug, Clone)]
pub struct Selection {
    pub selector: Selector,
    /// The namespace of the request (a field selector may narrow the selector's further).
    namespace: String,
}

/// A page of a list.
#[derive(Debug)]
pub struct Listed {
    pub list: List,
    /// Empty when nothing follows.
    pub continue_token: String,
}

/// `continue`, as upstream writes it.
#[derive(Debug, Default, Serialize)]
struct Token {
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "rv")]
    resource_version: i64,
    #[serde(rename = "start")]
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// The version of a token that continues at whatever is there now.
const INCONSISTENT: i64 = -1;

impl Token {
    fn encode(resource_version: i64, start: String) -> String {
        let token = Token {
            version: TOKEN_VERSION.to_owned(),
            resource_version,
            start,
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("strings and numbers"))
    }

    fn decode(text: &str) -> Result<Token, String> {
        let invalid = |why: String| format!("continue key is not valid: {why}");
        let bytes = decode_base64(text)
            .map_err(|at| invalid(format!("illegal base64 data at input byte {at}")))?;
        let token = Token::read(&bytes).map_err(invalid)?;
        if token.version != TOKEN_VERSION {
            return Err(invalid(format!(
                "server does not recognize this encoded version {}",
                token.version
            )));
        }
        if token.resource_version == 0 {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into(),
            ));
        }
        if token.start.is_empty() {
            return Err(invalid(
                "encoded start key empty (version meta.k8s.io/v1)".into(),
            ));
        }
        // Nobody gets out of the prefix that the request is about.
        let below = token.start.strip_prefix('/').unwrap_or(&token.start);
        let mut parts = below.split('/');
        if !below.is_empty() && parts.any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(token.start));
        }
        Ok(token)
    }

    /// Reads the JSON as Go reads it into a struct, in which names may be of any case.
    fn read(bytes: &[u8]) -> Result<Token, String> {
        let json = codec::decode::untyped(bytes).map_err(|e| e.to_string())?;
        let word = |value: &Value| match value {
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if n.is_f64() => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            _ => "object".to_owned(),
        };
        let members = match json {
            Value::Object(members) => members,
            Value::Null => Default::default(),
            other => {
                let found = word(&other);
                return Err(format!(
                    "json: cannot unmarshal {found} into Go value of type storage.continueToken"
                ));
            }
        };
        let wrong = |value: &Value, name: &str, wanted: &str| {
            let found = word(value);
            format!(
                "json: cannot unmarshal {found} into Go struct field continueToken.{name} of type {wanted}"
            )
        };
        let mut token = Token::default();
        for (name, value) in &members {
            match (name.to_ascii_lowercase().as_str(), value) {
                (_, Value::Null) => {}
                ("v", Value::String(text)) => token.version = text.clone(),
                ("start", Value::String(text)) => token.start = text.clone(),
                (name @ ("v" | "start"), other) => return Err(wrong(other, name, "string")),
                ("rv", value) => {
                    let revision = value.as_i64();
                    token.resource_version = revision.ok_or_else(|| wrong(value, "rv", "int64"))?;
                }
                _ => {}
            }
        }
        Ok(token)
    }
}

/// Go's `base64.RawURLEncoding`.
///
/// # Errors
/// The byte at which it gives up.
fn decode_base64(text: &str) -> Result<Vec<u8>, usize> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'\r' | b'\n');
    if let Some(at) = text.bytes().position(|b| !known(b)) {
        return Err(at);
    }
    let digits: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    // Bits that belong to no byte are passed over.
    let lenient = GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient);
    engine
        .decode(digits)
        .map_err(|_| text.len().saturating_sub(1))
}

impl Store {
    /// Reads the selectors of a request for the version `served`. `namespace` and `name` are
    /// the path's.
    pub fn select(
        &self,
        served: &Resource,
        namespace: &str,
        name: &str,
        options: &ListOptions,
    ) -> Result<Selection, Status> {
        let labels = labels::Selector::parse(&options.label_selector)
            .map_err(|e| Status::bad_request(e.to_string()))?;
        let fields = fields::Selector::parse(&options.field_selector)
            .map_err(|e| Status::bad_request(e.to_string()))?;
        if !name.is_empty()
            && !fields.is_empty()
            && fields.requires_exact_match("metadata.name") != Some(name)
        {
            return Err(Status::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        let fields = fields
            .try_rename(|label| convert::field_label(label, served, self.resource))
            .map_err(|e| Status::bad_request(e.to_string()))?;
        let mut selector = Selector::new(self.cache.definition(), namespace, labels, &fields)
            .map_err(|e| Status::bad_request(e.to_string()))?;
        selector.name = name.to_owned();
        Ok(Selection {
            selector,
            namespace: namespace.to_owned(),
        })
    }

    pub async fn list(
        &self,
        selection: &Selection,
        options: &ListOptions,
    ) -> Result<Listed, Status> {
        let resource = self.group_resource();
        let of_one = selection
            .selector
            .is_of_one(self.cache.definition().namespaced);
        let (at, start) = place(selection, of_one, options)?;
        let query = ListQuery {
            selector: &selection.selector,
            at,
            // Whatever state there is comes whole, as from upstream's cache: clients that ask
            // for it do not go on to a second page.
            limit: if options.resource_version == "0" {
                0
            } else {
                options.limit
            },
            start: &start,
        };
        let mut list = match self.cache.list(&query).await {
            Ok(list) => list,
            Err(StorageError::Compacted { .. }) if !options.continue_token.is_empty() => {
                return Err(expired_token(selection, &start));
            }
            Err(e) => return Err(errors::status(e, &resource, "", During::List)),
        };
        let continue_token = match list.objects.last() {
            Some(last) if list.more => Token::encode(
                list.revision as i64,
                format!("/{}\0", relative_to(selection, last.key())),
            ),
            _ => String::new(),
        };
        // What a field selects is not counted, not even where the key says it all.
        if !selection.selector.fields.is_empty() {
            list.remaining = None;
        }
        Ok(Listed {
            list,
            continue_token,
        })
    }

    pub async fn watch(
        &self,
        selection: Selection,
        options: &ListOptions,
    ) -> Result<Watcher, Status> {
        let version = parse_resource_version(&options.resource_version)?;
        let at = match version {
            0 if options.resource_version.is_empty() => At::Latest,
            0 => At::Any,
            n => At::NotOlderThan(n),
        };
        let start = match options.send_initial_events {
            Some(true) => Start::State {
                at,
                marked: options.allow_bookmarks,
            },
            Some(false) if version == 0 => Start::Now,
            _ => Start::After(version),
        };
        self.cache
            .watch(WatchQuery {
                selector: selection.selector,
                start,
                bookmarks: options.allow_bookmarks,
            })
            .await
            .map_err(|e| errors::status(e, &self.group_resource(), "", During::Watch))
    }
}

/// Which state a list shows and where in it the page begins
/// (Kubernetes API concepts, "Semantics for get and list"). `of_one`: one object is listed by its
/// name.
fn place(
    selection: &Selection,
    of_one: bool,
    options: &ListOptions,
) -> Result<(At, String), Status> {
    if !options.continue_token.is_empty() {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Token::decode(&options.continue_token)
            .map_err(|e| Status::bad_request(format!("invalid continue token: {e}")))?;
        let prefix = match selection.namespace.as_str() {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        let start = format!("{prefix}{}", token.start.trim_start_matches('/'));
        let at = match u64::try_from(token.resource_version) {
            Ok(revision) => At::Exact(revision),
            Err(_) => At::Latest,
        };
        return Ok((at, start));
    }
    let version = parse_resource_version(&options.resource_version).map_err(|status| {
        Status::bad_request(format!("invalid resource version: {}", status.message))
    })?;
    let at = match (options.version_match, version) {
        (_, 0) if options.resource_version.is_empty() => At::Latest,
        // Another zero than "0" (`00`) is paged through like no version at all.
        (_, 0) if options.limit > 0 && options.resource_version != "0" => At::Latest,
        (_, 0) => At::Any,
        (Some(Match::Exact), n) => At::Exact(n),
        (Some(Match::NotOlderThan), n) => At::NotOlderThan(n),
        // What is not paged through need not be as it was on the first page.
        (None, n) if options.limit > 0 && !of_one => At::Exact(n),
        (None, n) => At::NotOlderThan(n),
    };
    Ok((at, String::new()))
}

/// A key as a token states it: below the namespace that the request is about.
fn relative_to<'k>(selection: &Selection, key: &'k str) -> &'k str {
    match selection.namespace.as_str() {
        "" => key,
        namespace => key
            .strip_prefix(namespace)
            .and_then(|k| k.strip_prefix('/'))
            .unwrap_or(key),
    }
}

/// 410 with a token that continues with what is there now.
fn expired_token(selection: &Selection, start: &str) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let token = Token::encode(INCONSISTENT, format!("/{}", relative_to(selection, start)));
    status.metadata = Some(Box::new(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta {
            continue_: Some(token),
            ..Default::default()
        },
    ));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(namespace: &str) -> Selection {
        Selection {
            selector: Selector::default(),
            namespace: namespace.to_owned(),
        }
    }

    #[test]
    fn tokens_are_upstreams() {
        let token = Token::encode(42, "ns/a\0".into());
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"v":"meta.k8s.io/v1","rv":42,"start":"ns/a\u0000"}"#
        );
        let back = Token::decode(&token).unwrap();
        assert_eq!((back.resource_version, back.start.as_str()), (42, "ns/a\0"));
    }

    #[test]
    fn bad_tokens_are_refused() {
        let raw = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let upper = raw(r#"{"V":"meta.k8s.io/v1","RV":5,"Start":"/"}"#);
        assert_eq!(Token::decode(&upper).map(|t| t.start), Ok("/".to_owned()));
        for (token, why) in [
            ("!".to_owned(), "illegal base64 data at input byte 0"),
            ("YQ==".to_owned(), "illegal base64 data at input byte 2"),
            (raw("{"), "unexpected end of JSON input"),
            (
                raw("[]"),
                "cannot unmarshal array into Go value of type storage.continueToken",
            ),
            (raw("null"), "does not recognize this encoded version "),
            (
                raw(r#"{"v":5}"#),
                "cannot unmarshal number into Go struct field continueToken.v of type string",
            ),
            (
                raw(r#"{"v":"","rv":5.5}"#),
                "cannot unmarshal number 5.5 into Go struct field continueToken.rv of type int64",
            ),
            (
                Token::encode(1, "//a".into()),
                "continue key is not valid: //a",
            ),
            (
                Token::encode(1, "a/./b".into()),
                "continue key is not valid: a/./b",
            ),
            (Token::encode(0, "a".into()), "start resourceVersion"),
            (Token::encode(1, String::new()), "start key empty"),
            (
                Token::encode(1, "../../secrets/x".into()),
                "continue key is not valid: ..",
            ),
        ] {
            let err = Token::decode(&token).unwrap_err();
            assert!(err.contains(why), "{err}");
        }
    }

    #[test]
    fn versions_choose_the_state() {
        let of = |of_one, rv: &str, version_match, limit| {
            let options = ListOptions {
                resource_version: rv.into(),
                version_match,
                limit,
                ..Default::default()
            };
            place(&selection(""), of_one, &options).unwrap().0
        };
        let at = |rv, version_match, limit| of(false, rv, version_match, limit);
        assert_eq!(at("", None, 0), At::Latest);
        assert_eq!(at("0", None, 0), At::Any);
        assert_eq!(at("0", Some(Match::NotOlderThan), 5), At::Any);
        assert_eq!(at("00", None, 5), At::Latest);
        assert_eq!(at("00", None, 0), At::Any);
        assert_eq!(at("7", None, 0), At::NotOlderThan(7));
        assert_eq!(at("7", None, 5), At::Exact(7));
        assert_eq!(at("7", Some(Match::Exact), 0), At::Exact(7));
        assert_eq!(at("7", Some(Match::NotOlderThan), 5), At::NotOlderThan(7));
        assert_eq!(of(true, "7", None, 5), At::NotOlderThan(7));
        assert_eq!(of(true, "7", Some(Match::Exact), 5), At::Exact(7));
    }

    #[test]
    fn a_token_continues_below_its_namespace() {
        let token = Token::encode(9, relative_to(&selection("ns"), "ns/a\0").to_owned());
        let options = ListOptions {
            continue_token: token,
            ..Default::default()
        };
        let (at, start) = place(&selection("ns"), false, &options).unwrap();
        assert_eq!((at, start.as_str()), (At::Exact(9), "ns/a\0"));
        let versioned = ListOptions {
            resource_version: "4".into(),
            ..options
        };
        assert_eq!(
            place(&selection("ns"), false, &versioned).unwrap_err().code,
            400
        );
    }
}
