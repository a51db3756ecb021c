//! Versions by the rules of Semantic Versioning 2.0.0.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    /// Identifiers behind the hyphen.
    pub pre: Vec<Box<str>>,
    /// Behind the plus; it has no say in comparisons.
    pub build: Vec<Box<str>>,
}

/// Why a text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error("Version string empty")]
    Empty,
    #[error("No Major.Minor.Patch elements found")]
    Parts,
    #[error("Invalid character(s) found in version")]
    Characters,
    #[error("Version number must not contain leading zeroes")]
    LeadingZeros,
}

fn number(text: &str) -> Result<u64, VersionError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(VersionError::Characters);
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(VersionError::LeadingZeros);
    }
    text.parse().map_err(|_| VersionError::Characters)
}

fn identifiers(text: &str, pre: bool) -> Result<Vec<Box<str>>, VersionError> {
    let one = |part: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if part.is_empty() || !part.bytes().all(legal) {
            return Err(VersionError::Characters);
        }
        let numeric = part.bytes().all(|b| b.is_ascii_digit());
        if pre && numeric && part.len() > 1 && part.starts_with('0') {
            return Err(VersionError::LeadingZeros);
        }
        Ok(part.into())
    };
    text.split('.').map(one).collect()
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        if text.is_empty() {
            return Err(VersionError::Empty);
        }
        let (rest, build) = match text.split_once('+') {
            Some((rest, build)) => (rest, identifiers(build, false)?),
            None => (text, Vec::new()),
        };
        let (core, pre) = match rest.split_once('-') {
            Some((core, pre)) => (core, identifiers(pre, true)?),
            None => (rest, Vec::new()),
        };
        let mut parts = core.splitn(3, '.');
        let (Some(major), Some(minor), Some(patch)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(VersionError::Parts);
        };
        Ok(Self {
            major: number(major)?,
            minor: number(minor)?,
            patch: number(patch)?,
            pre,
            build,
        })
    }
}

impl Version {
    /// Also takes `v1`, `1.2` and `01.2.3`.
    ///
    /// # Errors
    ///
    /// When it is no version even so.
    pub fn lenient(text: &str) -> Result<Self, VersionError> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (core, rest) = text.split_at(end);
        let mut parts: Vec<String> = core.split('.').map(without_zeros).collect();
        while parts.len() < 3 {
            parts.push("0".to_owned());
        }
        format!("{}{rest}", parts.join(".")).parse()
    }

    /// Which comes first; builds do not matter.
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch)
            .cmp(&(other.major, other.minor, other.patch))
            .then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.compare_pre(other),
            })
    }

    fn compare_pre(&self, other: &Self) -> Ordering {
        for (a, b) in self.pre.iter().zip(&other.pre) {
            let order = match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        self.pre.len().cmp(&other.pre.len())
    }
}

fn without_zeros(part: &str) -> String {
    let rest = part.trim_start_matches('0');
    if rest.is_empty() && !part.is_empty() {
        return "0".to_owned();
    }
    rest.to_owned()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build.join("."))?;
        }
        Ok(())
    }
}
