//! `Warning` headers (RFC 7234, code 299), and how much of them an answer may carry.
//!
//! What must not be here: what is warned of (`api::warnings`).

use http::HeaderValue;

/// All texts together, in characters; proxies refuse answers whose headers are too long.
const MOST_IN_ALL: usize = 4096;
/// What is left of a text where they are more.
const MOST_OF_EACH: usize = 256;

/// The headers for texts that differ. Where they are too long they are cut, and those that
/// come after the cut ones have filled the room are left out.
pub fn headers(texts: &[String]) -> Vec<HeaderValue> {
    let good = texts.iter().filter(|text| !text.contains(char::is_control));
    let mut whole = Vec::new();
    let mut cut = Vec::new();
    let (mut length, mut cut_length) = (0, 0);
    for text in good {
        // The one that is too many still comes in, whatever the others have left.
        if length > MOST_IN_ALL && cut_length >= MOST_IN_ALL {
            break;
        }
        let characters = text.chars().count();
        length += characters;
        cut_length += characters.min(MOST_OF_EACH);
        whole.push(text.as_str());
        let end = text.char_indices().nth(MOST_OF_EACH);
        cut.push(&text[..end.map_or(text.len(), |(at, _)| at)]);
    }
    let fitting = if length > MOST_IN_ALL { cut } else { whole };
    fitting.into_iter().filter_map(quoted).collect()
}

fn quoted(text: &str) -> Option<HeaderValue> {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(texts: &[String]) -> Vec<String> {
        let text = |header: HeaderValue| String::from_utf8(header.as_bytes().to_vec());
        headers(texts).into_iter().flat_map(text).collect()
    }

    #[test]
    fn texts_are_quoted_and_those_that_cannot_be_headers_are_left_out() {
        let texts = ["unknown field \"spec.foo\\\"", "a\nb"].map(str::to_owned);
        assert_eq!(shown(&texts), [r#"299 - "unknown field \"spec.foo\\\"""#]);
    }

    #[test]
    fn texts_that_are_too_long_together_are_cut() {
        let of = |count: usize, length: usize| -> Vec<String> {
            let text = |i: usize| format!("{i:02}{}", "é".repeat(length - 2));
            (0..count).map(text).collect()
        };
        let lengths = |texts: &[String]| -> Vec<usize> {
            let marks = r#"299 - """#.len();
            shown(texts)
                .iter()
                .map(|h| h.chars().count() - marks)
                .collect()
        };
        assert_eq!(lengths(&of(8, 512)), [512; 8]);
        assert_eq!(lengths(&of(9, 512)), [256; 9]);
        assert_eq!(lengths(&of(40, 512)), [256; 16]);
        // Twenty come in before they are too long, which nobody takes back.
        assert_eq!(lengths(&of(30, 200)), [200; 21]);
    }
}
