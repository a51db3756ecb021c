//! Reading what a client sent: JSON or YAML into a tree that is known to fit the schema,
//! with upstream's errors for what does not.

mod canonical;
mod json;
mod unstructured;
mod yaml;

pub use canonical::canonical;
pub use json::json;
pub use unstructured::unstructured;
pub use yaml::{plain_json, to_json as yaml_to_json, yaml};

use std::collections::HashSet;

use serde_json::Value;

use crate::json::read::{Kind, Reader};

/// What becomes of unknown and duplicate fields (`fieldValidation` of a request).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// They are dropped.
    Ignore,
    /// They are dropped and listed, to be sent back as warnings.
    Warn,
    /// They are dropped and listed, and the request is to be refused.
    Strict,
}

/// A body that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What the schema knows of the body, in canonical form and without `null`s.
    pub value: Value,
    /// Unknown and duplicate fields in upstream's words, such as
    /// `unknown field "spec.containers[0].foo"`; empty under [`Strictness::Ignore`].
    pub strict_errors: Vec<String>,
}

/// The errors of [`Strictness::Strict`] as one, if there are any.
pub fn strict_error(errors: &[String]) -> Option<String> {
    (!errors.is_empty()).then(|| format!("strict decoding error: {}", errors.join(", ")))
}

/// What an object says it is; empty where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

/// Reads what a JSON body says it is, and that it is JSON.
///
/// # Errors
/// The body is no JSON object, or says so in something else than texts.
pub fn type_meta(body: &[u8]) -> Result<TypeMeta, DecodeError> {
    let mut found = TypeMeta::default();
    let mut json = Reader::new(body);
    // What is of a wrong type is an error only of what can be read to its end.
    let mut wrong = None;
    match json.peek()? {
        Kind::Object => {
            json.object()?;
            let mut first = true;
            while let Some(key) = json.key(&mut first)? {
                let slot = match key.as_ref() {
                    "apiVersion" => &mut found.api_version,
                    "kind" => &mut found.kind,
                    _ => {
                        json.skip()?;
                        continue;
                    }
                };
                match json.peek()? {
                    Kind::String => *slot = json.string()?.into_owned(),
                    other => {
                        json.skip()?;
                        if other != Kind::Null {
                            wrong.get_or_insert(format!(
                                "json: cannot unmarshal {} into Go struct field .{key} of type string",
                                other.word()
                            ));
                        }
                    }
                }
            }
        }
        Kind::Null => json.null()?,
        other => {
            json.skip()?;
            // The struct into which upstream reads this has no name.
            wrong = Some(format!(
                "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                other.word()
            ));
        }
    }
    json.end()?;
    match wrong {
        Some(text) => Err(DecodeError::value(text)),
        None => Ok(found),
    }
}

/// Reads JSON that no schema has seen, as Go reads it into an `any`.
///
/// # Errors
/// The body is no JSON.
pub fn untyped(body: &[u8]) -> Result<Value, DecodeError> {
    let mut json = Reader::new(body);
    let value = json.tree()?;
    json.end()?;
    Ok(value)
}

/// The paths of members that occur more than once in a JSON body, such as
/// `spec.containers[0].name`. What cannot be read has none.
pub fn duplicates(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    // The caller has read the body before, and knows of its errors.
    let _ = find_duplicates(&mut Reader::new(body), &mut String::new(), &mut found);
    found
}

fn find_duplicates(
    json: &mut Reader<'_>,
    path: &mut String,
    found: &mut Vec<String>,
) -> Result<(), DecodeError> {
    let length = path.len();
    match json.peek()? {
        Kind::Object => {
            json.object()?;
            let mut seen = HashSet::new();
            let mut first = true;
            while let Some(key) = json.key(&mut first)? {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&key);
                if !seen.insert(key) && !found.contains(path) {
                    found.push(path.clone());
                }
                find_duplicates(json, path, found)?;
                path.truncate(length);
            }
        }
        Kind::Array => {
            json.array()?;
            let mut first = true;
            let mut index = 0;
            while json.element(&mut first)? {
                path.push_str(&format!("[{index}]"));
                find_duplicates(json, path, found)?;
                path.truncate(length);
                index += 1;
            }
        }
        _ => json.skip()?,
    }
    Ok(())
}

/// A body that could not be read; the text is upstream's.
pub type DecodeError = crate::error::Error;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_occur_twice_are_found() {
        let body = br#"{"a":1,"b":[{"c":1,"c":2,"c":3}],"a":{}}"#;
        assert_eq!(duplicates(body), ["b[0].c", "a"]);
        assert!(duplicates(b"[{\"a\":1},{\"a\":1}]").is_empty());
    }

    #[test]
    fn an_object_says_what_it_is() {
        let read = |body: &str| type_meta(body.as_bytes()).map_err(|e| e.to_string());
        let pod = TypeMeta {
            api_version: "v1".into(),
            kind: "Pod".into(),
        };
        assert_eq!(
            read(r#"{"kind":"X","spec":{"a":[]},"apiVersion":"v1","kind":"Pod"}"#),
            Ok(pod)
        );
        assert_eq!(read("null"), Ok(TypeMeta::default()));
        assert_eq!(
            read(r#"{"kind":1}"#).unwrap_err(),
            "json: cannot unmarshal number into Go struct field .kind of type string"
        );
        assert!(
            read("[]")
                .unwrap_err()
                .starts_with("json: cannot unmarshal array into Go value")
        );
        assert_eq!(
            read(r#"{"kind":1"#).unwrap_err(),
            "unexpected end of JSON input"
        );
    }
}
