//! [`Quantity`]: the API's fixed-point numbers with suffixes, such as `500m` and `1536Mi`.
//!
//! Parsing, rounding and the canonical text are those of apimachinery's `api/resource`, since
//! the text is what etcd holds and what other clients compare. Never a floating point number.

mod decimal;
pub mod layout;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use decimal::Decimal;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The family of suffixes that a quantity is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `12M` is 12·10⁶.
    #[default]
    DecimalSI,
    /// `12Mi` is 12·2²⁰.
    BinarySI,
    /// `12e6`.
    DecimalExponent,
}

/// Why a text is no quantity. The texts are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A number with a remembered [`Format`].
///
/// Comparison is by value: `1k == 1000`. `Display` gives the canonical text, except that a
/// text which upstream would keep as it was written (`1.500`) is kept.
#[derive(Debug, Clone)]
pub struct Quantity {
    amount: Amount,
    format: Format,
    /// The text as parsed, where it is to be kept and differs from the canonical one.
    text: Option<Box<str>>,
}

#[derive(Debug, Clone)]
enum Amount {
    /// `value × 10^exp`
    Small {
        value: i64,
        exp: i32,
    },
    Big(Box<Decimal>),
}

const NANO: i32 = -9;
const MILLI: i32 = -3;
/// More digits than this may not fit an `i64`.
const MAX_DIGITS: usize = 18;
/// The least number of more digits than that.
const LONG: u64 = 10u64.pow(MAX_DIGITS as u32);

impl Quantity {
    /// Zero, in decimal format.
    pub const ZERO: Self = Self {
        amount: Amount::Small { value: 0, exp: 0 },
        format: Format::DecimalSI,
        text: None,
    };

    /// `value` units.
    pub fn new(value: i64, format: Format) -> Self {
        Self::scaled(value, 0, format)
    }

    /// `value` thousandths, as CPU is counted.
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self::scaled(value, MILLI, format)
    }

    /// `value × 10^exp`.
    pub fn scaled(value: i64, exp: i32, format: Format) -> Self {
        Self {
            amount: Amount::Small { value, exp },
            format,
            text: None,
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Changes how the quantity is written, not its value.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = format;
        self.text = None;
        self
    }

    /// Units, rounded away from zero, and held at the limits of `i64`.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// Thousandths, rounded away from zero, and held at the limits of `i64`.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(MILLI)
    }

    /// Multiples of `10^exp`, rounded away from zero, and held at the limits of `i64`.
    pub fn scaled_value(&self, exp: i32) -> i64 {
        let value = match &self.amount {
            Amount::Small { value, exp: e } if *e == exp => Some(*value),
            Amount::Small { value, exp: e } => small_at(*value, *e, exp),
            Amount::Big(dec) => dec.to_i64(exp),
        };
        value.unwrap_or(if self.is_negative() {
            i64::MIN
        } else {
            i64::MAX
        })
    }

    /// Whether it passes for a number without a fraction. Thousandths are looked at, as upstream
    /// does: what is finer is rounded away from zero, and of what has more of them than an `i64`
    /// holds, those are looked at that are left where they wrap.
    pub fn is_whole(&self) -> bool {
        let thousandths = match (self.amount.decimal().to_i64(MILLI), &self.amount) {
            (Some(milli), _) => milli,
            // Upstream counts no thousandths of what it reads without `inf.Dec`.
            (None, Amount::Small { value, .. })
                if self.format != Format::BinarySI && value.unsigned_abs() < LONG =>
            {
                0
            }
            (None, amount) => amount.decimal().wrapped(MILLI),
        };
        thousandths % 1000 == 0
    }

    /// Units, if the quantity is a whole number that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.amount {
            Amount::Small { value, exp: 0 } => Some(*value),
            amount => {
                let mut dec = amount.decimal();
                dec.round_up(0).then(|| dec.to_i64(0)).flatten()
            }
        }
    }

    /// The nearest floating point number; for ratios and metrics, never for accounting.
    pub fn to_f64(&self) -> f64 {
        match &self.amount {
            Amount::Small { value, exp: 0 } => *value as f64,
            amount => amount.decimal().to_f64(),
        }
    }

    pub fn is_zero(&self) -> bool {
        match &self.amount {
            Amount::Small { value, .. } => *value == 0,
            Amount::Big(dec) => dec.is_zero(),
        }
    }

    pub fn is_negative(&self) -> bool {
        match &self.amount {
            Amount::Small { value, .. } => *value < 0,
            Amount::Big(dec) => dec.negative && !dec.is_zero(),
        }
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        if self.is_zero() {
            0
        } else if self.is_negative() {
            -1
        } else {
            1
        }
    }

    /// Rounds away from zero to a multiple of `10^exp` (`-3` for thousandths, which is what
    /// the API's defaulting does). Returns whether nothing was lost.
    pub fn round_up(&mut self, exp: i32) -> bool {
        match &mut self.amount {
            Amount::Small { exp: e, .. } if *e >= exp => true,
            amount => {
                self.text = None;
                let mut dec = amount.decimal();
                let exact = dec.round_up(exp);
                *amount = Amount::from(dec);
                exact
            }
        }
    }

    /// Adds `other`. A zero takes the other's format, as upstream.
    pub fn add(&mut self, other: &Self) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.text = None;
        self.amount = self
            .amount
            .add_small(&other.amount)
            .unwrap_or_else(|| Amount::from(self.amount.decimal().add(&other.amount.decimal())));
    }

    /// Takes `other` away. A zero takes the other's format, as upstream.
    pub fn sub(&mut self, other: &Self) {
        let mut other = other.clone();
        other.neg();
        self.add(&other);
    }

    /// Changes the sign.
    pub fn neg(&mut self) {
        self.text = None;
        self.amount = match &self.amount {
            Amount::Small { value, exp } if *value != i64::MIN => Amount::Small {
                value: -value,
                exp: *exp,
            },
            amount => {
                let mut dec = amount.decimal();
                dec.negative = !dec.negative;
                Amount::from(dec)
            }
        };
    }

    /// Multiplies by a whole number.
    pub fn mul(&mut self, factor: i64) {
        self.text = None;
        self.amount = match &self.amount {
            Amount::Small { value, exp } if value.checked_mul(factor).is_some() => Amount::Small {
                value: value * factor,
                exp: *exp,
            },
            amount => {
                let mut dec = amount.decimal();
                dec.mul(factor.unsigned_abs());
                dec.negative ^= factor < 0;
                Amount::from(dec)
            }
        };
    }

    fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        if let Amount::Small { value, exp } = self.amount
            && let Some(text) = small_text(value, exp, self.format)
        {
            return text;
        }
        let mut dec = self.amount.decimal();
        let sign = if dec.negative { "-" } else { "" };
        let mut format = self.format;
        if format == Format::BinarySI {
            // Small and fractional numbers would lose precision in powers of 1024.
            let limit = Decimal::new(1024, 0);
            let mut abs = dec.clone();
            abs.negative = false;
            if abs.cmp(&limit).is_lt() || !abs.round_up(0) {
                format = Format::DecimalSI;
            }
        }
        if format == Format::BinarySI {
            dec.lower_to(0);
            let mut power = 0;
            while power + 1 < BINARY_SUFFIXES.len() && dec.div_exact(1024) {
                power += 1;
            }
            return format!("{sign}{}{}", dec.digits_text(), BINARY_SUFFIXES[power]);
        }
        dec.strip_tens();
        let mut exp = dec.exp - dec.exp.rem_euclid(3);
        if format == Format::DecimalSI {
            // Upstream drops the suffix of what is beyond `E`; that would change the value.
            exp = exp.min(18);
        }
        dec.lower_to(exp);
        let digits = dec.digits_text();
        match (format, exp) {
            (_, 0) => format!("{sign}{digits}"),
            (Format::DecimalExponent, exp) => format!("{sign}{digits}e{exp}"),
            (_, exp) => format!("{sign}{digits}{}", decimal_suffix(exp)),
        }
    }
}

/// [`Quantity::canonical`] for what fits the machine's integers, which is nearly everything.
fn small_text(value: i64, exp: i32, format: Format) -> Option<String> {
    let sign = if value < 0 { "-" } else { "" };
    let mut digits = u128::from(value.unsigned_abs());
    let mut exp = exp;
    if format == Format::BinarySI && exp == 0 && digits >= 1024 {
        let mut power = 0;
        while power + 1 < BINARY_SUFFIXES.len() && digits.is_multiple_of(1024) {
            digits /= 1024;
            power += 1;
        }
        return Some(format!("{sign}{digits}{}", BINARY_SUFFIXES[power]));
    }
    if format == Format::BinarySI && exp != 0 {
        return None;
    }
    while digits.is_multiple_of(10) {
        digits /= 10;
        exp = exp.checked_add(1)?;
    }
    let shift = exp.rem_euclid(3);
    digits *= 10u128.pow(shift as u32);
    exp -= shift;
    match (format, exp) {
        (_, 0) => Some(format!("{sign}{digits}")),
        (Format::DecimalExponent, exp) => Some(format!("{sign}{digits}e{exp}")),
        (_, -9..=18) => Some(format!("{sign}{digits}{}", decimal_suffix(exp))),
        _ => None,
    }
}

const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

fn decimal_suffix(exp: i32) -> &'static str {
    match exp {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        _ => "",
    }
}

impl Amount {
    /// Both values at the smaller power of ten, if that fits.
    fn aligned(&self, other: &Self) -> Option<(i128, i128, i32)> {
        let (Self::Small { value: a, exp: ea }, Self::Small { value: b, exp: eb }) = (self, other)
        else {
            return None;
        };
        let exp = *ea.min(eb);
        let at = |value: i64, from: i32| {
            // 19 digits of an `i64` and 19 more fit an `i128`.
            let shift = u32::try_from(i64::from(from) - i64::from(exp)).ok()?;
            (shift < 19).then(|| i128::from(value) * 10i128.pow(shift))
        };
        Some((at(*a, *ea)?, at(*b, *eb)?, exp))
    }

    fn add_small(&self, other: &Self) -> Option<Self> {
        let (a, b, exp) = self.aligned(other)?;
        Some(Self::Small {
            value: i64::try_from(a + b).ok()?,
            exp,
        })
    }

    fn decimal(&self) -> Decimal {
        match self {
            Self::Small { value, exp } => Decimal::new(*value, *exp),
            Self::Big(dec) => (**dec).clone(),
        }
    }
}

impl From<Decimal> for Amount {
    /// Back to the small form where possible, so that sums stay on the fast path.
    fn from(mut dec: Decimal) -> Self {
        if dec.is_zero() {
            return Self::Small { value: 0, exp: 0 };
        }
        dec.strip_tens();
        if dec.exp > 0 && dec.digits.len() as i64 + i64::from(dec.exp) <= MAX_DIGITS as i64 {
            dec.lower_to(0);
        }
        match dec.to_i64(dec.exp) {
            Some(value) => Self::Small {
                value,
                exp: dec.exp,
            },
            None => Self::Big(Box::new(dec)),
        }
    }
}

/// `value × 10^from` as a multiple of `10^to`, away from zero.
fn small_at(value: i64, from: i32, to: i32) -> Option<i64> {
    if value == 0 {
        return Some(0);
    }
    let shift = i64::from(from) - i64::from(to);
    if shift >= 0 {
        return 10i64
            .checked_pow(u32::try_from(shift).ok()?)?
            .checked_mul(value);
    }
    let Some(divisor) = u32::try_from(-shift)
        .ok()
        .and_then(|n| 10i64.checked_pow(n))
    else {
        return Some(value.signum());
    };
    let (quotient, rest) = (value / divisor, value % divisor);
    Some(if rest == 0 {
        quotient
    } else {
        quotient + value.signum()
    })
}

/// The parts of a quantity's text.
struct Parts<'a> {
    positive: bool,
    /// Sign, digits and dot.
    value: &'a str,
    /// Digits before the dot, without leading zeros; `0` if there are none.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(s: &str) -> Result<Parts<'_>, ParseQuantityError> {
    let signed = s.strip_prefix(['+', '-']);
    let body = signed.unwrap_or(s);
    let trimmed = body.trim_start_matches('0');
    let positive = !s.starts_with('-');
    if trimmed.is_empty() {
        // Upstream reads a lone sign as zero, too.
        return Ok(Parts {
            positive,
            value: "0",
            whole: "0",
            fraction: "",
            suffix: "",
        });
    }
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut rest) = trimmed.split_at(digits(trimmed));
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits(after));
    }
    let value = &s[..s.len() - rest.len()];
    let letters = rest
        .bytes()
        .take_while(|b| b"eEinumkKMGTP".contains(b))
        .count();
    let exponent = rest[letters..]
        .strip_prefix(['+', '-'])
        .unwrap_or(&rest[letters..]);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseQuantityError::Format);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(Parts {
        positive,
        value,
        whole,
        fraction,
        suffix: rest,
    })
}

/// The suffix's base (10 or 2), its power, and the format it stands for.
fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    let decimal = |exp| Some((10, exp, Format::DecimalSI));
    let binary = |exp| Some((2, exp, Format::BinarySI));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exp = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((10, exp, Format::DecimalExponent))
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Err(ParseQuantityError::Format);
        }
        if s == "0" {
            return Ok(Self::ZERO);
        }
        let parts = split(s)?;
        let (base, exp, format) = interpret(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
        if let Some((mut q, kept)) = parse_small(&parts, base, exp, format)? {
            // Such digits are canonical already, so only what surrounds them can differ.
            let unsigned = s.strip_prefix('-').unwrap_or(s);
            let plain = format != Format::DecimalExponent
                && unsigned.strip_prefix(parts.whole) == Some(parts.suffix);
            if kept && !plain && q.canonical() != s {
                q.text = Some(s.into());
            }
            return Ok(q);
        }
        let (dec, format) = parse_big(&parts, base, exp, format)?;
        Ok(Self {
            amount: Amount::from(dec),
            format,
            text: None,
        })
    }
}

/// The way of quantities that are too long or too fine for [`parse_small`].
fn parse_big(
    parts: &Parts<'_>,
    base: u32,
    exp: i32,
    mut format: Format,
) -> Result<(Decimal, Format), ParseQuantityError> {
    let mut dec = Decimal::parse(parts.value).ok_or(ParseQuantityError::Numeric)?;
    if base == 10 {
        dec.exp = dec.exp.checked_add(exp).ok_or(ParseQuantityError::Suffix)?;
    } else {
        dec.mul(1u64 << exp);
    }
    // Whoever asks for some gets some, however little it is.
    dec.round_up(NANO);
    let negative = std::mem::take(&mut dec.negative);
    if format == Format::BinarySI {
        let max = Decimal::new(i64::MAX, 0);
        if dec.cmp(&max).is_gt() {
            dec = max;
        }
        if dec.cmp(&Decimal::new(1, 0)).is_lt() && !dec.is_zero() {
            format = Format::DecimalSI;
        }
    }
    dec.negative = negative && !dec.is_zero();
    Ok((dec, format))
}

/// The way of all common quantities: what fits an `i64` without rounding. With it, whether upstream
/// keeps the text as it was written.
fn parse_small(
    parts: &Parts<'_>,
    base: u32,
    exp: i32,
    format: Format,
) -> Result<Option<(Quantity, bool)>, ParseQuantityError> {
    let length = parts.whole.len() + parts.fraction.len();
    let (fits, multiplier, exp10) = if base == 10 {
        (length <= MAX_DIGITS, 1, exp)
    } else if parts.fraction.is_empty() {
        (parts.whole.len() as i32 + exp * 3 / 10 < 15, 1i64 << exp, 0)
    } else {
        (false, 1, 0)
    };
    let exp10 = i64::from(exp10) - parts.fraction.len() as i64;
    if !fits || exp10 < i64::from(NANO) {
        return Ok(None);
    }
    let exp10 = exp10 as i32;
    let digits = match parts.fraction {
        "" => Cow::Borrowed(parts.whole),
        fraction => Cow::Owned([parts.whole, fraction].concat()),
    };
    let number: i64 = digits.parse().map_err(|_| ParseQuantityError::Numeric)?;
    let Some(value) = number.checked_mul(multiplier) else {
        return Ok(None);
    };
    let value = if parts.positive { value } else { -value };
    let kept = match format {
        Format::BinarySI => number & 0x07 != 0,
        _ => exp10 % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0'),
    };
    Ok(Some((Quantity::scaled(value, exp10, format), kept)))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.pad(text),
            None => f.pad(&self.canonical()),
        }
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.amount.aligned(&other.amount) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.amount.decimal().cmp(&other.amount.decimal()),
        }
    }
}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Quantity {}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |mut sum, q| {
            sum.add(&q);
            sum
        })
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = ParseQuantityError;

    fn try_from(q: &ApiQuantity) -> Result<Self, Self::Error> {
        q.0.trim().parse()
    }
}
impl From<&Quantity> for ApiQuantity {
    fn from(q: &Quantity) -> Self {
        Self(q.to_string())
    }
}
impl From<Quantity> for ApiQuantity {
    fn from(q: Quantity) -> Self {
        Self(q.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// From a string (spaces around it are tolerated, as upstream) or a number.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Quantity, E> {
                v.trim().parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Quantity, E> {
                Ok(Quantity::new(v, Format::DecimalSI))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Quantity, E> {
                self.visit_str(&v.to_string())
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Quantity, E> {
                self.visit_str(&v.to_string())
            }
            fn visit_unit<E: de::Error>(self) -> Result<Quantity, E> {
                Ok(Quantity::ZERO)
            }
        }
        d.deserialize_any(Visitor)
    }
}
