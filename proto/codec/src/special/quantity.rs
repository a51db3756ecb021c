//! The text of a `resource.Quantity` as upstream writes it, which is all that the wire
//! needs to know about it. What quantities are is in [`meta::quantity`].

use std::borrow::Cow;

use meta::quantity::Quantity;

use crate::error::{Error, Result};

/// The text that upstream writes for the quantity that it reads as `text`.
pub fn canonical(text: &str) -> Result<Cow<'_, str>> {
    if plain(text.as_bytes()) {
        return Ok(Cow::Borrowed(text));
    }
    match text.parse::<Quantity>() {
        Ok(quantity) => Ok(Cow::Owned(quantity.to_string())),
        Err(error) => Err(Error::value(error.to_string())),
    }
}

/// A quick yes for the common texts that are canonical already: a short whole number
/// without leading zeros whose suffix could not be larger.
fn plain(s: &[u8]) -> bool {
    let digits = s.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 9 {
        return false;
    }
    if s[0] == b'0' {
        return s.len() == 1;
    }
    match &s[digits..] {
        b"" | b"m" | b"k" | b"M" | b"G" => !s[..digits].ends_with(b"000"),
        // A multiple of 1024 is even, and short numbers are below it.
        b"Ki" | b"Mi" => digits <= 3 || s[digits - 1] % 2 == 1,
        b"Gi" => digits <= 3,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstream_s() {
        for (text, want) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.", "1."),
            ("1.5Gi", "1536Mi"),
            ("0.1Mi", "104857600m"),
            ("1024Mi", "1Gi"),
            ("64Mi", "64Mi"),
            ("1000e3", "1e6"),
            ("1000000000", "1G"),
            ("0.0000000001", "1n"),
            ("-1024Ki", "-1Mi"),
            ("+5", "+5"),
            ("1.500", "1.500"),
            ("0001Mi", "0001Mi"),
            ("8Ei", "9223372036854775807"),
            ("0.5Ki", "512"),
        ] {
            assert_eq!(canonical(text).unwrap(), want, "{text}");
        }
        assert!(canonical("1 ").is_err());
        assert!(canonical("").is_err());
    }

    proptest::proptest! {
        #[test]
        fn the_quick_yes_is_right(text in "[1-9][0-9]{0,9}(|[mkMG]|[KMG]i)") {
            let slow = text.parse::<Quantity>().unwrap().to_string();
            proptest::prop_assert!(!plain(text.as_bytes()) || slow == text, "{} {}", text, slow);
        }

        #[test]
        fn never_panics(text: String, near in "[+-]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[+-]?[0-9]{0,12}") {
            let _ = canonical(&text);
            let _ = canonical(&near);
        }
    }
}
