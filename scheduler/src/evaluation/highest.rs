//! The highest of many numbers and how many share it, while single ones change. Pure.

/// Numbers by place. Kept in blocks, so that a change looks at one block's numbers, and the
/// question at one number per block.
#[derive(Debug, Default)]
pub struct Highest {
    numbers: Vec<i64>,
    /// The highest of each block and how many share it.
    blocks: Vec<(i64, u32)>,
}

/// About the square root of the number of nodes in a large cluster.
const BLOCK: usize = 64;
/// There is no number at this place.
const NONE: i64 = i64::MIN;

impl Highest {
    /// `None`: the place has no number any more.
    pub fn set(&mut self, place: usize, number: Option<i64>) {
        if self.numbers.len() <= place {
            let blocks = place / BLOCK + 1;
            self.numbers.resize(blocks * BLOCK, NONE);
            self.blocks.resize(blocks, (NONE, 0));
        }
        let number = number.unwrap_or(NONE);
        if std::mem::replace(&mut self.numbers[place], number) == number {
            return;
        }
        let at = place / BLOCK;
        let block = &self.numbers[at * BLOCK..(at + 1) * BLOCK];
        let highest = block.iter().copied().max().unwrap_or(NONE);
        let shared = block.iter().map(|n| u32::from(*n == highest)).sum();
        self.blocks[at] = (highest, shared);
    }

    fn highest(&self) -> Option<i64> {
        let highest = self.blocks.iter().map(|(highest, _)| *highest).max();
        highest.filter(|highest| *highest != NONE)
    }

    /// A place of the highest number; `draw(n)` picks one of n.
    pub fn pick(&self, draw: &mut dyn FnMut(usize) -> usize) -> Option<usize> {
        let highest = self.highest()?;
        let with_it = || (self.blocks.iter().enumerate()).filter(|(_, (h, _))| *h == highest);
        let count: usize = with_it().map(|(_, (_, shared))| *shared as usize).sum();
        let mut left = draw(count).min(count - 1);
        let (block, _) =
            with_it().find(
                |(_, (_, shared))| match left.checked_sub(*shared as usize) {
                    Some(less) => {
                        left = less;
                        false
                    }
                    None => true,
                },
            )?;
        let first = block * BLOCK;
        let numbers = self.numbers[first..first + BLOCK].iter().enumerate();
        let mut places = numbers.filter(|(_, number)| **number == highest);
        places.nth(left).map(|(at, _)| first + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_those_that_share_the_highest_can_be_picked() {
        let mut numbers = Highest::default();
        assert_eq!(numbers.pick(&mut |_| 0), None);
        for place in [3, 64, 65, 700] {
            numbers.set(place, Some(7));
        }
        numbers.set(5, Some(6));
        let picked = |numbers: &Highest, nth: usize| {
            let mut of = 0;
            let place = numbers.pick(&mut |n| {
                of = n;
                nth
            });
            (place, of)
        };
        for (nth, place) in [3, 64, 65, 700].into_iter().enumerate() {
            assert_eq!(picked(&numbers, nth), (Some(place), 4));
        }
        numbers.set(64, None);
        numbers.set(3, Some(-1));
        assert_eq!(picked(&numbers, 1), (Some(700), 2));
        numbers.set(65, Some(6));
        numbers.set(700, None);
        assert_eq!(picked(&numbers, 0), (Some(5), 2));
        for place in [5, 65] {
            numbers.set(place, None);
        }
        assert_eq!(picked(&numbers, 9), (Some(3), 1));
    }
}
