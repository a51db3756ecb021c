//! `runtime.RawExtension`: JSON for somebody else, of which only the outermost form is known.
//! Trees hold its text, as it was sent.

use serde_json::value::RawValue;

use super::at::At;

/// What the text of a raw extension is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// Nothing, or `null`.
    Nothing,
    /// No JSON.
    Malformed(String),
    /// JSON, but no object.
    Other,
    Object,
}

pub(super) fn raw(at: &At<'_>) -> Raw {
    if at.text().is_empty() {
        return Raw::Nothing;
    }
    match serde_json::from_str::<&RawValue>(at.text()).map(RawValue::get) {
        Err(error) => Raw::Malformed(error.to_string()),
        Ok("null") => Raw::Nothing,
        Ok(text) if text.starts_with('{') => Raw::Object,
        Ok(_) => Raw::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_outermost_form_counts() {
        let of = |text: &str| raw(&At::root(&json!(text)));
        assert_eq!(of(""), Raw::Nothing);
        assert_eq!(of(" null "), Raw::Nothing);
        assert_eq!(of("[]"), Raw::Other);
        assert_eq!(of(" {\"a\": 1e2, \"a\": 1} "), Raw::Object);
        assert!(matches!(of("{"), Raw::Malformed(_)));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(of(&deep), Raw::Object);
    }
}
