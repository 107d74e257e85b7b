//! Which roots a task needs, or which outputs need a task: sets of numbers as spans of neighbours.
//!
//! Numbers are given depth first, so that most sets are a few spans: one for a tree or a cumulative sum, where full
//! sets would need quadratic memory. Sets that many tasks share are stored once.

use alloc::vec;
use alloc::vec::Vec;

/// A set in [`Spans`].
pub(super) type SetId = u32;

/// How many spans a set may have. Above that, it is rounded up by filling its smallest gaps.
const MOST_SPANS: usize = 256;
/// The same when so many spans were stored that going on would no longer be linear in the graph.
const MOST_SPANS_WHEN_LARGE: usize = 8;

/// The sets, and the spans of all of them in one vector.
pub(super) struct Spans {
    stored: Vec<Span>,
    sets: Vec<Set>,
    /// Of each set the last union it was part of, so that a union takes it once.
    taken: Vec<u32>,
    union: u32,
    /// How many spans may be stored before sets are rounded up earlier.
    many: usize,
    merged: Vec<Span>,
    gaps: Vec<u32>,
}

/// The numbers `first..end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) end: u32,
}

#[derive(Clone, Copy)]
struct Set {
    start: u32,
    end: u32,
    /// How many numbers are in it.
    len: u32,
}

impl Spans {
    /// The sets `{0}`, `{1}`, … `{singles - 1}`, which have these as their ids. `many` is the number of spans up to
    /// which sets need not be rounded up early.
    pub(super) fn new(singles: u32, many: usize) -> Self {
        Self {
            stored: (0..singles).map(|i| Span { first: i, end: i + 1 }).collect(),
            sets: (0..singles).map(|i| Set { start: i, end: i + 1, len: 1 }).collect(),
            taken: vec![0; singles as usize],
            union: 0,
            many: many + singles as usize,
            merged: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// How many numbers are in `set`.
    pub(super) fn len_of(&self, set: SetId) -> u32 {
        self.sets[set as usize].len
    }

    /// The spans of `set`, ascending and apart from each other.
    pub(super) fn spans_of(&self, set: SetId) -> &[Span] {
        let set = self.sets[set as usize];
        &self.stored[set.start as usize..set.end as usize]
    }

    /// The union of at least one set; an existing set if one of them contains the others.
    pub(super) fn union(&mut self, sets: impl Iterator<Item = SetId>) -> SetId {
        self.union += 1;
        self.merged.clear();
        let mut largest = None;
        let mut taken = 0;
        for set in sets {
            if self.taken[set as usize] == self.union {
                continue;
            }
            self.taken[set as usize] = self.union;
            taken += 1;
            let Set { start, end, len } = self.sets[set as usize];
            if largest.is_none_or(|(_, most)| len > most) {
                largest = Some((set, len));
            }
            self.merged.extend_from_slice(&self.stored[start as usize..end as usize]);
        }
        let (largest, most) = largest.unwrap_or((0, 0));
        if taken == 1 {
            return largest;
        }
        if !self.merged.is_sorted() {
            self.merged.sort_unstable();
        }
        self.merged.dedup_by(|next, last| {
            let touches = next.first <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        let bound = if self.stored.len() > self.many { MOST_SPANS_WHEN_LARGE } else { MOST_SPANS };
        if self.merged.len() > bound {
            self.round_up(bound);
        }
        let len = self.merged.iter().map(|span| span.end - span.first).sum();
        if len == most {
            return largest;
        }
        let start = self.stored.len() as u32;
        self.stored.extend_from_slice(&self.merged);
        self.sets.push(Set { start, end: self.stored.len() as u32, len });
        self.taken.push(0);
        self.sets.len() as u32 - 1
    }

    /// Fills the smallest gaps of the merged spans, so that at most `bound` are left.
    fn round_up(&mut self, bound: usize) {
        self.gaps.clear();
        self.gaps.extend(self.merged.windows(2).map(|pair| pair[1].first - pair[0].end));
        let filled = self.gaps.len() - bound;
        let (_, &mut largest_filled, _) = self.gaps.select_nth_unstable(filled);
        self.merged.dedup_by(|next, last| {
            let fill = next.first - last.end <= largest_filled;
            if fill {
                last.end = next.end;
            }
            fill
        });
    }
}
