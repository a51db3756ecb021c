//! Sets of completion indexes, as Job statuses write them: `1,3-5,7`.

use std::fmt;

/// Ordered intervals that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(usize, usize)>);

impl Indexes {
    /// Reads a status. Indexes of `completions` and more are left out; so is what is no number.
    pub fn parse(text: &str, completions: usize) -> Self {
        let mut intervals = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
                tracing::warn!(interval = part, "corrupted indexes interval, ignoring");
                continue;
            };
            if first < completions {
                intervals.push((first, last.min(completions - 1)));
            }
        }
        Self::of(intervals)
    }

    fn of(mut intervals: Vec<(usize, usize)>) -> Self {
        intervals.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for (first, last) in intervals {
            match merged.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = (*end).max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    #[must_use]
    pub fn with(&self, indexes: impl IntoIterator<Item = usize>) -> Self {
        let mut all = self.0.clone();
        all.extend(indexes.into_iter().map(|i| (i, i)));
        Self::of(all)
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of([self.0.as_slice(), &other.0].concat())
    }

    pub fn has(&self, index: usize) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&index))
    }

    pub fn total(&self) -> usize {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many are in both.
    pub fn common(&self, other: &Self) -> usize {
        let overlaps = self
            .0
            .iter()
            .flat_map(|a| other.0.iter().map(move |b| (a, b)));
        overlaps
            .map(|(a, b)| (a.1.min(b.1) + 1).saturating_sub(a.0.max(b.0)))
            .sum()
    }

    /// The first `count` indexes below `end` that are not in the set.
    pub fn missing(&self, count: usize, end: usize) -> Vec<usize> {
        (0..end).filter(|i| !self.has(*i)).take(count).collect()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        let some = Indexes::parse("1,3-5,7", 100);
        assert_eq!((some.total(), some.has(4), some.has(6)), (5, true, false));
        assert_eq!(some.with([6, 0]).to_string(), "0,1,3-7");
        assert_eq!(Indexes::parse("1-9,x", 5).to_string(), "1-4");
        assert_eq!(some.missing(3, 100), [0, 2, 6]);
        assert_eq!(some.common(&Indexes::parse("4-8", 100)), 3);
        assert_eq!(some.union(&Indexes::parse("2", 100)).to_string(), "1-5,7");
        assert_eq!(Indexes::default().to_string(), "");
    }
}
