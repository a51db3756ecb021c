//! Query parameters: parsed once per request, read with the conversions of
//! apimachinery's parameter codec.
//!
//! What must not be here: what the parameters mean.

use percent_encoding::percent_decode_str;

/// The query's pairs in their order. Lookups are linear: queries are short.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// A parameter that is no number. The text is Go's, since clients print it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseInt: parsing {value:?}: {problem}")]
pub struct BadNumber {
    value: String,
    problem: &'static str,
}

impl Query {
    /// Pairs that are malformed (`%zz`, a semicolon) are left out, as by Go's `net/url`.
    pub fn parse(query: &str) -> Query {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .filter(|pair| !pair.contains(';'))
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(key)?, decode(value)?))
                })
                .collect(),
        )
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The first value; empty when the parameter is absent.
    pub fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().to_owned()
    }

    /// `None` when absent; otherwise true unless the value is `0` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key)
            .map(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// As [`Query::boolean`], absent being false.
    pub fn flag(&self, key: &str) -> bool {
        self.boolean(key).unwrap_or(false)
    }

    pub fn integer(&self, key: &str) -> Result<Option<i64>, BadNumber> {
        self.get(key)
            .map(|value| {
                value
                    .parse()
                    .map_err(|e: std::num::ParseIntError| BadNumber {
                        value: value.to_owned(),
                        problem: match e.kind() {
                            std::num::IntErrorKind::PosOverflow
                            | std::num::IntErrorKind::NegOverflow => "value out of range",
                            _ => "invalid syntax",
                        },
                    })
            })
            .transpose()
    }
}

/// `None` when a percent sign begins no escape.
fn decode(text: &str) -> Option<String> {
    if !text.contains(['+', '%']) {
        return Some(text.to_owned());
    }
    let mut escapes = text.split('%').skip(1);
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit))
    };
    escapes.all(is_escape).then(|| {
        percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_converted() {
        let q =
            Query::parse("a=1&b=x%20y+z&watch&c=%C3%A9&limit=ten&dryRun=All&dryRun=None&f=False");
        assert_eq!(q.get("b"), Some("x y z"));
        assert_eq!(q.get("c"), Some("é"));
        assert!(q.flag("watch") && q.flag("a") && !q.flag("f") && !q.flag("absent"));
        assert_eq!(q.integer("a"), Ok(Some(1)));
        assert_eq!(q.integer("absent"), Ok(None));
        assert_eq!(
            q.integer("limit").unwrap_err().to_string(),
            "strconv.ParseInt: parsing \"ten\": invalid syntax"
        );
        assert_eq!(q.all("dryRun").collect::<Vec<_>>(), ["All", "None"]);
    }

    #[test]
    fn malformed_pairs_are_left_out() {
        let q = Query::parse("a=%zz&b=1%&%g1=x&c=1;d=2&e=%4&f=%41");
        assert_eq!(q.iter().collect::<Vec<_>>(), [("f", "A")]);
    }
}
