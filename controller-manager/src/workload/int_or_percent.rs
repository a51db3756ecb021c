//! `IntOrString` fields that mean a number or a share of a total.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a share is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// The field's value for a `total`; `None` if it is a string that is no percentage.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match value {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(s) => {
            let percent: i64 = s.strip_suffix('%')?.parse().ok()?;
            let product = percent * i64::from(total);
            let share = match round {
                Round::Up => product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0),
                Round::Down => product.div_euclid(100),
            };
            i32::try_from(share).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled(&quarter, 10, Round::Up), Some(3));
        assert_eq!(scaled(&quarter, 10, Round::Down), Some(2));
        assert_eq!(scaled(&quarter, 0, Round::Up), Some(0));
        assert_eq!(scaled(&IntOrString::Int(7), 10, Round::Down), Some(7));
        assert_eq!(
            scaled(&IntOrString::String("7".into()), 10, Round::Up),
            None
        );
    }
}
