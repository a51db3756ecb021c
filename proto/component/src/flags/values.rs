//! Values that Go writes in its own way.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use meta::duration::DurationError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    parse_bool(text).ok_or_else(|| {
        let text = meta::gofmt::Quoted(text);
        format!("strconv.ParseBool: parsing {text}: invalid syntax")
    })
}

/// A duration as Go writes it: `1h15m30.5s`, `100ms`, `0`. Negative ones are kept
/// (some flags give them a meaning), [`GoDuration::get`] takes them for zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration {
    nanoseconds: i64,
}

impl GoDuration {
    pub const fn from_secs(seconds: i64) -> Self {
        Self {
            nanoseconds: seconds * 1_000_000_000,
        }
    }

    pub const fn from_millis(milliseconds: i64) -> Self {
        Self {
            nanoseconds: milliseconds * 1_000_000,
        }
    }

    /// As a `std` duration; negative counts as zero.
    pub fn get(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or(0))
    }

    /// Durations beyond 292 years are cut.
    pub fn from_std(duration: Duration) -> Self {
        let nanoseconds = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self { nanoseconds }
    }

    pub fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanoseconds = meta::duration::parse(text)?;
        Ok(Self { nanoseconds })
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanoseconds == 0 {
            return f.write_str("0s");
        }
        if self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        let n = self.nanoseconds.unsigned_abs();
        let fraction = |value: u64, unit: u64| {
            let text = format!(
                "{}.{:0width$}",
                value / unit,
                value % unit,
                width = unit.ilog10() as usize
            );
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        if n < 1_000 {
            return write!(f, "{n}ns");
        } else if n < 1_000_000 {
            return write!(f, "{}µs", fraction(n, 1_000));
        } else if n < 1_000_000_000 {
            return write!(f, "{}ms", fraction(n, 1_000_000));
        }
        let minutes = n / 60_000_000_000;
        let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
        match (minutes / 60, minutes % 60) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, m) => write!(f, "{m}m{seconds}s"),
            (h, m) => write!(f, "{h}h{m}m{seconds}s"),
        }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `a,b,c`; an empty text is no item, an empty item among others is one. An item in quotes may have
/// commas. Given again, the flag grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommaList(pub Vec<String>);

impl FromStr for CommaList {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut quoted = false;
        let items = text.split(|c: char| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        let bare = |item: &str| match item.strip_prefix('"').and_then(|i| i.strip_suffix('"')) {
            Some(inner) => inner.replace("\"\"", "\""),
            None => item.to_owned(),
        };
        let items = items.filter(|_| !text.is_empty());
        Ok(Self(items.map(bare).collect()))
    }
}

impl fmt::Display for CommaList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// `a=1,b=2,c`; what has no value has the empty one. Given again, the flag grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringMap(pub BTreeMap<String, String>);

impl FromStr for StringMap {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.trim().to_owned(), value.trim().to_owned())
        });
        Ok(Self(pairs.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_as_gos() {
        for (text, shown) in [
            ("1h15m30.5s", "1h15m30.5s"),
            ("90s", "1m30s"),
            ("100ms", "100ms"),
            ("1.5h", "1h30m0s"),
            ("0", "0s"),
            ("-1s", "-1s"),
            ("250us", "250µs"),
        ] {
            assert_eq!(
                text.parse::<GoDuration>().unwrap().to_string(),
                shown,
                "{text}"
            );
        }
        for text in ["", "5", "1x", "s", "1h-2m"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_end_their_keys_with_the_first_equals_sign() {
        let map: StringMap = "a=1, b=x=y,c".parse().unwrap();
        let values = ["a", "b", "c"].map(|key| map.0[key].as_str());
        assert_eq!(values, ["1", "x=y", ""]);
    }

    #[test]
    fn items_in_quotes_may_have_commas() {
        let list = |text: &str| text.parse::<CommaList>().unwrap().0;
        assert_eq!(list("a,,b"), ["a", "", "b"]);
        assert_eq!(list(r#""a","b,c","d""e""#), ["a", "b,c", "d\"e"]);
        assert_eq!(list(""), [""; 0]);
    }
}
