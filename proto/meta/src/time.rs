//! Instants as text (RFC 3339).

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;

/// The instant that a text names; `None` where it names none.
///
/// The last two days of the year 9999, which stand for ever where people must name an end, lie
/// past the last instant that can be told: they are that one.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let pieces = Pieces::parse(text).ok()?;
    let whole = pieces.time().is_some() && pieces.offset().is_some();
    (whole && pieces.date() >= jiff::civil::date(9999, 12, 30)).then_some(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_year_is_a_time() {
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59Z"), Some(Timestamp::MAX));
        let year = |text| parse_rfc3339(text).map(|t| t.strftime("%Y-%m-%d").to_string());
        assert_eq!(year("2026-05-01T00:00:00Z").as_deref(), Some("2026-05-01"));
        for text in [
            "",
            "soon",
            "9999-12-31",
            "9999-12-31T23:59:59",
            "9999-13-31T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
