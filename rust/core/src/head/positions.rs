//! A set of positions in a graph's order that gives its smallest member quickly.

use alloc::vec;
use alloc::vec::Vec;

/// Members of `0..len` as bits, with a summary level above each level: 64 positions a word, 64 words a summary word.
/// Insert, remove and first cost a handful of word operations, whatever the size.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    levels: Vec<Vec<u64>>,
    count: u32,
}

impl Positions {
    pub(super) fn new(len: u32) -> Self {
        let mut levels = Vec::new();
        let mut n = (len as usize).max(1);
        loop {
            n = n.div_ceil(64);
            levels.push(vec![0; n]);
            if n == 1 {
                break;
            }
        }
        Self { levels, count: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn contains(&self, position: u32) -> bool {
        self.levels[0][position as usize / 64] & (1 << (position % 64)) != 0
    }

    pub(super) fn insert(&mut self, position: u32) {
        if self.contains(position) {
            return;
        }
        self.count += 1;
        let mut i = position as usize;
        for level in &mut self.levels {
            let word = &mut level[i / 64];
            let was = *word;
            *word |= 1 << (i % 64);
            if was != 0 {
                break;
            }
            i /= 64;
        }
    }

    pub(super) fn remove(&mut self, position: u32) -> bool {
        if !self.contains(position) {
            return false;
        }
        self.count -= 1;
        let mut i = position as usize;
        for level in &mut self.levels {
            let word = &mut level[i / 64];
            *word &= !(1 << (i % 64));
            if *word != 0 {
                break;
            }
            i /= 64;
        }
        true
    }

    pub(super) fn first(&self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let mut i = 0usize;
        for level in self.levels.iter().rev() {
            i = i * 64 + level[i].trailing_zeros() as usize;
        }
        Some(i as u32)
    }

    pub(super) fn last(&self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let mut i = 0usize;
        for level in self.levels.iter().rev() {
            i = i * 64 + 63 - level[i].leading_zeros() as usize;
        }
        Some(i as u32)
    }

    /// The members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.levels[0].iter().enumerate().flat_map(|(i, &word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| i as u32 * 64 + bit)
        })
    }

    pub(super) fn clear(&mut self) {
        for level in &mut self.levels {
            level.fill(0);
        }
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    #[test]
    fn finds_first_and_last_across_levels() {
        let mut set = Positions::new(300_000);
        assert_eq!(set.first(), None);
        for p in [299_999, 64, 4_096, 63] {
            set.insert(p);
        }
        set.insert(64);
        assert_eq!((set.len(), set.first(), set.last()), (4, Some(63), Some(299_999)));
        assert!(set.remove(63) && !set.remove(63));
        assert_eq!(set.first(), Some(64));
        assert!(set.remove(64) && set.remove(4_096));
        assert_eq!(set.first(), Some(299_999));
        set.clear();
        assert!(set.is_empty() && set.first().is_none() && set.last().is_none());
    }
}
