//! Semantic versions (semver.org 2.0.0): their form and their order.

use std::cmp::Ordering;

/// A version of three numbers, what it precedes by, and nothing of its build.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version<'a> {
    numbers: [u64; 3],
    pre: Vec<&'a str>,
}

fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with('0');
    (plain && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

pub(super) fn parse(text: &str) -> Option<Version<'_>> {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    if build.is_some_and(|b| !b.split('.').all(is_identifier)) {
        return None;
    }
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, pre.split('.').collect()),
        None => (text, Vec::new()),
    };
    let numeric = |id: &str| id.bytes().all(|b| b.is_ascii_digit());
    let good = |id: &&str| is_identifier(id) && (!numeric(id) || number(id).is_some());
    if !pre.iter().all(good) {
        return None;
    }
    let mut numbers = core.split('.').map(number);
    let parsed = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(Version {
        numbers: parsed,
        pre,
    })
}

pub(super) fn is_strict(text: &str) -> bool {
    parse(text).is_some()
}

impl Version<'_> {
    pub fn is_zero(&self) -> bool {
        self.numbers == [0; 3] && self.pre.is_empty()
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let one = |a: &str, b: &str| match (number(a), number(b)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => a.cmp(b),
                };
                let pairs = self.pre.iter().zip(&other.pre);
                pairs
                    .map(|(a, b)| one(a, b))
                    .find(|o| o.is_ne())
                    .unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then_with(by_pre)
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_form_and_an_order() {
        for good in ["0.0.0", "1.2.3", "1.0.0-alpha.1+build.5", "1.0.0--"] {
            assert!(is_strict(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "01.2.3", "1.2.3.4", "1.2.3-", "1.2.3-01", "x", "v1.2.3",
        ] {
            assert!(!is_strict(bad), "{bad}");
        }
        let order = [
            "1.0.0-1",
            "1.0.0-2",
            "1.0.0-a",
            "1.0.0-a.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
        ];
        for pair in order.windows(2) {
            assert!(parse(pair[0]) < parse(pair[1]), "{pair:?}");
        }
    }
}
