//! How a quantity lies in the memory of a Go program: what upstream's hashes of whole objects see of
//! it. No value is computed here.

use super::{
    Amount, Format, MILLI, NANO, ParseQuantityError, interpret, parse_big, parse_small, small_at,
    split,
};

/// The number of a [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    /// `value × 10^scale`.
    Small { value: i64, scale: i32 },
    /// `±words × 10^-scale`; the words of 64 bits, least significant first.
    Big {
        negative: bool,
        words: Vec<u64>,
        scale: i32,
    },
}

/// A quantity as apimachinery's `resource.Quantity` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub number: Number,
    /// The text as read, if it is remembered; else empty.
    pub text: String,
    pub format: Format,
}

impl Layout {
    /// Of a quantity that was read from `text` and, if `rounded`, held to thousandths as the defaults
    /// of resource lists do it.
    ///
    /// # Errors
    /// When it is no quantity.
    pub fn read(text: &str, rounded: bool) -> Result<Self, ParseQuantityError> {
        if text == "0" {
            let number = Number::Small { value: 0, scale: 0 };
            let (text, format) = (text.to_owned(), Format::DecimalSI);
            return Ok(Self {
                number,
                text,
                format,
            });
        }
        let parts = split(text)?;
        let (base, exp, format) = interpret(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
        if let Some((quantity, kept)) = parse_small(&parts, base, exp, format)?
            && let Amount::Small { value, exp: scale } = quantity.amount
        {
            let fine = rounded && scale < MILLI;
            let text = if kept && !fine { text } else { "" };
            let number = match fine {
                true => Number::Small {
                    value: small_at(value, scale, MILLI).ok_or(ParseQuantityError::Numeric)?,
                    scale: MILLI,
                },
                false => Number::Small { value, scale },
            };
            return Ok(Self {
                number,
                text: text.to_owned(),
                format,
            });
        }
        let (mut dec, format) = parse_big(&parts, base, exp, format)?;
        let at = if rounded { MILLI } else { NANO };
        dec.round_up(at);
        dec.lower_to(at);
        let mut words: Vec<u64> = Vec::new();
        for digit in dec.digits.iter().rev() {
            let mut carry = u128::from(*digit);
            for word in &mut words {
                carry += u128::from(*word) * 10;
                *word = carry as u64;
                carry >>= 64;
            }
            if carry > 0 {
                words.push(carry as u64);
            }
        }
        let number = Number::Big {
            negative: dec.negative,
            words,
            scale: -at,
        };
        Ok(Self {
            number,
            text: String::new(),
            format,
        })
    }

    /// Of the sum. Numbers that are not both small are not added: the larger form stays.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.text.clear();
        let (
            Number::Small {
                value: a,
                scale: sa,
            },
            Number::Small {
                value: b,
                scale: sb,
            },
        ) = (&self.number, &other.number)
        else {
            return self;
        };
        if *a == 0 {
            self.format = other.format;
        }
        let scale = *sa.min(sb);
        let sum = match (*a, *b) {
            (_, 0) => return self,
            (0, _) => Some((*b, *sb)),
            _ => small_at(*a, *sa, scale)
                .zip(small_at(*b, *sb, scale))
                .and_then(|(a, b)| a.checked_add(b))
                .map(|sum| (sum, scale)),
        };
        if let Some((value, scale)) = sum {
            self.number = Number::Small { value, scale };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_holds_them() {
        let small = |text: &str| {
            let layout = Layout::read(text, true).unwrap();
            match layout.number {
                Number::Small { value, scale } => (value, scale, layout.text),
                Number::Big { .. } => panic!("{text} is big"),
            }
        };
        assert_eq!(small("0"), (0, 0, "0".into()));
        assert_eq!(small("100m"), (100, -3, "100m".into()));
        assert_eq!(small("0.5"), (5, -1, String::new()));
        assert_eq!(small("0.0001"), (1, -3, String::new()));
        assert_eq!(small("1000"), (1000, 0, String::new()));
        assert_eq!(small("100Mi"), (104_857_600, 0, "100Mi".into()));
        assert_eq!(small("1024Mi"), (1 << 30, 0, String::new()));
        let big = |text, rounded| Layout::read(text, rounded).unwrap().number;
        let words = vec![1_610_612_736_000];
        assert_eq!(
            big("1.5Gi", true),
            Number::Big {
                negative: false,
                words,
                scale: 3
            }
        );
        let words = vec![1_610_612_736_000_000_000];
        assert_eq!(
            big("1.5Gi", false),
            Number::Big {
                negative: false,
                words,
                scale: 9
            }
        );
        let plus = |a: &str, b| {
            Layout::read(a, true)
                .unwrap()
                .plus(&Layout::read(b, true).unwrap())
        };
        let (number, format) = (
            Number::Small {
                value: 600,
                scale: -3,
            },
            Format::DecimalSI,
        );
        assert_eq!(
            plus("100m", "0.5"),
            Layout {
                number,
                text: String::new(),
                format
            }
        );
        assert_eq!(plus("0", "1Mi").format, Format::BinarySI);
        assert!(Layout::read("x", true).is_err());
    }
}
