//! `metav1.Duration`: Go's duration text in JSON, `{1: nanoseconds}` in protobuf.

use crate::error::{Error, Result};

/// Go's `time.Duration.String`: `1h0m0s`, `1.5s`, `20ms`.
pub fn text(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let whole_and = |unit: u64, width: usize| {
        let fraction = format!("{:0width$}", n % unit);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        (n / unit, format!("{dot}{fraction}"))
    };
    if n < 1_000_000_000 {
        let (name, (whole, fraction)) = match n {
            0..1_000 => ("ns", (n, String::new())),
            1_000..1_000_000 => ("µs", whole_and(1_000, 3)),
            _ => ("ms", whole_and(1_000_000, 6)),
        };
        return format!("{sign}{whole}{fraction}{name}");
    }
    let (seconds, fraction) = whole_and(1_000_000_000, 9);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}{fraction}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}{fraction}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub fn parse(text: &str) -> Result<i64> {
    meta::duration::parse(text).map_err(|e| Error::value(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_go_s() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
            (-1_500_000_000, "-1.5s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(text(nanos), want);
            assert_eq!(parse(want), Ok(nanos), "{want}");
        }
        assert_eq!(parse("+1.5h"), Ok(5_400_000_000_000));
        assert_eq!(parse("1h15m30.918s"), Ok(4_530_918_000_000));
        assert_eq!(parse("10us"), Ok(10_000));
    }

    #[test]
    fn errors_are_go_s() {
        for (text, want) in [
            ("", "time: invalid duration \"\""),
            (".s", "time: invalid duration \".s\""),
            ("3", "time: missing unit in duration \"3\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn durations_return(nanos: i64) {
            prop_assert_eq!(parse(&text(nanos)), Ok(nanos));
        }

        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
