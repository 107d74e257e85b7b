//! Which parts of one segment are in use: bookkeeping only, no memory is touched.
//!
//! A segment is *warm* up to some point: that much is reserved from the system and counts against the budget. Blocks are
//! put into warm space if it has a gap that is large enough, the tightest one and the first of those, so that a sequence
//! of requests always gives the same places. Gaps next to each other are one.

use std::collections::{BTreeMap, BTreeSet};

/// Unit in which segments are sized, reserved and given back: a multiple of every page size there is.
pub(crate) const GRANULE: u64 = 64 << 10;

#[derive(Debug)]
struct Taken {
    len: u64,
    generation: u64,
}

/// The space of one segment.
#[derive(Debug)]
pub(crate) struct Space {
    size: u64,
    warm: u64,
    used: u64,
    /// What is given out, by offset.
    taken: BTreeMap<u64, Taken>,
    /// The gaps in warm space: length by offset.
    gaps: BTreeMap<u64, u64>,
    /// The same gaps as (length, offset).
    by_len: BTreeSet<(u64, u64)>,
}

impl Space {
    /// A segment of `size` bytes (a multiple of [`GRANULE`]), nothing of it warm.
    pub(crate) fn new(size: u64) -> Self {
        debug_assert!(size.is_multiple_of(GRANULE));
        Self { size, warm: 0, used: 0, taken: BTreeMap::new(), gaps: BTreeMap::new(), by_len: BTreeSet::new() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are reserved, from the start of the segment.
    pub(crate) fn warm(&self) -> u64 {
        self.warm
    }

    /// Bytes given out.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Length of the gap that [`take`](Self::take) would use.
    pub(crate) fn tightest(&self, len: u64) -> Option<u64> {
        self.by_len.range((len, 0)..).next().map(|&(gap, _)| gap)
    }

    /// Gives out `len` bytes of warm space; `None` if no gap is as large.
    pub(crate) fn take(&mut self, len: u64, generation: u64) -> Option<u64> {
        let &(gap, offset) = self.by_len.range((len, 0)..).next()?;
        self.remove_gap(offset, gap);
        if gap > len {
            self.insert_gap(offset + len, gap - len);
        }
        self.taken.insert(offset, Taken { len, generation });
        self.used += len;
        Some(offset)
    }

    /// Whether what starts at `offset` was given out under `generation`.
    pub(crate) fn is_taken(&self, offset: u64, generation: u64) -> bool {
        self.taken.get(&offset).is_some_and(|taken| taken.generation == generation)
    }

    /// Takes back what starts at `offset`; `false` if nothing was given out there.
    pub(crate) fn give(&mut self, offset: u64) -> bool {
        let Some(Taken { len, .. }) = self.taken.remove(&offset) else { return false };
        self.used -= len;
        self.insert_merged(offset, len);
        true
    }

    /// By how many bytes warm space has to grow for a block of `len` at its end; `None` if the segment is too small.
    pub(crate) fn growth(&self, len: u64) -> Option<u64> {
        let end = self.last_gap().unwrap_or(self.warm).checked_add(len)?;
        (end <= self.size).then(|| end.next_multiple_of(GRANULE).saturating_sub(self.warm))
    }

    /// Notes that the next `by` bytes are reserved too.
    pub(crate) fn grow(&mut self, by: u64) {
        debug_assert!(by.is_multiple_of(GRANULE) && self.warm + by <= self.size);
        let start = self.warm;
        self.warm += by;
        self.insert_merged(start, by);
    }

    /// Bytes at the end of warm space that are in no use and could be given back.
    pub(crate) fn slack(&self) -> u64 {
        self.last_gap().map_or(0, |start| self.warm - start.next_multiple_of(GRANULE))
    }

    /// Notes that the last `by` bytes, at most the slack, were given back.
    pub(crate) fn trim(&mut self, by: u64) {
        debug_assert!(by.is_multiple_of(GRANULE) && by <= self.slack());
        if let Some(start) = self.last_gap().filter(|_| by > 0) {
            self.remove_gap(start, self.warm - start);
            self.warm -= by;
            if self.warm > start {
                self.insert_gap(start, self.warm - start);
            }
        }
    }

    /// Start of the gap that reaches to the end of warm space.
    fn last_gap(&self) -> Option<u64> {
        self.gaps.last_key_value().filter(|&(offset, len)| offset + len == self.warm).map(|(&offset, _)| offset)
    }

    fn insert_merged(&mut self, mut offset: u64, mut len: u64) {
        if let Some((&before, &gap)) = self.gaps.range(..offset).next_back().filter(|&(at, gap)| at + gap == offset) {
            self.remove_gap(before, gap);
            (offset, len) = (before, gap + len);
        }
        if let Some(&after) = self.gaps.get(&(offset + len)) {
            self.remove_gap(offset + len, after);
            len += after;
        }
        self.insert_gap(offset, len);
    }

    fn insert_gap(&mut self, offset: u64, len: u64) {
        self.gaps.insert(offset, len);
        self.by_len.insert((len, offset));
    }

    fn remove_gap(&mut self, offset: u64, len: u64) {
        self.gaps.remove(&offset);
        self.by_len.remove(&(len, offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks and gaps tile warm space, no two gaps touch, and the sums agree.
    fn check(space: &Space) {
        let blocks = space.taken.iter().map(|(&offset, taken)| (offset, taken.len, false));
        let mut pieces: Vec<_> = blocks.chain(space.gaps.iter().map(|(&offset, &len)| (offset, len, true))).collect();
        pieces.sort_unstable();
        let mut end = 0;
        let mut after_gap = false;
        for (offset, len, gap) in pieces {
            assert_eq!(offset, end, "pieces overlap or leave something out");
            assert!(!(gap && after_gap), "two gaps side by side at {offset}");
            (end, after_gap) = (offset + len, gap);
        }
        assert_eq!(end, space.warm);
        assert!(space.warm <= space.size);
        assert_eq!(space.used, space.taken.values().map(|taken| taken.len).sum::<u64>());
        assert!(space.by_len.iter().map(|&(len, offset)| (offset, len)).collect::<BTreeMap<_, _>>() == space.gaps);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u64),
        Give(prop::sample::Index),
        Trim(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (1..3000_u64).prop_map(|units| Step::Take(units * 64)),
            4 => any::<prop::sample::Index>().prop_map(Step::Give),
            1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        ];
        prop::collection::vec(step, 1..200)
    }

    /// Runs the steps; returns where each block was put.
    fn run(steps: &[Step]) -> Vec<Option<u64>> {
        let mut space = Space::new(16 * GRANULE);
        let mut live: Vec<u64> = Vec::new();
        let mut places = Vec::new();
        for (step, generation) in steps.iter().zip(1..) {
            match step {
                &Step::Take(len) => {
                    if space.tightest(len).is_none() {
                        if let Some(by) = space.growth(len) {
                            assert!(by > 0);
                            space.grow(by);
                        }
                    }
                    let tightest = space.tightest(len);
                    let place = space.take(len, generation);
                    assert_eq!(place.is_some(), tightest.is_some());
                    if let Some(offset) = place {
                        assert!(space.is_taken(offset, generation));
                        assert!(!space.is_taken(offset, generation + 1));
                        live.push(offset);
                    }
                    places.push(place);
                }
                Step::Give(index) if !live.is_empty() => {
                    let offset = live.swap_remove(index.index(live.len()));
                    assert!(space.give(offset));
                    assert!(!space.give(offset));
                }
                Step::Give(_) => assert!(space.is_empty()),
                Step::Trim(index) => {
                    let (warm, slack) = (space.warm(), space.slack());
                    let by = index.index((slack / GRANULE) as usize + 1) as u64 * GRANULE;
                    space.trim(by);
                    assert_eq!((space.warm(), space.slack()), (warm - by, slack - by));
                }
            }
            check(&space);
        }
        for offset in live {
            assert!(space.give(offset));
        }
        check(&space);
        assert!(space.gaps.len() <= 1, "not whole again: {:?}", space.gaps);
        space.trim(space.slack());
        assert_eq!((space.warm(), space.used()), (0, 0));
        places
    }

    proptest! {
        #[test]
        fn space_is_tiled_becomes_whole_again_and_repeats(steps in steps()) {
            prop_assert_eq!(run(&steps), run(&steps));
        }
    }

    #[test]
    fn the_tightest_gap_is_used_and_the_first_of_those() {
        let mut space = Space::new(GRANULE);
        space.grow(GRANULE);
        let places: Vec<_> = [512, 64, 128, 64, 128, 64].map(|len| space.take(len, 0).unwrap()).to_vec();
        for gap in [0, 2, 4] {
            assert!(space.give(places[gap]));
        }
        assert_eq!(space.take(128, 1), Some(places[2]));
        assert_eq!(space.take(128, 2), Some(places[4]));
        assert_eq!(space.take(192, 3), Some(places[0]));
    }

    #[test]
    fn growing_uses_the_gap_at_the_end() {
        let mut space = Space::new(4 * GRANULE);
        space.grow(GRANULE);
        assert_eq!(space.take(GRANULE / 2, 1), Some(0));
        assert_eq!(space.growth(GRANULE), Some(GRANULE));
        assert_eq!(space.growth(4 * GRANULE), None);
        assert_eq!(space.growth(u64::MAX), None);
        space.grow(GRANULE);
        assert_eq!(space.take(GRANULE, 2), Some(GRANULE / 2));
    }
}
