//! Decimal numbers of any length, for the rare quantity that an `i64` with a power of ten
//! cannot hold. Schoolbook arithmetic: such numbers are short and few.

use std::cmp::Ordering;

/// Aligning two numbers whose powers of ten are further apart than this would take memory in
/// proportion to the distance (`1e2000000000 + 1`), so the smaller one is then ignored.
const MAX_ALIGNMENT: i64 = 4096;

/// `±digits × 10^exp`.
#[derive(Debug, Clone)]
pub(super) struct Decimal {
    pub negative: bool,
    /// Least significant first, without zeros at the most significant end; empty is zero.
    pub digits: Vec<u8>,
    pub exp: i32,
}

impl Decimal {
    pub fn new(value: i64, exp: i32) -> Self {
        let mut digits = Vec::with_capacity(20);
        let mut rest = value.unsigned_abs();
        while rest > 0 {
            digits.push((rest % 10) as u8);
            rest /= 10;
        }
        Self {
            negative: value < 0,
            digits,
            exp,
        }
    }

    /// Reads `[+-]digits[.digits]`, at least one digit in all.
    pub fn parse(s: &str) -> Option<Self> {
        let (negative, s) = match s.as_bytes().first()? {
            b'-' => (true, &s[1..]),
            b'+' => (false, &s[1..]),
            _ => (false, s),
        };
        let (whole, fraction) = s.split_once('.').unwrap_or((s, ""));
        let digits: Vec<u8> = whole
            .bytes()
            .chain(fraction.bytes())
            .rev()
            .map(|b| b.wrapping_sub(b'0'))
            .collect();
        if digits.is_empty() || digits.iter().any(|d| *d > 9) {
            return None;
        }
        let exp = i32::try_from(fraction.len()).ok()?.checked_neg()?;
        let mut dec = Self {
            negative,
            digits,
            exp,
        };
        dec.trim();
        Some(dec)
    }

    fn trim(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
    }

    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The power of ten just above the most significant digit.
    fn magnitude(&self) -> i64 {
        self.digits.len() as i64 + i64::from(self.exp)
    }

    /// Drops what is below `10^exp`, away from zero. Returns whether nothing was lost.
    pub fn round_up(&mut self, exp: i32) -> bool {
        let drop = i64::from(exp) - i64::from(self.exp);
        if drop <= 0 || self.is_zero() {
            return true;
        }
        let drop = usize::try_from(drop)
            .unwrap_or(usize::MAX)
            .min(self.digits.len());
        let exact = self.digits.drain(..drop).all(|d| d == 0);
        self.exp = exp;
        if !exact {
            self.increment();
        }
        exact
    }

    fn increment(&mut self) {
        for d in &mut self.digits {
            if *d < 9 {
                *d += 1;
                return;
            }
            *d = 0;
        }
        self.digits.push(1);
    }

    pub fn mul(&mut self, factor: u64) {
        let mut carry: u128 = 0;
        for d in &mut self.digits {
            carry += u128::from(*d) * u128::from(factor);
            *d = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            self.digits.push((carry % 10) as u8);
            carry /= 10;
        }
        self.trim();
    }

    /// Divides the digits by `divisor` if there is no remainder. The power of ten is left alone.
    pub fn div_exact(&mut self, divisor: u32) -> bool {
        let mut rest = 0u32;
        let mut quotient = self.digits.clone();
        for d in quotient.iter_mut().rev() {
            rest = rest * 10 + u32::from(*d);
            *d = (rest / divisor) as u8;
            rest %= divisor;
        }
        if rest == 0 {
            self.digits = quotient;
            self.trim();
        }
        rest == 0
    }

    /// Moves factors of ten from the digits to the power.
    pub fn strip_tens(&mut self) {
        let zeros = self.digits.iter().take_while(|d| **d == 0).count();
        self.digits.drain(..zeros);
        self.exp = self.exp.saturating_add(zeros as i32);
    }

    /// Lowers the power of ten to `exp`, keeping the value. Needs `exp <= self.exp`.
    pub fn lower_to(&mut self, exp: i32) {
        let zeros = (i64::from(self.exp) - i64::from(exp)).clamp(0, MAX_ALIGNMENT) as usize;
        if !self.is_zero() {
            self.digits.splice(0..0, std::iter::repeat_n(0, zeros));
        }
        self.exp = exp;
    }

    /// The digits as text, without sign and power.
    pub fn digits_text(&self) -> String {
        self.digits
            .iter()
            .rev()
            .map(|d| char::from(b'0' + d))
            .collect()
    }

    /// As an integer of `10^exp`, rounded away from zero; `None` when it does not fit.
    pub fn to_i64(&self, exp: i32) -> Option<i64> {
        if self.is_zero() {
            return Some(0);
        }
        if self.magnitude() - i64::from(exp) > 20 {
            return None;
        }
        let mut dec = self.clone();
        dec.round_up(exp);
        dec.lower_to(exp);
        let abs = dec
            .digits
            .iter()
            .rev()
            .try_fold(0i128, |n, d| n.checked_mul(10)?.checked_add(i128::from(*d)))?;
        i64::try_from(if self.negative { -abs } else { abs }).ok()
    }

    /// As [`Decimal::to_i64`], but for numbers that do not fit: their low 64 bits.
    pub fn wrapped(&self, exp: i32) -> i64 {
        let mut dec = self.clone();
        dec.round_up(exp);
        let mut low = dec
            .digits
            .iter()
            .rev()
            .fold(0u64, |n, d| n.wrapping_mul(10).wrapping_add(u64::from(*d)));
        // Sixty-four factors of ten leave nothing of the low bits.
        let factors = (i64::from(dec.exp) - i64::from(exp)).clamp(0, 64);
        low = low.wrapping_mul(10u64.wrapping_pow(factors as u32));
        let low = low.cast_signed();
        if dec.negative {
            low.wrapping_neg()
        } else {
            low
        }
    }

    pub fn to_f64(&self) -> f64 {
        let sign = if self.negative { "-" } else { "" };
        format!(
            "{sign}{}e{}",
            if self.is_zero() {
                "0".into()
            } else {
                self.digits_text()
            },
            self.exp
        )
        .parse()
        .unwrap_or(f64::NAN)
    }

    pub fn add(&self, other: &Self) -> Self {
        if self.is_zero() {
            return other.clone();
        }
        if other.is_zero() {
            return self.clone();
        }
        let (mut a, mut b) = (self.clone(), other.clone());
        a.strip_tens();
        b.strip_tens();
        if (a.magnitude() - b.magnitude()).abs() > MAX_ALIGNMENT {
            return if a.magnitude() > b.magnitude() { a } else { b };
        }
        let exp = a.exp.min(b.exp);
        a.lower_to(exp);
        b.lower_to(exp);
        if a.negative == b.negative {
            let mut sum = add_digits(&a.digits, &b.digits);
            sum.shrink_to_fit();
            return Self {
                negative: a.negative,
                digits: sum,
                exp,
            };
        }
        let (big, small) = match cmp_digits(&a.digits, &b.digits) {
            Ordering::Less => (b, a),
            _ => (a, b),
        };
        let mut out = Self {
            negative: big.negative,
            digits: sub_digits(&big.digits, &small.digits),
            exp,
        };
        out.trim();
        out.negative &= !out.is_zero();
        out
    }

    pub fn cmp(&self, other: &Self) -> Ordering {
        let sign = |d: &Self| match (d.is_zero(), d.negative) {
            (true, _) => 0,
            (_, true) => -1,
            _ => 1,
        };
        let (a, b) = (sign(self), sign(other));
        if a != b || a == 0 {
            return a.cmp(&b);
        }
        let abs = self.magnitude().cmp(&other.magnitude()).then_with(|| {
            // Equal magnitudes: compare digit by digit from the top, as if padded with zeros.
            let (x, y) = (&self.digits, &other.digits);
            let n = x.len().max(y.len());
            let at = |v: &[u8], i: usize| v.len().checked_sub(i + 1).map_or(0, |j| v[j]);
            (0..n)
                .map(|i| at(x, i).cmp(&at(y, i)))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        if a < 0 { abs.reverse() } else { abs }
    }
}

fn add_digits(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(a.len().max(b.len()) + 1);
    let mut carry = 0;
    for i in 0..a.len().max(b.len()) {
        let sum = a.get(i).unwrap_or(&0) + b.get(i).unwrap_or(&0) + carry;
        out.push(sum % 10);
        carry = sum / 10;
    }
    if carry > 0 {
        out.push(carry);
    }
    out
}

/// `a - b` where `a >= b`.
fn sub_digits(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    a.iter()
        .enumerate()
        .map(|(i, d)| {
            let take = b.get(i).unwrap_or(&0) + borrow;
            borrow = u8::from(*d < take);
            d + 10 * borrow - take
        })
        .collect()
}

fn cmp_digits(a: &[u8], b: &[u8]) -> Ordering {
    a.len()
        .cmp(&b.len())
        .then_with(|| a.iter().rev().cmp(b.iter().rev()))
}
